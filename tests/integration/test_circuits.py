"""Circuits: opened by failures in a row, seen by every process, closed by one probe; and the worker's own circuit."""

from __future__ import annotations

import logging
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from maven_cli.errors import (
    ConfigurationError,
    DatabaseDownError,
    LockHeldError,
    MavenError,
    RedisDownError,
    StoppedError,
    TryLaterError,
    UsageError,
)
from maven_cli.logs import logger
from maven_cli.operations import circuits
from maven_cli.operations.circuits import PROBE_LEASE, Circuit
from maven_cli.passes import tickers
from maven_cli.runner import Outcome, Pass
from maven_cli.runner import run as run_pass
from maven_cli.settings import Settings
from tests.conftest import TestServices
from tests.integration.test_show import on_terminal
from tests.support import Cli, Market

NAME = "engine:http"
TICKERS = "worker:tickers"
THRESHOLD = 3
COOL_DOWN = timedelta(seconds=10)
LONGEST = timedelta(seconds=60)
PATIENCE = 30.0  # seconds, on a loaded machine


# --- helpers


def fail(conn: psycopg.Connection, error: str = "no answer", name: str = NAME) -> Circuit:
    return circuits.failed(conn, name, error, threshold=THRESHOLD, cool_down=COOL_DOWN, longest=LONGEST)


def opened(conn: psycopg.Connection) -> Circuit:
    for _ in range(THRESHOLD):
        found = fail(conn)
    return found


def later(conn: psycopg.Connection, by: timedelta) -> None:
    """As if that much time had gone by: the rows' times lie further back."""
    conn.execute(
        "UPDATE circuits SET opened_at = opened_at - %(by)s, retry_at = retry_at - %(by)s", {"by": by}
    )


def wait(circuit: Circuit) -> float:
    assert circuit.retry_at is not None
    return round((circuit.retry_at - circuit.updated_at).total_seconds(), 1)


def state(conn: psycopg.Connection, name: str = NAME) -> tuple[str, int] | None:
    return next(
        ((found.state, found.failures) for found in circuits.listed(conn) if found.name == name), None
    )


def writes_nothing(conn: psycopg.Connection, action: Callable[[], object]) -> object:
    """Runs the action and holds that it changed no row: PostgreSQL gave its transaction no id."""
    with conn.transaction():
        result = action()
        assert conn.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() == (None,)
    return result


# --- counting, opening, closing


def test_a_closed_circuit_is_one_read_and_a_success_writes_nothing(conn: psycopg.Connection) -> None:
    assert writes_nothing(conn, lambda: circuits.admit(conn, NAME)) is True
    writes_nothing(conn, lambda: circuits.succeeded(conn, NAME))
    assert circuits.listed(conn) == []
    fail(conn)
    circuits.succeeded(conn, NAME)
    assert writes_nothing(conn, lambda: circuits.admit(conn, NAME)) is True
    writes_nothing(conn, lambda: circuits.succeeded(conn, NAME))


def test_only_failures_in_a_row_open_it(conn: psycopg.Connection) -> None:
    fail(conn)
    fail(conn)
    circuits.succeeded(conn, NAME)
    assert state(conn) == ("closed", 0)
    fail(conn)
    before = fail(conn, "second")
    assert (before.state, before.failures, before.retry_at, before.last_error) == (
        "closed",
        2,
        None,
        "second",
    )
    assert circuits.admit(conn, NAME)
    after = fail(conn, "third\nhttp://u:hunter2@engine/")
    assert (after.state, after.failures, wait(after)) == ("open", 3, 10.0)
    assert after.last_error == "third http://u:***@engine/"
    assert after.opened_at is not None
    assert writes_nothing(conn, lambda: circuits.admit(conn, NAME)) is False


def test_a_threshold_of_one(conn: psycopg.Connection) -> None:
    found = circuits.failed(conn, NAME, "x", threshold=1, cool_down=COOL_DOWN, longest=LONGEST)
    assert (found.state, found.failures, wait(found)) == ("open", 1, 10.0)


