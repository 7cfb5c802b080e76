upserted AS (
    INSERT INTO candles AS c (trading_pair_id, interval, start_at, open, high, low, close, base_volume, quote_volume,
                              trade_count, first_trade_id, last_trade_id)
    SELECT pair, %(interval)s, start_at, open, high, low, close, base_volume, quote_volume, trade_count,
           first_trade_id, last_trade_id
      FROM computed
        ON CONFLICT (trading_pair_id, interval, start_at) DO UPDATE
       SET open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
           base_volume = excluded.base_volume, quote_volume = excluded.quote_volume,
           trade_count = excluded.trade_count, first_trade_id = excluded.first_trade_id,
           last_trade_id = excluded.last_trade_id, revision = c.revision + 1
     WHERE (c.open, c.high, c.low, c.close, c.base_volume, c.quote_volume, c.trade_count, c.first_trade_id,
            c.last_trade_id)
           IS DISTINCT FROM
           (excluded.open, excluded.high, excluded.low, excluded.close, excluded.base_volume, excluded.quote_volume,
            excluded.trade_count, excluded.first_trade_id, excluded.last_trade_id)
    RETURNING c.revision
), removed AS (
    DELETE FROM candles c USING work w
     WHERE c.trading_pair_id = w.pair AND c.interval = %(interval)s AND c.start_at >= w.lo AND c.start_at < w.hi
       -- Implied by the line above; without it the planner reads all candles ever.
       AND c.start_at >= %(lowest)s AND c.start_at < %(highest)s
       AND NOT EXISTS (SELECT FROM computed n WHERE n.pair = c.trading_pair_id AND n.start_at = c.start_at)
    RETURNING 1
)
SELECT (SELECT count(*) FROM upserted WHERE revision = 0), (SELECT count(*) FROM upserted WHERE revision > 0),
       (SELECT count(*) FROM removed)
