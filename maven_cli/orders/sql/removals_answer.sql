-- The answers. One that says what remained is never overwritten, by whatever the engine says later; one to an earlier key
-- says nothing any more. "Not found" counts from the first time after the order's last change.
UPDATE engine_removals r
   SET engine_remaining = a.remaining,
       engine_seq = a.sequence,
       answered_at = CASE WHEN a.remaining IS NOT NULL THEN clock_timestamp() END,
       not_found_at = CASE WHEN r.not_found_at >= o.updated_at THEN r.not_found_at
                           WHEN a.kind = 'not_found' THEN clock_timestamp() END,
       failed_at = CASE WHEN a.kind = 'failed' THEN coalesce(r.failed_at, clock_timestamp()) ELSE r.failed_at END,
       last_error = CASE WHEN a.kind = 'failed' THEN a.error ELSE r.last_error END,
       attempts = r.attempts + 1
  FROM unnest(%(ids)s::bigint[], %(keys)s::text[], %(kinds)s::text[], %(remaining)s::numeric[], %(sequences)s::text[],
              %(errors)s::text[]) AS a (order_id, key, kind, remaining, sequence, error)
  JOIN orders o ON o.id = a.order_id
 WHERE r.order_id = a.order_id AND r.request_key = a.key AND r.answered_at IS NULL
