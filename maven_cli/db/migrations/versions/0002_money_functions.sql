-- The only ways to a balance, and the fences that hold them. Every function runs as its owner, in the schema it was
-- created in; nobody may execute one who wasn't granted it. SQLSTATEs of ours:
--
--   MVL01  the ledger is append-only            MVL04  a wallet, lock or order isn't what the call says it is
--   MVL02  a wallet was changed by hand         MVF01  a trade against an order that has ended (the settlement fence)
--   MVL03  not enough                           MVX01  an order can't be expired as it stands
--
-- Locks are taken in one order, everywhere: orders by id, locks by id, wallets by id.

CREATE TYPE maven_posting AS (
    wallet_id bigint, kind text, reference text, available_delta numeric, locked_delta numeric, lock_id bigint
);

-- What an entry says, in one hash: a field that is changed by hand no longer fits it.
CREATE FUNCTION maven_entry_digest(
    user_id bigint, asset_id bigint, wallet_id bigint, seq bigint, kind text, reference text,
    available_delta numeric(36,18), locked_delta numeric(36,18), available_after numeric(36,18), locked_after numeric(36,18),
    lock_id bigint, created_at timestamptz
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(jsonb_build_array($1, $2, $3, $4, $5, $6, trim_scale($7), trim_scale($8), trim_scale($9),
                                               trim_scale($10), $11, extract(epoch FROM $12))::text, 'UTF8'))
$$;

-- Takes into the ledger what was moved around it: an `opening` entry where a wallet isn't what its newest entry says.
-- `locking`: what is locked beyond the wallet's locks becomes a lock, too, with an entry of its own where the same amount
-- isn't the difference. Whoever calls it holds the wallets. Returns how many entries it wrote.
CREATE FUNCTION maven_ledger_open(wallet_ids bigint[], locking boolean) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    wrong text;
    opened integer;
BEGIN
    SELECT format('wallet %s has %s locked, less than the %s that its locks hold', w.id, trim_scale(w.locked), trim_scale(l.held))
      INTO wrong FROM (SELECT wallet_id, sum(remaining) AS held FROM locks WHERE ended_at IS NULL GROUP BY 1) l
      JOIN wallets w ON w.id = l.wallet_id
     WHERE locking AND (wallet_ids IS NULL OR w.id = ANY (wallet_ids)) AND w.locked < l.held ORDER BY w.id LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = wrong;
    END IF;
    WITH compared AS (
        SELECT w.*, coalesce(e.seq, 0) AS last, w.available - coalesce(e.available_after, 0) AS available_delta,
               w.locked - coalesce(e.locked_after, 0) AS locked_delta,
               CASE WHEN locking THEN w.locked - coalesce(
                    (SELECT sum(l.remaining) FROM locks l WHERE l.wallet_id = w.id AND l.ended_at IS NULL), 0) ELSE 0 END AS loose
          FROM wallets w LEFT JOIN LATERAL (
               SELECT * FROM ledger_entries e WHERE e.wallet_id = w.id ORDER BY e.seq DESC LIMIT 1) e ON true
         WHERE wallet_ids IS NULL OR w.id = ANY (wallet_ids)
    ), moved AS MATERIALIZED (
        SELECT *, CASE WHEN loose > 0 AND loose <> locked_delta THEN loose ELSE 0 END AS apart FROM compared
         WHERE available_delta <> 0 OR locked_delta <> 0 OR loose <> 0 OR seq <> last
    ), made AS (
        INSERT INTO locks (wallet_id, kind, reference, amount, remaining)
        SELECT id, 'opening', id || ':' || last + 1 + (apart > 0)::int, loose, loose FROM moved WHERE loose > 0
        RETURNING id, wallet_id
    ), parts AS (
        SELECT m.id, m.user_id, m.asset_id, m.last + 1 AS seq, m.available_delta, m.locked_delta - m.apart AS locked_delta,
               m.available AS available_after, m.locked - m.apart AS locked_after, CASE WHEN m.apart = 0 THEN l.id END AS lock_id
          FROM moved m LEFT JOIN made l ON l.wallet_id = m.id WHERE m.available_delta <> 0 OR m.locked_delta <> m.apart
        UNION ALL
        SELECT m.id, m.user_id, m.asset_id, m.last + 2, 0, m.apart, m.available, m.locked, l.id
          FROM moved m JOIN made l ON l.wallet_id = m.id WHERE m.apart > 0
    ), written AS (
        INSERT INTO ledger_entries (wallet_id, seq, kind, reference, available_delta, locked_delta, available_after, locked_after,
                                    lock_id, created_at, digest)
        SELECT p.id, p.seq, 'opening', p.id || ':' || p.seq, p.available_delta, p.locked_delta, p.available_after, p.locked_after,
               p.lock_id, now(),
               maven_entry_digest(p.user_id, p.asset_id, p.id, p.seq, 'opening', p.id || ':' || p.seq, p.available_delta,
                                  p.locked_delta, p.available_after, p.locked_after, p.lock_id, now())
          FROM parts p ORDER BY p.id, p.seq RETURNING wallet_id
    ), numbered AS (
        UPDATE wallets w SET seq = m.last + m.entries
          FROM (SELECT m.id, m.last, (SELECT count(*) FROM written x WHERE x.wallet_id = m.id) AS entries FROM moved m) m
         WHERE w.id = m.id AND w.seq <> m.last + m.entries
    )
    SELECT count(*) INTO opened FROM written;
    RETURN opened;
END $$;

-- Posts entries in the order given, several to one wallet too, and returns how many. All of them or none. The kinds lock,
-- unlock, adjustment and opening say what they say in this file, whoever posts them.
CREATE FUNCTION maven_ledger_post(postings maven_posting[]) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    wrong text;
    found_rows bigint;
    wanted bigint;
    wallet_ids bigint[];
    lock_ids bigint[];
    observed boolean;
