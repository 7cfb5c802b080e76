"""What every pass has in common: exit codes, the lock, signals, run records, log lines, and secrets that stay secret."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pytest
import redis
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from maven_cli import embedded
from maven_cli.__main__ import run
from maven_cli.db.connection import answers, connect, redact
from maven_cli.db.locks import PASS_NAMESPACE, WORK_NAMESPACE, PassLock, lock_key, pass_lock
from maven_cli.db.migrate import upgrade
from maven_cli.db.revision import REVISION
from maven_cli.errors import DatabaseDownError, StoppedError
from maven_cli.intervals import INTERVALS
from maven_cli.market.candles import WRITE_KEY
from maven_cli.market.tickers import key
from maven_cli.passes import candles, tickers
from maven_cli.runner import Pass
from maven_cli.runner import run as run_pass
from maven_cli.stopping import Stop
from tests.conftest import TestServices
from tests.support import Cli, Done, Market

SKIPPED = "Previous run still running, skipping..."
TICKERS = ("tickers", "update")
CANDLES = ("candles", "gen", "--interval", "1m")
COMMANDS = pytest.mark.parametrize("command", [TICKERS, CANDLES], ids=["tickers", "candles"])
SECRET = "hunter2-never-to-be-seen"
PATIENCE = 30.0  # seconds, on a loaded machine
PGBOUNCER = Path("/usr/sbin/pgbouncer")


# --- helpers


@dataclass
class Here:
    """`maven` in this process: as `Cli`, without half a second of imports each time."""

    cli: Cli
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *args: str, env: Mapping[str, str] | None = None) -> Done:
        with self.monkeypatch.context() as patch:
            for name, value in {**self.cli.variables, **(env or {})}.items():
                patch.setenv(name, value)
            self.capsys.readouterr()
            code = run(list(args))
        out, err = self.capsys.readouterr()
        return Done(code, out, err)


@pytest.fixture
def maven(cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(cli, monkeypatch, capsys)


def passwords(*urls: str) -> list[str]:
    """The passwords of URLs, wherever they stand in them."""
    found = [SECRET]
    for url in urls:
        parts = urlsplit(url)
        found += [parts.password or "", *parse_qs(parts.query).get("password", [])]
    return [password for password in [*found, *map(unquote, found)] if password]


def no_secret(done: Done, *urls: str) -> None:
    for password in passwords(*urls):
        assert password not in done.out
        assert password not in done.err


def failed(done: Done, code: int, message: str) -> None:
    """It ended with that code and one line for people; with --json, one document says the same."""
    assert done.code == code, done.err
    lines = [line for line in done.err.splitlines() if line.startswith("maven: ")]
    assert len(lines) == 1, done.err
    assert re.search(message, lines[0]), lines[0]
    assert "Traceback" not in done.err
    if done.out:
        document = done.document
        assert document["exit_code"] == code
        assert document["status"] == ("skipped" if code == 75 else "error")
        assert document["data"] is None
        assert [f"maven: {error['message']}" for error in document["errors"]] == lines


def records(conn: psycopg.Connection) -> list[tuple[Any, ...]]:
    return conn.execute(
        "SELECT worker, scope, outcome, counts, error FROM worker_runs ORDER BY id"
    ).fetchall()


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for something that another process is about to do."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain: {what}"
        time.sleep(0.01)


@contextmanager
def locked(url: str, table: str) -> Iterator[psycopg.Connection]:
    """Nobody can read or write the table inside the block, or until the connection is rolled back."""
    with psycopg.connect(url) as holder:
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        yield holder
        holder.rollback()


@contextmanager
def blocked(cli: Cli, conn: psycopg.Connection, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A real process in the middle of its pass: it waits for a table that a test holds."""
    process = cli.start(*command)
    scope = "tickers" if command[0] == "tickers" else f"candles:{command[3]}"
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = %s AND datname = %s AND wait_event_type = 'Lock'"
    )
    parameters = [f"maven {scope}", conn.info.dbname]
    try:
        until(
            lambda: process.poll() is not None or conn.execute(query, parameters).fetchone() == (1,),
            "the pass to wait for the table",
        )
        assert process.poll() is None, process.communicate()
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[bytes]) -> Done:
    out, err = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, out.decode(), err.decode())


def end_sessions(conn: psycopg.Connection, name: str) -> None:
    """Ends PostgreSQL's side of the named sessions, and waits until they are gone."""
    found = conn.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = %s AND datname = %s",
        [name, conn.info.dbname],
    ).fetchall()
    assert found == [(True,)], found


def set_database(conn: psycopg.Connection, name: str, value: str) -> None:
    conn.execute(
        sql.SQL("ALTER DATABASE {} SET {} TO {}").format(
            sql.Identifier(conn.info.dbname), sql.Identifier(name), sql.Literal(value)
        )
    )


def with_password(url: str, password: str) -> str:
    """The URL with another password, wherever it stands."""
    for old in passwords(url):
        url = url.replace(old, password)
    assert password in url
    return url


def lock_is_free(url: str, scope: str) -> bool:
    with pass_lock(url, scope):
        return True


# --- E12 and the lock


def test_e12_every_scope_s_lock_key_is_distinct_and_fits_int4(conn: psycopg.Connection) -> None:
    scopes = [
        tickers.WORKER.scope,
        *(candles.worker(interval).scope for interval in INTERVALS.values()),
        "candles:backfill",
        "candles:verify",
    ]
    assert scopes[:2] == ["tickers", "candles:1m"]
    assert len(scopes) == 12
    keys = [lock_key(scope) for scope in [*scopes, WRITE_KEY, "db:upgrade"]]
    assert len(set(keys)) == len(keys)
    assert any(number < 0 for number in keys), "none needed the sign: the test would pass without it"
    assert PASS_NAMESPACE != WORK_NAMESPACE
    for number in (*keys, PASS_NAMESPACE, WORK_NAMESPACE):
        assert conn.execute("SELECT %s::int4", [number]).fetchone() == (number,)


def test_the_lock_s_transaction_holds_no_snapshot_and_times_out_without_its_heartbeat(
    services: TestServices, conn: psycopg.Connection
) -> None:
    set_database(conn, "default_transaction_isolation", "repeatable read")
    with pass_lock(services.lock_url, "tickers") as lock:
        row = conn.execute(
            "SELECT state, backend_xmin, backend_xid FROM pg_stat_activity"
            " WHERE application_name = 'maven lock tickers' AND datname = current_database()"
        ).fetchone()
        assert row == ("idle in transaction", None, None)
        asked = lock._conn.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert asked == ("30s",)
        assert lock._conn.execute("SHOW transaction_read_only").fetchone() == ("on",)
        lock.verify()


