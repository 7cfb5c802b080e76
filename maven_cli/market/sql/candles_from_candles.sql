-- Recomputes whole windows of one interval from the candles of its parent interval: [lo, hi) per pair, aligned to the
-- interval, ranges of a pair disjoint. Changes only what differs; a window without candles has no row.
WITH work AS MATERIALIZED (
    SELECT pair, lo, hi
      FROM unnest(%(pairs)s::bigint[], %(los)s::timestamptz[], %(his)s::timestamptz[]) AS w (pair, lo, hi)
), computed AS MATERIALIZED (
    SELECT pair, start_at,
           min(open) FILTER (WHERE is_first) AS open, max(high) AS high, min(low) AS low,
           min(close) FILTER (WHERE is_last) AS close,
           sum(base_volume) AS base_volume, sum(quote_volume) AS quote_volume, sum(trade_count)::bigint AS trade_count,
           min(first_trade_id) FILTER (WHERE is_first) AS first_trade_id,
           min(last_trade_id) FILTER (WHERE is_last) AS last_trade_id
      FROM (SELECT *, lag(start_at) OVER run IS DISTINCT FROM start_at AS is_first,
                   lead(start_at) OVER run IS DISTINCT FROM start_at AS is_last
              FROM (SELECT w.pair, {window} AS start_at, c.start_at AS child_at, c.open, c.high, c.low, c.close,
                           c.base_volume, c.quote_volume, c.trade_count, c.first_trade_id, c.last_trade_id
                      FROM work w JOIN candles c
                        ON c.trading_pair_id = w.pair AND c.interval = %(parent)s
                       AND c.start_at >= w.lo AND c.start_at < w.hi
                     -- Implied by the join; without it the planner reads all candles ever.
                     WHERE c.start_at >= %(lowest)s AND c.start_at < %(highest)s) AS children
            WINDOW run AS (PARTITION BY pair ORDER BY child_at)) AS flagged
     GROUP BY pair, start_at
), {write}
