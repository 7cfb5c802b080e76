-- The oldest undelivered events, in the order in which they leave. Locked before anything is sent: whoever else
-- publishes waits at the very first row, and then sees what is left.
SELECT id, event_id, type, aggregate, event::text
  FROM outbox
 WHERE delivered_at IS NULL
 ORDER BY id
 LIMIT %(limit)s
   FOR NO KEY UPDATE
