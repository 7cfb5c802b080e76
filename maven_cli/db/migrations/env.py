"""Alembic's entry point. `maven db upgrade` passes the connection in; nothing is read from a file."""

from __future__ import annotations

from alembic import context

from maven_cli.db.revision import VERSION_TABLE
from maven_cli.db.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
