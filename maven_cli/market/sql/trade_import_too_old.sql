-- The first line below the retention line.
SELECT line, executed_at
  FROM (SELECT line, {row} FROM maven_incoming) AS incoming
 WHERE executed_at < %(retained_from)s
 ORDER BY line
 LIMIT 1
