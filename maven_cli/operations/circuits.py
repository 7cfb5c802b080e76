"""Circuits: what failed again and again is left alone for a while, by every process, because the database says so.

closed      everybody is admitted; failures in a row are counted, one success forgets them
open        nobody is admitted until `retry_at`
half_open   one process, the probe, was admitted; its end decides. `retry_at` is when the next one may try if the probe
            died without a word

Names: ``engine:http`` for a dependency, ``worker:<scope>`` for a worker as a whole. Every function takes an autocommit
connection: inside a transaction the others would wait for it instead of being refused. Times are the database's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg

from maven_cli.db.failures import explain
from maven_cli.db.queries import load
from maven_cli.errors import (
    CircuitOpenError,
    DatabaseDownError,
    DependencyDownError,
    LockHeldError,
    MavenError,
)
from maven_cli.logs import WorkerLog
from maven_cli.operations.text import in_utc, one_line, reason_of
from maven_cli.settings import Settings
from maven_cli.times import iso

PROBE_LEASE = timedelta(seconds=30)
_COLUMNS = "name, state, failures, opened_at, retry_at, last_error, updated_at"


@dataclass(frozen=True)
class Circuit:
    """One circuit. failures: in a row. opened_at: when it last left the state closed."""

    name: str
    state: str
    failures: int
    opened_at: datetime | None
    retry_at: datetime | None
    last_error: str | None
    updated_at: datetime


def admit(conn: psycopg.Connection, name: str) -> bool:
    """Whether to go on. Closed: yes, after one small read. Open and due again: yes for exactly one process, whose
    `succeeded`, `failed` or `abandoned` decides. Else no."""
    admitted, _ = _enter(conn, name)
    return admitted


def succeeded(conn: psycopg.Connection, name: str) -> None:
    """Closes the circuit and forgets its failures. Writes nothing when there is nothing to change."""
    reset(conn, name)


def failed(
    conn: psycopg.Connection,
    name: str,
    error: str,
    *,
    threshold: int,
    cool_down: timedelta,
    longest: timedelta,
) -> Circuit:
    """Counts a failure, and returns what the circuit is now.

    It opens for `cool_down` at the `threshold`-th failure in a row, and again when the probe failed, each time for twice
    as long, up to `longest`.
    """
    conn.execute("INSERT INTO circuits (name) VALUES (%s) ON CONFLICT DO NOTHING", [name])
    row = conn.execute(
        load("operations", "circuit_failed"),
        {
            "name": name,
            "error": one_line(error),
            "threshold": threshold,
            "cool_down": cool_down.total_seconds(),
            "longest": longest.total_seconds(),
        },
    ).fetchone()
    if row is not None:
        return _circuit(row)
    circuit, _ = _look(conn, name)
    assert circuit is not None, "circuits are never deleted"
    return circuit


def abandoned(conn: psycopg.Connection, name: str) -> None:
    """The probe ended without finding out anything (it was stopped): the next process may try at once."""
    conn.execute(
        "UPDATE circuits SET state = 'open', retry_at = clock_timestamp(), updated_at = statement_timestamp()"
        " WHERE name = %s AND state = 'half_open'",
        [name],
    )


def reset(conn: psycopg.Connection, name: str) -> bool:
    """Closes a circuit by hand; False when it was closed and had nothing to forget, or doesn't exist."""
    done = conn.execute(
        "UPDATE circuits SET state = 'closed', failures = 0, opened_at = NULL, retry_at = NULL,"
        " updated_at = statement_timestamp() WHERE name = %s AND (state <> 'closed' OR failures > 0)",
        [name],
    )
    return done.rowcount == 1


def is_closed(conn: psycopg.Connection, name: str) -> bool:
    """Whether everybody is admitted."""
    circuit, _ = _look(conn, name)
    return circuit is None or circuit.state == "closed"


def listed(conn: psycopg.Connection) -> list[Circuit]:
    """Every circuit that has ever counted a failure, by name."""
    return [_circuit(row) for row in conn.execute(f"SELECT {_COLUMNS} FROM circuits ORDER BY name")]


def _look(conn: psycopg.Connection, name: str) -> tuple[Circuit | None, bool]:
    """The circuit, and whether its time of waiting is over."""
    row = conn.execute(
        f"SELECT {_COLUMNS}, retry_at <= clock_timestamp() FROM circuits WHERE name = %s", [name]
    ).fetchone()
    return (None, False) if row is None else (_circuit(row[:-1]), bool(row[-1]))


