-- The block's trades that aren't there yet.
INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, side)
SELECT %(pair)s, id, executed_at, price, quantity, side
  FROM (SELECT {row} FROM maven_incoming) AS incoming
    ON CONFLICT (trading_pair_id, id) DO NOTHING
