-- Every chain, how far it was read, and what is configured for it. head_seen_at: when a node last told something new.
SELECT c.name, c.family, c.identity, c.network, c.state, c.state_reason, c.confirmations, c.finality, c.tail, c.backscan,
       c.start_height, c.reorg_epoch, p.head_height AS head, p.head_at, p.head_seen_at, p.safe_height, p.finalized_height, p.cursor,
       p.final_cursor, p.endpoint,
       (SELECT count(*) FROM chain_endpoints e WHERE e.chain_id = c.id) AS endpoints,
       (SELECT count(*) FROM tokens t WHERE t.chain_id = c.id) AS tokens,
       (SELECT count(*) FROM deposit_addresses a WHERE a.chain_id = c.id) AS addresses
  FROM chains c LEFT JOIN chain_progress p ON p.chain_id = c.id
 ORDER BY c.name