BEGIN
    IF coalesce(cardinality(postings), 0) = 0 THEN
        RETURN 0;
    END IF;
    SELECT format('%s %s: %s available, %s locked doesn''t fit numeric(36,18)', p.kind, p.reference, p.available_delta, p.locked_delta)
      INTO wrong FROM unnest(postings) p
     WHERE (abs(p.available_delta) < 1e18 AND abs(p.locked_delta) < 1e18 AND scale(trim_scale(p.available_delta)) <= 18
            AND scale(trim_scale(p.locked_delta)) <= 18) IS NOT TRUE LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = wrong;
    END IF;
    SELECT array_agg(DISTINCT p.wallet_id), array_agg(DISTINCT p.lock_id) FILTER (WHERE p.lock_id IS NOT NULL)
      INTO wallet_ids, lock_ids FROM unnest(postings) p;

    IF lock_ids IS NOT NULL THEN
        PERFORM FROM locks WHERE id = ANY (lock_ids) ORDER BY id FOR NO KEY UPDATE;
        SELECT format('%s %s: lock %s %s', p.kind, p.reference, p.lock_id,
                      CASE WHEN l.id IS NULL THEN 'doesn''t exist' WHEN l.wallet_id <> p.wallet_id THEN 'is another wallet''s'
                           ELSE 'has ended' END)
          INTO wrong FROM unnest(postings) p LEFT JOIN locks l ON l.id = p.lock_id
         WHERE p.lock_id IS NOT NULL AND (l.wallet_id = p.wallet_id AND l.ended_at IS NULL) IS NOT TRUE LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = wrong;
        END IF;
        SELECT format('lock %s holds %s, less than the %s to take from it', l.id, trim_scale(l.remaining), trim_scale(-d.delta))
          INTO wrong
          FROM (SELECT p.lock_id, sum(p.locked_delta) AS delta FROM unnest(postings) p WHERE p.lock_id IS NOT NULL GROUP BY 1) d
          JOIN locks l ON l.id = d.lock_id WHERE l.remaining + d.delta < 0 LIMIT 1;
        IF FOUND THEN
            RAISE EXCEPTION USING ERRCODE = 'MVL03', MESSAGE = wrong;
        END IF;
    END IF;

    PERFORM FROM wallets WHERE id = ANY (wallet_ids) ORDER BY id FOR NO KEY UPDATE;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF found_rows <> cardinality(wallet_ids) OR array_position(wallet_ids, NULL) IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = 'a posting names a wallet that doesn''t exist';
    END IF;

    -- Read when the wallets are ours: maven_ledger_mode takes all of them before it changes it.
    SELECT mode = 'observed' INTO observed FROM ledger_state;
    SELECT format('%s %s: %s', p.kind, p.reference, x.wrong) INTO wrong
      FROM unnest(postings) p LEFT JOIN locks l ON l.id = p.lock_id
     CROSS JOIN LATERAL (SELECT CASE
           WHEN p.locked_delta <> 0 AND p.lock_id IS NULL AND observed IS NOT TRUE THEN 'a locked balance moves with its lock only'
           WHEN p.kind = 'opening' THEN 'openings are written by maven_ledger_mode'
           WHEN p.kind = 'lock' AND (l.kind || ':' || l.reference = p.reference AND p.locked_delta = l.amount
                AND p.available_delta = -p.locked_delta) IS NOT TRUE THEN 'locks are made by maven_ledger_lock'
           WHEN p.kind = 'unlock' AND (p.available_delta = -p.locked_delta AND p.locked_delta < 0
                AND (p.reference = 'lock:' || p.lock_id OR p.reference ~ '^order:[0-9]+$')) IS NOT TRUE
                THEN 'locks are given back by maven_ledger_release'
           WHEN p.kind = 'adjustment' AND NOT EXISTS (
                SELECT FROM ledger_adjustments a WHERE a.id::text = p.reference AND a.state = 'APPROVED'
                   AND a.wallet_id = p.wallet_id AND a.amount = p.available_delta AND p.locked_delta = 0)
                THEN 'adjustments are posted by maven_ledger_adjust' END AS wrong) x
     WHERE x.wrong IS NOT NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = wrong;
    END IF;
    IF observed THEN
        PERFORM maven_ledger_open(wallet_ids, false);
    END IF;

    WITH given AS (
        SELECT *, row_number() OVER run AS nth, sum(available_delta) OVER run AS available_sum,
               sum(locked_delta) OVER run AS locked_sum
          FROM unnest(postings) WITH ORDINALITY
            AS p (wallet_id, kind, reference, available_delta, locked_delta, lock_id, position)
        WINDOW run AS (PARTITION BY wallet_id ORDER BY position)
    )
    SELECT format('wallet %s has %s available and %s locked: not enough for %s %s (%s, %s)', w.id, trim_scale(w.available),
                  trim_scale(w.locked), g.kind, g.reference, trim_scale(g.available_delta), trim_scale(g.locked_delta))
      INTO wrong FROM given g JOIN wallets w ON w.id = g.wallet_id
     WHERE w.available + g.available_sum < 0 OR w.locked + g.locked_sum < 0 ORDER BY g.position LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL03', MESSAGE = wrong;
    END IF;

    INSERT INTO ledger_entries (wallet_id, seq, kind, reference, available_delta, locked_delta, available_after, locked_after,
                                lock_id, created_at, digest)
    SELECT w.id, w.seq + g.nth, g.kind, g.reference, g.available_delta, g.locked_delta, w.available + g.available_sum,
           w.locked + g.locked_sum, g.lock_id, now(),
           maven_entry_digest(w.user_id, w.asset_id, w.id, w.seq + g.nth, g.kind, g.reference, g.available_delta,
                              g.locked_delta, w.available + g.available_sum, w.locked + g.locked_sum, g.lock_id, now())
      FROM (SELECT *, row_number() OVER run AS nth, sum(available_delta) OVER run AS available_sum,
                   sum(locked_delta) OVER run AS locked_sum
              FROM unnest(postings) WITH ORDINALITY
                AS p (wallet_id, kind, reference, available_delta, locked_delta, lock_id, position)
            WINDOW run AS (PARTITION BY wallet_id ORDER BY position)) g
      JOIN wallets w ON w.id = g.wallet_id;
    GET DIAGNOSTICS wanted = ROW_COUNT;

    UPDATE wallets w SET available = w.available + d.available, locked = w.locked + d.locked, seq = w.seq + d.entries
      FROM (SELECT p.wallet_id, sum(p.available_delta) AS available, sum(p.locked_delta) AS locked, count(*) AS entries
              FROM unnest(postings) p GROUP BY 1) d
     WHERE w.id = d.wallet_id;
    GET DIAGNOSTICS found_rows = ROW_COUNT;
    IF wanted <> cardinality(postings) OR found_rows <> cardinality(wallet_ids) THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = 'the ledger wrote another number of rows than it was given';
    END IF;
    IF lock_ids IS NOT NULL THEN
        UPDATE locks l SET remaining = l.remaining + d.delta
          FROM (SELECT p.lock_id, sum(p.locked_delta) AS delta FROM unnest(postings) p WHERE p.lock_id IS NOT NULL GROUP BY 1) d
         WHERE l.id = d.lock_id AND d.delta <> 0;
    END IF;
    RETURN wanted;
