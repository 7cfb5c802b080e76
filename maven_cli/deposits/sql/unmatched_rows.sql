-- Transfers to our addresses that are no deposits, the newest blocks first.
SELECT c.name AS chain, maven_hash_text(c.family, u.tx_hash) AS tx_hash, u.kind, u.ordinal, maven_hash_text(c.family, u.contract) AS contract,
       a.address, u.user_id, u.units, u.reason, u.block_height, maven_hash_text(c.family, u.block_hash) AS block_hash, u.first_seen_at
  FROM unmatched_transfers u JOIN chains c ON c.id = u.chain_id
  LEFT JOIN deposit_addresses a ON a.chain_id = u.chain_id AND a.key = u.key
 WHERE (%(chains)s::bigint[] IS NULL OR u.chain_id = ANY (%(chains)s))
   AND (%(hash)s::bytea IS NULL OR u.tx_hash = %(hash)s)
 ORDER BY u.first_seen_at DESC, u.chain_id, u.block_height DESC, u.tx_hash, u.kind, u.ordinal
 LIMIT %(limit)s