def _enter(conn: psycopg.Connection, name: str) -> tuple[bool, Circuit | None]:
    """Whether to go on, and the circuit as it was found."""
    circuit, due = _look(conn, name)
    if circuit is None or circuit.state == "closed" or (due and _take_probe(conn, name)):
        return True, circuit
    if due:
        # Somebody was faster: it is their probe now, or has closed meanwhile.
        circuit, _ = _look(conn, name)
    return circuit is not None and circuit.state == "closed", circuit


def _take_probe(conn: psycopg.Connection, name: str) -> bool:
    # Whoever comes second waits for the first one's commit, looks again, and finds retry_at in the future.
    taken = conn.execute(
        "UPDATE circuits SET state = 'half_open', retry_at = clock_timestamp() + %s,"
        " updated_at = statement_timestamp()"
        " WHERE name = %s AND state <> 'closed' AND retry_at <= clock_timestamp()",
        [PROBE_LEASE, name],
    )
    return taken.rowcount == 1


def _circuit(row: tuple[Any, ...]) -> Circuit:
    return Circuit(*map(in_utc, row))


class WorkerCircuit:
    """The circuit of one worker, for the length of one pass.

    A pass costs it one read, and nothing more as long as all goes well. Why a dependency's failure and a bug wait for
    different times: docs/explanation/circuits.md.
    """

    def __init__(self, conn: psycopg.Connection, scope: str, settings: Settings, log: WorkerLog) -> None:
        self.name = f"worker:{scope}"
        self._conn = conn
        self._settings = settings
        self._log = log
        self._admitted = False
        self._before: Circuit | None = None

    def enter(self) -> None:
        """Raises CircuitOpenError, in the words that operators know, unless the pass may run."""
        self._admitted, self._before = _enter(self._conn, self.name)
        if not self._admitted:
            assert self._before is not None
            assert self._before.retry_at is not None
            raise CircuitOpenError(
                f"Circuit open until {_seconds(self._before.retry_at)}: {self._before.last_error}"
            )

    def ended(self, failure: Exception | None) -> None:
        """Draws the conclusion from the pass: None when it ran to its end, whatever became of single items.

        Where the database is gone nothing is counted; the pass's own error says so.
        """
        if not self._admitted:
            return
        try:
            self._conclude(failure)
        except psycopg.Error as error:
            if not isinstance(explain(error), DatabaseDownError):
                self._log.error("circuit.failed", f"The circuit can't be kept: {reason_of(error)}")

    def _conclude(self, failure: Exception | None) -> None:
        probe = self._before is not None and self._before.state != "closed"
        if failure is None:
            if self._before is not None and (probe or self._before.failures):
                succeeded(self._conn, self.name)
            if probe and self._before is not None:
                failures = self._before.failures
                self._log.info("circuit.closed", f"Circuit closed after {failures} failures in a row")
        elif _counts(failure):
            self._failed(failure)
        elif probe and not isinstance(failure, LockHeldError):
            # Whoever holds the lock is running the worker now, and will tell.
            abandoned(self._conn, self.name)

    def _failed(self, failure: Exception) -> None:
        settings = self._settings
        heals = isinstance(failure, DependencyDownError | OSError)
        circuit = failed(
            self._conn,
            self.name,
            reason_of(failure),
            threshold=settings.circuit_failures,
            cool_down=settings.circuit_cool_down,
            # What was down may be up the next moment; a bug takes a person.
            longest=settings.circuit_cool_down if heals else settings.circuit_longest,
        )
        if circuit.retry_at is not None:
            retry = _seconds(circuit.retry_at)
            self._log.warning(
                "circuit.opened",
                f"Circuit opened after {circuit.failures} failures in a row, next attempt at {retry}",
                failures=circuit.failures,
            )


def _counts(failure: Exception) -> bool:
    """Whether the worker as a whole failed: a dependency (69) or a bug (70). Not what was asked of it or set up wrongly,
    nor a signal, nor what only came at the wrong moment."""
    code = failure.exit_code if isinstance(failure, MavenError) else MavenError.exit_code
    return code in (DependencyDownError.exit_code, MavenError.exit_code)


def _seconds(moment: datetime) -> str:
    return iso(moment.replace(microsecond=0))
