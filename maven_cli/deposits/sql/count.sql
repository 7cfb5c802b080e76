-- Counts the confirmations of what is followed, its own block being the first. Writes only what has more of them than before.
WITH counted AS MATERIALIZED (
    SELECT id, confirmations, least(%(head)s - block_height + 1, 2147483647)::integer AS now_has
      FROM deposits
     WHERE chain_id = %(chain)s AND status IN ('PENDING', 'CONFIRMING') AND block_height IS NOT NULL
     ORDER BY id FOR NO KEY UPDATE
), written AS (
    UPDATE deposits d SET confirmations = c.now_has, status = 'CONFIRMING', updated_at = now()
      FROM counted c WHERE d.id = c.id AND c.now_has > c.confirmations AND c.now_has > 0
    RETURNING d.id
)
SELECT c.id, greatest(c.confirmations, c.now_has), w.id IS NOT NULL FROM counted c LEFT JOIN written w USING (id) ORDER BY c.id
