"""Events: rows of the outbox on their way to the Redis stream, and what the stream has."""
