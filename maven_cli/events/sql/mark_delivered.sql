-- Events that Redis has.
UPDATE outbox SET delivered_at = statement_timestamp() WHERE id = ANY (%(ids)s) AND delivered_at IS NULL
