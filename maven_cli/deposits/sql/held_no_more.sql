-- Deposits that were held for what is over: an output that has matured, a token that works again. In the order of ids.
WITH those AS MATERIALIZED (
    SELECT d.id, d.units < t.minimum * ('1e' || d.decimals::text)::numeric AS small, trim_scale(t.minimum)::text AS minimum
      FROM deposits d JOIN tokens t ON t.id = d.token_id
     WHERE d.chain_id = %(chain)s AND d.status = 'HELD' AND t.state = 'ACTIVE'
       -- Not before the chain was asked whether the token is what it should be.
       AND (t.contract IS NULL OR t.checked_at IS NOT NULL)
       AND (d.reason = 'immature' AND d.block_height <= %(mature)s OR d.reason LIKE 'token %%' AND NOT d.immature)
     ORDER BY d.id FOR NO KEY UPDATE OF d
)
UPDATE deposits d
   SET status = CASE WHEN t.small THEN 'HELD' ELSE 'PENDING' END,
       reason = CASE WHEN t.small THEN 'below the minimum of ' || t.minimum END, immature = false, updated_at = now()
  FROM those t WHERE d.id = t.id
