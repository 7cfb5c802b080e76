-- The intent, before the engine is called: which orders still need an answer, and under which key they are asked.
--
-- An intent older than the order's end belongs to an earlier end, which somebody moved: what was answered then says nothing
-- about the order that may be in the book again. It is asked anew, under another key.
WITH wanted AS (
    INSERT INTO engine_removals AS r (order_id, request_key)
    SELECT id, 'expire:' || id || ':' || gen_random_uuid() FROM unnest(%(ids)s::bigint[]) AS id
    ON CONFLICT (order_id) DO UPDATE
       SET request_key = excluded.request_key, requested_at = excluded.requested_at, engine_remaining = NULL, engine_seq = NULL,
           answered_at = NULL, not_found_at = NULL, failed_at = NULL, attempts = 0, last_error = NULL, settled_at = NULL
     WHERE r.requested_at < (SELECT o.expires_at FROM orders o WHERE o.id = r.order_id)
    RETURNING r.order_id, r.request_key
)
SELECT order_id, request_key FROM wanted
UNION ALL
SELECT order_id, request_key FROM engine_removals
 WHERE order_id = ANY (%(ids)s) AND answered_at IS NULL AND order_id NOT IN (SELECT order_id FROM wanted)
 ORDER BY order_id
