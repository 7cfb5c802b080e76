-- Items that went through in the end, or are none any more, by the worker itself.
UPDATE dead_letters
   SET state = 'RESOLVED', closed_at = statement_timestamp(), closed_by = worker, reason = %(reason)s
 WHERE worker = %(worker)s AND state = 'OPEN' AND item = ANY (%(items)s)
