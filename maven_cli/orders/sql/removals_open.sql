-- What is still open between the engine and us, beyond orders that are due:
--
--   owed      the order has ended, and the engine hasn't said that it is out of its book
--   done      the order has ended, and the engine has answered
--   revived   the engine has taken it out of its book, but somebody gave the order a later end
SELECT r.requested_at, r.order_id, p.symbol, o.side, r.request_key, o.status, o.remaining_quantity, r.engine_remaining,
       CASE
       WHEN o.status IN ('OPEN', 'PARTIALLY_FILLED') THEN 'revived'
       WHEN r.answered_at IS NULL AND r.not_found_at IS NULL THEN 'owed'
       ELSE 'done' END AS state
  FROM engine_removals r JOIN orders o ON o.id = r.order_id LEFT JOIN trading_pairs p ON p.id = o.trading_pair_id
 WHERE r.settled_at IS NULL
   AND (r.requested_at, r.order_id) > (%(after_at)s, %(after_id)s)
   AND (o.status NOT IN ('OPEN', 'PARTIALLY_FILLED')
        OR r.answered_at IS NOT NULL AND (o.expires_at IS NULL OR o.expires_at > %(as_of)s))
 ORDER BY r.requested_at, r.order_id
 LIMIT %(limit)s
