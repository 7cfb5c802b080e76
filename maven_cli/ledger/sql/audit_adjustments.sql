-- Each approved adjustment has its one entry, each entry its approved adjustment, and nobody changed what was decided.
SELECT 'adjustment ' || coalesce(a.id::text, e.reference) || ': ' || nullif(concat_ws('; ',
           CASE WHEN a.id IS NULL THEN format('entry %%s/%%s has none', e.wallet_id, e.seq)
                WHEN a.digest IS DISTINCT FROM maven_adjustment_digest(a) THEN 'its digest doesn''t fit: a field of it was changed' END,
           CASE WHEN a.state = 'APPROVED' AND e.seq IS NULL THEN 'it is approved, but has no entry'
                WHEN a.state <> 'APPROVED' AND e.seq IS NOT NULL THEN format('it is %%s, but has entry %%s/%%s', a.state, e.wallet_id, e.seq)
                WHEN (a.wallet_id, a.amount, 0, a.decided_at) IS DISTINCT FROM (e.wallet_id, e.available_delta, e.locked_delta, e.created_at)
                     AND a.id IS NOT NULL AND e.seq IS NOT NULL THEN format('it isn''t what entry %%s/%%s says', e.wallet_id, e.seq) END), '') AS wrong,
       false AS unproven
  FROM ledger_adjustments a FULL JOIN (SELECT * FROM ledger_entries WHERE kind = 'adjustment') e ON e.reference = a.id::text
