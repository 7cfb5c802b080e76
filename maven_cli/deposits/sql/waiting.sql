-- Confirmed deposits that credit should have taken by now, by chain.
SELECT c.name AS chain, c.state, c.state_reason, count(*) AS number, max(%(as_of)s - d.confirmed_at) AS longest
  FROM deposits d JOIN chains c ON c.id = d.chain_id
 WHERE d.status = 'CONFIRMED' AND d.confirmed_at < %(as_of)s - %(after)s
 GROUP BY c.id ORDER BY c.name
