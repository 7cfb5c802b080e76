-- The answers. One that says what remained is never overwritten, by whatever the engine says later.
UPDATE engine_removals r
   SET engine_remaining = a.remaining,
       engine_seq = a.sequence,
       answered_at = CASE WHEN a.remaining IS NOT NULL THEN clock_timestamp() END,
       not_found_at = CASE WHEN a.kind = 'not_found' THEN coalesce(r.not_found_at, clock_timestamp()) ELSE r.not_found_at END,
       failed_at = CASE WHEN a.kind = 'failed' THEN coalesce(r.failed_at, clock_timestamp()) ELSE r.failed_at END,
       last_error = CASE WHEN a.kind = 'failed' THEN a.error ELSE r.last_error END,
       attempts = r.attempts + 1
  FROM unnest(%(ids)s::bigint[], %(kinds)s::text[], %(remaining)s::numeric[], %(sequences)s::text[], %(errors)s::text[])
    AS a (order_id, kind, remaining, sequence, error)
 WHERE r.order_id = a.order_id AND r.answered_at IS NULL
