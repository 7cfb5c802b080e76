-- The intent, before the engine is called: of these orders, those that still are to be removed, each with its key and whether
-- the engine has answered. Those that it was asked about least often come first.
--
-- Left out is what has ended, was given a later end or vanished meanwhile, and what somebody is about to delete.
--
-- An intent older than the order's end belongs to an earlier end, which somebody moved: what was answered then says nothing
-- about the order that may be in the book again. It is asked anew, under another key.
WITH due AS (
    SELECT id, expires_at FROM orders
     WHERE id = ANY (%(ids)s) AND status IN ('OPEN', 'PARTIALLY_FILLED') AND expires_at <= %(as_of)s
       FOR KEY SHARE SKIP LOCKED
), wanted AS (
    INSERT INTO engine_removals AS r (order_id, request_key)
    SELECT id, 'expire:' || id || ':' || gen_random_uuid() FROM due
    ON CONFLICT (order_id) DO UPDATE
       SET request_key = excluded.request_key, requested_at = excluded.requested_at, engine_remaining = NULL, engine_seq = NULL,
           answered_at = NULL, not_found_at = NULL, failed_at = NULL, attempts = 0, last_error = NULL, settled_at = NULL
     WHERE r.requested_at < (SELECT expires_at FROM due WHERE due.id = r.order_id)
    RETURNING r.order_id, r.request_key
)
SELECT order_id, request_key, false AS answered, 0 AS attempts FROM wanted
UNION ALL
SELECT order_id, request_key, answered_at IS NOT NULL, attempts FROM engine_removals
 WHERE order_id IN (SELECT id FROM due) AND order_id NOT IN (SELECT order_id FROM wanted)
 ORDER BY attempts, order_id