def test_the_lock_is_free_before_its_connection_closes(
    services: TestServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL notices a closed connection some time later, and the next pass may start at once."""
    free: list[bool] = []
    with pass_lock(services.lock_url, "tickers") as lock:
        close = lock._conn.close

        def look() -> None:
            free.append(lock_is_free(services.lock_url, "tickers"))
            close()

        monkeypatch.setattr(lock._conn, "close", look)
    assert free[0]


def test_e10_the_heartbeat_keeps_a_lock_and_without_it_postgresql_frees_it(
    services: TestServices, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = (
        "SELECT state_change FROM pg_stat_activity"
        " WHERE application_name = 'maven lock tickers' AND datname = current_database()"
    )
    monkeypatch.setattr("maven_cli.db.locks.HEARTBEAT", 0.05)
    with pass_lock(services.lock_url, "tickers"):
        for _ in range(2):
            before = conn.execute(query).fetchall()
            until(lambda seen=before: conn.execute(query).fetchall() != seen, "a heartbeat")  # type: ignore[misc]
    # A host that vanished: its heartbeat stops.
    monkeypatch.setattr("maven_cli.db.locks.HEARTBEAT", 60.0)
    monkeypatch.setattr("maven_cli.db.locks.IDLE_TIMEOUT", "100ms")
    with pass_lock(services.lock_url, "tickers") as lock:
        until(lambda: conn.execute(query).fetchall() == [], "PostgreSQL to end the lock's session")
        assert lock_is_free(services.lock_url, "tickers")
        with pytest.raises(DatabaseDownError, match="the lock tickers was lost"):
            lock.verify()


@COMMANDS
@pytest.mark.parametrize("style", ["text", "json", "journal"])
def test_t11_a_second_pass_is_skipped_with_the_platform_s_line(
    maven: Here, conn: psycopg.Connection, database_url: str, command: tuple[str, ...], style: str
) -> None:
    scope, label = {
        "tickers": ("tickers", "TickerUpdateWorker"),
        "candles": ("candles:1m", "CandleGenerationWorker"),
    }[command[0]]
    with pass_lock(database_url, scope):
        done = maven(*command, "--json", env={"MAVEN_LOG_FORMAT": style})
    assert done.code == 75
    [line] = done.err.splitlines()
    expected = f"[{label}] {SKIPPED}"
    if style == "json":
        fields = json.loads(line)
        assert (fields["level"], fields["action"], fields["message"]) == ("warn", "pass.skipped", expected)
    elif style == "journal":
        assert line == f"<4>{expected}"
    else:
        assert re.fullmatch(rf"\S{{24}} warn  {re.escape(expected)}", line)
    document = done.document
    assert (document["status"], document["exit_code"], document["data"]) == ("skipped", 75, None)
    assert document["errors"] == [{"item": "", "message": SKIPPED}]
    assert records(conn) == [(command[0], scope, "skipped", {}, SKIPPED)]


def test_t11_of_two_processes_one_runs(
    cli: Cli, maven: Here, conn: psycopg.Connection, database_url: str, market: Market
) -> None:
    market.trade(timedelta(minutes=-1))
    with locked(database_url, "trades") as holder, blocked(cli, conn, *TICKERS) as process:
        done = maven(*TICKERS)
        assert done.code == 75
        assert SKIPPED in done.err
        # --pair narrows the work, not the lock.
        assert maven(*TICKERS, "--pair", "BTC/USDT").code == 75
        holder.rollback()
        assert ended(process).code == 0
    assert [row[2] for row in records(conn)] == ["skipped", "skipped", "success"]


def test_locks_may_live_on_another_database(
    maven: Here, conn: psycopg.Connection, database_url: str, empty_database_url: str
) -> None:
    """MAVEN_LOCK_DATABASE_URL: beside a small pool the locks have their own way to PostgreSQL."""
    env = {"MAVEN_LOCK_DATABASE_URL": empty_database_url}
    with pass_lock(empty_database_url, "tickers"):
        assert maven(*TICKERS, env=env).code == 75
        assert maven(*TICKERS).code == 0
    assert maven(*TICKERS, env=env).code == 0


# --- E02, E03, E04, E09: what happens in the middle


def test_e02_a_pass_that_lost_its_lock_commits_nothing_more(
    cli: Cli, maven: Here, conn: psycopg.Connection, database_url: str, market: Market
) -> None:
    market.trade(timedelta(minutes=-10))
    with locked(database_url, "candles") as holder, blocked(cli, conn, *CANDLES, "--json") as process:
        end_sessions(conn, "maven lock candles:1m")
        before = conn.execute("SELECT closed_until FROM candle_progress").fetchall()
        holder.rollback()
        done = ended(process)
    failed(
        done, 69, r"the lock candles:1m was lost \(.*\); stopped before the next commit, nothing is half-done"
    )
    assert conn.execute("SELECT count(*) FROM candles").fetchone() == (0,)
    assert conn.execute("SELECT closed_until FROM candle_progress").fetchall() == before
    assert [row[2] for row in records(conn)] == ["error"]
    assert maven(*CANDLES).code == 0
    assert conn.execute("SELECT count(*) > 0 FROM candles").fetchone() == (True,)


@pytest.mark.parametrize(
    ("number", "code", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "SIGINT")]
)
@pytest.mark.parametrize(
    ("command", "table"),
    # trading_pairs is read outside of any work transaction.
    [(TICKERS, "trades"), (TICKERS, "trading_pairs"), (CANDLES, "candles")],
    ids=["tickers", "tickers, before its snapshot", "candles"],
)
def test_e03_a_signal_cancels_the_statement_and_frees_the_lock(
    cli: Cli,
    maven: Here,
    conn: psycopg.Connection,
    database_url: str,
    market: Market,
    command: tuple[str, ...],
    table: str,
    number: signal.Signals,
    code: int,
    name: str,
) -> None:
    market.trade(timedelta(minutes=-10))
    with locked(database_url, table), blocked(cli, conn, *command, "--json") as process:
        process.send_signal(number)
        done = ended(process)  # the table is still locked
        scope = "tickers" if command[0] == "tickers" else "candles:1m"
        assert lock_is_free(database_url, scope)
    failed(done, code, f"stopped by {name}; the next pass goes on from here")
    [record] = records(conn)
    assert record[2] == "stopped"
    assert record[4] == f"stopped by {name}; the next pass goes on from here"
    assert conn.execute("SELECT count(*) FROM candles").fetchone() == (0,)
    assert maven(*command).code == 0


def test_e03_a_signal_between_two_statements_is_not_lost(
    services: TestServices, conn: psycopg.Connection
) -> None:
    """The first cancellation finds nothing to cancel, then a statement starts that would wait for ever."""
    stop = Stop()

    def body(current: Pass) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        current.conn.execute("SELECT pg_sleep(60)")
        raise AssertionError("the statement wasn't cancelled")

    with pytest.raises(StoppedError):
        run_pass(tickers.WORKER, body, services, stop=stop)
    assert [row[2] for row in records(conn)] == ["stopped"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.fixture
def throw_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home for servers that a test may stop."""
    home = Path(tempfile.mkdtemp(prefix="maven-x-", dir="/tmp"))
    home.chmod(0o755)
    monkeypatch.setenv("MAVEN_EMBEDDED_LINGER", "60")
    try:
        yield home / "e"
    finally:
        if (home / "e").exists():
            embedded.stop(home / "e", force=True)
        shutil.rmtree(home, ignore_errors=True)


@COMMANDS
def test_e04_postgresql_restarts_in_the_middle(
    throw_away: Path, redis_url: str, tmp_path: Path, command: tuple[str, ...]
) -> None:
    url = embedded.attach(throw_away, redis=False).database_url
    upgrade(url)
    cli = Cli({"MAVEN_DATABASE_URL": url, "MAVEN_REDIS_URL": redis_url, "MAVEN_HOME": str(tmp_path / "home")})
    table = "trades" if command[0] == "tickers" else "candles"
    with psycopg.connect(url, autocommit=True) as conn:
        Market(conn).trade(timedelta(minutes=-10))
        holder = psycopg.connect(url)
        holder.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        with blocked(cli, conn, *command, "--json") as process:
            embedded.stop(throw_away, force=True)
            done = ended(process)
        holder.close()
    failed(done, 69, "the connection to PostgreSQL broke|the lock .* was lost")
    no_secret(done, url)
    down = cli(*command, "--json")
    failed(down, 69, "can't be reached")
    no_secret(down, url)
    assert embedded.attach(throw_away, redis=False).database_url == url
    assert cli(*command).code == 0
    with psycopg.connect(url) as conn:
        count = conn.execute("SELECT count(*) FROM candles").fetchone()
        assert count is not None
        assert (count[0] > 0) == (command is CANDLES)


def test_e09_a_frozen_pass_that_wakes_up_has_no_effect_beside_its_successor(
    cli: Cli, maven: Here, conn: psycopg.Connection, database_url: str, market: Market
) -> None:
    market.trade(timedelta(minutes=-10), "100")
    with locked(database_url, "trading_pairs") as holder, blocked(cli, conn, *CANDLES, "--json") as process:
        process.send_signal(signal.SIGSTOP)
        holder.rollback()
        end_sessions(conn, "maven lock candles:1m")  # as PostgreSQL does after 30 s without a heartbeat
        assert maven(*CANDLES).code == 0
        state = [conn.execute(f"SELECT t::text FROM {table} t ORDER BY 1").fetchall() for table in WRITTEN]
        process.send_signal(signal.SIGCONT)
        done = ended(process)
    failed(done, 69, "the lock candles:1m was lost")
    assert [
        conn.execute(f"SELECT t::text FROM {table} t ORDER BY 1").fetchall() for table in WRITTEN
    ] == state


WRITTEN = ("candles", "candle_progress", "candle_marks", "ingest_state")


def test_a_pass_frozen_inside_a_work_transaction_keeps_others_from_writing(
    cli: Cli,
    conn: psycopg.Connection,
    database_url: str,
    market: Market,
    services: TestServices,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise 3: its lock connection is gone, its work transaction isn't."""
    market.trade(timedelta(minutes=-10), "100")
    monkeypatch.setattr("maven_cli.passes.candles.WAIT_MS", 100)
    with locked(database_url, "candles") as holder, blocked(cli, conn, *CANDLES) as process:
        process.send_signal(signal.SIGSTOP)
        end_sessions(conn, "maven lock candles:1m")
        with pytest.raises(Exception, match="PostgreSQL was busy") as caught:
            candles.generate(services, INTERVALS["1m"])
        assert getattr(caught.value, "exit_code", None) == 75
        process.send_signal(signal.SIGCONT)
        holder.rollback()
        assert ended(process).code == 69
    assert [row[2] for row in records(conn)] == ["skipped", "error"]


# --- E05, E06: configuration


@COMMANDS
@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("0000", f"the database is at revision 0000, this maven needs {REVISION}; run: maven db upgrade"),
        (
            "9999",
            f"the database is at revision 9999, newer than this maven, which knows {REVISION}; install a newer",
        ),
    ],
    ids=["older", "newer"],
)
def test_e05_another_schema_revision(
    maven: Here, conn: psycopg.Connection, command: tuple[str, ...], found: str, message: str
) -> None:
    conn.execute("UPDATE maven_schema_version SET version_num = %s", [found])
    failed(maven(*command, "--json"), 78, re.escape(message))


