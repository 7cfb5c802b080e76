-- What keeps a chain's deposits waiting, if anything. interval: seconds between its newest blocks that are kept.
-- circuits_open: endpoints that nobody asks for a while.
SELECT c.id, c.name, c.family, c.state, c.state_reason, c.finality, c.confirmations, p.cursor, p.head_height, p.head_at, p.head_seen_at,
       p.safe_height, p.finalized_height, p.endpoint, e.endpoints, e.circuits_open, e.last_error,
       (SELECT extract(epoch FROM max(b.at) - min(b.at)) / nullif(max(b.height) - min(b.height), 0)
          FROM (SELECT height, at FROM chain_blocks WHERE chain_id = c.id ORDER BY height DESC LIMIT 100) b)::float8 AS interval
  FROM chains c
  LEFT JOIN chain_progress p ON p.chain_id = c.id
 CROSS JOIN LATERAL (SELECT count(*) AS endpoints, count(*) FILTER (WHERE k.state <> 'closed' AND k.retry_at > clock_timestamp()) AS circuits_open,
                            (array_agg(k.last_error ORDER BY k.updated_at DESC) FILTER (WHERE k.failures > 0))[1] AS last_error
                       FROM chain_endpoints n LEFT JOIN circuits k ON k.name = 'node:' || c.name || '/' || n.name
                      WHERE n.chain_id = c.id) e
 ORDER BY c.name
