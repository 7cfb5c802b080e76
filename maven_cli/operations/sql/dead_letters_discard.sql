-- Given up by a person. Whoever did so first stays on record.
UPDATE dead_letters
   SET state = 'DISCARDED', closed_at = statement_timestamp(), closed_by = %(by)s, reason = %(reason)s
 WHERE state = 'OPEN' AND id = ANY (%(ids)s)
RETURNING *
