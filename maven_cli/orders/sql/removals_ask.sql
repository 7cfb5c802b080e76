-- The intent, before the engine is called: which orders still need an answer, and under which key they are asked.
WITH wanted AS (
    INSERT INTO engine_removals (order_id, request_key)
    SELECT id, 'expire:' || id || ':' || gen_random_uuid() FROM unnest(%(ids)s::bigint[]) AS id
    ON CONFLICT (order_id) DO NOTHING
    RETURNING order_id, request_key
)
SELECT order_id, request_key FROM wanted
UNION ALL
SELECT order_id, request_key FROM engine_removals WHERE order_id = ANY (%(ids)s) AND answered_at IS NULL
 ORDER BY order_id
