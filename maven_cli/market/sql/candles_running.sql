-- The unfinished windows of some pairs at an instant: coarse closed cells below closed_until, raw trades above it.
WITH cells AS (
    SELECT t.trading_pair_id AS pair, t.executed_at AS at, t.id AS tie, t.price AS open, t.price AS high,
           t.price AS low, t.price AS close, t.quantity AS base_volume, t.price * t.quantity AS quote_volume,
           1::bigint AS trade_count, t.id AS first_trade_id, t.id AS last_trade_id
      FROM trades t
     WHERE t.trading_pair_id = ANY (%(pairs)s::bigint[])
       AND t.executed_at >= %(closed_until)s AND t.executed_at <= %(as_of)s
    UNION ALL
    SELECT c.trading_pair_id, c.start_at, 0, c.open, c.high, c.low, c.close, c.base_volume, c.quote_volume,
           c.trade_count, c.first_trade_id, c.last_trade_id
      FROM unnest(%(cell_names)s::text[], %(cell_los)s::timestamptz[], %(cell_his)s::timestamptz[]) AS r (name, lo, hi)
     -- OFFSET 0 keeps the planner from joining the pieces with all candles ever: one index range per piece.
     CROSS JOIN LATERAL (SELECT * FROM candles
                          WHERE interval = r.name AND start_at >= r.lo AND start_at < r.hi
                            AND trading_pair_id = ANY (%(pairs)s::bigint[]) OFFSET 0) AS c
), flagged AS (
    SELECT x.*, w.name, w.start_at,
           lag(at) OVER run IS NULL AS is_first, lead(at) OVER run IS NULL AS is_last
      FROM unnest(%(names)s::text[], %(starts)s::timestamptz[]) AS w (name, start_at)
      JOIN cells x ON x.at >= w.start_at
    WINDOW run AS (PARTITION BY w.name, x.pair ORDER BY x.at, x.tie)
)
SELECT pair, name, min(start_at), min(open) FILTER (WHERE is_first), max(high), min(low),
       min(close) FILTER (WHERE is_last), sum(base_volume), sum(quote_volume), sum(trade_count)::bigint,
       min(first_trade_id) FILTER (WHERE is_first), min(last_trade_id) FILTER (WHERE is_last), 0
  FROM flagged GROUP BY pair, name
