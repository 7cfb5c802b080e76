-- Open dead letters, or all of them, of one worker or of every one.
SELECT *
  FROM dead_letters
 WHERE (%(everything)s OR state = 'OPEN') AND (%(worker)s::text IS NULL OR worker = %(worker)s)
 ORDER BY id
