-- A wallet's newest entries, newest first; an adjustment with its reason and both names.
SELECT e.seq, e.created_at, e.kind, e.reference, e.available_delta, e.locked_delta, e.available_after, e.locked_after, e.lock_id,
       j.reason, j.proposed_by, j.decided_by
  FROM ledger_entries e LEFT JOIN ledger_adjustments j ON j.id = CASE WHEN e.kind = 'adjustment' THEN e.reference::uuid END
 WHERE e.wallet_id = %(wallet)s ORDER BY e.seq DESC LIMIT %(limit)s
