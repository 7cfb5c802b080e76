-- What the outbox still has of a range of ids: how many of the wanted types were delivered, how many wait, where the
-- range begins, and up to when events may be gone (null: nothing was ever pruned).
SELECT count(*) FILTER (WHERE delivered_at IS NOT NULL AND wanted), count(*) FILTER (WHERE delivered_at IS NULL AND wanted),
       min(id), min(created_at), (SELECT nullif(pruned_until, '-infinity') FROM outbox_state)
  FROM outbox CROSS JOIN LATERAL (SELECT %(types)s::text[] IS NULL OR type = ANY (%(types)s)) AS w (wanted)
 WHERE id >= %(first)s AND (%(last)s::bigint IS NULL OR id <= %(last)s)
