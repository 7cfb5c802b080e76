-- Adjustments, newest first: one, all, or those that wait for a decision.
SELECT j.id::text AS id, j.wallet_id, w.user_id, a.symbol AS asset, j.amount, j.reason, j.proposed_by, j.proposed_at, j.state,
       j.decided_by, j.decided_at, j.rejection
  FROM ledger_adjustments j JOIN wallets w ON w.id = j.wallet_id JOIN assets a ON a.id = w.asset_id
 WHERE CASE WHEN %(id)s::uuid IS NOT NULL THEN j.id = %(id)s::uuid ELSE %(all)s OR j.state = 'PROPOSED' END
 ORDER BY j.proposed_at DESC, j.id LIMIT %(limit)s