def test_each_failed_probe_doubles_the_wait_up_to_the_longest(conn: psycopg.Connection) -> None:
    first = opened(conn)
    waits = [wait(first)]
    for _ in range(5):
        later(conn, LONGEST)
        assert circuits.admit(conn, NAME)
        assert state(conn) == ("half_open", THRESHOLD + len(waits) - 1)
        waits.append(wait(fail(conn)))
        assert not circuits.admit(conn, NAME)
    assert waits == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    conn.execute("UPDATE circuits SET failures = 1000000, retry_at = now()")
    assert circuits.admit(conn, NAME)
    assert wait(fail(conn)) == 60.0


def test_a_probe_that_succeeds_closes_it_and_all_is_forgotten(conn: psycopg.Connection) -> None:
    opened(conn)
    later(conn, COOL_DOWN)
    assert circuits.admit(conn, NAME)
    circuits.succeeded(conn, NAME)
    [found] = circuits.listed(conn)
    assert (found.state, found.failures, found.opened_at, found.retry_at) == ("closed", 0, None, None)
    assert found.last_error == "no answer"
    assert fail(conn).state == "closed"


def test_calls_that_were_under_way_when_it_opened_are_one_outage(conn: psycopg.Connection) -> None:
    before = opened(conn)
    for _ in range(20):
        assert fail(conn, "late") == before
    # Once the time is over a failure is news, whoever brings it.
    later(conn, COOL_DOWN)
    assert wait(fail(conn, "new")) == 20.0


def test_an_abandoned_probe_hands_its_turn_on(conn: psycopg.Connection) -> None:
    opened(conn)
    circuits.abandoned(conn, NAME)
    assert not circuits.admit(conn, NAME)
    later(conn, COOL_DOWN)
    assert circuits.admit(conn, NAME)
    assert not circuits.admit(conn, NAME)
    circuits.abandoned(conn, NAME)
    assert circuits.admit(conn, NAME)


def test_reset(conn: psycopg.Connection) -> None:
    assert not circuits.reset(conn, NAME)
    opened(conn)
    assert circuits.reset(conn, NAME)
    assert circuits.admit(conn, NAME)
    assert not circuits.reset(conn, NAME)


def test_a_circuit_that_isn_t_named_stays_as_it_is(conn: psycopg.Connection) -> None:
    opened(conn)
    fail(conn, name="engine:redis")
    circuits.reset(conn, NAME)
    assert state(conn, "engine:redis") == ("closed", 1)


# --- several processes

# Waits until the test lets everybody go at once, asks, and stays alive until it is told to end.
PROBE = """
import sys
from maven_cli.db.connection import connect
from maven_cli.operations import circuits
conn = connect(sys.argv[1], "probe")
print("ready", flush=True)
conn.execute("SELECT pg_advisory_lock_shared(42)")
print(circuits.admit(conn, sys.argv[2]), flush=True)
sys.stdin.read()
"""


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@contextmanager
def probes(url: str, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROBE, url, NAME],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_of_processes_that_race_exactly_one_is_the_probe(conn: psycopg.Connection, database_url: str) -> None:
    opened(conn)
    later(conn, COOL_DOWN)
    conn.execute("SELECT pg_advisory_lock(42)")
    with probes(database_url, 4) as started:
        assert [read_line(process) for process in started] == ["ready"] * 4
        conn.execute("SELECT pg_advisory_unlock(42)")
        assert sorted(read_line(process) for process in started) == ["False", "False", "False", "True"]
        assert state(conn) == ("half_open", THRESHOLD)


def test_of_two_that_saw_it_due_the_second_waits_for_the_first_one_s_commit(
    conn: psycopg.Connection, database_url: str
) -> None:
    """The exact race: the second's compare-and-set meets the first one's uncommitted row."""
    opened(conn)
    later(conn, COOL_DOWN)
    with psycopg.connect(database_url) as first, probes(database_url, 1) as [second]:
        assert circuits.admit(first, NAME)
        assert read_line(second) == "ready"
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'maven probe'"
            " AND datname = current_database() AND wait_event_type = 'Lock'"
        )
        give_up = time.monotonic() + PATIENCE
        while conn.execute(waiting).fetchone() != (1,):
            assert time.monotonic() < give_up, "the second one never waited"
            time.sleep(0.01)
        first.commit()
        assert read_line(second) == "False"


