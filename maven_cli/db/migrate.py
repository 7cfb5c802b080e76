"""Brings a database's schema to the revision that this code needs. The only user of Alembic."""

from __future__ import annotations

from pathlib import Path

import psycopg
import psycopg.errors
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from maven_cli.db.connection import connect
from maven_cli.db.failures import explain
from maven_cli.db.locks import WORK_NAMESPACE, lock_key
from maven_cli.db.revision import REVISION, read_revision
from maven_cli.errors import MavenError, SchemaError, TryLaterError


def upgrade(url: str, *, wait: str = "60s") -> tuple[str | None, str]:
    """Migrates to this code's revision; returns the revision before and after.

    Two at once: one migrates, the other waits for it and finds nothing to do. Raises SchemaError for a database that is
    newer than the code.
    """
    # The lock lives on its own connection, because a migration may commit in between.
    with connect(url, "db upgrade") as guard:
        try:
            guard.execute("BEGIN")
            guard.execute("SELECT set_config('lock_timeout', %s, true)", [wait])
            guard.execute("SELECT pg_advisory_xact_lock(%s, %s)", [WORK_NAMESPACE, lock_key("db:upgrade")])
            before = read_revision(guard)
            if before is not None and before > REVISION:
                raise SchemaError(
                    f"the database is at revision {before}, newer than this maven, which knows {REVISION}; "
                    "install a newer maven"
                )
            if before != REVISION:
                _run_migrations(url)
            guard.execute("COMMIT")
        except psycopg.errors.LockNotAvailable:
            raise TryLaterError(
                f"another db upgrade has been running for {wait}; try again when it is done"
            ) from None
        except psycopg.Error as error:
            raise explain(error) or MavenError(str(error)) from error
    return before, REVISION


def _run_migrations(url: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect(url, "db upgrade"), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            connection.connection.driver_connection.autocommit = False  # type: ignore[union-attr]
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except DBAPIError as error:
                raise _explain(error) from error
    finally:
        engine.dispose()


def _explain(error: DBAPIError) -> Exception:
    """What stood in a migration's way. It was rolled back."""
    cause = error.orig
    if isinstance(
        cause,
        psycopg.errors.DuplicateTable | psycopg.errors.DuplicateObject | psycopg.errors.DuplicateFunction,
    ):
        return SchemaError(
            f"something in the database has a name that maven needs: {str(cause).splitlines()[0]}; "
            "nothing was changed. Give maven a database of its own, or rename what is in the way"
        )
    return (explain(cause) if isinstance(cause, psycopg.Error) else None) or error


def head() -> str:
    """The newest migration's revision, read from the files: a test compares it with `REVISION`."""
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    found = ScriptDirectory.from_config(config).get_current_head()
    assert found is not None
    return found
