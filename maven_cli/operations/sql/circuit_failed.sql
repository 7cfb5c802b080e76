-- One more failure in a row. It opens the circuit at the threshold, and in any case when it wasn't closed any more; each
-- failure beyond the threshold doubles the time until the next attempt. Whoever was admitted before the circuit opened
-- and fails while it cools down tells nothing new: no row is changed then.
UPDATE circuits
   SET failures = failures + 1,
       state = CASE WHEN state <> 'closed' OR failures + 1 >= %(threshold)s THEN 'open' ELSE 'closed' END,
       opened_at = CASE WHEN state <> 'closed' THEN opened_at
                        WHEN failures + 1 >= %(threshold)s THEN statement_timestamp() END,
       retry_at = CASE WHEN state <> 'closed' OR failures + 1 >= %(threshold)s
                       THEN clock_timestamp() + make_interval(secs => least(
                           %(cool_down)s * power(2, least(greatest(failures + 1 - %(threshold)s, 0), 60)), %(longest)s)) END,
       last_error = %(error)s,
       updated_at = statement_timestamp()
 WHERE name = %(name)s AND NOT (state = 'open' AND retry_at > clock_timestamp())
RETURNING name, state, failures, opened_at, retry_at, last_error, updated_at
