-- Closed windows of one interval in [lo, hi) that have something below them (trades, or 1m candles)
-- and no candle, for some pairs.
SELECT s.pair, s.start_at
  FROM ({source}) AS s
 WHERE NOT EXISTS (SELECT FROM candles c
                    WHERE c.trading_pair_id = s.pair AND c.interval = %(interval)s AND c.start_at = s.start_at)
 ORDER BY 1, 2
