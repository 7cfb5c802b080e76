-- Where a node stands, if no node was further before. A reorganisation to a shorter chain is noted when it has outgrown the
-- one before, like everywhere else.
INSERT INTO chain_progress AS p (chain_id, head_height, head_at, safe_height, finalized_height, head_seen_at, endpoint)
VALUES (%(chain)s, %(height)s, %(at)s, %(safe)s, %(finalized)s, clock_timestamp(), %(endpoint)s)
ON CONFLICT (chain_id) DO UPDATE
   SET head_height = excluded.head_height, head_at = excluded.head_at,
       safe_height = greatest(p.safe_height, excluded.safe_height),
       finalized_height = greatest(p.finalized_height, excluded.finalized_height),
       head_seen_at = excluded.head_seen_at, endpoint = excluded.endpoint
 WHERE p.head_height IS NULL OR excluded.head_height >= p.head_height