END $$;

-- Moves an amount from available to locked and returns the lock's id. The same call again returns the same lock while it
-- is open, and holds it until the transaction ends, so that nobody ends it before another order points to it.
CREATE FUNCTION maven_ledger_lock(wallet_id bigint, kind text, reference text, amount numeric) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    made locks;
BEGIN
    IF (amount > 0 AND amount < 1e18 AND scale(trim_scale(amount)) <= 18) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = format('%s %s: %s can''t be locked', $2, $3, $4);
    END IF;
    IF kind = 'opening' THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = 'openings are written by maven_ledger_mode';
    END IF;
    IF NOT EXISTS (SELECT FROM wallets w WHERE w.id = $1) THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = format('there is no wallet %s', $1);
    END IF;
    -- It starts empty: what it holds comes from its entry, like everything that happens to it.
    INSERT INTO locks AS l (wallet_id, kind, reference, amount, remaining) VALUES ($1, $2, $3, $4, 0)
    ON CONFLICT ON CONSTRAINT uq_locks_kind_reference DO NOTHING RETURNING l.* INTO made;
    IF NOT FOUND THEN
        SELECT l.* INTO made FROM locks l WHERE l.kind = $2 AND l.reference = $3 FOR NO KEY UPDATE;
        IF made.wallet_id = $1 AND made.amount = $4 AND made.ended_at IS NULL THEN
            RETURN made.id;
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'MVL04',
            MESSAGE = format('%s %s is lock %s already, of %s in wallet %s%s', $2, $3, made.id, trim_scale(made.amount), made.wallet_id,
                             CASE WHEN made.ended_at IS NOT NULL THEN ', and has ended' END);
    END IF;
    PERFORM maven_ledger_post(ARRAY[($1, 'lock', $2 || ':' || $3, -$4, $4, made.id)::maven_posting]);
    RETURN made.id;
END $$;

-- Gives back what is left of locks whose orders have all ended. A lock that has ended, or that a live order still needs,
-- is left out of the answer; asking again is harmless.
CREATE FUNCTION maven_ledger_release(lock_ids bigint[]) RETURNS TABLE (lock_id bigint, wallet_id bigint, released numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ending bigint[];
BEGIN
    PERFORM FROM locks l WHERE l.id = ANY (lock_ids) ORDER BY l.id FOR NO KEY UPDATE;
    -- A statement of its own: it sees what the transactions committed that held these locks until now.
    SELECT array_agg(l.id ORDER BY l.id) INTO ending FROM locks l
     WHERE l.id = ANY (lock_ids) AND l.ended_at IS NULL AND NOT EXISTS (
           SELECT FROM orders o WHERE o.lock_id = l.id AND o.status IN ('OPEN', 'PARTIALLY_FILLED'));
    -- Written, not only held: whoever has an older snapshot fails when it takes a lock that we left to its order, instead of
    -- leaving it to ours.
    UPDATE locks l SET remaining = l.remaining WHERE l.id = ANY (lock_ids) AND l.ended_at IS NULL AND l.id <> ALL (coalesce(ending, '{}'));
    RETURN QUERY SELECT l.id, l.wallet_id, l.remaining FROM locks l WHERE l.id = ANY (ending) ORDER BY l.id;
    PERFORM maven_ledger_post(array_agg((l.wallet_id, 'unlock', 'lock:' || l.id, l.remaining, -l.remaining, l.id)::maven_posting
                                        ORDER BY l.id))
       FROM locks l WHERE l.id = ANY (ending) AND l.remaining > 0;
    -- The time of its last entry, so that the ledger proves it; that is now, unless nothing was left to give back.
    UPDATE locks l SET ended_at = coalesce((SELECT max(e.created_at) FROM ledger_entries e WHERE e.lock_id = l.id), now())
     WHERE l.id = ANY (ending);
END $$;

-- Credits amounts to users, making wallets that aren't there yet. A reference of the same kind that has been credited
-- already is refused, and with it the whole batch.
CREATE FUNCTION maven_ledger_credit(user_ids bigint[], asset_ids bigint[], refs text[], amounts numeric[], kind text DEFAULT 'deposit')
RETURNS TABLE (reference text, wallet_id bigint, seq bigint) LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM unnest(amounts) a WHERE (a > 0) IS NOT TRUE) THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = 'an amount to credit must be greater than 0';
    END IF;
    IF (cardinality(user_ids) = cardinality(amounts) AND cardinality(asset_ids) = cardinality(amounts)
        AND cardinality(refs) = cardinality(amounts)) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = 'a credit needs as many users, assets and references as amounts';
    END IF;
    IF kind IN ('lock', 'unlock', 'adjustment', 'opening') THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = format('a credit can''t be of the kind %s', kind);
    END IF;
    INSERT INTO wallets (user_id, asset_id)
    SELECT DISTINCT u, a FROM unnest(user_ids, asset_ids) AS c (u, a) ORDER BY u, a
    ON CONFLICT ON CONSTRAINT uq_wallets_user_id_asset_id DO NOTHING;
    PERFORM maven_ledger_post(array_agg((w.id, $5, c.ref, c.amount, 0, NULL)::maven_posting ORDER BY c.position))
       FROM unnest(user_ids, asset_ids, refs, amounts) WITH ORDINALITY AS c (u, a, ref, amount, position)
       JOIN wallets w ON w.user_id = c.u AND w.asset_id = c.a;
    RETURN QUERY SELECT e.reference, e.wallet_id, e.seq FROM ledger_entries e WHERE e.kind = $5 AND e.reference = ANY (refs);
