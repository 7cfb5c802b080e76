-- Closed windows of one interval of one pair, recomputed from raw trades and compared with what is stored.
WITH computed AS (
    SELECT start_at,
           min(price) FILTER (WHERE is_first) AS open, max(price) AS high, min(price) AS low,
           min(price) FILTER (WHERE is_last) AS close,
           sum(quantity) AS base_volume, sum(price * quantity) AS quote_volume, count(*) AS trade_count,
           min(id) FILTER (WHERE is_first) AS first_trade_id, min(id) FILTER (WHERE is_last) AS last_trade_id
      FROM (SELECT *, lag(start_at) OVER run IS DISTINCT FROM start_at AS is_first,
                   lead(start_at) OVER run IS DISTINCT FROM start_at AS is_last
              FROM (SELECT {window} AS start_at, t.executed_at, t.id, t.price, t.quantity
                      FROM trades t
                     WHERE t.trading_pair_id = %(pair)s AND t.executed_at >= %(lo)s AND t.executed_at < %(hi)s) AS raw
            WINDOW run AS (ORDER BY executed_at, id)) AS flagged
     GROUP BY start_at
), stored AS (
    SELECT * FROM candles
     WHERE trading_pair_id = %(pair)s AND interval = %(interval)s AND start_at >= %(lo)s AND start_at < %(hi)s
)
SELECT coalesce(n.start_at, c.start_at),
       CASE WHEN c.start_at IS NULL THEN 'missing' WHEN n.start_at IS NULL THEN 'extra' ELSE 'different' END,
       c.open, c.high, c.low, c.close, c.base_volume, c.quote_volume, c.trade_count, c.first_trade_id, c.last_trade_id,
       n.open, n.high, n.low, n.close, n.base_volume, n.quote_volume, n.trade_count, n.first_trade_id, n.last_trade_id
  FROM computed n FULL JOIN stored c ON c.start_at = n.start_at
 WHERE (n.open, n.high, n.low, n.close, n.base_volume, n.quote_volume, n.trade_count, n.first_trade_id, n.last_trade_id)
       IS DISTINCT FROM
       (c.open, c.high, c.low, c.close, c.base_volume, c.quote_volume, c.trade_count, c.first_trade_id, c.last_trade_id)
 ORDER BY 1
