"""The one place that opens connections to PostgreSQL."""

from __future__ import annotations

import re
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from maven_cli.db.failures import explain, explain_connect
from maven_cli.db.revision import check_revision
from maven_cli.errors import ConfigurationError

CONNECT_TIMEOUT = 5  # seconds


def connect(url: str, purpose: str = "", *, setting: str = "MAVEN_DATABASE_URL") -> psycopg.Connection:
    """An autocommit connection. Raises DatabaseDownError or ConfigurationError, never with the password in it.

    setting: the variable that the URL comes from, for messages.

    Sessions aren't configured here: behind a transaction pooler a SET would reach somebody else's statements. SQL
    in this project never depends on the session's time zone, and timeouts are SET LOCAL. Prepared statements are
    off for the same reason.
    """
    _check_url(url, setting)
    try:
        conn = psycopg.connect(
            url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_TIMEOUT,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            # Keepalives don't see a link that is cut under an unanswered statement; TCP would wait a quarter of an hour.
            tcp_user_timeout=25_000,
            application_name=f"maven {purpose}".strip(),
        )
    except psycopg.Error as error:
        raise explain_connect(error, target(url), setting) from None
    # Whatever the database's default is: a work transaction must see what was committed before it got its lock.
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    return conn


def _check_url(url: str, setting: str) -> None:
    """Raises ConfigurationError for a URL that libpq can't take, or takes apart otherwise than it was meant.

    libpq ends the credentials at the first ``@``, or has none when a ``/`` comes before that. What is left of a password
    with one of them would be the host, the port or the database's name then, which messages repeat.
    """
    authority, _, path = url.partition("://")[2].partition("/")
    address = authority.partition("@")[2].partition("?")[0]
    try:
        parts: dict[str, Any] = conninfo_to_dict(url)
        valid = "@" not in address and "@" not in path.partition("?")[0]
        # Also from ?host= and ?port=. An abstract socket's name begins with @.
        hosts = str(parts.get("host") or "").split(",")
        valid = valid and not any("@" in host[1:] for host in hosts if not host.startswith("/"))
        valid = valid and re.fullmatch(r"[0-9, ]*", str(parts.get("port") or "")) is not None
    except psycopg.ProgrammingError:
        valid = False
    if not valid:
        raise ConfigurationError(
            f"{setting} is not a valid PostgreSQL URL; write @ as %40, / as %2F and : as %3A in a password"
        )


def answers(conn: psycopg.Connection, seconds: float) -> bool:
    """Whether a trivial statement is answered in that time. If not, the connection is closed.

    For what no timeout of PostgreSQL's sees: a statement that waits in a pooler for a connection to PostgreSQL.
    """
    give_up = time.monotonic() + seconds
    conn.pgconn.send_query(b"SELECT 1")
    while True:
        while conn.pgconn.is_busy():
            if not select.select([conn.fileno()], [], [], max(0.0, give_up - time.monotonic()))[0]:
                conn.close()
                return False
            conn.pgconn.consume_input()
        if conn.pgconn.get_result() is None:
            return True


@contextmanager
def session(url: str, purpose: str, *, check: bool = True) -> Iterator[psycopg.Connection]:
    """A connection for a command that isn't a pass; closed at the end, and with it whatever was not committed.

    PostgreSQL's errors leave the block as the MavenError that `explain` makes of them; what only a bug can cause stays
    what it is. `check` False is for commands that work on any schema. Raises what `connect` does, and SchemaError.
    """
    conn = connect(url, purpose)
    try:
        if check:
            check_revision(conn)
        yield conn
    except psycopg.Error as error:
        known = explain(error)
        if known is None:
            raise
        raise known from error
    finally:
        conn.close()


def target(url: str) -> str:
    """Host, port and database of a URL, for messages."""
    parts: dict[str, Any] = conninfo_to_dict(url)
    host = str(parts.get("host") or parts.get("hostaddr") or "the default socket")
    port = f":{parts['port']}" if parts.get("port") and not host.startswith("/") else ""
    return f"{host}{port}/{parts.get('dbname') or ''}".rstrip("/") if not host.startswith("/") else host


def database_now(conn: psycopg.Connection) -> datetime:
    """The database's clock, which is the product's clock, in UTC."""
    row = conn.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment.astimezone(UTC)


def redact(text: str) -> str:
    """The text without anything that looks like a URL's password."""
    text = re.sub(r"(://[^:/@\s]*):\S+@", r"\1:***@", text)
    return re.sub(r"(?i)(password=)('[^']*'|[^&\s]+)", r"\1***", text)
