-- What is locked in each wallet is what its locks hold. A platform that keeps no locks has more locked than they say.
SELECT CASE WHEN w.locked < coalesce(l.held, 0) OR w.locked > coalesce(l.held, 0) AND NOT m.observed
            THEN format('wallet %%s: %%s locked, but its locks hold %%s', w.id, trim_scale(w.locked), trim_scale(coalesce(l.held, 0))) END AS wrong,
       m.observed AND w.locked > coalesce(l.held, 0) AS unproven
  FROM wallets w LEFT JOIN (SELECT wallet_id, sum(remaining) AS held FROM locks WHERE ended_at IS NULL GROUP BY 1) l ON l.wallet_id = w.id
 CROSS JOIN (SELECT mode = 'observed' AS observed FROM ledger_state) m
