-- What closed candles can't be trusted with in [lo, hi), as ranges per pair: marks, trades that no ingest has seen,
-- and pairs whose candles aren't closed that far.
SELECT m.trading_pair_id, m.from_at, m.to_at
  FROM candle_marks m WHERE m.from_at < %(hi)s AND m.to_at > %(lo)s
UNION ALL
SELECT t.trading_pair_id, min(t.executed_at), max(t.executed_at) + interval '1 microsecond'
  FROM ingest_state s
  JOIN trades t ON t.xid >= pg_snapshot_xmin(s.snapshot) AND NOT pg_visible_in_snapshot(t.xid, s.snapshot)
   AND t.xid < pg_snapshot_xmax(pg_current_snapshot())
 WHERE t.executed_at >= %(lo)s AND t.executed_at < %(hi)s
 GROUP BY t.trading_pair_id, date_bin('1 minute', t.executed_at, '2001-01-01Z')
UNION ALL
SELECT g.trading_pair_id, greatest(g.closed_until, %(lo)s), %(hi)s
  FROM candle_progress g WHERE g.closed_until < %(hi)s
UNION ALL
-- Never ingested, so no candle of it can be complete.
SELECT p.id, %(lo)s, %(hi)s
  FROM trading_pairs p WHERE NOT EXISTS (SELECT FROM candle_progress g WHERE g.trading_pair_id = p.id)
