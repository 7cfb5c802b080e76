-- What the books say about orders that the engine was asked about. One verdict each:
--
--   agreed    the engine's answer fits what remains of the order here, or it never had it and nothing has changed since
--   settling  the engine's remainder is another one, or it has no such order: a fill may still be on its way here
--   differs   … and hasn't come within the grace
--   waiting   the engine couldn't be asked, for less than the grace
--   gone      … for longer
--
-- That the engine doesn't know an order counts from that answer on, and only if the order hasn't changed since: what it
-- filled last may have left its book just before. An untriggered stop was never in the book. An intent older than the order's
-- end says nothing (sql/removals_ask.sql).
--
-- The grace runs from the first failed call about the order. For an order that couldn't be asked about before, because calls
-- about others had failed, it runs from when both were true: it waited, and the engine's circuit had opened. Then it is over only
-- when a call has failed in this very pass (down).
SELECT o.id, o.remaining_quantity, o.updated_at, r.request_key, r.engine_remaining, r.answered_at,
       coalesce(r.last_error, c.last_error),
       CASE
       WHEN r.answered_at IS NOT NULL THEN CASE
           WHEN r.engine_remaining = o.remaining_quantity THEN 'agreed'
           WHEN r.answered_at + %(grace)s < now() THEN 'differs'
           ELSE 'settling' END
       WHEN r.not_found_at >= o.updated_at THEN CASE
           WHEN o.type IN ('stop_limit', 'stop_market') AND o.triggered_at IS NULL THEN 'agreed'
           WHEN r.not_found_at + %(settle)s <= now() THEN 'agreed'
           ELSE 'settling' END
       WHEN r.failed_at + %(grace)s <= now() THEN 'gone'
       WHEN %(down)s AND r.requested_at + %(grace)s <= now() AND c.opened_at + %(grace)s <= now() THEN 'gone'
       ELSE 'waiting' END AS verdict
  FROM orders o
  LEFT JOIN engine_removals r ON r.order_id = o.id AND r.requested_at >= o.expires_at
  LEFT JOIN circuits c ON c.name = %(circuit)s
 WHERE o.id = ANY (%(ids)s)
   AND o.status IN ('OPEN', 'PARTIALLY_FILLED') AND o.expires_at <= %(as_of)s
 ORDER BY o.expires_at, o.id
