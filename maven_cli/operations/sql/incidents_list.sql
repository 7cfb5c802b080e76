-- Open incidents, or all of them, of one kind or of every one.
SELECT *
  FROM incidents
 WHERE (%(everything)s OR resolved_at IS NULL) AND (%(kind)s::text IS NULL OR kind = %(kind)s)
 ORDER BY id
