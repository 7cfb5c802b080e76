"""PostgreSQL: the schema, its migrations, connections, named queries and the lock."""
