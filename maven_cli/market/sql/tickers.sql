-- Rolling 24 hours of some pairs: a middle of closed candles, each cell as coarse as fits, raw trades at both edges and
-- for the cells that `dirty` names (late, deleted or not yet closed). Open, last and the close before the window come
-- from the trades' own order, so that no tie depends on a plan. Where a pair has no trade left, the candles below its
-- retention line know the last price: a minute there keeps what its trades said when they were archived.
WITH pieces AS (
    SELECT name, lo, hi FROM unnest(%(names)s::text[], %(los)s::timestamptz[], %(his)s::timestamptz[]) AS p (name, lo, hi)
), dirty AS MATERIALIZED (
    SELECT pair, lo, hi
      FROM unnest(%(dirty_pairs)s::bigint[], %(dirty_los)s::timestamptz[], %(dirty_his)s::timestamptz[]) AS d (pair, lo, hi)
), parts AS (
    SELECT trading_pair_id AS pair, max(high) AS high, min(low) AS low, sum(base_volume) AS volume,
           sum(quote_volume) AS quote_volume, sum(trade_count) AS trades
      FROM pieces p
     -- OFFSET 0 keeps the planner from joining the pieces with all candles ever: one index range per piece.
     CROSS JOIN LATERAL (SELECT * FROM candles
                          WHERE interval = p.name AND start_at >= p.lo AND start_at < p.hi
                            AND trading_pair_id = ANY (%(pairs)s::bigint[]) OFFSET 0) AS c
     WHERE NOT EXISTS (SELECT FROM dirty d
                        WHERE d.pair = c.trading_pair_id AND c.start_at >= d.lo AND c.start_at < d.hi)
     GROUP BY trading_pair_id
    UNION ALL
    SELECT trading_pair_id, max(price), min(price), sum(quantity), sum(price * quantity), count(*)
      FROM trades
     WHERE executed_at > %(window_start)s AND executed_at < %(middle_start)s AND executed_at <= %(as_of)s
       AND trading_pair_id = ANY (%(pairs)s::bigint[])
     GROUP BY trading_pair_id
    UNION ALL
    SELECT trading_pair_id, max(price), min(price), sum(quantity), sum(price * quantity), count(*)
      FROM trades
     WHERE executed_at >= %(middle_end)s AND executed_at <= %(as_of)s
       AND trading_pair_id = ANY (%(pairs)s::bigint[])
     GROUP BY trading_pair_id
    UNION ALL
    SELECT t.trading_pair_id, max(t.price), min(t.price), sum(t.quantity), sum(t.price * t.quantity), count(*)
      FROM dirty d JOIN trades t ON t.trading_pair_id = d.pair AND t.executed_at >= d.lo AND t.executed_at < d.hi
     GROUP BY t.trading_pair_id
), window_stats AS (
    SELECT pair, max(high) AS high, min(low) AS low, sum(volume) AS volume, sum(quote_volume) AS quote_volume,
           sum(trades)::bigint AS trades
      FROM parts GROUP BY pair
)
SELECT w.pair, opening.price, s.high, s.low, coalesce(latest.price, archived.close), coalesce(s.volume, 0), coalesce(s.quote_volume, 0),
       coalesce(s.trades, 0), opening.id, latest.id, latest.executed_at,
       coalesce(previous.price, archived_previous.close),
       latest.price - opening.price,
       -- round(change × 100 / open, 8) from whole numbers: a division rounds its quotient before round() does.
       sign(latest.price - opening.price) * 0.00000001
         * div(abs(latest.price - opening.price) * 20000000000 + opening.price, opening.price * 2)
  FROM unnest(%(pairs)s::bigint[]) AS w (pair)
  LEFT JOIN window_stats s ON s.pair = w.pair
  LEFT JOIN LATERAL (SELECT t.price, t.id, t.executed_at FROM trades t
                      WHERE t.trading_pair_id = w.pair AND t.executed_at <= %(as_of)s
                      ORDER BY t.executed_at DESC, t.id DESC LIMIT 1) latest ON true
  LEFT JOIN LATERAL (SELECT t.price, t.id FROM trades t
                      WHERE t.trading_pair_id = w.pair AND t.executed_at > %(window_start)s
                        AND t.executed_at <= %(as_of)s
                      ORDER BY t.executed_at, t.id LIMIT 1) opening ON s.trades > 0
  LEFT JOIN LATERAL (SELECT t.price FROM trades t
                      WHERE t.trading_pair_id = w.pair AND t.executed_at <= %(window_start)s
                      ORDER BY t.executed_at DESC, t.id DESC LIMIT 1) previous ON true
  -- The conditions on what was found stand inside: a pair that has a trade costs no look at its candles.
  LEFT JOIN LATERAL (SELECT c.close FROM trading_pairs p JOIN candles c ON c.trading_pair_id = p.id
                      WHERE latest.price IS NULL AND p.id = w.pair AND c.interval = '1m'
                        AND c.start_at < p.trades_retained_from AND c.start_at <= %(as_of)s - interval '1 minute'
                      ORDER BY c.start_at DESC LIMIT 1) archived ON true
  LEFT JOIN LATERAL (SELECT c.close FROM trading_pairs p JOIN candles c ON c.trading_pair_id = p.id
                      WHERE previous.price IS NULL AND p.id = w.pair AND c.interval = '1m'
                        AND c.start_at < p.trades_retained_from
                        AND c.start_at <= %(window_start)s - interval '1 minute'
                      ORDER BY c.start_at DESC LIMIT 1) archived_previous ON true
