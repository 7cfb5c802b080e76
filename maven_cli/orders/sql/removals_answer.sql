-- The answers. One that says what remained is never overwritten, by whatever the engine says later; one to an earlier key
-- says nothing any more. "Not found" counts from the first time after the order's last change.
--
-- While the order lives, the first failure since the engine was heard of it stands, because its grace runs from there. Once the
-- order has ended, failures are counted anew and the last one stands: the next attempt is due some time after it.
UPDATE engine_removals r
   SET engine_remaining = a.remaining,
       engine_seq = a.sequence,
       answered_at = CASE WHEN a.remaining IS NOT NULL THEN clock_timestamp() END,
       not_found_at = CASE WHEN r.not_found_at >= o.updated_at THEN r.not_found_at
                           WHEN a.kind = 'not_found' THEN clock_timestamp() END,
       failed_at = CASE WHEN a.kind = 'not_found' THEN NULL
                        WHEN a.kind <> 'failed' THEN r.failed_at
                        WHEN o.status IN ('OPEN', 'PARTIALLY_FILLED') THEN coalesce(r.failed_at, clock_timestamp())
                        ELSE clock_timestamp() END,
       last_error = CASE WHEN a.kind = 'failed' THEN a.error ELSE r.last_error END,
       attempts = CASE WHEN o.status IN ('OPEN', 'PARTIALLY_FILLED') OR r.failed_at >= o.updated_at THEN r.attempts + 1 ELSE 1 END
  FROM unnest(%(ids)s::bigint[], %(keys)s::text[], %(kinds)s::text[], %(remaining)s::numeric[], %(sequences)s::text[],
              %(errors)s::text[]) AS a (order_id, key, kind, remaining, sequence, error)
  JOIN orders o ON o.id = a.order_id
 WHERE r.order_id = a.order_id AND r.request_key = a.key AND r.answered_at IS NULL
