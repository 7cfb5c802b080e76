-- The next pass may try them again. Only an id that is named opens what was discarded: that was somebody's decision.
UPDATE dead_letters
   SET state = 'OPEN', next_attempt_at = statement_timestamp(), closed_at = NULL, closed_by = NULL, reason = NULL
 WHERE CASE WHEN %(ids)s::bigint[] IS NULL
            THEN state = 'OPEN' AND (%(worker)s::text IS NULL OR worker = %(worker)s)
            ELSE state <> 'RESOLVED' AND id = ANY (%(ids)s)
       END
RETURNING *
