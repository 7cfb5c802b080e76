-- One item's failure: a new row, or one more attempt of the row that is there. What was resolved opens again and counts
-- from one; what was discarded stays so, and is only kept up to date.
INSERT INTO dead_letters AS d (worker, item, error, first_failed_at, last_failed_at, next_attempt_at)
VALUES (%(worker)s, %(item)s, %(error)s, statement_timestamp(), statement_timestamp(),
        statement_timestamp() + make_interval(secs => least(%(base)s::float8, %(limit)s)))
ON CONFLICT (worker, item) DO UPDATE
   SET error = excluded.error,
       attempts = CASE d.state WHEN 'RESOLVED' THEN 1 ELSE d.attempts + 1 END,
       first_failed_at = CASE d.state WHEN 'RESOLVED' THEN excluded.first_failed_at ELSE d.first_failed_at END,
       last_failed_at = excluded.last_failed_at,
       -- The exponent is bounded, so that the product stays a number however often it failed.
       next_attempt_at = statement_timestamp() + make_interval(secs => least(
           %(base)s * power(2, CASE d.state WHEN 'RESOLVED' THEN 0 ELSE least(d.attempts, 60) END), %(limit)s)),
       state = CASE d.state WHEN 'RESOLVED' THEN 'OPEN' ELSE d.state END,
       closed_at = CASE d.state WHEN 'RESOLVED' THEN NULL ELSE d.closed_at END,
       closed_by = CASE d.state WHEN 'RESOLVED' THEN NULL ELSE d.closed_by END,
       reason = CASE d.state WHEN 'RESOLVED' THEN NULL ELSE d.reason END
RETURNING *
