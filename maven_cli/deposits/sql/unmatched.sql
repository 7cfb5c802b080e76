-- True for one that wasn't known yet.
INSERT INTO unmatched_transfers AS u (chain_id, tx_hash, kind, ordinal, contract, key, user_id, units, reason, block_height, block_hash)
VALUES (%(chain)s, %(tx)s, %(kind)s, %(ordinal)s, %(contract)s, %(key)s, %(user)s, %(units)s, %(reason)s, %(height)s, %(hash)s)
ON CONFLICT (chain_id, tx_hash, kind, ordinal) DO UPDATE
   SET contract = excluded.contract, key = excluded.key, user_id = excluded.user_id, units = excluded.units, reason = excluded.reason,
       block_height = excluded.block_height, block_hash = excluded.block_hash
 WHERE (u.block_hash, u.units, u.reason) IS DISTINCT FROM (excluded.block_hash, excluded.units, excluded.reason)
RETURNING xmax = 0
