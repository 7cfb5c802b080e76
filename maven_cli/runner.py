"""What every pass has in common, once: lock, clock, work transactions, signals, run record, outcome.

A pass is a function ``(Pass) -> Counts`` in maven_cli/passes. `run` gives it the database's time as `as_of`, a work
connection, and the means to stop in good order. What the function raises decides the exit code:

* an `ItemError` collected with `Pass.fail` → the pass goes on, outcome *partial*, exit 1;
* `LockHeldError`, or an open circuit → *skipped*, exit 75, one line that operators know;
* any other MavenError → *error* with that error's code;
* SIGTERM or SIGINT → the running statement is cancelled, StoppedError, exit 143 or 130.
"""

from __future__ import annotations

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import psycopg
from psycopg.types.json import Json

from maven_cli.db.connection import answers, connect, database_now, redact
from maven_cli.db.failures import explain
from maven_cli.db.locks import IDLE_TIMEOUT, PassLock, give_way, pass_lock, work_lock
from maven_cli.db.revision import check_revision
from maven_cli.errors import (
    CircuitOpenError,
    ClockError,
    DatabaseDownError,
    LockHeldError,
    MavenError,
    StoppedError,
    TryLaterError,
    UsageError,
)
from maven_cli.logs import WorkerLog
from maven_cli.operations.circuits import WorkerCircuit
from maven_cli.settings import Settings
from maven_cli.stopping import Stop
from maven_cli.times import iso

CLOCK_TOLERANCE = timedelta(seconds=2)
SKIPPED = "Previous run still running, skipping..."
# Seconds that the first work statement may wait while the pass holds its lock. Not the same for all: of passes that
# wait for each other the first that gives up sets the others free.
PATIENCE = (5.0, 10.0)


@dataclass(frozen=True)
class Worker:
    """A worker's names: in settings and records, in the platform's log lines, and as a lock scope."""

    name: str
    label: str
    scope: str


@dataclass(frozen=True)
class ItemError:
    """One item that failed while the others went on."""

    item: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """How a pass ended. `data` is what the pass returned; None when it was skipped."""

    status: str
    exit_code: int
    data: dict[str, Any] | None
    errors: tuple[ItemError, ...] = ()


class Services(Protocol):
    """Where the databases are. Resolving a URL may start the embedded default, so it happens on first use."""

    @property
    def settings(self) -> Settings: ...
    @property
    def database_url(self) -> str: ...
    @property
    def lock_url(self) -> str: ...
    @property
    def redis_url(self) -> str: ...


