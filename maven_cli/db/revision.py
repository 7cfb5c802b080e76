"""The schema revision that this code is written for, without loading Alembic. A test holds it against the migrations."""

from __future__ import annotations

import psycopg

from maven_cli.errors import SchemaError

REVISION = "0003"
# A table of our own: the platform may use Alembic too, on the same database.
VERSION_TABLE = "maven_schema_version"


def read_revision(conn: psycopg.Connection) -> str | None:
    """The revision of the connected database; None when maven's schema isn't there."""
    if conn.execute("SELECT to_regclass(%s) IS NULL", [VERSION_TABLE]).fetchone() == (True,):
        return None
    row = conn.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()
    return str(row[0]) if row else None


def check_revision(conn: psycopg.Connection) -> None:
    """Raises SchemaError naming both revisions and the command that mends it, unless the database fits the code."""
    found = read_revision(conn)
    if found == REVISION:
        return
    if found is None:
        raise SchemaError(
            f"the database has no maven schema, this maven needs revision {REVISION}; run: maven db upgrade"
        )
    if found < REVISION:
        raise SchemaError(
            f"the database is at revision {found}, this maven needs {REVISION}; run: maven db upgrade"
        )
    raise SchemaError(
        f"the database is at revision {found}, newer than this maven, which knows {REVISION}; install a newer maven"
    )
