-- How many deposits of each chain are in each status; of those that are held, for which reason.
SELECT c.name AS chain, d.status, d.reason, d.number
  FROM chains c
  LEFT JOIN (SELECT chain_id, status, CASE WHEN status = 'HELD' THEN reason END AS reason, count(*) AS number
               FROM deposits GROUP BY 1, 2, 3) d ON d.chain_id = c.id
 ORDER BY c.name, d.status, d.reason
