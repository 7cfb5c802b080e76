-- Every pair with the time of its newest trade, one index lookup each.
SELECT p.id, p.symbol, p.status, t.executed_at AS last_trade_at, g.closed_until, p.trades_retained_from
  FROM trading_pairs p
  LEFT JOIN candle_progress g ON g.trading_pair_id = p.id
  LEFT JOIN LATERAL (SELECT executed_at FROM trades
                      WHERE trading_pair_id = p.id
                      ORDER BY executed_at DESC, id DESC
                      LIMIT 1) t ON true
 ORDER BY p.symbol
