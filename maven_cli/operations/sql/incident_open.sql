-- A new incident, or what is known now about the one of this kind and item that is open. xmax is 0 in a row that this
-- very statement has inserted.
INSERT INTO incidents AS i (kind, item, summary, details, opened_at, last_seen_at)
SELECT %(kind)s, %(item)s, %(summary)s, %(details)s, statement_timestamp(), statement_timestamp()
 WHERE NOT %(unless_resolved)s OR NOT EXISTS (
       SELECT FROM incidents r
        WHERE r.kind = %(kind)s AND r.item = %(item)s AND r.details = %(details)s AND r.resolved_at IS NOT NULL)
ON CONFLICT (kind, item) WHERE resolved_at IS NULL DO UPDATE
   SET summary = excluded.summary, details = excluded.details,
       last_seen_at = greatest(i.last_seen_at, excluded.last_seen_at)
RETURNING xmax = 0
