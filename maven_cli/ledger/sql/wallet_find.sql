-- One wallet: by its id, or by user and asset. What it says and what its newest entry says.
SELECT w.id, w.user_id, a.symbol AS asset, w.available, w.locked, w.seq,
       coalesce(e.available_after, 0) AS entry_available, coalesce(e.locked_after, 0) AS entry_locked
  FROM wallets w JOIN assets a ON a.id = w.asset_id
  LEFT JOIN LATERAL (SELECT * FROM ledger_entries e WHERE e.wallet_id = w.id ORDER BY e.seq DESC LIMIT 1) e ON true
 WHERE w.id = %(wallet)s OR w.user_id = %(user)s AND a.symbol = %(asset)s
