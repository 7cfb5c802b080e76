-- What happens to a deposit, each step in one place. SQLSTATEs of ours, besides those of the ledger:
--
--   MVD01  the chain isn't active, or was reorganised since the caller looked     MVD02  a deposit can't be credited as it stands
--
-- Locks are taken in one order, everywhere: chains, deposits by id, then the ledger's own.

-- Base58, as Solana writes hashes and keys.
CREATE FUNCTION maven_base58(bytes bytea) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    alphabet constant text := '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz';
    number numeric := 0;
    written text := '';
BEGIN
    FOR place IN 0 .. length(bytes) - 1 LOOP
        number := number * 256 + get_byte(bytes, place);
    END LOOP;
    WHILE number > 0 LOOP
        written := substr(alphabet, (number % 58)::int + 1, 1) || written;
        number := div(number, 58);
    END LOOP;
    FOR place IN 0 .. length(bytes) - 1 LOOP
        EXIT WHEN get_byte(bytes, place) <> 0;
        written := '1' || written;
    END LOOP;
    RETURN written;
END $$;

-- A transaction's or a block's hash in its chain's usual notation.
CREATE FUNCTION maven_hash_text(family text, hash bytea) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE family WHEN 'evm' THEN '0x' || encode(hash, 'hex') WHEN 'solana' THEN maven_base58(hash) ELSE encode(hash, 'hex') END
$$;