def test_a_probe_that_is_killed_blocks_nobody_for_ever(conn: psycopg.Connection, database_url: str) -> None:
    opened(conn)
    later(conn, COOL_DOWN)
    with probes(database_url, 1) as [process]:
        assert [read_line(process), read_line(process)] == ["ready", "True"]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not circuits.admit(conn, NAME)
    later(conn, PROBE_LEASE - timedelta(seconds=5))
    assert not circuits.admit(conn, NAME)
    later(conn, timedelta(seconds=5))
    assert circuits.admit(conn, NAME)
    assert not circuits.admit(conn, NAME)


# --- a worker's circuit: what counts


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The messages of a pass in this process, as they come."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.levelname} {record.getMessage()}")

    monkeypatch.setattr(logger, "handlers", [Keep()])
    before = logger.level
    logger.setLevel(logging.INFO)
    yield found
    logger.setLevel(before)


@pytest.fixture
def impatient(services: TestServices) -> TestServices:
    """Two failures in a row open the circuit, for a minute; for up to four when it is a bug."""
    services.settings = replace_settings(
        services.settings,
        circuit_failures=2,
        circuit_cool_down=timedelta(minutes=1),
        circuit_longest=timedelta(minutes=4),
    )
    return services


def replace_settings(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update=changes)


def one_pass(services: TestServices, error: Exception | None = None, **options: Any) -> Outcome | Exception:
    """A pass that ends with that error, or well."""

    def body(_: Pass) -> dict[str, Any]:
        if error is not None:
            raise error
        return {}

    try:
        return run_pass(tickers.WORKER, body, services, **options)
    except Exception as raised:  # noqa: BLE001 that is what is looked at
        return raised