@COMMANDS
def test_e05_no_schema_at_all(maven: Here, empty_database_url: str, command: tuple[str, ...]) -> None:
    done = maven(*command, "--json", env={"MAVEN_DATABASE_URL": empty_database_url})
    failed(
        done,
        78,
        f"the database has no maven schema, this maven needs revision {REVISION}; run: maven db upgrade",
    )


@pytest.mark.parametrize("change", ["DROP TABLE candles", "ALTER TABLE trades DROP COLUMN xid"])
@COMMANDS
def test_e05_a_schema_that_was_changed_by_hand(
    maven: Here, conn: psycopg.Connection, market: Market, command: tuple[str, ...], change: str
) -> None:
    """A missing table is nobody's item error."""
    market.trade(timedelta(minutes=-10))
    assert maven(*CANDLES).code == 0
    conn.execute(change)
    failed(maven(*command, "--json"), 78, "the schema isn't what maven needs: .*; run: maven db check")


@COMMANDS
def test_missing_rights_are_configuration(
    maven: Here, conn: psycopg.Connection, market: Market, command: tuple[str, ...]
) -> None:
    if conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (True,):
        pytest.skip("a superuser has every right; MAVEN_TEST_DATABASE_URL names one")
    market.trade(timedelta(minutes=-10))
    assert maven(*CANDLES).code == 0
    conn.execute("REVOKE ALL ON candles FROM CURRENT_USER")
    market.trade(timedelta(minutes=-11))
    failed(
        maven(*command, "--json"),
        78,
        "PostgreSQL refuses: permission denied for table candles; grant it to maven",
    )