END $$;

-- What an adjustment says, in one hash.
CREATE FUNCTION maven_adjustment_digest(a ledger_adjustments) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(jsonb_build_array($1.id, $1.wallet_id, trim_scale($1.amount), $1.reason, $1.proposed_by,
        extract(epoch FROM $1.proposed_at), $1.state, $1.decided_by, extract(epoch FROM $1.decided_at), $1.rejection)::text, 'UTF8'))
$$;

-- An adjustment is proposed, then decided once; nothing else about it ever changes.
CREATE FUNCTION maven_adjustment_guard() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.state = 'PROPOSED' OR TG_OP = 'UPDATE' AND OLD.state = 'PROPOSED' AND NEW.state <> 'PROPOSED'
       AND (NEW.id, NEW.wallet_id, NEW.amount, NEW.reason, NEW.proposed_by, NEW.proposed_at)
         = (OLD.id, OLD.wallet_id, OLD.amount, OLD.reason, OLD.proposed_by, OLD.proposed_at) THEN
        NEW.digest := maven_adjustment_digest(NEW);
        RETURN NEW;
    END IF;
    RAISE EXCEPTION USING ERRCODE = 'MVL01',
        MESSAGE = format('ledger_adjustments: %s is refused: an adjustment is proposed, then decided once', TG_OP),
        HINT = 'Propose another one: maven ledger adjust propose';
END $$;
CREATE TRIGGER maven_adjustments_guard BEFORE INSERT OR UPDATE OR DELETE ON ledger_adjustments
    FOR EACH ROW EXECUTE FUNCTION maven_adjustment_guard();
CREATE TRIGGER maven_adjustments_no_truncate BEFORE TRUNCATE ON ledger_adjustments
    FOR EACH STATEMENT EXECUTE FUNCTION maven_adjustment_guard();

-- Proposes to add an amount to a wallet's available balance (negative: to take it away).
CREATE FUNCTION maven_ledger_propose(wallet_id bigint, amount numeric, reason text, proposer text) RETURNS uuid LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    made uuid;
BEGIN
    IF (abs(amount) < 1e18 AND amount <> 0 AND scale(trim_scale(amount)) <= 18) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = format('%s isn''t an amount to adjust by', amount);
    END IF;
    IF NOT EXISTS (SELECT FROM wallets w WHERE w.id = wallet_id) THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = format('there is no wallet %s', wallet_id);
    END IF;
    INSERT INTO ledger_adjustments AS a (wallet_id, amount, reason, proposed_by) VALUES (wallet_id, amount, reason, proposer)
    RETURNING a.id INTO made;
    RETURN made;
END $$;

-- Posts a proposed adjustment, approved by somebody else than who proposed it. Returns the entry's number in its wallet.
CREATE FUNCTION maven_ledger_adjust(adjustment uuid, approver text) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
DECLARE
    found_row ledger_adjustments;
    entry bigint;
BEGIN
    UPDATE ledger_adjustments SET state = 'APPROVED', decided_by = approver, decided_at = now()
     WHERE id = adjustment AND state = 'PROPOSED' RETURNING * INTO found_row;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = format('there is no open adjustment %s', adjustment);
    END IF;
    PERFORM maven_ledger_post(ARRAY[(found_row.wallet_id, 'adjustment', adjustment::text, found_row.amount, 0, NULL)::maven_posting]);
    SELECT seq INTO entry FROM ledger_entries WHERE kind = 'adjustment' AND reference = adjustment::text;
    RETURN entry;
END $$;

-- Who checks. In the enforced mode everybody moves balances through these functions, and the fence below holds them to
-- it. Entering it writes an `opening` entry for whatever the ledger doesn't know yet, with a lock for what is locked
-- beyond the locks there are, so that from here on everything adds up. Returns how many openings it wrote.
CREATE FUNCTION maven_ledger_mode(wanted text, changer text) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger_state WHERE mode = wanted) THEN
        RETURN 0;
    END IF;
    IF wanted = 'enforced' THEN
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = 'the mode is changed in a READ COMMITTED transaction only';
        END IF;
        -- Also before SELECT … FOR UPDATE: whoever holds a wallet commits first, and is seen below.
        LOCK TABLE wallets IN EXCLUSIVE MODE;
    END IF;
    UPDATE ledger_state SET mode = wanted, changed_at = now(), changed_by = changer WHERE mode <> wanted;
    IF NOT FOUND OR wanted <> 'enforced' THEN
        RETURN 0;
    END IF;
    RETURN maven_ledger_open(NULL, true);
