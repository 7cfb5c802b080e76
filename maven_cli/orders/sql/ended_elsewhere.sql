-- Orders that have ended, or exist no more, while the worker still has an open dead letter or incident about them. What the
-- worker ends itself it closes in the same transaction, so nearly always there are none.
SELECT DISTINCT open.item, o.status
  FROM (SELECT item FROM dead_letters WHERE state = 'OPEN' AND worker = %(worker)s
        UNION
        SELECT item FROM incidents WHERE resolved_at IS NULL AND kind = ANY (%(kinds)s)) AS open
  LEFT JOIN orders o ON o.id = CASE WHEN open.item ~ '^order:[0-9]{1,18}$' THEN substr(open.item, 7)::bigint END
 WHERE open.item ~ '^order:[0-9]{1,18}$' AND (o.id IS NULL OR o.status NOT IN ('OPEN', 'PARTIALLY_FILLED'))