def test_a_role_that_may_not_connect(maven: Here, conn: psycopg.Connection, database_url: str) -> None:
    if conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (True,):
        pytest.skip("a superuser has every right; MAVEN_TEST_DATABASE_URL names one")
    conn.execute(
        sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC, CURRENT_USER").format(
            sql.Identifier(conn.info.dbname)
        )
    )
    done = maven(*TICKERS, "--json")
    failed(done, 78, "refuses: .*permission denied for database .*; grant it to maven's role")
    no_secret(done, database_url)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MAVEN_TICKER_TTL", SECRET, "MAVEN_TICKER_TTL must be a duration like 5s"),
        ("MAVEN_TICKER_BATCH", SECRET, "MAVEN_TICKER_BATCH must be a whole number"),
        ("LOG_LEVEL", SECRET, "LOG_LEVEL accepts debug, info, warn or error"),
        ("MAVEN_LOG_FORMAT", SECRET, "MAVEN_LOG_FORMAT accepts text, json or journal"),
        (
            "MAVEN_DATABASE_URL",
            f"mysql://u:{SECRET}@h/d",
            "MAVEN_DATABASE_URL must be a URL that starts with",
        ),
        ("MAVEN_REDIS_URL", f"http://:{SECRET}@h", "MAVEN_REDIS_URL must be a URL that starts with"),
        (
            "MAVEN_DATABSE_URL",
            SECRET,
            "MAVEN_DATABSE_URL is not a setting of maven; did you mean MAVEN_DATABASE_URL",
        ),
    ],
)
def test_e06_a_wrong_setting(maven: Here, name: str, value: str, message: str) -> None:
    done = maven(*TICKERS, "--json", env={name: value})
    failed(done, 78, message)
    no_secret(done)


def test_e06_in_a_process_of_its_own(cli: Cli) -> None:
    done = cli(*TICKERS, env={"MAVEN_TICKER_TTL": SECRET})
    assert (done.code, done.out) == (78, "")
    assert done.err == "maven: MAVEN_TICKER_TTL must be a duration like 5s, 250ms, 2min or 1h\n"


UNESCAPED = (
    "^maven: {name} is not a valid PostgreSQL URL; write @ as %40, / as %2F and : as %3A in a password$"
)
CONNECTIONS: dict[str, tuple[Callable[[str], str], int, str]] = {
    "wrong password": (
        lambda url: with_password(url, SECRET),
        78,
        "refuses the credentials; check {name}",
    ),
    "no such database": (
        lambda url: re.sub(r"/maven_\w+", "/nowhere", url),
        78,
        "has no such database or role",
    ),
    "no such socket": (lambda _: f"postgresql://u:{SECRET}@/d?host=/nonexistent", 69, "can't be reached"),
    "no such port": (
        lambda _: f"postgresql://u:{SECRET}@127.0.0.1:1/d",
        69,
        "127.0.0.1:1/d can't be reached",
    ),
    "no such host": (lambda _: f"postgresql://u:{SECRET}@nowhere.invalid/d", 69, "can't be reached"),
    "no URL": (lambda _: f"postgresql://u:{SECRET}@[::1/d", 78, "{name} is not a valid PostgreSQL URL"),
    "bad escape": (lambda _: f"postgresql://u:{SECRET}%zz@h/d", 78, "{name} is not a valid PostgreSQL URL"),
    "bad option": (
        lambda _: f"postgresql://u:{SECRET}@h/d?colour=red",
        78,
        "{name} is not a valid PostgreSQL URL",
    ),
    "bad port": (
        lambda _: f"postgresql://u:{SECRET}@127.0.0.1:99999/d",
        78,
        "{name} is not a valid PostgreSQL URL",
    ),
    "port in words": (
        lambda _: f"postgresql://u:{SECRET}@127.0.0.1:abc/d",
        78,
        "{name} is not a valid PostgreSQL URL",
    ),
    "bad sslmode": (
        lambda _: f"postgresql://u:{SECRET}@127.0.0.1/d?sslmode=x",
        78,
        "{name} is not a valid PostgreSQL URL",
    ),
    "a slash in the password": (lambda _: f"postgresql://u:{SECRET}/x@127.0.0.1:1/d", 78, UNESCAPED),
    "digits and a slash in the password": (
        lambda _: f"postgresql://u:12/{SECRET}@127.0.0.1:1/d",
        78,
        UNESCAPED,
    ),
    "an at sign in the password": (lambda _: f"postgresql://u:{SECRET}@x@127.0.0.1/d", 78, UNESCAPED),
    "an at sign before the secret": (lambda _: f"postgresql://u:x@{SECRET}@127.0.0.1/d", 78, UNESCAPED),
    "both in the password": (lambda _: f"postgresql://u:x@{SECRET}/y@127.0.0.1/d", 78, UNESCAPED),
    "a slash, and nobody's name": (lambda _: f"postgresql://:{SECRET}/x@127.0.0.1/d", 78, UNESCAPED),
    "no host": (lambda _: f"postgresql://u:{SECRET}/d", 78, UNESCAPED),
}


@pytest.mark.parametrize("case", CONNECTIONS)
@pytest.mark.parametrize("name", ["MAVEN_DATABASE_URL", "MAVEN_LOCK_DATABASE_URL"])
def test_a_database_that_cannot_be_used(
    maven: Here, conn: psycopg.Connection, database_url: str, case: str, name: str
) -> None:
    change, code, message = CONNECTIONS[case]
    done = maven(*TICKERS, "--json", env={name: change(database_url), "LOG_LEVEL": "debug"})
    failed(done, code, message.format(name=name))
    no_secret(done, database_url)
    assert SECRET not in str(records(conn))


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("postgresql://u:p%40%2F%3Aw@127.0.0.1:1/d", "127.0.0.1:1/d"),
        ("postgresql://u:p:w?x#y@127.0.0.1:1/d", "127.0.0.1:1/d"),
        ("postgres://u:p@[::1]:1/d", "::1:1/d"),
        ("postgresql://u:p@127.0.0.1:1,[::1]:1/d", "127.0.0.1,::1:1,1/d"),
        ("postgresql://u:p@127.0.0.1,localhost:1/d?port=1", "127.0.0.1,localhost:1/d"),
        ("postgresql://u:p@/d?host=/nonexistent", "/nonexistent"),
        ("postgresql://u:p@/d?host=@nonexistent", "@nonexistent/d"),
        ("postgresql://%2Fnon%40existent/d%40ta?user=u@tenant&password=p@w", "/non@existent"),
        ("postgresql://u:p@127.0.0.1?port=1&dbname=d@ta&options=-c%20a.b%3Dc@d", "127.0.0.1:1/d@ta"),
    ],
)
def test_unusual_urls_are_tried(maven: Here, url: str, target: str) -> None:
    """What libpq takes as it is meant: escapes, IPv6, several hosts, sockets, everything in the query."""
    failed(
        maven(*TICKERS, env={"MAVEN_DATABASE_URL": url}),
        69,
        f"PostgreSQL at {re.escape(target)} can't be reached",
    )


