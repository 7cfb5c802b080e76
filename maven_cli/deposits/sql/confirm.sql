-- Deposits that were found where they were recorded. The caller holds the chain at the epoch of this evidence.
WITH given AS MATERIALIZED (
    SELECT d.id, g.evidence
      FROM unnest(%(ids)s::bigint[], %(evidence)s::jsonb[]) AS g (id, evidence) JOIN deposits d ON d.id = g.id
     WHERE d.chain_id = %(chain)s AND d.status = 'CONFIRMING' AND d.confirmations >= d.required
     ORDER BY d.id FOR NO KEY UPDATE OF d
)
UPDATE deposits d
   SET status = 'CONFIRMED', verified_at = now(), verified_epoch = %(epoch)s, evidence = g.evidence || jsonb_build_object('block', maven_hash_text(c.family, d.block_hash)),
       confirmed_at = now(),
       missing_since = NULL, updated_at = now()
  FROM given g, chains c WHERE d.id = g.id AND c.id = d.chain_id
RETURNING d.id, d.confirmations
