-- Undelivered events, first in line first.
SELECT id, event_id, type, aggregate, created_at, clock_timestamp() - created_at AS age
  FROM outbox
 WHERE delivered_at IS NULL
 ORDER BY id
 LIMIT %(limit)s
