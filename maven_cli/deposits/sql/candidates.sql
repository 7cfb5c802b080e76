-- Deposits at their threshold: enough confirmations, and final where the chain's rule asks for that, too.
SELECT d.id, d.tx_hash, d.kind, d.ordinal, d.key, t.contract, d.units, d.block_height, d.block_hash, d.confirmations, d.required
  FROM deposits d JOIN tokens t ON t.id = d.token_id
 WHERE d.chain_id = %(chain)s AND d.status = 'CONFIRMING' AND d.confirmations >= d.required AND d.id > %(after)s
   AND (%(by_count)s OR d.block_height <= %(final)s::bigint)
   AND t.state = 'ACTIVE' AND (t.contract IS NULL OR t.checked_at IS NOT NULL)
 ORDER BY d.id
 LIMIT %(limit)s
