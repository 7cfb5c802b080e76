-- Less work for the same books:
--
--   a lock ends in the update that empties it
--   an entry's wallet and lock are held against it by one check for all entries of a statement, not by foreign keys and a
--   deferred check for each; who deletes a wallet or a lock with entries is refused as before
--   an event is sealed where it is written
--
-- SQLSTATEs and locks as in 0002_money_functions.sql; 23503 where the foreign keys said so.

ALTER TABLE ledger_entries DROP CONSTRAINT fk_ledger_entries_wallet_id, DROP CONSTRAINT fk_ledger_entries_lock_id;

-- Entries are for ever, and so is what they are about.
CREATE FUNCTION maven_entries_keep() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    kept boolean;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        SELECT EXISTS (SELECT FROM ledger_entries) INTO kept;
    ELSIF TG_TABLE_NAME = 'wallets' THEN
        SELECT EXISTS (SELECT FROM ledger_entries e WHERE e.wallet_id = OLD.id) INTO kept;
    ELSE
        SELECT EXISTS (SELECT FROM ledger_entries e WHERE e.lock_id = OLD.id) INTO kept;
    END IF;
    IF kept THEN
        RAISE EXCEPTION USING ERRCODE = CASE TG_OP WHEN 'TRUNCATE' THEN 'MVL01' ELSE 'foreign_key_violation' END,
            MESSAGE = format('%s of %s is refused: the ledger has entries about them', TG_OP, TG_TABLE_NAME);
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD WHEN 'UPDATE' THEN NEW END;
END $$;
CREATE TRIGGER maven_wallets_keep BEFORE DELETE ON wallets FOR EACH ROW EXECUTE FUNCTION maven_entries_keep();
CREATE TRIGGER maven_wallets_keep_id BEFORE UPDATE OF id ON wallets FOR EACH ROW
    WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION maven_entries_keep();
CREATE TRIGGER maven_wallets_no_truncate BEFORE TRUNCATE ON wallets FOR EACH STATEMENT EXECUTE FUNCTION maven_entries_keep();
CREATE TRIGGER maven_locks_keep BEFORE DELETE ON locks FOR EACH ROW EXECUTE FUNCTION maven_entries_keep();
CREATE TRIGGER maven_locks_keep_id BEFORE UPDATE OF id ON locks FOR EACH ROW
    WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION maven_entries_keep();
CREATE TRIGGER maven_locks_no_truncate BEFORE TRUNCATE ON locks FOR EACH STATEMENT EXECUTE FUNCTION maven_entries_keep();

-- New entries have a wallet and a lock, and in enforced mode the wallet is what its newest entry says: whoever inserts one by
-- hand has moved the wallet before. That a wallet isn't moved afterwards is what maven_wallets_match holds, at the commit.
CREATE FUNCTION maven_entries_match() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    e record;
    observed boolean;
BEGIN
    SELECT m.wallet_id, m.lock_id, w.id IS NULL AS no_wallet INTO e
      FROM made m LEFT JOIN wallets w ON w.id = m.wallet_id LEFT JOIN locks l ON l.id = m.lock_id
     WHERE w.id IS NULL OR m.lock_id IS NOT NULL AND l.id IS NULL LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
            MESSAGE = format('an entry is of %s %s, which doesn''t exist', CASE WHEN e.no_wallet THEN 'wallet' ELSE 'lock' END,
                             CASE WHEN e.no_wallet THEN e.wallet_id ELSE e.lock_id END);
    END IF;
    SELECT mode = 'observed' INTO observed FROM ledger_state;
    IF observed THEN
        -- As in maven_wallet_matches.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            PERFORM FROM ledger_state FOR SHARE;
        END IF;
        RETURN NULL;
    END IF;
    SELECT w.*, n.seq AS entry, n.available_after, n.locked_after INTO e
      FROM (SELECT wallet_id, max(seq) AS seq FROM made GROUP BY 1) g
      JOIN made n ON n.wallet_id = g.wallet_id AND n.seq = g.seq JOIN wallets w ON w.id = g.wallet_id
     WHERE (w.seq, w.available, w.locked) <> (n.seq, n.available_after, n.locked_after) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL02',
            MESSAGE = format('wallet %s has %s available and %s locked at entry %s, but its newest entry %s says %s and %s', e.id,
                             trim_scale(e.available), trim_scale(e.locked), e.seq, e.entry, trim_scale(e.available_after),
                             trim_scale(e.locked_after)),
            HINT = 'Balances change through maven_ledger_post and its kin only; see docs/reference/ledger.md';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER maven_entries_match ON ledger_entries;
CREATE TRIGGER maven_entries_match AFTER INSERT ON ledger_entries REFERENCING NEW TABLE AS made
    FOR EACH STATEMENT EXECUTE FUNCTION maven_entries_match();

-- Whoever writes an event seals it; one that comes unsealed is sealed here.
DROP TRIGGER maven_outbox_sealed ON outbox;
CREATE TRIGGER maven_outbox_sealed BEFORE INSERT ON outbox FOR EACH ROW
    WHEN (NEW.digest IS NULL) EXECUTE FUNCTION maven_outbox_sealed();

