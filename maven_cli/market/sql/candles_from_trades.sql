-- Recomputes whole minutes of some pairs from their trades: [lo, hi) per pair, ranges of a pair disjoint.
-- Changes only what differs; a minute without trades has no row.
-- Minutes that reach below the pair's retention line are left alone. The line is read here, by the statement that reads
-- the trades: whoever archives sets it no later than the trades go, so no snapshot lacks trades above the line it has.
WITH work AS MATERIALIZED (
    SELECT w.pair, greatest(w.lo, r.first) AS lo, w.hi
      FROM unnest(%(pairs)s::bigint[], %(los)s::timestamptz[], %(his)s::timestamptz[]) AS w (pair, lo, hi)
      JOIN (SELECT id, date_bin('1 minute', trades_retained_from + interval '59.999999 seconds', '2001-01-01Z') AS first
              FROM trading_pairs) AS r ON r.id = w.pair
), computed AS MATERIALIZED (
    SELECT pair, start_at,
           min(price) FILTER (WHERE is_first) AS open, max(price) AS high, min(price) AS low,
           min(price) FILTER (WHERE is_last) AS close,
           sum(quantity) AS base_volume, sum(price * quantity) AS quote_volume, count(*) AS trade_count,
           min(id) FILTER (WHERE is_first) AS first_trade_id, min(id) FILTER (WHERE is_last) AS last_trade_id
      FROM (SELECT *, lag(start_at) OVER run IS DISTINCT FROM start_at AS is_first,
                   lead(start_at) OVER run IS DISTINCT FROM start_at AS is_last
              FROM (SELECT w.pair, {window} AS start_at, t.executed_at, t.id, t.price, t.quantity
                      FROM work w JOIN trades t
                        ON t.trading_pair_id = w.pair AND t.executed_at >= w.lo AND t.executed_at < w.hi
                     -- Implied by the join; lets the planner read one range of time when the ranges agree.
                     WHERE t.executed_at >= %(lowest)s AND t.executed_at < %(highest)s) AS raw
            WINDOW run AS (PARTITION BY pair ORDER BY executed_at, id)) AS flagged
     GROUP BY pair, start_at
), {write}
