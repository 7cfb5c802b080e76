-- Everything above a height that wasn't credited and that nobody has given up. In the order of ids, like everybody.
WITH those AS MATERIALIZED (
    SELECT id FROM deposits
     WHERE chain_id = %(chain)s AND block_height > %(height)s
       AND status IN ('PENDING', 'CONFIRMING', 'CONFIRMED', 'FAILED', 'HELD')
     ORDER BY id FOR NO KEY UPDATE
)
UPDATE deposits d
   SET status = 'ORPHANED', reason = NULL, confirmations = 0, verified_at = NULL, verified_epoch = NULL, evidence = NULL,
       confirmed_at = NULL, updated_at = now()
  FROM those WHERE d.id = those.id
RETURNING d.id
