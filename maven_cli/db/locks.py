"""The lock that keeps a pass single: a transaction-level advisory lock on a connection of its own.

Transaction-level, because behind a transaction pooler a session lock is granted to everybody. READ COMMITTED and READ
ONLY, because an open snapshot would hold back vacuum. A heartbeat keeps the transaction from idling out; when the host
vanishes the heartbeat stops, and PostgreSQL ends the session (and the lock) after 30 seconds.

The lock is a courtesy. What makes a second pass harmless is in the work transactions: see `work_lock`.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import psycopg

from maven_cli.db.connection import connect
from maven_cli.db.failures import explain
from maven_cli.errors import DatabaseDownError, LockHeldError, MavenError

# Two namespaces of the two-integer advisory locks: who runs a pass, and who may commit its work.
PASS_NAMESPACE = 0x4D41564E  # "MAVN"
WORK_NAMESPACE = 0x4D41564F
HEARTBEAT = 5.0  # seconds
IDLE_TIMEOUT = "30s"


def lock_key(scope: str) -> int:
    """crc32 of the scope as a signed 32-bit integer: PostgreSQL's int4 refuses the unsigned one."""
    value = zlib.crc32(scope.encode())
    return value - 2**32 if value >= 2**31 else value


class PassLock:
    """A held lock. `as_of` is the database's clock when it was taken."""

    def __init__(self, conn: psycopg.Connection, scope: str, as_of: datetime) -> None:
        self.scope = scope
        self.as_of = as_of
        self._conn = conn
        self._mutex = threading.Lock()
        self._lost: str | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat {scope}", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT):
            self._ask()

    def _ask(self) -> None:
        with self._mutex:
            if self._lost is None and not self._done.is_set():
                try:
                    self._conn.execute("SELECT 1")
                except psycopg.Error as error:
                    self._lost = (
                        str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                    )

    def verify(self) -> None:
        """Asks PostgreSQL whether the lock's session still lives. Raises DatabaseDownError when it doesn't."""
        self._ask()
        if self._lost is not None:
            raise DatabaseDownError(
                f"the lock {self.scope} was lost ({self._lost}); stopped before the next commit, nothing is half-done"
            )

    def release(self) -> None:
        """Ends the lock's transaction, and the connection."""
        self._done.set()
        with self._mutex, suppress(psycopg.Error):
            # A closed connection frees the lock some time later; the next pass may start at once.
            self._conn.execute("ROLLBACK")
        self._conn.close()
        self._thread.join(timeout=HEARTBEAT)


@contextmanager
def pass_lock(url: str, scope: str) -> Iterator[PassLock]:
    """Holds the lock of a scope for the length of the block. Raises LockHeldError at once when it is taken."""
    conn = connect(url, f"lock {scope}", setting="MAVEN_LOCK_DATABASE_URL")
    try:
        try:
            conn.execute("BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY")
            conn.execute(f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_TIMEOUT}'")
            if conn.info.server_version >= 170000:
                conn.execute("SET LOCAL transaction_timeout = 0")
            # No parameters: with them the statement's portal, and so its snapshot, would stay open behind it.
            row = conn.execute(
                f"SELECT pg_try_advisory_xact_lock({PASS_NAMESPACE}, {lock_key(scope)}), clock_timestamp()"
            ).fetchone()
        except psycopg.Error as error:
            raise explain(error) or MavenError(str(error)) from error
        assert row is not None
        if not row[0]:
            raise LockHeldError()
        lock = PassLock(conn, scope, row[1].astimezone(UTC))
        try:
            yield lock
        finally:
            lock.release()
    finally:
        conn.close()


def give_way(conn: psycopg.Connection) -> None:
    """For a transaction that is going to be rolled back, in place of its work lock: what it writes is in nobody's way long.

    It raises lock_not_available rather than wait, earlier than PostgreSQL would look for a deadlock and end somebody
    else's transaction; a process that is frozen in the middle loses its session.
    """
    conn.execute(
        "SELECT set_config('lock_timeout', '500ms', true),"
        "       set_config('idle_in_transaction_session_timeout', '10s', true)"
    )


def work_lock(conn: psycopg.Connection, key: str, *, timeout_ms: int = 0, shared: bool = False) -> None:
    """Serialises the work transactions of one kind of data, whoever runs them and whatever became of their pass lock.

    Taken first in every writing transaction and held to its end. `timeout_ms` 0 refuses at once; a shared holder
    excludes only exclusive ones. Raises LockHeldError, or lock_not_available after the timeout.
    """
    suffix = "_shared" if shared else ""
    if timeout_ms == 0:
        row = conn.execute(
            f"SELECT pg_try_advisory_xact_lock{suffix}(%s, %s)", [WORK_NAMESPACE, lock_key(key)]
        ).fetchone()
        if row != (True,):
            raise LockHeldError(f"another pass is writing {key}; nothing was changed, the next pass goes on")
        return
    conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{timeout_ms}ms"])
    conn.execute(f"SELECT pg_advisory_xact_lock{suffix}(%s, %s)", [WORK_NAMESPACE, lock_key(key)])