NO_REDIS_URL = "^maven: MAVEN_REDIS_URL is not a valid Redis URL; "
REDIS: dict[str, tuple[Callable[[str], str], int, str]] = {
    "wrong password": (
        lambda url: with_password(url, SECRET),
        78,
        "refuses the credentials; check MAVEN_REDIS_URL",
    ),
    "no password": (lambda url: re.sub(r"password=[^&]+&?", "", url), 78, "check MAVEN_REDIS_URL"),
    "no such database": (lambda url: re.sub(r"db=\d+", "db=9999", url), 78, "check MAVEN_REDIS_URL"),
    "no such socket": (
        lambda _: f"unix:///nonexistent?password={SECRET}",
        69,
        "/nonexistent can't be reached",
    ),
    "no such port": (lambda _: f"redis://:{SECRET}@127.0.0.1:1/0", 69, "127.0.0.1:1 can't be reached"),
    "no such host": (
        lambda _: f"redis://:{SECRET}@nowhere.invalid/0",
        69,
        "nowhere.invalid:6379 can't be reached",
    ),
    "bad port": (
        lambda _: f"redis://:{SECRET}@127.0.0.1:abc/0",
        78,
        "MAVEN_REDIS_URL is not a valid Redis URL",
    ),
    "bad host": (lambda _: f"redis://:{SECRET}@[::1/0", 78, "MAVEN_REDIS_URL is not a valid Redis URL"),
    "bad option": (
        lambda _: f"redis://:{SECRET}@h/0?socket_timeout=x",
        78,
        "MAVEN_REDIS_URL is not a valid Redis URL",
    ),
    "unknown option": (lambda _: f"redis://:{SECRET}@127.0.0.1:1/0?foo=bar", 78, NO_REDIS_URL),
    "an option that is no text": (lambda _: f"redis://:{SECRET}@127.0.0.1:1/0?retry=1", 78, NO_REDIS_URL),
    "a wrong TLS option": (lambda _: f"rediss://:{SECRET}@127.0.0.1:1?ssl_cert_reqs=x", 78, NO_REDIS_URL),
    "a database in words": (lambda _: f"redis://:{SECRET}@127.0.0.1:1/zz", 78, NO_REDIS_URL),
    "two numbers": (lambda _: f"redis://:{SECRET}@127.0.0.1:1/1/2", 78, NO_REDIS_URL),
    "a slash in the password": (lambda _: f"redis://:1/{SECRET}@127.0.0.1:1/0", 78, NO_REDIS_URL),
    "one connection": (
        lambda _: f"redis://:{SECRET}@127.0.0.1:1?max_connections=1",
        69,
        "127.0.0.1:1 can't be reached",
    ),
}


@pytest.mark.parametrize("case", REDIS)
@COMMANDS
def test_a_redis_that_cannot_be_used(
    maven: Here,
    conn: psycopg.Connection,
    market: Market,
    redis_url: str,
    case: str,
    command: tuple[str, ...],
) -> None:
    if "password=" not in redis_url and case in ("wrong password", "no password", "no such database"):
        pytest.skip("MAVEN_TEST_REDIS_URL names a server of another shape")
    market.trade(timedelta(minutes=-10))
    change, code, message = REDIS[case]
    done = maven(*command, "--json", env={"MAVEN_REDIS_URL": change(redis_url)})
    failed(done, code, message)
    no_secret(done, redis_url)
    [record] = records(conn)
    assert record[2] == "error"
    assert re.search(message.removeprefix("^maven: "), record[4])
    assert not any(password in str(record) for password in passwords(redis_url))
    assert maven(*command).code == 0
    assert (conn.execute("SELECT count(*) FROM candles").fetchone() != (0,)) == (command is CANDLES)


def test_a_redis_that_runs_out_of_memory(throw_away: Path, maven: Here, market: Market) -> None:
    """A server of its own: maxmemory is everybody's."""
    market.trade(timedelta(minutes=-10))
    url = embedded.attach(throw_away, postgres=False).redis_url
    with redis.Redis.from_url(url) as client:
        client.config_set("maxmemory", "1mb")
    done = maven(*TICKERS, "--json", env={"MAVEN_REDIS_URL": url})
    failed(done, 69, r"is out of memory \(maxmemory\)")
    no_secret(done, url)


@COMMANDS
def test_a_read_only_database(
    maven: Here, conn: psycopg.Connection, cache: redis.Redis, market: Market, command: tuple[str, ...]
) -> None:
    market.trade(timedelta(minutes=-10))
    set_database(conn, "default_transaction_read_only", "on")
    done = maven(*command, "--json")
    if command is CANDLES:
        failed(done, 69, "the database is read-only .* point MAVEN_DATABASE_URL at the primary")
    else:
        assert done.code == 0, "tickers write nothing but Redis"
        [warning] = [line for line in done.err.splitlines() if " warn " in line]
        assert re.search("The run left no record: the database is read-only .* at the primary$", warning)
        assert cache.get(key(market.pair().id)) is not None
    assert records(conn) == []
    for table in WRITTEN:
        assert conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))).fetchall() == []
    set_database(conn, "default_transaction_read_only", "off")
    assert maven(*command).code == 0


def test_a_statement_that_takes_too_long_is_given_up(
    maven: Here, conn: psycopg.Connection, database_url: str, market: Market
) -> None:
    market.trade(timedelta(minutes=-10))
    with locked(database_url, "trades"):
        done = maven(*TICKERS, "--json", env={"MAVEN_STATEMENT_TIMEOUT": "1s"})
    failed(done, 69, "PostgreSQL gave up .* raise MAVEN_STATEMENT_TIMEOUT")
    assert [row[2] for row in records(conn)] == ["error"]


# --- E07, E08: output