@dataclass
class Pass:
    """What a pass works with.

    as_of: the database's time at the start, UTC; every window of the pass is cut on it.
    conn: the work connection, autocommit; writes go through `transaction`.
    dry_run: the real statements run inside one transaction that is rolled back, without any lock of ours; nothing else is
    written. Its rows are locked until then, so the function keeps a dry run short.
    """

    worker: Worker
    services: Services
    conn: psycopg.Connection
    as_of: datetime
    log: WorkerLog
    stop: Stop
    dry_run: bool = False
    lock: PassLock | None = None
    errors: list[ItemError] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def settings(self) -> Settings:
        return self.services.settings

    def fail(self, item: str, error: BaseException) -> str:
        """Records an item's failure, and returns the reason in one line."""
        reason = redact(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
        self.errors.append(ItemError(item, reason))
        return reason

    def elapsed(self) -> timedelta:
        return timedelta(seconds=time.monotonic() - self.started)

    def check_clock(self) -> None:
        """Raises ClockError when this host's clock and the database's are more than two seconds apart."""
        before = datetime.now(UTC)
        now = database_now(self.conn)
        after = datetime.now(UTC)
        apart = max(before - now, now - after)
        if apart > CLOCK_TOLERANCE:
            raise ClockError(
                f"this host's clock and the database's are {apart.total_seconds():.1f} s apart, more than "
                f"{CLOCK_TOLERANCE.total_seconds():.0f} s; nothing was changed. Set both by NTP"
            )

    def connect(self) -> psycopg.Connection:
        """Another work connection, cancelled by the same signals. The caller closes it."""
        conn = connect(self.services.database_url, self.worker.scope)
        self.stop.connections.append(conn)
        return conn

    @contextmanager
    def transaction(
        self,
        key: str,
        *,
        conn: psycopg.Connection | None = None,
        wait_ms: int = 0,
        shared: bool = False,
        money: bool = False,
    ) -> Iterator[psycopg.Connection]:
        """One work transaction: stops before it when asked to, takes the work lock of `key` (a dry run gives way to
        those who have it), bounds every statement, and commits only while the pass still holds its own lock.

        money: what it commits is on disk before it says so, and where it and the platform wait for each other's rows, it is
        the one that gives up.
        """
        self.stop.check()
        conn = conn or self.conn
        try:
            with conn.transaction():
                limit_statements(conn, self.settings)
                if money:
                    conn.execute(_MONEY)
                if self.dry_run:
                    give_way(conn)
                else:
                    work_lock(conn, key, timeout_ms=wait_ms, shared=shared)
                yield conn
                self.stop.check()
                if self.lock is not None:
                    self.lock.verify()
        except psycopg.errors.QueryCanceled:
            self.stop.check()
            raise

    @contextmanager
    def rehearsal(self) -> Iterator[psycopg.Connection]:
        """A transaction that is rolled back at its end, whatever it did. It takes no lock that a real pass waits for, and
        gives up at once where it would wait for the platform."""
        self.stop.check()
        with self.conn.transaction(force_rollback=True):
            limit_statements(self.conn, self.settings)
            self.conn.execute(_MONEY)
            yield self.conn

    @contextmanager
    def snapshot(self, conn: psycopg.Connection | None = None) -> Iterator[psycopg.Connection]:
        """A read-only transaction in which every statement sees the same state of the database."""
        self.stop.check()
        conn = conn or self.conn
        try:
            with conn.transaction():
                conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                limit_statements(conn, self.settings)
                yield conn
        except psycopg.errors.QueryCanceled:
            self.stop.check()
            raise


_MONEY = """
SELECT set_config('synchronous_commit', 'on', true),
       set_config('lock_timeout', greatest(extract(epoch FROM current_setting('deadlock_timeout')::interval) * 500, 1)::int || 'ms', true)
"""


def limit_statements(conn: psycopg.Connection, settings: Settings) -> None:
    """Bounds each statement of the open transaction, and the time between two: what a host that froze or vanished has
    locked is free again when its pass lock is."""
    milliseconds = settings.statement_timeout // timedelta(milliseconds=1)
    conn.execute(
        "SELECT set_config('statement_timeout', %s, true), set_config('idle_in_transaction_session_timeout', %s, true)",
        [f"{milliseconds}ms", IDLE_TIMEOUT],
    )


def run(
    worker: Worker,
    body: Callable[[Pass], dict[str, Any]],
    services: Services,
    *,
    dry_run: bool = False,
    as_of: datetime | None = None,
    record: bool = True,
    stop: Stop | None = None,
) -> Outcome:
    """Runs one pass and returns how it ended. Raises MavenError for what ends the whole pass.

    dry_run takes no lock and leaves no record, and no circuit stops it. `record` False is for read-only computations of
    the same code.
    """
    log = WorkerLog(worker.label, worker.name)
    with (stop or Stop()).installed() as stopper:
        started_at = datetime.now(UTC)
        started = time.monotonic()
        conn = connect(services.database_url, worker.scope)
        stopper.connections.append(conn)
        current: Pass | None = None
        circuit = WorkerCircuit(conn, worker.scope, services.settings, log)
        data: dict[str, Any] | None = None
        status, error = "error", None
        ended_by: Exception | None = StoppedError()  # what no handler below sees is no verdict on the worker
        try:
            check_revision(conn)
            if as_of is not None and as_of > database_now(conn):
                raise UsageError(
                    f"--as-of {iso(as_of)} lies in the future; what hasn't happened can't be computed"
                )
            if dry_run or not record:
                moment = as_of or database_now(conn)
                current = Pass(worker, services, conn, moment, log, stopper, dry_run=dry_run, started=started)
                # The work transactions become savepoints of it, so each step sees what the one before would have done.
                with conn.transaction(force_rollback=True) if dry_run else nullcontext():
                    data = body(current)
            else:
                circuit.enter()
                with pass_lock(services.lock_url, worker.scope) as lock:
                    _require_answer(conn, stopper)
                    current = Pass(
                        worker, services, conn, as_of or lock.as_of, log, stopper, lock=lock, started=started
                    )
                    data = body(current)
            status, ended_by = "partial" if current.errors else "success", None
            return Outcome(status, 1 if current.errors else 0, data, tuple(current.errors))
        except LockHeldError as held:
            status, error, ended_by = "skipped", str(held), held
            log.warning("pass.skipped", SKIPPED)
            return Outcome("skipped", LockHeldError.exit_code, None, (ItemError("", error),))
        except CircuitOpenError as refused:
            status, error = "skipped", str(refused)
            log.warning("circuit.skipped", f"{refused}, skipping...")
            return Outcome("skipped", CircuitOpenError.exit_code, None, (ItemError("", error),))
        except Exception as failure:
            ended_by = known = _meaning(failure, stopper)
            status = "error"
            if isinstance(known, StoppedError):
                status = "stopped"
            elif isinstance(known, TryLaterError):
                status = "skipped"
            error = str(known) if isinstance(known, MavenError) else f"{type(known).__name__}: {known}"
            if known is failure:
                raise
            raise known from failure
        finally:
            stopper.settle(conn)
            if record and not dry_run:
                circuit.ended(ended_by)
                try:
                    _record(services, conn, worker, current, started_at, started, status, error, data)
                except psycopg.Error as failure:
                    # A run whose database is gone leaves none: its exit code and log line are the record.
                    if status != "error":
                        reason = str(_meaning(failure, stopper)).partition("\n")[0]
                        log.warning("pass.unrecorded", f"The run left no record: {redact(reason)}")
            conn.close()


def _require_answer(conn: psycopg.Connection, stopper: Stop) -> None:
    """Raises DatabaseDownError when the work gets no connection to PostgreSQL beside the lock's.

    In a small pool that is all locks, the passes would wait for each other for ever. One look at the start is enough: the
    newest of such passes hasn't worked yet, and lets go.
    """
    if not answers(conn, random.uniform(*PATIENCE)):
        stopper.check()
        raise DatabaseDownError(
            "PostgreSQL gave the work no answer within seconds of giving out the lock; behind a pooler, raise the pool size "
            "above the number of passes at once, or point MAVEN_LOCK_DATABASE_URL past the pooler"
        )


def _meaning(failure: Exception, stopper: Stop) -> Exception:
    """What a PostgreSQL error means; any other error is its own meaning."""
    if not isinstance(failure, psycopg.Error):
        return failure
    try:
        stopper.check()
    except StoppedError as stopped:
        return stopped
    return explain(failure) or failure


def _record(
    services: Services,
    conn: psycopg.Connection,
    worker: Worker,
    current: Pass | None,
    started_at: datetime,
    started: float,
    status: str,
    error: str | None,
    data: dict[str, Any] | None,
) -> None:
    """One row per run, with the pass's counts. Raises psycopg.Error."""
    counts = {name: value for name, value in (data or {}).items() if type(value) is int}
    if current:
        counts["errors"] = len(current.errors)
    if current and current.errors:
        error = "; ".join(f"{item.item}: {item.message}" for item in current.errors[:5])
    row = conn.execute(
        "INSERT INTO worker_runs (worker, scope, host, pid, as_of, started_at, duration_ms, outcome, counts, error)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id",
        [
            worker.name,
            worker.scope,
            socket.gethostname(),
            os.getpid(),
            current.as_of if current else None,
            started_at,
            round((time.monotonic() - started) * 1000),
            status,
            Json(counts),
            redact(error) if error else None,
        ],
    ).fetchone()
    if row is not None and row[0] % 1000 == 0:
        conn.execute(
            "DELETE FROM worker_runs WHERE started_at < now() - %s", [services.settings.run_retention]
        )
