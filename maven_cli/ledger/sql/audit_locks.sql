-- Each lock is what its entries say: made by one of them, holding what they add up to, ended with the last.
WITH summed AS (
    SELECT e.lock_id, min(e.wallet_id) AS wallet_id, max(e.wallet_id) AS other_wallet_id, sum(e.locked_delta) AS held,
           max(e.created_at) AS last_at, count(*) FILTER (WHERE e.kind IN ('lock', 'opening')) AS makers,
           min(e.created_at) FILTER (WHERE e.kind IN ('lock', 'opening')) AS made_at,
           min(e.locked_delta) FILTER (WHERE e.kind IN ('lock', 'opening')) AS amount,
           min(CASE e.kind WHEN 'lock' THEN e.reference WHEN 'opening' THEN 'opening:' || e.reference END) AS reference
      FROM ledger_entries e WHERE e.lock_id IS NOT NULL GROUP BY 1
), live AS (
    SELECT DISTINCT lock_id FROM orders WHERE lock_id IS NOT NULL AND status IN ('OPEN', 'PARTIALLY_FILLED')
)
SELECT 'lock ' || l.id || ': ' || nullif(concat_ws('; ',
           CASE WHEN w.id IS NULL THEN format('its wallet %%s doesn''t exist', l.wallet_id) END,
           CASE WHEN s.lock_id IS NULL AND NOT m.observed THEN 'no entry made it' END,
           CASE WHEN s.makers <> 1 THEN format('%%s entries made it, not 1', s.makers) END,
           CASE WHEN l.wallet_id <> s.wallet_id OR l.wallet_id <> s.other_wallet_id
                THEN format('it is in wallet %%s, its entries in %%s', l.wallet_id, concat_ws(' and ', s.wallet_id, nullif(s.other_wallet_id, s.wallet_id))) END,
           CASE WHEN l.kind || ':' || l.reference <> s.reference THEN format('it is %%s:%%s, its entry says %%s', l.kind, l.reference, s.reference) END,
           CASE WHEN l.amount <> s.amount THEN format('it was made of %%s, its entry says %%s', trim_scale(l.amount), trim_scale(s.amount)) END,
           CASE WHEN l.remaining <> s.held THEN format('it holds %%s, its entries add up to %%s', trim_scale(l.remaining), trim_scale(s.held)) END,
           CASE WHEN l.created_at <> s.made_at THEN format('it was made at %%s, its entry at %%s', l.created_at, s.made_at) END,
           CASE WHEN l.ended_at <> s.last_at THEN format('it ended at %%s, its last entry is of %%s', l.ended_at, s.last_at) END,
           CASE WHEN l.ended_at IS NOT NULL AND v.lock_id IS NOT NULL THEN 'it has ended, but a live order points to it' END,
           CASE WHEN l.ended_at IS NOT NULL AND l.remaining <> 0 THEN format('it has ended, but still holds %%s', trim_scale(l.remaining)) END,
           CASE WHEN l.ended_at IS NULL AND l.remaining = 0 AND v.lock_id IS NULL THEN 'nothing is left of it and no live order needs it, but it hasn''t ended' END),
       '') AS wrong,
       s.lock_id IS NULL AND m.observed AS unproven
  FROM locks l LEFT JOIN wallets w ON w.id = l.wallet_id LEFT JOIN summed s ON s.lock_id = l.id LEFT JOIN live v ON v.lock_id = l.id
 CROSS JOIN (SELECT mode = 'observed' AS observed FROM ledger_state) m