@pytest.mark.parametrize("position", ["before", "after"])
@pytest.mark.parametrize(
    ("args", "code", "command"),
    [
        (TICKERS, 0, "tickers update"),
        (CANDLES, 0, "candles gen"),
        (("tickers", "update", "--pair", "NO/SUCH"), 2, "tickers update"),
        (("tickers", "update", "--as-of", "yesterday"), 2, "tickers update"),
        (("tickers", "update", "--nonsense"), 2, "tickers update"),
        (("tickers", "update", "--concurrency", "0"), 2, "tickers update"),
        (("tickers", "update", "-q", "-v"), 2, "tickers update"),
        (("candles", "gen"), 2, "candles gen"),
        (("candles", "gen", "--interval", "2m"), 2, "candles gen"),
        (("candles", "gen", "--interval", "1m", "--as-of", "2999-01-01"), 2, "candles gen"),
        (("nonsense",), 2, ""),
        (("tickers", "nonsense"), 2, "tickers"),
    ],
)
def test_e07_stdout_is_exactly_one_json_document(
    maven: Here, market: Market, args: tuple[str, ...], code: int, command: str, position: str
) -> None:
    market.trade(timedelta(minutes=-10))
    arguments = ("--json", *args) if position == "before" else (*args, "--json")
    done = maven(*arguments, env={"LOG_LEVEL": "debug"})
    assert done.code == code, done.err
    assert done.out.count("\n") == 1
    document = done.document
    assert list(document) == ["schema", "command", "status", "exit_code", "data", "errors"]
    assert (document["schema"], document["exit_code"], document["command"]) == (1, code, command)
    assert document["status"] == ("success" if code == 0 else "error")
    assert (document["data"] is None) == (code != 0)
    assert bool(document["errors"]) == (code != 0)
    assert done.err, "debug messages, or the error, are on stderr"


@pytest.mark.parametrize(
    "line",
    [
        "tickers update --as-of 0001-01-01",
        "candles gen -i 1m --as-of 0001-01-01",
        "candles gaps --to 0001-01-01",
        "candles verify --to 9999-12-31T23:59:59Z",
        "candles backfill --to 9999-12-31T23:59:59",
        "candles show BTC/USDT -i 1M --from 9999-12-31",
    ],
)
def test_the_edges_of_the_calendar_are_wrong_usage(maven: Here, market: Market, line: str) -> None:
    market.trade(timedelta(minutes=-10))
    failed(maven(*line.split(), "--json"), 2, "is not in the years 2000 to 2199")


@pytest.mark.parametrize("moment", ["2000-01-01", "2199-12-31T23:59:59.999999Z"])
@pytest.mark.parametrize(
    "line",
    [
        "tickers update --as-of",
        "candles gen -i 1m --as-of",
        "candles gaps --to",
        "candles gaps --from",
        "candles verify --to",
        "candles backfill --to",
        "candles backfill --from",
        "candles show BTC/USDT -i 1M --to",
        "candles show BTC/USDT -i 1M --from",
    ],
)
def test_the_edges_of_the_years_are_no_bug(maven: Here, market: Market, line: str, moment: str) -> None:
    market.trade(timedelta(minutes=-10))
    done = maven(*line.split(), moment)
    assert done.code in (0, 2), done.err


