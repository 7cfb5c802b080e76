-- Deposits in a range of heights whose block isn't the one that was read there. Locked in the order of their ids.
SELECT d.id, d.user_id, d.amount, d.block_height, d.status, s.symbol AS asset
  FROM deposits d JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id
 WHERE d.chain_id = %(chain)s AND d.block_height BETWEEN %(first)s AND %(last)s AND d.status NOT IN ('ORPHANED', 'REJECTED')
   AND NOT EXISTS (SELECT FROM unnest(%(heights)s::bigint[], %(hashes)s::bytea[]) AS b (height, hash)
                    WHERE b.height = d.block_height AND b.hash = d.block_hash)
 ORDER BY d.id FOR NO KEY UPDATE OF d