END $$;

-- An event as CloudEvents 1.0 has it. `event_id` says what it is about, so that the same cause has the same id.
CREATE FUNCTION maven_cloud_event(event_id text, type text, aggregate text, data jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('specversion', '1.0', 'id', $1, 'source', '/maven', 'type', $2, 'subject', $3,
                              'time', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                              'datacontenttype', 'application/json', 'data', $4)
$$;

-- What an order that ends holds by the platform's rule: a sell what remains of it; a buy what that costs and the unspent part
-- of its fee reserve. Null where it can't say: a market order by quantity that buys, or by amount of quote that sells.
CREATE FUNCTION maven_release_rule(side text, quantity numeric, remaining numeric, price numeric, unspent_fee numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
           WHEN side = 'sell' THEN CASE WHEN quantity IS NOT NULL THEN remaining END
           WHEN quantity IS NULL THEN remaining + greatest(unspent_fee, 0)
           ELSE remaining * price + greatest(unspent_fee, 0) END
$$;

CREATE TYPE maven_expiry AS (
    order_id bigint, lock_id bigint, wallet_id bigint, user_id bigint, asset text, rule numeric, reference text
);

-- The events of orders that have just expired, and of what they gave back (refs: those entries' references). Returns how
-- many. Without nested loops, because the planner takes every array for ten elements, and would compare each of 500 orders
-- with each of 500 entries. What is joined was found by an index before, so that hashing doesn't read whole tables. Without JIT,
-- because a nested loop that can't be avoided then looks too expensive not to be compiled.
CREATE FUNCTION maven_expiry_events(expiring maven_expiry[], order_ids bigint[], refs text[], as_of timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET enable_nestloop = off SET jit = off AS $$
DECLARE
    told bigint;
BEGIN
    WITH gone AS MATERIALIZED (
        SELECT e.*, max(e.order_id) OVER (PARTITION BY e.reference) AS last_order FROM unnest(expiring) e
    ), unlocked AS MATERIALIZED (
        SELECT u.wallet_id, u.seq, u.reference, u.available_delta, u.available_after, u.locked_after, u.lock_id
          FROM unnest(refs) AS r (reference)
         -- One probe each: before the statistics know of unlocks, the planner would read all of them for ANY (refs).
         CROSS JOIN LATERAL (SELECT * FROM ledger_entries x WHERE x.kind = 'unlock' AND x.reference = r.reference OFFSET 0) u
    ), events AS (
        SELECT o.id AS position, 1 AS part, 'OrderExpiredEvent:' || o.id AS event_id, 'OrderExpiredEvent' AS type, 'order:' || o.id AS aggregate,
               jsonb_build_object(
                   'orderId', o.id::text, 'userId', o.user_id::text, 'pair', p.symbol, 'side', o.side, 'type', o.type,
                   'price', trim_scale(o.price)::text, 'quantity', trim_scale(o.quantity)::text,
                   'quoteQuantity', trim_scale(o.quote_quantity)::text, 'remainingQuantity', trim_scale(o.remaining_quantity)::text,
                   'stopPrice', trim_scale(o.stop_price)::text, 'filledQuantity', trim_scale(o.filled_quantity)::text,
                   'filledQuoteQuantity', trim_scale(o.filled_quote_quantity)::text, 'feeAsset', a.symbol,
                   'feeReserve', trim_scale(o.fee_reserve)::text, 'feePaid', trim_scale(o.fee_paid)::text,
                   'expiresAt', to_char(o.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'expiredAt', to_char(as_of AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
                   'lockId', o.lock_id::text, 'asset', e.asset, 'released', trim_scale(coalesce(u.available_delta, 0))::text) AS data
          FROM orders o JOIN gone e ON e.order_id = o.id JOIN trading_pairs p ON p.id = o.trading_pair_id
          LEFT JOIN assets a ON a.id = o.fee_asset_id
          LEFT JOIN unlocked u ON u.reference = e.reference AND e.last_order = o.id
         WHERE o.id = ANY (order_ids)
        UNION ALL
        SELECT e.last_order, 2, 'BalanceUnlockedEvent:' || u.reference, 'BalanceUnlockedEvent', 'wallet:' || u.wallet_id,
               jsonb_build_object(
                   'walletId', u.wallet_id::text, 'userId', e.user_id::text, 'asset', e.asset, 'amount', trim_scale(u.available_delta)::text,
                   'available', trim_scale(u.available_after)::text, 'locked', trim_scale(u.locked_after)::text,
                   'sequence', u.seq::text, 'lockId', u.lock_id::text, 'orderIds', e.orders, 'reason', 'ORDER_EXPIRED')
          FROM unlocked u
          JOIN (SELECT g.reference, g.user_id, g.asset, g.last_order, jsonb_agg(g.order_id::text ORDER BY g.order_id) AS orders
                  FROM gone g GROUP BY 1, 2, 3, 4) e ON e.reference = u.reference
    )
    INSERT INTO outbox (event_id, type, aggregate, event)
    SELECT event_id, type, aggregate, maven_cloud_event(event_id, type, aggregate, data) FROM events ORDER BY position, part;
    GET DIAGNOSTICS told = ROW_COUNT;
    RETURN told;
END $$;

-- Expires orders that are still as the caller saw them (what remains of each, and when it last changed), in one
-- transaction: status, locks, balances, events. An order that another transaction holds, or that has changed since, is
-- left out of the answer. `formula`: release by the platform's
-- rule where an order has no lock. Raises MVX01 for an order that can't be expired as it stands.
--
-- released: what this order's end gave back (0 while another order shares its lock); rule: what the platform's rule
-- would have given back (null where it can't say).
CREATE FUNCTION maven_expire_orders(as_of timestamptz, order_ids bigint[], remaining numeric[], seen timestamptz[], formula boolean)
RETURNS TABLE (order_id bigint, released numeric, rule numeric, lock_id bigint, asset text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    due bigint[];
    wrong text;
    expiring maven_expiry[];
    shared_locks bigint[];
    ending bigint[];
    postings maven_posting[];
    expired bigint;
    told bigint;
BEGIN
    SELECT array_agg(d.id ORDER BY d.id) INTO due FROM (
        SELECT o.id FROM orders o JOIN unnest(order_ids, remaining, seen) AS given (id, remaining, seen) ON given.id = o.id
         WHERE o.status IN ('OPEN', 'PARTIALLY_FILLED') AND o.expires_at <= as_of AND o.remaining_quantity = given.remaining
           AND o.updated_at = given.seen
         ORDER BY o.id FOR UPDATE OF o SKIP LOCKED) d;
    IF due IS NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT o.lock_id) INTO shared_locks FROM orders o WHERE o.id = ANY (due) AND o.lock_id IS NOT NULL;
    PERFORM FROM locks l
      WHERE l.id = ANY (shared_locks)
         OR l.kind = 'opening' AND l.ended_at IS NULL AND EXISTS (
            SELECT FROM orders o JOIN trading_pairs p ON p.id = o.trading_pair_id JOIN wallets w ON w.user_id = o.user_id
               AND w.asset_id = CASE o.side WHEN 'buy' THEN p.quote_asset_id ELSE p.base_asset_id END
             WHERE o.id = ANY (due) AND o.lock_id IS NULL AND w.id = l.wallet_id)
      ORDER BY l.id FOR NO KEY UPDATE;

    SELECT array_agg((x.id, x.lock_id, x.wallet_id, x.user_id, x.asset, x.rule,
                      CASE WHEN x.lock_id IS NULL THEN 'order:' || x.id ELSE 'lock:' || x.lock_id END)::maven_expiry ORDER BY x.id),
           (array_agg(format('order %s: %s', x.id, x.wrong) ORDER BY x.id) FILTER (WHERE x.wrong IS NOT NULL))[1]
      INTO expiring, wrong
      FROM (SELECT o.id, o.lock_id, coalesce(lw.id, uw.id) AS wallet_id, coalesce(lw.user_id, uw.user_id) AS user_id, coalesce(la.symbol, pays.symbol) AS asset, r.rule,
                   CASE
                   WHEN p.id IS NULL THEN format('its pair %s doesn''t exist', o.trading_pair_id)
                   WHEN o.remaining_quantity < 0 THEN format('its remaining quantity is negative, %s', trim_scale(o.remaining_quantity))
                   WHEN o.fee_asset_id <> pays.id AND o.fee_reserve > o.fee_paid THEN
                       format('%s of its fee reserve are in %s, which its lock in %s doesn''t hold', trim_scale(o.fee_reserve - o.fee_paid), fee.symbol, pays.symbol)
                   WHEN o.lock_id IS NOT NULL THEN CASE
                       WHEN l.id IS NULL THEN format('its lock %s doesn''t exist', o.lock_id)
                       WHEN l.ended_at IS NOT NULL THEN format('its lock %s has ended already', l.id)
                       WHEN lw.id IS NULL THEN format('the wallet %s of its lock %s doesn''t exist', l.wallet_id, l.id)
                       WHEN lw.user_id <> o.user_id THEN format('its lock %s belongs to user %s, the order to user %s', l.id, lw.user_id, o.user_id)
                       WHEN lw.asset_id <> pays.id THEN format('its lock %s is in %s, but it pays with %s', l.id, la.symbol, pays.symbol)
                       WHEN lw.locked < l.remaining THEN format('its lock %s holds %s, more than the %s locked in wallet %s', l.id, trim_scale(l.remaining), trim_scale(lw.locked), lw.id)
                       END
                   WHEN uw.id IS NULL THEN format('user %s has no %s wallet', o.user_id, pays.symbol)
                   WHEN NOT formula THEN 'it has no lock, and MAVEN_EXPIRY_FORMULA=refuse'
                   WHEN r.rule IS NULL THEN 'it has no lock, and without a price no rule says what to release'
                   WHEN scale(trim_scale(r.rule)) > 18 THEN format('the rule releases %s %s, finer than a balance can be', trim_scale(r.rule), pays.symbol)
                   WHEN uw.locked < r.rule THEN format('the rule releases %s %s, more than the %s locked in wallet %s', trim_scale(r.rule), pays.symbol, trim_scale(uw.locked), uw.id)
                   END AS wrong
              FROM orders o
              LEFT JOIN trading_pairs p ON p.id = o.trading_pair_id
              LEFT JOIN assets pays ON pays.id = CASE o.side WHEN 'buy' THEN p.quote_asset_id ELSE p.base_asset_id END
              LEFT JOIN assets fee ON fee.id = o.fee_asset_id
              LEFT JOIN locks l ON l.id = o.lock_id
              LEFT JOIN wallets lw ON lw.id = l.wallet_id
              LEFT JOIN assets la ON la.id = lw.asset_id
              LEFT JOIN wallets uw ON o.lock_id IS NULL AND uw.user_id = o.user_id AND uw.asset_id = pays.id
             CROSS JOIN LATERAL (SELECT maven_release_rule(o.side, o.quantity, o.remaining_quantity, o.price, o.fee_reserve - o.fee_paid)) AS r (rule)
             WHERE o.id = ANY (due)) x;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'MVX01', MESSAGE = wrong;
    END IF;

    UPDATE orders SET status = 'EXPIRED', updated_at = clock_timestamp() WHERE id = ANY (due);
    GET DIAGNOSTICS expired = ROW_COUNT;

    -- The locks are ours since before these statements began, so whoever ended another order of theirs is seen.
    SELECT array_agg(l.id) INTO ending FROM locks l
     WHERE l.id = ANY (shared_locks) AND NOT EXISTS (
           SELECT FROM orders o WHERE o.lock_id = l.id AND o.status IN ('OPEN', 'PARTIALLY_FILLED'));
    -- As in maven_ledger_release.
    UPDATE locks l SET remaining = l.remaining WHERE l.id = ANY (shared_locks) AND l.id <> ALL (coalesce(ending, '{}'));
    -- In the order of their events below: a wallet's events are told in the order of its entries.
    SELECT array_agg(x.posting ORDER BY x.position) INTO postings FROM (
        SELECT e.position, (l.wallet_id, 'unlock', 'lock:' || l.id, l.remaining, -l.remaining, l.id)::maven_posting AS posting
          FROM locks l JOIN (SELECT e.lock_id, max(e.order_id) AS position FROM unnest(expiring) e GROUP BY 1) e ON e.lock_id = l.id
         WHERE l.id = ANY (ending) AND l.remaining > 0
        UNION ALL
        SELECT e.order_id, (e.wallet_id, 'unlock', e.reference, e.rule, -e.rule, opening.id)::maven_posting
          FROM unnest(expiring) e
          LEFT JOIN LATERAL (SELECT l.id FROM locks l WHERE l.wallet_id = e.wallet_id AND l.kind = 'opening' AND l.ended_at IS NULL
                                AND l.remaining >= e.rule ORDER BY l.id LIMIT 1) opening ON true
         WHERE e.lock_id IS NULL AND e.rule > 0) x;
    PERFORM maven_ledger_post(postings);
    UPDATE locks l SET ended_at = coalesce((SELECT max(e.created_at) FROM ledger_entries e WHERE e.lock_id = l.id), now())
     WHERE l.id = ANY (ending || ARRAY(SELECT o.id FROM unnest(postings) p JOIN locks o ON o.id = p.lock_id
                                        WHERE o.kind = 'opening' AND o.remaining = 0));

    told := maven_expiry_events(expiring, due, ARRAY(SELECT p.reference FROM unnest(postings) p), as_of);
    IF expired <> cardinality(due) OR told <> cardinality(due) + coalesce(cardinality(postings), 0) THEN
        RAISE EXCEPTION USING ERRCODE = 'MVX01',
            MESSAGE = format('%s orders, %s postings, but %s rows and %s events', cardinality(due), coalesce(cardinality(postings), 0), expired, told);
    END IF;

    RETURN QUERY
    SELECT e.order_id, coalesce(p.available_delta, 0), e.rule, e.lock_id, e.asset
      FROM (SELECT *, max(order_id) OVER (PARTITION BY reference) AS last_order FROM unnest(expiring)) e
      LEFT JOIN unnest(postings) p ON p.reference = e.reference AND e.order_id = e.last_order
     ORDER BY e.order_id;
END $$;

-- What settlement was refused by the fence: kept, and told. The same trade again changes nothing.
CREATE FUNCTION maven_reject_trade(trading_pair_id bigint, trade_id bigint, executed_at timestamptz, price numeric, quantity numeric,
                                   buy_order_id bigint, sell_order_id bigint, reason text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
#variable_conflict use_variable
DECLARE
    event text := 'TradeRejectedEvent:' || trading_pair_id || ':' || trade_id;
BEGIN
    IF (abs(price) < 1e18 AND abs(quantity) < 1e18 AND scale(trim_scale(price)) <= 18 AND scale(trim_scale(quantity)) <= 18) IS NOT TRUE THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04',
            MESSAGE = format('trade %s: price %s or quantity %s doesn''t fit numeric(36,18)', trade_id, price, quantity);
    END IF;
    INSERT INTO rejected_trades AS r VALUES (trading_pair_id, trade_id, executed_at, price, quantity, buy_order_id, sell_order_id, reason)
    ON CONFLICT ON CONSTRAINT pk_rejected_trades DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO outbox (event_id, type, aggregate, event)
    SELECT event, 'TradeRejectedEvent', 'trade:' || trading_pair_id || ':' || trade_id,
           maven_cloud_event(event, 'TradeRejectedEvent', 'trade:' || trading_pair_id || ':' || trade_id, jsonb_build_object(
               'tradeId', trade_id::text, 'pair', p.symbol, 'price', trim_scale(price)::text, 'quantity', trim_scale(quantity)::text,
               'executedAt', to_char(executed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
               'buyOrderId', buy_order_id::text, 'sellOrderId', sell_order_id::text, 'reason', reason))
      FROM trading_pairs p WHERE p.id = trading_pair_id;
    RETURN true;
END $$;

-- The settlement fence: a trade that names orders waits for whoever is ending them, and is refused once they have ended.
CREATE FUNCTION maven_settlement_fence() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    ended record;
BEGIN
    FOR ended IN SELECT o.id, o.status FROM orders o WHERE o.id IN (NEW.buy_order_id, NEW.sell_order_id) ORDER BY o.id FOR NO KEY UPDATE
    LOOP
        IF ended.status IN ('EXPIRED', 'CANCELED') THEN
            RAISE EXCEPTION USING ERRCODE = 'MVF01',
                MESSAGE = format('trade %s is refused: order %s is %s', NEW.id, ended.id, ended.status),
                HINT = 'Roll back, then record it: SELECT maven_reject_trade(...)';
        END IF;
    END LOOP;
    RETURN NULL;
END $$;
-- AFTER, not BEFORE: a row trigger before the insert would slow down every COPY; only trades that name orders pay.
CREATE TRIGGER maven_trades_fence AFTER INSERT ON trades FOR EACH ROW
    WHEN (NEW.buy_order_id IS NOT NULL OR NEW.sell_order_id IS NOT NULL) EXECUTE FUNCTION maven_settlement_fence();
CREATE TRIGGER maven_trades_fence_update AFTER UPDATE OF buy_order_id, sell_order_id ON trades FOR EACH ROW
    WHEN (NEW.buy_order_id IS DISTINCT FROM OLD.buy_order_id OR NEW.sell_order_id IS DISTINCT FROM OLD.sell_order_id)
    EXECUTE FUNCTION maven_settlement_fence();

CREATE FUNCTION maven_ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'MVL01', MESSAGE = format('%s is append-only: %s is refused', TG_TABLE_NAME, TG_OP),
        HINT = 'A wrong entry is mended by another one: maven ledger adjust';
END $$;
CREATE TRIGGER maven_ledger_no_change BEFORE UPDATE OR DELETE ON ledger_entries
    FOR EACH ROW EXECUTE FUNCTION maven_ledger_append_only();
CREATE TRIGGER maven_ledger_no_truncate BEFORE TRUNCATE ON ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION maven_ledger_append_only();

-- At the commit a wallet is what its newest entry says, whoever moved it and however.
CREATE FUNCTION maven_wallet_matches() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    w wallets;
    e ledger_entries;
    wallet bigint;
    observed boolean;
    matches boolean;
BEGIN
    IF TG_TABLE_NAME = 'wallets' THEN
        wallet := NEW.id;
    ELSE
        wallet := NEW.wallet_id;
    END IF;
    -- One statement for what is nearly always the case, because each runs for every row.
    SELECT s.mode = 'observed',
           (v.seq, v.available, v.locked) = (coalesce(n.seq, 0), coalesce(n.available_after, 0), coalesce(n.locked_after, 0))
      INTO observed, matches
      FROM ledger_state s LEFT JOIN wallets v ON v.id = wallet
      LEFT JOIN LATERAL (SELECT x.seq, x.available_after, x.locked_after FROM ledger_entries x WHERE x.wallet_id = wallet
                          ORDER BY x.seq DESC LIMIT 1) n ON true;
    IF observed THEN
        -- An older snapshot may see an older mode; whoever has one fails to lock the row if so, and starts again.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            PERFORM FROM ledger_state FOR SHARE;
        END IF;
        RETURN NULL;
    END IF;
    IF TG_TABLE_NAME = 'wallets' AND TG_OP = 'UPDATE' THEN
        IF (NEW.id, NEW.user_id, NEW.asset_id) <> (OLD.id, OLD.user_id, OLD.asset_id) THEN
            RAISE EXCEPTION USING ERRCODE = 'MVL02', MESSAGE = format('wallet %s stays user %s''s', OLD.id, OLD.user_id);
        END IF;
    END IF;
    IF matches THEN
        RETURN NULL;
    END IF;
    SELECT * INTO w FROM wallets WHERE id = wallet;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    SELECT * INTO e FROM ledger_entries WHERE wallet_id = w.id ORDER BY seq DESC LIMIT 1;
    RAISE EXCEPTION USING ERRCODE = 'MVL02',
        MESSAGE = format('wallet %s has %s available and %s locked at entry %s, but its newest entry %s says %s and %s', w.id,
                         trim_scale(w.available), trim_scale(w.locked), w.seq, coalesce(e.seq, 0),
                         trim_scale(coalesce(e.available_after, 0)), trim_scale(coalesce(e.locked_after, 0))),
        HINT = 'Balances change through maven_ledger_post and its kin only; see docs/reference/ledger.md';
END $$;
CREATE CONSTRAINT TRIGGER maven_wallets_match AFTER INSERT OR UPDATE ON wallets DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION maven_wallet_matches();
CREATE CONSTRAINT TRIGGER maven_entries_match AFTER INSERT ON ledger_entries DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION maven_wallet_matches();

-- What an event said when it was written, in one hash; and what writes it, whoever inserts the row.
CREATE FUNCTION maven_event_digest(
    id bigint, event_id text, type text, aggregate text, event jsonb, created_at timestamptz
) RETURNS bytea LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(jsonb_build_array($1, $2, $3, $4, $5, extract(epoch FROM $6))::text, 'UTF8'))
$$;
CREATE FUNCTION maven_outbox_sealed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    NEW.digest := maven_event_digest(NEW.id, NEW.event_id, NEW.type, NEW.aggregate, NEW.event, NEW.created_at);
    RETURN NEW;
END $$;
CREATE TRIGGER maven_outbox_sealed BEFORE INSERT ON outbox FOR EACH ROW EXECUTE FUNCTION maven_outbox_sealed();

CREATE FUNCTION maven_order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
CREATE TRIGGER maven_orders_changed BEFORE UPDATE ON orders FOR EACH ROW
    WHEN (NEW.updated_at = OLD.updated_at) EXECUTE FUNCTION maven_order_changed();

REVOKE EXECUTE ON FUNCTION maven_entry_digest, maven_ledger_open, maven_ledger_propose, maven_adjustment_digest,
    maven_adjustment_guard, maven_event_digest, maven_outbox_sealed, maven_ledger_post, maven_ledger_lock, maven_ledger_release, maven_ledger_credit,
    maven_ledger_adjust, maven_ledger_mode, maven_cloud_event, maven_release_rule, maven_expire_orders, maven_expiry_events, maven_reject_trade, maven_settlement_fence,
    maven_ledger_append_only, maven_wallet_matches, maven_order_changed FROM PUBLIC;
