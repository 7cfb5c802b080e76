-- Orders that are due, oldest first, from a place in that order on: without those that failed and are to be left alone for
-- now. The key is (expires_at, id), as in the partial index.
SELECT o.id, o.expires_at, p.symbol, o.side, o.remaining_quantity, o.updated_at
  FROM orders o LEFT JOIN trading_pairs p ON p.id = o.trading_pair_id
 WHERE o.status IN ('OPEN', 'PARTIALLY_FILLED')
   AND o.expires_at <= %(as_of)s
   AND (o.expires_at, o.id) > (%(after_at)s, %(after_id)s)
   AND (%(pairs)s::bigint[] IS NULL OR o.trading_pair_id = ANY (%(pairs)s))
   AND NOT EXISTS (
       SELECT FROM dead_letters
        WHERE dead_letters.worker = 'orders-expire' AND dead_letters.item = 'order:' || o.id AND {not_due})
 ORDER BY o.expires_at, o.id
 LIMIT %(limit)s
