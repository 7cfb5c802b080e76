-- Finds the trades that became visible since the last ingest, marks the closed hours they fall into, starts pairs that
-- trade for the first time, and remembers what this very statement could see. Taken after the read, that snapshot would
-- lose what committed in between; one statement has one snapshot.
-- A pair's first trade may also be an old one that was moved to it: that shows in its mark alone.
-- xid < xmax: rows of another cluster (a restore) carry foreign ids and wait for no one.
WITH seen AS MATERIALIZED (
    SELECT t.trading_pair_id, date_bin('1 hour', t.executed_at, '2001-01-01Z') AS hour, min(t.executed_at) AS first,
           count(*) AS trades,
           min(t.executed_at) FILTER (WHERE t.executed_at < g.closed_until) AS late_from,
           max(t.executed_at) FILTER (WHERE t.executed_at < g.closed_until) AS late_to
      FROM trades t
      JOIN trading_pairs p ON p.id = t.trading_pair_id
      LEFT JOIN candle_progress g ON g.trading_pair_id = t.trading_pair_id
     WHERE t.xid >= pg_snapshot_xmin(%(snapshot)s::pg_snapshot)
       AND t.xid < pg_snapshot_xmax(pg_current_snapshot())
       AND NOT pg_visible_in_snapshot(t.xid, %(snapshot)s::pg_snapshot)
       AND t.executed_at >= coalesce(p.trades_retained_from, '-infinity')
     GROUP BY 1, 2
), born AS (
    INSERT INTO candle_progress (trading_pair_id, closed_until)
    SELECT s.trading_pair_id, date_bin('1 minute', least(min(s.first), %(as_of)s), '2001-01-01Z')
      FROM (SELECT trading_pair_id, first FROM seen
            UNION ALL
            SELECT m.trading_pair_id, m.from_at FROM candle_marks m JOIN trading_pairs p ON p.id = m.trading_pair_id) s
     WHERE NOT EXISTS (SELECT FROM candle_progress g WHERE g.trading_pair_id = s.trading_pair_id)
     GROUP BY s.trading_pair_id
    RETURNING 1
), marked AS (
    INSERT INTO candle_marks (trading_pair_id, from_at, to_at)
    SELECT s.trading_pair_id, date_bin('1 minute', s.late_from, '2001-01-01Z'),
           date_bin('1 minute', s.late_to, '2001-01-01Z') + interval '1 minute'
      FROM seen s
     WHERE s.late_from IS NOT NULL
    RETURNING 1
)
UPDATE ingest_state
   SET snapshot = pg_current_snapshot(), updated_at = clock_timestamp()
RETURNING (SELECT coalesce(sum(trades), 0) FROM seen)::bigint, (SELECT count(*) FROM born), (SELECT count(*) FROM marked)
