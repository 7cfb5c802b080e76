-- A wallet's open locks and the live orders that need them, oldest first.
SELECT l.id, l.kind, l.reference, l.amount, l.remaining, l.created_at,
       ARRAY(SELECT o.id FROM orders o WHERE o.lock_id = l.id AND o.status IN ('OPEN', 'PARTIALLY_FILLED') ORDER BY o.id) AS order_ids
  FROM locks l WHERE l.wallet_id = %(wallet)s AND l.ended_at IS NULL ORDER BY l.id LIMIT %(limit)s
