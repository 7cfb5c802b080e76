-- Deposits as people look at them, hashes in their chain's notation; no adapter is needed to read them. A filter that is null
-- lets everything through. total: how many there are without the limit.
SELECT d.id, c.name AS chain, c.family, d.chain_id, maven_hash_text(c.family, d.tx_hash) AS tx_hash, d.kind, d.ordinal, d.status,
       d.reason, d.user_id, a.address, s.symbol AS asset, d.amount, d.units, d.decimals,
       maven_hash_text(c.family, t.contract) AS contract, d.confirmations, d.required, d.block_height,
       maven_hash_text(c.family, d.block_hash) AS block_hash, d.block_at, d.immature, d.released_by, d.verified_at,
       d.verified_epoch = c.reorg_epoch AS verified_on_this_chain, d.evidence, d.missing_since, d.failures, d.wallet_id, d.entry_seq,
       maven_deposit_reference(c.name, c.family, d.tx_hash, d.kind, d.ordinal) AS reference, t.state AS token_state,
       t.state_reason AS token_reason, d.first_seen_at, d.confirmed_at, d.credited_at, d.updated_at, count(*) OVER () AS total
  FROM deposits d JOIN chains c ON c.id = d.chain_id JOIN tokens t ON t.id = d.token_id JOIN assets s ON s.id = t.asset_id
  LEFT JOIN deposit_addresses a ON a.chain_id = d.chain_id AND a.key = d.key
 WHERE {condition}
 ORDER BY {order}
 LIMIT %(limit)s
