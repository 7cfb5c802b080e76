-- The first ingest, and the one after the database moved to another cluster: every pair that ever traded is started or
-- marked from its first trade (or candle) to its closed end, and what this statement could see is remembered.
WITH pairs AS MATERIALIZED (
    SELECT p.id, p.trades_retained_from, g.closed_until,
           (SELECT min(executed_at) FROM trades t
             WHERE t.trading_pair_id = p.id AND t.executed_at >= coalesce(p.trades_retained_from, '-infinity')) AS first,
           (SELECT min(start_at) FROM candles c WHERE c.trading_pair_id = p.id AND c.interval = '1m') AS candle,
           m.mark
      FROM trading_pairs p LEFT JOIN candle_progress g ON g.trading_pair_id = p.id
      LEFT JOIN (SELECT trading_pair_id, min(from_at) AS mark FROM candle_marks GROUP BY 1) m ON m.trading_pair_id = p.id
), born AS (
    INSERT INTO candle_progress (trading_pair_id, closed_until)
    SELECT id, date_bin('1 minute', least(first, mark, %(as_of)s), '2001-01-01Z')
      FROM pairs WHERE closed_until IS NULL AND coalesce(first, mark) IS NOT NULL
    RETURNING 1
), marked AS (
    INSERT INTO candle_marks (trading_pair_id, from_at, to_at)
    SELECT id, date_bin('1 minute', greatest(least(first, candle), trades_retained_from), '2001-01-01Z'), closed_until
      FROM pairs
     WHERE date_bin('1 minute', greatest(least(first, candle), trades_retained_from), '2001-01-01Z') < closed_until
    RETURNING 1
)
INSERT INTO ingest_state (snapshot, system_identifier, updated_at)
SELECT pg_current_snapshot(), (SELECT system_identifier FROM pg_control_system()), clock_timestamp()
    ON CONFLICT (id) DO UPDATE
   SET snapshot = excluded.snapshot, system_identifier = excluded.system_identifier, updated_at = excluded.updated_at
RETURNING 0::bigint, (SELECT count(*) FROM born), (SELECT count(*) FROM marked)