def skipped(ended: Outcome | Exception) -> bool:
    return isinstance(ended, Outcome) and (ended.status, ended.exit_code) == ("skipped", 75)


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (RedisDownError("Redis is gone"), True),
        (DatabaseDownError("PostgreSQL gave up"), True),
        (OSError(28, "No space left on device"), True),
        (RuntimeError("a bug"), True),
        (MavenError("a bug of ours"), True),
        (psycopg.errors.DivisionByZero("a bug in SQL"), True),
        (UsageError("no such pair"), False),
        (ConfigurationError("a wrong password"), False),
        (TryLaterError("busy"), False),
        (LockHeldError(), False),
        (psycopg.errors.DeadlockDetected("deadlock detected"), False),
        (StoppedError("stopped by SIGTERM"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_counts_against_a_worker(
    impatient: TestServices, conn: psycopg.Connection, error: Exception, counts: bool
) -> None:
    one_pass(impatient, error)
    one_pass(impatient, error)
    assert state(conn, TICKERS) == (("open", 2) if counts else None)
    assert skipped(one_pass(impatient)) == counts


def test_a_pass_with_failed_items_ran_and_forgets_the_failures(
    impatient: TestServices, conn: psycopg.Connection
) -> None:
    def partial(current: Pass) -> dict[str, Any]:
        current.fail("BTC/USDT", RuntimeError("one pair"))
        return {}

    one_pass(impatient, RuntimeError("x"))
    assert run_pass(tickers.WORKER, partial, impatient).status == "partial"
    one_pass(impatient, RuntimeError("x"))
    assert state(conn, TICKERS) == ("closed", 1)
    one_pass(impatient, UsageError("neither success nor failure"))
    one_pass(impatient, RuntimeError("x"))
    assert state(conn, TICKERS) == ("open", 2)


def test_a_good_pass_leaves_no_row(impatient: TestServices, conn: psycopg.Connection) -> None:
    assert not isinstance(one_pass(impatient), Exception)
    assert circuits.listed(conn) == []


def test_what_was_down_waits_always_as_long_and_a_bug_ever_longer(
    impatient: TestServices, conn: psycopg.Connection
) -> None:
    def waits(error: Exception) -> list[float]:
        conn.execute("DELETE FROM circuits")
        one_pass(impatient, error)
        found = []
        for _ in range(4):
            one_pass(impatient, error)
            found.append(wait(circuits.listed(conn)[0]))
            later(conn, timedelta(minutes=4))
        return found

    assert waits(RedisDownError("gone")) == [60.0, 60.0, 60.0, 60.0]
    assert waits(RuntimeError("a bug")) == [60.0, 120.0, 240.0, 240.0]
    assert circuits.listed(conn)[0].last_error == "RuntimeError: a bug"


def test_skips_and_their_end_are_told_and_recorded(
    impatient: TestServices, conn: psycopg.Connection, lines: list[str]
) -> None:
    one_pass(impatient, RedisDownError("Redis at h:1 can't be reached"))
    assert lines == []
    one_pass(impatient, RedisDownError("Redis at h:1 can't be reached"))
    time_pattern = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    [line] = lines
    assert re.fullmatch(
        rf"WARNING \[TickerUpdateWorker\] Circuit opened after 2 failures in a row, next attempt at {time_pattern}",
        line,
    )
    lines.clear()
    outcome = one_pass(impatient)
    assert isinstance(outcome, Outcome)
    [line] = lines
    reason = rf"Circuit open until {time_pattern}: Redis at h:1 can't be reached"
    assert re.fullmatch(rf"WARNING \[TickerUpdateWorker\] {reason}, skipping\.\.\.", line)
    [error] = outcome.errors
    assert re.fullmatch(reason, error.message)
    record = conn.execute(
        "SELECT outcome, counts, error FROM worker_runs ORDER BY id DESC LIMIT 1"
    ).fetchone()
    assert record == ("skipped", {}, error.message)
    lines.clear()
    later(conn, timedelta(minutes=1))
    assert not isinstance(one_pass(impatient), Exception)
    assert lines == ["INFO [TickerUpdateWorker] Circuit closed after 2 failures in a row"]
    lines.clear()
    one_pass(impatient)
    assert lines == []
    outcomes = [row[0] for row in conn.execute("SELECT outcome FROM worker_runs ORDER BY id")]
    assert outcomes == ["error", "error", "skipped", "success", "success"]


def test_a_probe_that_is_stopped_hands_its_turn_on_at_once(
    impatient: TestServices, conn: psycopg.Connection
) -> None:
    one_pass(impatient, RuntimeError("x"))
    one_pass(impatient, RuntimeError("x"))
    for error in (StoppedError("SIGTERM"), ConfigurationError("x"), psycopg.errors.DeadlockDetected("x")):
        later(conn, timedelta(minutes=1))
        assert not skipped(one_pass(impatient, error))
        assert state(conn, TICKERS) == ("open", 2)
    assert not skipped(one_pass(impatient))
    assert state(conn, TICKERS) == ("closed", 0)


def test_a_probe_that_finds_the_lock_held_leaves_the_verdict_to_its_holder(
    impatient: TestServices, conn: psycopg.Connection
) -> None:
    one_pass(impatient, RuntimeError("x"))
    one_pass(impatient, RuntimeError("x"))
    later(conn, timedelta(minutes=1))
    assert skipped(one_pass(impatient, LockHeldError()))
    assert state(conn, TICKERS) == ("half_open", 2)
    later(conn, PROBE_LEASE)
    assert not skipped(one_pass(impatient))


def test_read_only_runs_neither_count_nor_are_skipped(
    impatient: TestServices, conn: psycopg.Connection
) -> None:
    read_only: list[dict[str, Any]] = [{"dry_run": True}, {"record": False}]
    for options in read_only:
        for _ in range(3):
            assert isinstance(one_pass(impatient, RuntimeError("x"), **options), RuntimeError)
    assert circuits.listed(conn) == []
    one_pass(impatient, RuntimeError("x"))
    one_pass(impatient, RuntimeError("x"))
    before = circuits.listed(conn)
    for options in read_only:
        assert not skipped(one_pass(impatient, **options))
    assert circuits.listed(conn) == before


def test_another_scope_s_circuit_is_nobody_s_business(
    impatient: TestServices, conn: psycopg.Connection
) -> None:
    one_pass(impatient, RuntimeError("x"))
    one_pass(impatient, RuntimeError("x"))
    other = replace(tickers.WORKER, scope="tickers:other")
    assert run_pass(other, lambda _: {}, impatient).status == "success"


def test_when_the_database_is_gone_nothing_is_counted(
    impatient: TestServices, conn: psycopg.Connection, lines: list[str]
) -> None:
    def body(current: Pass) -> dict[str, Any]:
        conn.execute("SELECT pg_terminate_backend(%s, 10000)", [current.conn.info.backend_pid])
        current.conn.execute("SELECT 1")
        return {}

    for _ in range(3):
        with pytest.raises(DatabaseDownError, match="the connection to PostgreSQL broke"):
            run_pass(tickers.WORKER, body, impatient)
    assert circuits.listed(conn) == []
    assert lines == []


def test_a_circuit_that_can_t_be_written_is_told(
    impatient: TestServices, conn: psycopg.Connection, lines: list[str]
) -> None:
    conn.execute("ALTER TABLE circuits ADD CONSTRAINT nothing CHECK (failures = 0)")
    assert isinstance(one_pass(impatient, RuntimeError("x")), RuntimeError)
    [line] = lines
    assert line.startswith(
        "ERROR [TickerUpdateWorker] The circuit can't be kept: CheckViolation: new row for relation"
    )


# --- the same with the real command


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_tickers_without_redis_until_it_is_back(
    cli: Cli, conn: psycopg.Connection, market: Market, redis_url: str
) -> None:
    market.trade(timedelta(minutes=-1))
    patience = {"MAVEN_CIRCUIT_FAILURES": "2", "MAVEN_CIRCUIT_COOL_DOWN": "5s"}
    down = {**patience, "MAVEN_REDIS_URL": f"redis://:hunter2@127.0.0.1:{closed_port()}/0"}
    back = {**patience, "MAVEN_REDIS_URL": redis_url}

    def retry_at() -> datetime:
        [found] = circuits.listed(conn)
        assert found.retry_at is not None
        return found.retry_at

    first, second = (cli("tickers", "update", env=down) for _ in range(2))
    assert (first.code, second.code) == (69, 69)
    assert "Circuit opened" not in first.err
    assert "Circuit opened after 2 failures in a row" in second.err
    due = retry_at()
    assert due - market.now() <= timedelta(seconds=5)

    third = cli("tickers", "update", "--json", env=down)
    assert third.code == 75
    [line] = third.err.splitlines()
    assert " warn  [TickerUpdateWorker] Circuit open until " in line
    assert re.search(r": Redis at 127\.0\.0\.1:\d+ can't be reached: .*, skipping\.\.\.$", line)
    assert "hunter2" not in third.out + third.err
    document = third.document
    assert (document["status"], document["exit_code"], document["data"]) == ("skipped", 75, None)
    # Redis is back, and nobody knows it yet.
    assert cli("tickers", "update", env=back).code == 75
    assert cli("tickers", "update", "--dry-run", env=down).code == 0
    assert retry_at() == due

    until(lambda: market.now() > due)
    probe = cli("tickers", "update", env=down)
    assert (probe.code, state(conn, TICKERS)) == (69, ("open", 3))
    due = retry_at()
    assert due - market.now() <= timedelta(seconds=5)

    until(lambda: market.now() > due)
    healed = cli("tickers", "update", env=back)
    assert healed.code == 0
    assert "[TickerUpdateWorker] Circuit closed after 3 failures in a row" in healed.err
    again = cli("tickers", "update", env=back)
    assert (again.code, "Circuit" in again.err) == (0, False)
    outcomes = [row[0] for row in conn.execute("SELECT outcome FROM worker_runs ORDER BY id")]
    assert outcomes == ["error", "error", "skipped", "skipped", "error", "success", "success"]


def until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_a_worker_killed_as_a_probe(
    cli: Cli, conn: psycopg.Connection, market: Market, database_url: str
) -> None:
    market.trade(timedelta(minutes=-1))
    opened_for(conn, TICKERS)
    later(conn, COOL_DOWN)
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
        process = cli.start("tickers", "update")
        try:
            until(lambda: state(conn, TICKERS) == ("half_open", THRESHOLD))
            process.kill()
        finally:
            process.kill()
            process.communicate()
        holder.rollback()
    assert cli("tickers", "update").code == 75
    later(conn, PROBE_LEASE)
    assert cli("tickers", "update").code == 0
    assert state(conn, TICKERS) == ("closed", 0)


def opened_for(conn: psycopg.Connection, name: str) -> None:
    for _ in range(THRESHOLD):
        fail(conn, "Redis at [h]:1 can't be reached: " + "x" * 200, name)


def test_the_defaults_keep_the_promise_of_the_documentation() -> None:
    """A pass every 10 s or more often is back within 30 s of what it needs, and a 15 s restart of Redis opens nothing."""
    settings = Settings()  # type: ignore[call-arg]
    assert settings.circuit_cool_down + timedelta(seconds=10) <= timedelta(seconds=30)
    assert timedelta(seconds=5) * (settings.circuit_failures - 1) >= timedelta(seconds=15)
    assert settings.circuit_longest >= settings.circuit_cool_down


# --- the commands


def test_list(cli: Cli, conn: psycopg.Connection) -> None:
    assert cli("circuits", "list").out == "there are no circuits: nothing has failed as a whole yet\n"
    assert cli("circuits", "list", "--json").document["data"] == []
    opened_for(conn, TICKERS)
    fail(conn)
    lines = cli("circuits", "list").out.splitlines()
    assert lines[0].split() == [
        "name", "state", "failures", "opened_at", "retry_at", "updated_at", "last_error",
    ]  # fmt: skip
    assert lines[1].split(maxsplit=2)[:2] == [NAME, "closed"]
    assert lines[2].split(maxsplit=3)[:3] == [TICKERS, "open", "3"]
    assert lines[2].endswith("Redis at [h]:1 can't be reached: " + "x" * 200)
    first, second = cli("circuits", "list", "--json").document["data"]
    assert (first["name"], first["state"], first["retry_at"]) == (NAME, "closed", None)
    assert (second["name"], second["failures"]) == (TICKERS, 3)
    assert second["retry_at"].endswith("Z")


@pytest.mark.parametrize(
    "command", [("circuits", "list"), ("dlq", "list", "--all"), ("incidents", "list", "--all")]
)
def test_lists_fit_a_terminal_of_80_columns(
    cli: Cli, conn: psycopg.Connection, command: tuple[str, ...]
) -> None:
    from maven_cli.operations import dead_letters, incidents

    opened_for(conn, "worker:orders-expire")
    text = "engine says [no] to it, and " + "x" * 200
    dead_letters.record(conn, "orders-expire", "order:123456", text, base=COOL_DOWN, limit=LONGEST)
    incidents.open_incident(conn, "engine-mismatch", "order:123456", text)
    with on_terminal(cli, *command) as terminal:
        terminal.until_ended()
        shown = [line.rstrip() for line in terminal.text().splitlines() if line.strip()]
    assert terminal.process.returncode == 0
    assert len(shown) == 2, shown
    assert shown[1].endswith("…")
    assert "[" in shown[1]


def test_reset_by_name(cli: Cli, conn: psycopg.Connection) -> None:
    done = cli("circuits", "reset", TICKERS)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"maven: no circuit '{TICKERS}'; there are none yet\n"
    opened_for(conn, TICKERS)
    opened(conn)
    done = cli("circuits", "reset", TICKERS, "worker:ticker", "--json")
    assert done.code == 2
    assert done.document["errors"][0]["message"] == (
        f"no circuit 'worker:ticker'; choose from {NAME}, {TICKERS}"
    )
    assert state(conn, TICKERS) == ("open", THRESHOLD)
    done = cli("circuits", "reset", TICKERS, NAME)
    assert (done.code, done.out) == (0, f"{TICKERS} is now closed\n{NAME} is now closed\n")
    assert state(conn, TICKERS) == state(conn) == ("closed", 0)
    assert cli("circuits", "reset", NAME).out == f"{NAME} was already closed\n"
    assert cli("circuits", "reset", NAME, "--json").document["data"] == [{"name": NAME, "changed": False}]
    assert cli("tickers", "update").code == 0
