-- What the block spans, and the pair's retention line as it is now.
SELECT count(*), min(executed_at), max(executed_at), min(id), max(id),
       (SELECT trades_retained_from FROM trading_pairs WHERE id = %(pair)s)
  FROM (SELECT {row} FROM maven_incoming) AS incoming
