"""What a PostgreSQL error means for the person who ran the command, and whether the next pass heals it."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors as pg

from maven_cli.errors import (
    ConfigurationError,
    DatabaseDownError,
    DiskFullError,
    MavenError,
    SchemaError,
    TryLaterError,
)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def explain(error: psycopg.Error) -> MavenError | None:
    """The error as a user meets it, in one line; None for what a row, or a bug, can cause.

    So None is also the test of a pass that isolates its items: anything else (a lost connection, a lock timeout, a
    missing right) concerns all of them, and is never one item's failure.
    """
    match error:
        case pg.DiskFull():
            return DiskFullError(
                f"PostgreSQL's disk is full: {_first_line(error)}; free some space, nothing was lost"
            )
        case pg.ReadOnlySqlTransaction():
            return DatabaseDownError(
                "the database is read-only (a standby, or default_transaction_read_only is on); "
                "point MAVEN_DATABASE_URL at the primary"
            )
        case pg.InsufficientPrivilege():
            return ConfigurationError(f"PostgreSQL refuses: {_first_line(error)}; grant it to maven's role")
        case pg.UndefinedTable() | pg.UndefinedColumn() | pg.UndefinedFunction() | pg.InvalidSchemaName():
            return SchemaError(
                f"the schema isn't what maven needs: {_first_line(error)}; run: maven db check"
            )
        case pg.SerializationFailure() | pg.DeadlockDetected() | pg.LockNotAvailable():
            return TryLaterError(
                f"PostgreSQL was busy ({_first_line(error)}); nothing is lost, the next pass goes on"
            )
        case pg.QueryCanceled():
            return DatabaseDownError(
                f"PostgreSQL gave up ({_first_line(error)}); nothing is lost, the next pass goes on. "
                "If it stays so, raise MAVEN_STATEMENT_TIMEOUT"
            )
        # Class 25, but the session is gone like any other that the server has ended.
        case pg.IdleInTransactionSessionTimeout() | pg.OperationalError() | pg.InterfaceError():
            return DatabaseDownError(
                f"the connection to PostgreSQL broke: {_first_line(error)}; the next pass goes on"
            )
        case _:
            return None


def explain_connect(error: psycopg.Error, target: str, setting: str) -> MavenError:
    """Why no connection to `target` (host and database, never the password) could be made.

    setting: the variable that holds the URL.
    """
    text = _first_line(error).removeprefix("connection failed: ")
    lowered = str(error).lower()
    reason = text.rsplit("failed: ", 1)[-1]
    if re.search("authentication failed|no password supplied|no pg_hba.conf entry", lowered):
        return ConfigurationError(f"PostgreSQL at {target} refuses the credentials; check {setting}")
    if re.search("fatal: +permission denied|not permitted to log in", lowered):
        return ConfigurationError(f"PostgreSQL at {target} refuses: {reason}; grant it to maven's role")
    if re.search("fatal: .*(database|role).* does not exist", lowered):
        return ConfigurationError(f"PostgreSQL at {target} has no such database or role; check {setting}")
    if re.search(r"\binvalid (connection option|uri|integer value|port number|\w+ value)", lowered):
        return ConfigurationError(f"{setting} is not a valid PostgreSQL URL")
    return DatabaseDownError(f"PostgreSQL at {target} can't be reached: {reason}")
