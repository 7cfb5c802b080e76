-- The deposits of some transactions, locked. Two steps, so that they are locked in the order of their ids.
WITH those AS MATERIALIZED (
    SELECT id FROM deposits WHERE chain_id = %(chain)s AND tx_hash = ANY (%(hashes)s) ORDER BY id FOR NO KEY UPDATE
)
SELECT d.id, d.tx_hash, d.kind, d.ordinal, d.token_id, d.key, d.user_id, d.units, d.amount, d.status, d.released_by, d.block_hash,
       s.symbol AS asset
  FROM deposits d JOIN those USING (id) JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id
 ORDER BY d.id
