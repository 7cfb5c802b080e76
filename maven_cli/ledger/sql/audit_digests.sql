-- Each entry's digest, computed again; from the checkpoint's own entry on, so that every wallet has at least one.
SELECT CASE WHEN e.digest IS DISTINCT FROM maven_entry_digest(w.user_id, w.asset_id, e.wallet_id, e.seq, e.kind, e.reference,
                    e.available_delta, e.locked_delta, e.available_after, e.locked_after, e.lock_id, e.created_at)
            THEN 'entry ' || e.wallet_id || '/' || e.seq || ' (' || e.kind || ' ' || e.reference
                 || '): its digest doesn''t fit: a field of it, or its wallet''s user or asset, was changed' END AS wrong,
       false AS unproven
  FROM ledger_entries e LEFT JOIN wallets w ON w.id = e.wallet_id
  LEFT JOIN ledger_checkpoints c ON c.wallet_id = e.wallet_id AND NOT %(full)s
 WHERE e.seq >= coalesce(c.seq, 0)