-- What maven_ledger_post does, and ends those of the locks in `ending` that it empties. Who calls it holds these locks, and
-- knows that no live order needs them.
CREATE FUNCTION maven_ledger_write(postings maven_posting[], ending bigint[]) RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
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

    -- In one statement: what holds entries against their wallets looks when both are written.
    WITH given AS MATERIALIZED (
        SELECT g.*, w.user_id, w.asset_id, w.seq + g.nth AS seq, w.available + g.available_sum AS available_after,
               w.locked + g.locked_sum AS locked_after
          FROM (SELECT *, row_number() OVER run AS nth, sum(available_delta) OVER run AS available_sum,
                       sum(locked_delta) OVER run AS locked_sum, lead(position) OVER run IS NULL AS newest
                  FROM unnest(postings) WITH ORDINALITY
                    AS p (wallet_id, kind, reference, available_delta, locked_delta, lock_id, position)
                WINDOW run AS (PARTITION BY wallet_id ORDER BY position)) g
          JOIN wallets w ON w.id = g.wallet_id
    ), written AS (
        INSERT INTO ledger_entries (wallet_id, seq, kind, reference, available_delta, locked_delta, available_after, locked_after,
                                    lock_id, created_at, digest)
        SELECT g.wallet_id, g.seq, g.kind, g.reference, g.available_delta, g.locked_delta, g.available_after, g.locked_after,
               g.lock_id, now(),
               maven_entry_digest(g.user_id, g.asset_id, g.wallet_id, g.seq, g.kind, g.reference, g.available_delta, g.locked_delta,
                                  g.available_after, g.locked_after, g.lock_id, now())
          FROM given g
        RETURNING 1
    ), moved AS (
        UPDATE wallets w SET available = g.available_after, locked = g.locked_after, seq = g.seq
          FROM given g WHERE g.newest AND w.id = g.wallet_id
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM written), (SELECT count(*) FROM moved) INTO wanted, found_rows;
    IF wanted <> cardinality(postings) OR found_rows <> cardinality(wallet_ids) THEN
        RAISE EXCEPTION USING ERRCODE = 'MVL04', MESSAGE = 'the ledger wrote another number of rows than it was given';
    END IF;
    IF lock_ids IS NOT NULL THEN
        -- It ends at the time of its last entry, so that the ledger proves it.
        UPDATE locks l SET remaining = l.remaining + d.delta,
                           ended_at = CASE WHEN l.remaining + d.delta = 0 AND l.id = ANY (ending) THEN now() END
          FROM (SELECT p.lock_id, sum(p.locked_delta) AS delta FROM unnest(postings) p WHERE p.lock_id IS NOT NULL GROUP BY 1) d
         WHERE l.id = d.lock_id AND d.delta <> 0;
    END IF;
    RETURN wanted;
END $$;

-- Posts entries in the order given, several to one wallet too, and returns how many. All of them or none. The kinds lock,
-- unlock, adjustment and opening say what they say in this file, whoever posts them.
CREATE OR REPLACE FUNCTION maven_ledger_post(postings maven_posting[]) RETURNS integer LANGUAGE sql SECURITY DEFINER
SET search_path FROM CURRENT AS $$
    SELECT maven_ledger_write(postings, '{}')
$$;

-- Gives back what is left of locks whose orders have all ended. A lock that has ended, or that a live order still needs,
-- is left out of the answer; asking again is harmless.
CREATE OR REPLACE FUNCTION maven_ledger_release(lock_ids bigint[]) RETURNS TABLE (lock_id bigint, wallet_id bigint, released numeric)
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
    PERFORM maven_ledger_write(array_agg((l.wallet_id, 'unlock', 'lock:' || l.id, l.remaining, -l.remaining, l.id)::maven_posting
                                         ORDER BY l.id), ending)
       FROM locks l WHERE l.id = ANY (ending) AND l.remaining > 0;
    -- Those that had nothing left to give back.
    UPDATE locks l SET ended_at = coalesce((SELECT max(e.created_at) FROM ledger_entries e WHERE e.lock_id = l.id), now())
     WHERE l.id = ANY (ending) AND l.ended_at IS NULL;
END $$;

-- The events of orders that have just expired, and of what they gave back (refs: those entries' references). Returns how
-- many. Without nested loops, because the planner takes every array for ten elements, and would compare each of 500 orders
-- with each of 500 entries. What is joined was found by an index before, so that hashing doesn't read whole tables. Without JIT,
-- because a nested loop that can't be avoided then looks too expensive not to be compiled.
CREATE OR REPLACE FUNCTION maven_expiry_events(expiring maven_expiry[], order_ids bigint[], refs text[], as_of timestamptz) RETURNS bigint
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
    INSERT INTO outbox (id, event_id, type, aggregate, event, created_at, digest) OVERRIDING SYSTEM VALUE
    SELECT x.id, x.event_id, x.type, x.aggregate, x.event, now(),
           maven_event_digest(x.id, x.event_id, x.type, x.aggregate, x.event, now())
      FROM (SELECT nextval('outbox_id_seq') AS id, event_id, type, aggregate, maven_cloud_event(event_id, type, aggregate, data) AS event
              FROM (SELECT * FROM events ORDER BY position, part) o OFFSET 0) x;
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
CREATE OR REPLACE FUNCTION maven_expire_orders(as_of timestamptz, order_ids bigint[], remaining numeric[], seen timestamptz[], formula boolean)
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
    PERFORM maven_ledger_write(postings, ending || ARRAY(
        SELECT o.id FROM unnest(postings) p JOIN locks o ON o.id = p.lock_id WHERE o.kind = 'opening'));
    -- Those that had nothing left to give back.
    UPDATE locks l SET ended_at = coalesce((SELECT max(e.created_at) FROM ledger_entries e WHERE e.lock_id = l.id), now())
     WHERE l.id = ANY (ending) AND l.ended_at IS NULL;

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

REVOKE EXECUTE ON FUNCTION maven_entries_keep, maven_entries_match, maven_ledger_write FROM PUBLIC;
