-- Live orders that end until an instant, and what each would give back: what its lock still holds, or what the rule says. Of
-- orders that share a lock, the last to end gives it back.
SELECT o.id, o.user_id, p.symbol AS pair, o.side, o.type, o.remaining_quantity AS remaining, o.expires_at,
       CASE
       WHEN l.id IS NULL THEN maven_release_rule(o.side, o.quantity, o.remaining_quantity, o.price, o.fee_reserve - o.fee_paid)
       WHEN EXISTS (SELECT FROM orders other
                     WHERE other.lock_id = l.id AND other.status IN ('OPEN', 'PARTIALLY_FILLED')
                       AND (coalesce(other.expires_at, 'infinity'), other.id) > (o.expires_at, o.id)) THEN 0
       ELSE l.remaining END AS releases,
       a.symbol AS asset,
       CASE
       WHEN d.state = 'DISCARDED' THEN 'discarded'
       WHEN d.state = 'OPEN' THEN 'failed'
       WHEN o.expires_at > now() THEN 'live'
       WHEN r.answered_at IS NOT NULL AND r.engine_remaining <> o.remaining_quantity THEN 'books differ'
       WHEN r.answered_at IS NULL AND r.not_found_at IS NULL AND r.failed_at IS NOT NULL THEN 'engine gone'
       ELSE 'due' END AS state,
       d.error
  FROM orders o
  LEFT JOIN trading_pairs p ON p.id = o.trading_pair_id
  LEFT JOIN assets a ON a.id = CASE o.side WHEN 'buy' THEN p.quote_asset_id ELSE p.base_asset_id END
  LEFT JOIN locks l ON l.id = o.lock_id
  LEFT JOIN engine_removals r ON r.order_id = o.id AND r.requested_at >= o.expires_at
  LEFT JOIN dead_letters d ON d.worker = 'orders-expire' AND d.item = 'order:' || o.id AND d.state <> 'RESOLVED'
 WHERE o.status IN ('OPEN', 'PARTIALLY_FILLED') AND o.expires_at <= %(until)s
   AND (%(pairs)s::bigint[] IS NULL OR o.trading_pair_id = ANY (%(pairs)s))
 ORDER BY o.expires_at, o.id
 LIMIT %(limit)s
