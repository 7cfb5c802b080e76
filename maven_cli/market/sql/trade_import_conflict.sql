-- The first line whose id is taken by another trade: by an earlier line (written by this transaction), or from before.
-- The side is compared within the file only: what was there before may not know it.
-- OFFSET 0 keeps it at one index lookup per line: without it the planner reads all of the pair's trades, at each block.
SELECT i.line, i.id, t.xid = pg_current_xact_id(), i.executed_at, i.price, i.quantity,
       t.executed_at, t.price, t.quantity, i.side, t.side
  FROM (SELECT line, {row} FROM maven_incoming) AS i
 CROSS JOIN LATERAL (SELECT * FROM trades t WHERE t.trading_pair_id = %(pair)s AND t.id = i.id OFFSET 0) AS t
 WHERE (i.executed_at, i.price, i.quantity) <> (t.executed_at, t.price, t.quantity)
    OR (t.xid = pg_current_xact_id() AND i.side IS DISTINCT FROM t.side)
 ORDER BY i.line
 LIMIT 1
