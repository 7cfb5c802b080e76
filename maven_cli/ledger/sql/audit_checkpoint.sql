-- Where every wallet's entries are proved up to now. Another audit that got further wins.
INSERT INTO ledger_checkpoints AS c (wallet_id, seq, available, locked)
SELECT w.id, e.seq, e.available_after, e.locked_after
  FROM wallets w JOIN ledger_entries e ON e.wallet_id = w.id AND e.seq = w.seq
    ON CONFLICT (wallet_id) DO UPDATE SET seq = excluded.seq, available = excluded.available, locked = excluded.locked, made_at = now()
 WHERE c.seq < excluded.seq