-- What identifies a deposit for ever: the reference of its ledger entry and the middle of its events' ids.
CREATE FUNCTION maven_deposit_reference(chain text, family text, tx_hash bytea, kind text, ordinal integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT chain || ':' || maven_hash_text(family, tx_hash) || ':' || kind || ':' || ordinal
$$;

-- Tells of deposits. `type` without its Event: Detected, Confirmed, Orphaned, Failed, Credited. An event's id says what it is
-- about, and for what can happen again at which reorganisation of the chain, or at which failure. Told once: the same again
-- changes nothing.
CREATE FUNCTION maven_deposit_events(type text, deposit_ids bigint[]) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT SET jit = off AS $$
#variable_conflict use_variable
DECLARE
    name text := 'Deposit' || type || 'Event';
    told bigint;
BEGIN
    INSERT INTO outbox (id, event_id, type, aggregate, event, created_at, digest) OVERRIDING SYSTEM VALUE
    SELECT y.number, y.event_id, name, y.aggregate, y.event, now(),
           maven_event_digest(y.number, y.event_id, name, y.aggregate, y.event, now())
      FROM (SELECT nextval('outbox_id_seq') AS number, x.event_id, 'deposit:' || x.id AS aggregate,
                   maven_cloud_event(x.event_id, name, 'deposit:' || x.id, x.data) AS event
      FROM (SELECT d.id, name || ':' || r.reference
                   || CASE WHEN type = 'Failed' THEN ':' || d.failures
                           WHEN type <> 'Credited' THEN ':' || c.reorg_epoch ELSE '' END AS event_id,
                   jsonb_build_object(
                       'depositId', d.id::text, 'reference', r.reference, 'chain', c.name, 'txHash', maven_hash_text(c.family, d.tx_hash),
                       'userId', d.user_id::text, 'address', coalesce(a.address, encode(d.key, 'hex')), 'asset', s.symbol, 'amount', trim_scale(d.amount)::text,
                       'units', d.units::text, 'status', d.status, 'confirmations', d.confirmations::text,
                       'requiredConfirmations', d.required::text, 'blockHeight', d.block_height::text,
                       'blockHash', maven_hash_text(c.family, d.block_hash))
                   || CASE WHEN type IN ('Detected', 'Failed') THEN jsonb_build_object('reason', d.reason) ELSE '{}' END AS data
              FROM deposits d JOIN chains c ON c.id = d.chain_id JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id
              LEFT JOIN deposit_addresses a ON a.chain_id = d.chain_id AND a.key = d.key
             CROSS JOIN LATERAL (SELECT maven_deposit_reference(c.name, c.family, d.tx_hash, d.kind, d.ordinal)) AS r (reference)
             WHERE d.id = ANY (deposit_ids) ORDER BY d.id) x OFFSET 0) y
    ON CONFLICT ON CONSTRAINT uq_outbox_event_id DO NOTHING;
    GET DIAGNOSTICS told = ROW_COUNT;
    RETURN told;
END $$;

-- Credits confirmed deposits of one chain: ledger, status, events, in one transaction. One whose evidence is older than
-- `max_age`, or from before the chain's last reorganisation, goes back to CONFIRMING instead. One that another transaction
-- holds, that isn't CONFIRMED any more, or whose token isn't active, is left out of the answer. Raises MVD01 for a chain that isn't active, and the
-- ledger's own errors for a deposit that can't be credited.
CREATE FUNCTION maven_credit_deposits(chain bigint, deposit_ids bigint[], max_age interval)
RETURNS TABLE (deposit_id bigint, status text, amount numeric, asset text, tx text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET jit = off AS $$
#variable_conflict use_column
DECLARE
    epoch bigint;
    state text;
    mine bigint[];
    stale bigint[];
    fresh bigint[];
    posted bigint;
    marked bigint;
BEGIN
    SELECT c.reorg_epoch, c.state INTO epoch, state FROM chains c WHERE c.id = chain FOR SHARE;
    IF state IS DISTINCT FROM 'ACTIVE' THEN
        RAISE EXCEPTION USING ERRCODE = 'MVD01', MESSAGE = format('chain %s is %s', chain, coalesce(lower(state), 'gone'));
    END IF;
    SELECT array_agg(x.id) INTO mine FROM (
        SELECT d.id FROM deposits d WHERE d.id = ANY (deposit_ids) AND d.chain_id = chain AND d.status = 'CONFIRMED'
           AND EXISTS (SELECT FROM tokens t WHERE t.id = d.token_id AND t.state = 'ACTIVE')
         ORDER BY d.id FOR NO KEY UPDATE SKIP LOCKED) x;
    IF mine IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(d.id ORDER BY d.id) FILTER (WHERE x.good), array_agg(d.id ORDER BY d.id) FILTER (WHERE NOT x.good)
      INTO fresh, stale
      FROM deposits d
     CROSS JOIN LATERAL (SELECT d.verified_epoch = epoch AND d.verified_at >= now() - max_age) AS x (good)
     WHERE d.id = ANY (mine);
    UPDATE deposits d SET status = 'CONFIRMING', verified_at = NULL, verified_epoch = NULL, evidence = NULL, confirmed_at = NULL,
                          updated_at = now()
     WHERE d.id = ANY (stale);
    IF fresh IS NOT NULL THEN
        WITH given AS MATERIALIZED (
            SELECT d.id, d.user_id, t.asset_id, d.amount,
                   maven_deposit_reference(c.name, c.family, d.tx_hash, d.kind, d.ordinal) AS reference
              FROM deposits d JOIN tokens t ON t.id = d.token_id JOIN chains c ON c.id = d.chain_id
             WHERE d.id = ANY (fresh)
        ), entries AS MATERIALIZED (
            SELECT e.* FROM (SELECT array_agg(g.user_id ORDER BY g.id) AS users, array_agg(g.asset_id ORDER BY g.id) AS assets,
                                    array_agg(g.reference ORDER BY g.id) AS refs, array_agg(g.amount ORDER BY g.id) AS amounts
                               FROM given g) a
             CROSS JOIN LATERAL maven_ledger_credit(a.users, a.assets, a.refs, a.amounts) e
        ), credited AS (
            UPDATE deposits d SET status = 'CREDITED', reason = NULL, wallet_id = e.wallet_id, entry_seq = e.seq, credited_at = now(),
                                  updated_at = now()
              FROM given g JOIN entries e ON e.reference = g.reference
             WHERE d.id = g.id
            RETURNING d.id
        )
        SELECT (SELECT count(*) FROM entries), (SELECT count(*) FROM credited) INTO posted, marked;
        IF posted <> cardinality(fresh) OR marked <> cardinality(fresh) THEN
            RAISE EXCEPTION USING ERRCODE = 'MVD02',
                MESSAGE = format('%s deposits, but %s entries and %s marked', cardinality(fresh), posted, marked);
        END IF;
        PERFORM maven_deposit_events('Credited', fresh);
        INSERT INTO outbox (id, event_id, type, aggregate, event, created_at, digest) OVERRIDING SYSTEM VALUE
        SELECT y.number, y.event_id, 'BalanceCreditedEvent', y.aggregate, y.event, now(),
               maven_event_digest(y.number, y.event_id, 'BalanceCreditedEvent', y.aggregate, y.event, now())
          FROM (SELECT nextval('outbox_id_seq') AS number, x.event_id, 'wallet:' || x.wallet_id AS aggregate,
                       maven_cloud_event(x.event_id, 'BalanceCreditedEvent', 'wallet:' || x.wallet_id, x.data) AS event
          FROM (SELECT d.id, d.wallet_id, 'BalanceCreditedEvent:deposit:' || e.reference AS event_id,
                       jsonb_build_object(
                           'walletId', d.wallet_id::text, 'userId', d.user_id::text, 'asset', s.symbol,
                           'amount', trim_scale(e.available_delta)::text, 'available', trim_scale(e.available_after)::text,
                           'locked', trim_scale(e.locked_after)::text, 'sequence', e.seq::text, 'depositId', d.id::text,
                           'reason', 'DEPOSIT_CREDITED') AS data
                  FROM deposits d JOIN ledger_entries e ON e.wallet_id = d.wallet_id AND e.seq = d.entry_seq
                  JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id
                 WHERE d.id = ANY (fresh) ORDER BY d.id) x OFFSET 0) y;
    END IF;
    RETURN QUERY
    SELECT d.id, d.status, d.amount, s.symbol, maven_hash_text(c.family, d.tx_hash)
      FROM deposits d JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id JOIN chains c ON c.id = d.chain_id
     WHERE d.id = ANY (mine) ORDER BY d.id;
END $$;

-- A deposit that can't be credited: FAILED with the reason, told once a failure. False when it isn't CONFIRMED any more.
CREATE FUNCTION maven_fail_deposit(deposit_id bigint, reason text) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
BEGIN
    UPDATE deposits d SET status = 'FAILED', reason = reason, failures = d.failures + 1, updated_at = now()
     WHERE d.id = deposit_id AND d.status IN ('PENDING', 'CONFIRMING', 'CONFIRMED');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM maven_deposit_events('Failed', ARRAY[deposit_id]);
    RETURN true;
END $$;

-- A deposit's states and blocks, as they followed each other, whoever changed them. By statement: crediting changes
-- hundreds of rows at once.
CREATE FUNCTION maven_deposits_made() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO deposit_history (deposit_id, status, block_height, block_hash, detail)
    SELECT id, status, block_height, block_hash, reason FROM made ORDER BY id;
    RETURN NULL;
END $$;
CREATE TRIGGER maven_deposits_made AFTER INSERT ON deposits REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION maven_deposits_made();
CREATE FUNCTION maven_deposits_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO deposit_history (deposit_id, status, block_height, block_hash, detail)
    SELECT a.id, a.status, a.block_height, a.block_hash, a.reason FROM after a JOIN before b ON b.id = a.id
     WHERE (b.status, b.block_hash, b.reason) IS DISTINCT FROM (a.status, a.block_hash, a.reason) ORDER BY a.id;
    RETURN NULL;
END $$;
CREATE TRIGGER maven_deposits_changed AFTER UPDATE ON deposits REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION maven_deposits_changed();

-- What was credited stays credited: its identity, its amount and its entry don't change any more.
CREATE FUNCTION maven_deposit_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        RAISE EXCEPTION USING ERRCODE = 'MVD02', MESSAGE = format('deposit %s was credited and can''t be deleted', OLD.id);
    END IF;
    IF (NEW.status, NEW.chain_id, NEW.tx_hash, NEW.kind, NEW.token_id, NEW.key, NEW.user_id, NEW.units, NEW.decimals, NEW.wallet_id,
        NEW.entry_seq, NEW.credited_at)
       IS DISTINCT FROM (OLD.status, OLD.chain_id, OLD.tx_hash, OLD.kind, OLD.token_id, OLD.key, OLD.user_id, OLD.units, OLD.decimals,
        OLD.wallet_id, OLD.entry_seq, OLD.credited_at) THEN
        RAISE EXCEPTION USING ERRCODE = 'MVD02', MESSAGE = format('deposit %s was credited and can''t be changed', OLD.id);
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER maven_deposits_guard BEFORE UPDATE ON deposits FOR EACH ROW WHEN (OLD.status = 'CREDITED')
    EXECUTE FUNCTION maven_deposit_guard();
CREATE TRIGGER maven_deposits_no_delete BEFORE DELETE ON deposits FOR EACH ROW WHEN (OLD.status = 'CREDITED')
    EXECUTE FUNCTION maven_deposit_guard();

REVOKE EXECUTE ON FUNCTION maven_base58, maven_hash_text, maven_deposit_reference, maven_deposit_events, maven_credit_deposits,
    maven_fail_deposit, maven_deposits_made, maven_deposits_changed, maven_deposit_guard FROM PUBLIC;