def test_e07_and_e08_in_a_process_of_its_own(cli: Cli, market: Market) -> None:
    market.trade(
        timedelta(minutes=-10), "123456789.123456789123456789", pair="ALONGSYMBOL.OF-ASSET/QUITELONGTOO"
    )
    terminal = {"COLUMNS": "20", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    done = cli(*TICKERS, "--json", env={"LOG_LEVEL": "debug", **terminal})
    assert done.code == 0
    assert done.document["data"]["updated"] == 1
    assert "\x1b" not in done.err
    table = cli(*TICKERS, "--dry-run", env=terminal)
    assert table.code == 0
    assert "\x1b" not in table.out + table.err
    row = next(line for line in table.out.splitlines() if line.startswith("ALONGSYMBOL"))
    assert "ALONGSYMBOL.OF-ASSET/QUITELONGTOO" in row
    assert "123456789.123456789123456789" in row
    assert "…" not in table.out


def with_streams(
    cli: Cli, *args: str, redirect: str = "", out: int | None = None
) -> subprocess.CompletedProcess[str]:
    """`maven args…` as a shell would start it with that redirection, or with that descriptor as its output."""
    line = f'exec "$0" -m maven_cli "$@" {redirect}'
    return subprocess.run(
        ["/bin/sh", "-c", line, sys.executable, *args],
        env=cli.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if out is None else out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


PRINTING = pytest.mark.parametrize(
    "line",
    [
        "pairs list",
        "--json pairs list",
        "candles show BTC/USDT -i 1m",
        "candles show BTC/USDT -i 1m --json",
        "tickers show --watch",
        "candles gen --help",
    ],
)


@PRINTING
def test_a_full_disk_under_the_output_is_one_line(cli: Cli, market: Market, line: str) -> None:
    market.trade(timedelta(minutes=-10))
    done = with_streams(cli, *line.split(), redirect=">/dev/full")
    assert (done.returncode, done.stderr) == (
        69,
        "maven: the disk is full (while writing); nothing was lost\n",
    )


@PRINTING
def test_a_reader_that_has_gone_is_no_failure(cli: Cli, market: Market, line: str) -> None:
    market.trade(timedelta(minutes=-10))
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = with_streams(cli, *line.split(), out=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("line", ["pairs list", "--json pairs list", "tickers update", "candles gen --help"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_nothing(cli: Cli, market: Market, line: str, closed: str) -> None:
    market.trade(timedelta(minutes=-10))
    done = with_streams(cli, *line.split(), redirect=closed)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == (closed == "2>&-" and line != "tickers update")


def test_an_error_without_anywhere_to_say_it(cli: Cli) -> None:
    assert with_streams(cli, "nonsense", redirect=">&- 2>&-").returncode == 2
    assert with_streams(cli, "nonsense", redirect="2>/dev/full").returncode == 2
    assert with_streams(cli, "--json", "nonsense", redirect=">/dev/full 2>/dev/full").returncode == 2


def test_a_usage_error_is_not_a_run(maven: Here, conn: psycopg.Connection) -> None:
    done = maven("candles", "gen", "--interval", "2m")
    failed(done, 2, "choose from 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w, 1M")
    assert done.out == ""
    assert records(conn) == []


# --- log lines


MESSAGES = {
    TICKERS: [
        ("debug", "tickers.start", r"\[TickerUpdateWorker\] Starting ticker update\.\.\."),
        ("debug", "tickers.pair", r"\[TickerUpdateWorker\] Updated ticker for BTC/USDT"),
        ("debug", "tickers.pair", r"\[TickerUpdateWorker\] Updated ticker for ETH/USDT"),
        ("info", "tickers.done", r"\[TickerUpdateWorker\] Updated 2 tickers in \d+ms"),
    ],
    CANDLES: [
        ("debug", "candles.start", r"\[CandleGenerationWorker\] Starting 1m candle generation\.\.\."),
        ("debug", "candles.pair", r"\[CandleGenerationWorker\] Generated 1m candle for BTC/USDT"),
        ("debug", "candles.pair", r"\[CandleGenerationWorker\] Generated 1m candle for ETH/USDT"),
        (
            "info",
            "candles.done",
            r"\[CandleGenerationWorker\] Generated 1m candles: 2 success, 0 failed \(\d+ms\)",
        ),
    ],
}
PRIORITIES = {"debug": 7, "info": 6, "warn": 4, "error": 3}


@COMMANDS
@pytest.mark.parametrize("style", ["text", "json", "journal"])
@pytest.mark.parametrize("level", ["debug", "info", "warn"])
def test_the_platform_s_log_lines_in_every_format(
    maven: Here, market: Market, command: tuple[str, ...], style: str, level: str
) -> None:
    market.trade(timedelta(minutes=-10))
    market.trade(timedelta(minutes=-10), pair="ETH/USDT")
    done = maven(*command, env={"LOG_LEVEL": level, "MAVEN_LOG_FORMAT": style})
    assert done.code == 0
    assert done.out == ""
    shown = [item for item in MESSAGES[command] if PRIORITIES[item[0]] <= PRIORITIES[level]]
    lines = done.err.splitlines()
    assert len(lines) == len(shown), done.err
    for line, (severity, action, message) in zip(lines, shown, strict=True):
        if style == "json":
            fields = json.loads(line)
            assert (fields["level"], fields["action"], fields["worker"]) == (severity, action, command[0])
            assert re.fullmatch(message, fields["message"])
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", fields["time"])
        elif style == "journal":
            assert re.fullmatch(f"<{PRIORITIES[severity]}>{message}", line), line
        else:
            assert re.fullmatch(
                rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z {severity:<5} {message}", line
            ), line


def test_quiet_and_verbose(maven: Here, market: Market) -> None:
    market.trade(timedelta(minutes=-10))
    assert maven(*TICKERS, "--quiet", env={"LOG_LEVEL": "debug"}).err == ""
    assert "Starting ticker update..." in maven(*TICKERS, "--verbose").err
    assert "Starting ticker update..." in maven("-v", *TICKERS).err


# --- run records


def test_run_records_of_good_passes(maven: Here, conn: psycopg.Connection, market: Market) -> None:
    market.trade(timedelta(minutes=-10))
    before = market.now()
    assert maven(*TICKERS).code == 0
    assert maven(*CANDLES).code == 0
    ticker, candle = records(conn)
    assert ticker[:3] == ("tickers", "tickers", "success")
    assert ticker[3] == {"updated": 1, "changed": 1, "removed": 0, "future_trades": 0, "errors": 0}
    assert candle[:3] == ("candles", "candles:1m", "success")
    assert {name: candle[3][name] for name in ("success", "failed", "errors")} == {
        "success": 1,
        "failed": 0,
        "errors": 0,
    }
    assert ticker[4] is None
    assert candle[4] is None
    rows = conn.execute("SELECT host, pid, as_of, started_at, duration_ms FROM worker_runs").fetchall()
    for host, pid, as_of, started_at, duration in rows:
        assert (host, pid) == (socket.gethostname(), os.getpid())
        assert before <= as_of <= market.now()
        assert abs(as_of - started_at) < timedelta(seconds=PATIENCE)
        assert 0 <= duration < PATIENCE * 1000


def test_a_bug_is_recorded_and_exits_70(
    maven: Here, conn: psycopg.Connection, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"cannot talk to postgresql://maven:{SECRET}@db/x?password={SECRET}")

    monkeypatch.setattr("maven_cli.market.tickers.future_trades", broken)
    market.trade(timedelta(minutes=-10))
    done = maven(*TICKERS, "--json")
    assert done.code == 70
    assert done.document["exit_code"] == 70
    assert "RuntimeError" in done.err
    assert "Traceback" in done.err
    no_secret(done)
    [record] = records(conn)
    assert record[2] == "error"
    assert record[4].startswith("RuntimeError: cannot talk to postgresql://maven:***@db")
    assert SECRET not in str(record)
    assert lock_is_free(conn_url(maven), "tickers")


def conn_url(maven: Here) -> str:
    return maven.cli.variables["MAVEN_DATABASE_URL"]


def test_old_run_records_go(services: TestServices, conn: psycopg.Connection, market: Market) -> None:
    conn.execute(
        "INSERT INTO worker_runs (worker, scope, host, pid, started_at, duration_ms, outcome, counts)"
        " SELECT 'tickers', 'tickers', 'h', 1, now() - age, 1, 'success', '{}'"
        "   FROM unnest(ARRAY['6 days', '8 days', '400 days']::interval[]) AS a (age)"
    )
    conn.execute("SELECT setval(pg_get_serial_sequence('worker_runs', 'id'), 999)")
    assert tickers.update(services).exit_code == 0
    ages = conn.execute("SELECT now() - started_at < interval '7 days' FROM worker_runs").fetchall()
    assert ages == [(True,), (True,)]


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://user:{SECRET}@host/db",
        f"postgresql://user:{SECRET}p@ss/word@host/db",
        f"redis://:{SECRET}@host:6379/0",
        f"unix:///run/valkey.sock?password={SECRET}&db=0",
        f"postgresql:///db?user=x&password={SECRET}",
        f"host=h password={SECRET} dbname=d",
        f"host=h password='{SECRET} with spaces' dbname=d",
        f"could not use PASSWORD={SECRET}",
    ],
)
def test_redact_knows_every_place_of_a_password(text: str) -> None:
    assert SECRET not in redact(text)
    assert "word@host" not in redact(text)


def test_redact_leaves_the_rest_alone() -> None:
    assert redact("postgresql://user@host/db is down") == "postgresql://user@host/db is down"
    assert (
        redact(f"a postgresql://user:{SECRET}@host/db is down") == "a postgresql://user:***@host/db is down"
    )
    assert redact(f"unix:///s?password={SECRET}&db=0") == "unix:///s?password=***&db=0"


def test_every_connection_is_read_committed_and_notices_a_cut_link(
    database_url: str, conn: psycopg.Connection
) -> None:
    set_database(conn, "default_transaction_isolation", "serializable")
    with connect(database_url, "test") as mine, mine.transaction():
        assert mine.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
        assert mine.info.get_parameters()["tcp_user_timeout"] == "25000"


# --- intervals in SQL


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kathmandu"])
def test_a_window_s_start_is_the_same_in_sql_and_in_python(conn: psycopg.Connection, zone: str) -> None:
    """C02, C03: in any session time zone, also before 2001, where the divisions' remainders are negative."""
    rng = Random(zone)
    moments = [
        datetime(1900, 1, 1, tzinfo=UTC) + timedelta(microseconds=rng.randrange(200 * 365 * 86_400 * 10**6))
        for _ in range(300)
    ]
    edges = [INTERVALS[rng.choice(list(INTERVALS))].floor(moment) for moment in moments]
    moments += [edge + timedelta(microseconds=rng.choice([-1, 0, 1])) for edge in edges]
    conn.execute("SELECT set_config('TimeZone', %s, false)", [zone])
    for interval in INTERVALS.values():
        rows = conn.execute(
            f"SELECT {interval.sql('m')} FROM unnest(%s::timestamptz[]) WITH ORDINALITY AS t (m, n) ORDER BY n",
            [moments],
        ).fetchall()
        found = [row[0].astimezone(UTC) for row in rows]
        assert found == [interval.floor(moment) for moment in moments], interval.name


# --- E01, E11


@pytest.fixture
def pooled(database_url: str) -> Iterator[str]:
    """The database behind a PgBouncer in transaction mode with one server connection for each of two clients."""
    if not PGBOUNCER.exists():
        pytest.skip("no /usr/sbin/pgbouncer here: apt install pgbouncer")
    parts = conninfo_to_dict(database_url)
    home = Path(tempfile.mkdtemp(prefix="maven-b-", dir="/tmp"))
    server = {
        "host": parts.get("host"),
        "port": parts.get("port") or 5432,
        "user": parts.get("user"),
        "password": parts.get("password"),
        "dbname": parts["dbname"],
    }
    line = " ".join(f"{name}='{value}'" for name, value in server.items() if value is not None)
    (home / "pgbouncer.ini").write_text(
        f"[databases]\npooled = {line}\n"
        "[pgbouncer]\nlisten_addr =\nlisten_port = 6432\nauth_type = any\npool_mode = transaction\n"
        f"default_pool_size = 4\nunix_socket_dir = {home}\nignore_startup_parameters = extra_float_digits\n"
    )
    owner: dict[str, Any] = {}
    if (
        os.geteuid() == 0
    ):  # PgBouncer refuses root; the embedded server's socket belongs to nobody and its group
        owner = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
        for path in (home, home / "pgbouncer.ini"):
            shutil.chown(path, "nobody")
    process = subprocess.Popen([PGBOUNCER, home / "pgbouncer.ini"], stderr=subprocess.PIPE, **owner)
    try:
        until(lambda: process.poll() is not None or (home / ".s.PGSQL.6432").exists(), "PgBouncer to listen")
        assert process.poll() is None, process.communicate()
        yield f"postgresql://maven@/pooled?host={home}&port=6432"
    finally:
        process.kill()
        process.communicate()
        shutil.rmtree(home, ignore_errors=True)


TOO_SMALL = "gave the work no answer .* raise the pool size .* MAVEN_LOCK_DATABASE_URL"


def test_e11_a_pool_that_is_all_locks_ends_the_pass(
    pooled: str, database_url: str, cli: Cli, market: Market
) -> None:
    market.trade(timedelta(minutes=-10))
    through = replace(cli, variables={**cli.variables, "MAVEN_DATABASE_URL": pooled})
    with ExitStack() as stack:
        for interval in ("1m", "1h", "1d"):
            stack.enter_context(pass_lock(pooled, f"candles:{interval}"))
        process = through.start(*TICKERS, "--json")
        try:
            done = ended(process)
        finally:
            process.kill()
        failed(done, 69, TOO_SMALL)
        assert lock_is_free(database_url, "tickers")
    assert through(*TICKERS).code == 0


def test_e11_a_signal_ends_a_pass_that_waits_for_the_pool(
    pooled: str, services: TestServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(conn: psycopg.Connection, _seconds: float) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return answers(conn, 0.5)

    monkeypatch.setattr("maven_cli.runner.answers", signalled)
    with ExitStack() as stack:
        for interval in ("1m", "1h", "1d"):
            stack.enter_context(pass_lock(pooled, f"candles:{interval}"))
        with pytest.raises(StoppedError):
            tickers.update(replace(services, database_url=pooled, lock_url=pooled))


def test_e11_four_passes_on_a_pool_of_four_set_each_other_free(
    pooled: str, services: TestServices, market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.trade(timedelta(minutes=-10))
    through = replace(services, database_url=pooled, lock_url=pooled)
    monkeypatch.setattr("maven_cli.runner.PATIENCE", (0.5, 3.0))
    all_locked = threading.Barrier(4)

    @contextmanager
    def together(url: str, scope: str) -> Iterator[PassLock]:
        with pass_lock(url, scope) as lock:
            all_locked.wait(PATIENCE)
            yield lock

    pool = ThreadPoolExecutor(4)
    with monkeypatch.context() as patch:
        patch.setattr("maven_cli.runner.pass_lock", together)
        running = [pool.submit(tickers.update, through)]
        running += [pool.submit(candles.generate, through, INTERVALS[name]) for name in ("1m", "1h", "1d")]
        errors = [run.exception(timeout=PATIENCE) for run in running]
    pool.shutdown(wait=False)  # should they hang, they do until the pooler is gone
    refused = [error for error in errors if error is not None]
    assert 1 <= len(refused) <= 3
    for error in refused:
        assert isinstance(error, DatabaseDownError)
        assert re.search(TOO_SMALL, str(error))
    assert tickers.update(through).exit_code == 0


def test_e01_behind_a_transaction_pooler_the_lock_still_excludes(
    pooled: str, services: TestServices, market: Market, conn: psycopg.Connection
) -> None:
    market.trade(timedelta(minutes=-10))
    through = replace(services, database_url=pooled, lock_url=pooled)
    with pass_lock(pooled, "tickers"):
        for _ in range(5):
            assert tickers.update(through).exit_code == 75
        assert tickers.update(services).exit_code == 75, "the direct way meets the same lock"
    assert tickers.update(through).exit_code == 0
    assert candles.generate(through, INTERVALS["1m"]).exit_code == 0
    assert conn.execute("SELECT count(*) > 0 FROM candles").fetchone() == (True,)
