-- How many events wait, and the age of the one that is first in line; null when none waits.
SELECT count(*),
       (SELECT clock_timestamp() - created_at FROM outbox WHERE delivered_at IS NULL ORDER BY id LIMIT 1)
  FROM outbox
 WHERE delivered_at IS NULL
