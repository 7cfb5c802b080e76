-- One pair's windows that aren't closed yet, from [first, until): closed cells below closed_until where there are any, the
-- trades themselves above it. A window without trades has no row.
WITH cells AS (
    SELECT t.executed_at AS at, t.id AS tie, t.price AS open, t.price AS high, t.price AS low, t.price AS close,
           t.quantity AS base_volume, t.price * t.quantity AS quote_volume, 1::bigint AS trade_count,
           t.id AS first_trade_id, t.id AS last_trade_id
      FROM trades t
     WHERE t.trading_pair_id = %(pair)s AND t.executed_at >= greatest(%(closed_until)s, %(first)s)
       AND t.executed_at < %(until)s AND t.executed_at <= %(as_of)s
    UNION ALL
    SELECT c.start_at, 0, c.open, c.high, c.low, c.close, c.base_volume, c.quote_volume, c.trade_count,
           c.first_trade_id, c.last_trade_id
      FROM unnest(%(cell_names)s::text[], %(cell_los)s::timestamptz[], %(cell_his)s::timestamptz[]) AS r (name, lo, hi)
      JOIN candles c ON c.interval = r.name AND c.start_at >= r.lo AND c.start_at < r.hi
     WHERE c.trading_pair_id = %(pair)s AND c.start_at >= %(first)s AND c.start_at < %(until)s
), flagged AS (
    SELECT x.*, lag(window_start) OVER run IS DISTINCT FROM window_start AS is_first,
           lead(window_start) OVER run IS DISTINCT FROM window_start AS is_last
      FROM (SELECT *, {window} AS window_start FROM cells) AS x
    WINDOW run AS (ORDER BY at, tie)
)
SELECT window_start, min(open) FILTER (WHERE is_first), max(high), min(low), min(close) FILTER (WHERE is_last),
       sum(base_volume), sum(quote_volume), sum(trade_count)::bigint,
       min(first_trade_id) FILTER (WHERE is_first), min(last_trade_id) FILTER (WHERE is_last), 0
  FROM flagged GROUP BY window_start ORDER BY window_start
