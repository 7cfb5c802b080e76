-- Delivered events of a range of ids, in the order in which they left.
SELECT id, event_id, type, aggregate, event::text
  FROM outbox
 WHERE id > %(after)s AND (%(last)s::bigint IS NULL OR id <= %(last)s) AND delivered_at IS NOT NULL
   AND (%(types)s::text[] IS NULL OR type = ANY (%(types)s))
 ORDER BY id
 LIMIT %(limit)s
