SELECT d.id, d.user_id, d.amount, d.block_height, s.symbol AS asset
  FROM deposits d JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id
 WHERE d.chain_id = %(chain)s AND d.block_height > %(height)s AND d.status = 'CREDITED'
 ORDER BY d.id
