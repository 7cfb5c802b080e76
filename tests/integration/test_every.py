"""`maven every` as a real process, with real passes in real children."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import queue
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from maven_cli import __main__ as program
from maven_cli.db.locks import pass_lock
from tests.support import Cli, Market

PATIENCE = 30.0  # seconds; a busy box is slow, not wrong


def eventually(found: Callable[[], Any], what: str) -> Any:
    """Waits until it holds, and returns what it found."""
    give_up = time.monotonic() + PATIENCE
    while not (answer := found()):
        assert time.monotonic() < give_up, f"waited in vain for {what}"
        time.sleep(0.02)
    return answer


class Every:
    """A running loop: its documents as they come, its children, its end."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.err = b""
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._threads = [threading.Thread(target=self._read_out), threading.Thread(target=self._read_err)]
        for thread in self._threads:
            thread.start()

    def _read_out(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def _read_err(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.err += line

    def document(self) -> dict[str, Any]:
        """The next line of stdout, which must be one JSON document."""
        found = json.loads(self._lines.get(timeout=PATIENCE))
        assert isinstance(found, dict)
        return found

    def document_with(self, code: int) -> dict[str, Any]:
        """The next document with this exit code; others may come before it."""
        while (found := self.document())["exit_code"] != code:
            pass
        return found

    def rest(self) -> list[dict[str, Any]]:
        return [json.loads(self._lines.get()) for _ in range(self._lines.qsize())]

    def child(self) -> int:
        """The process of the running pass."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(eventually(lambda: children.read_text().split(), "a pass")[0])

    def end(self) -> int:
        """Waits for the loop's end."""
        code = self.process.wait(PATIENCE)
        for thread in self._threads:
            thread.join()
        assert "Traceback" not in self.err.decode()
        return code

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.end()


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[Every]:
    with process:
        every = Every(process)
        try:
            yield every
        finally:
            process.kill()
            process.wait()
            for thread in every._threads:
                thread.join()


@pytest.fixture
def blocked(market: Market, conn: psycopg.Connection) -> Iterator[Callable[[], None]]:
    """Nobody can read trades until the function is called."""
    market.trade(-timedelta(minutes=1))
    conn.execute("BEGIN")
    conn.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
    yield lambda: conn.rollback()
    conn.rollback()


def wait_for_blocked_pass(conn: psycopg.Connection) -> None:
    """Until a pass waits for the table."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'maven tickers' AND wait_event_type = 'Lock' AND datname = current_database()"

    def waits() -> bool:
        # pg_stat_activity is a snapshot within a transaction
        conn.execute("SELECT pg_stat_clear_snapshot()")
        return conn.execute(query).fetchone() != (0,)

    eventually(waits, "a pass that waits for trades")


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_every_pass_prints_its_own_document_on_its_own_line(
    cli: Cli, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    pair = market.pair()
    market.trade(-timedelta(minutes=1), "101.5")
    with running(cli.start("every", "200ms", "--json", "--", "tickers", "update")) as every:
        found = [every.document(), every.document(), every.document()]
        assert every.stop() == 143
    for document in found:
        assert document["command"] == "tickers update"
        assert (document["status"], document["exit_code"], document["data"]["updated"]) == ("success", 0, 1)
    moments = [document["data"]["as_of"] for document in found]
    assert moments == sorted(set(moments))
    assert any(str(pair.id) in key for key in cache.keys("*"))
    runs = conn.execute("SELECT count(DISTINCT pid) FROM worker_runs WHERE worker = 'tickers'").fetchone()
    assert runs is not None
    assert runs[0] >= 3, "each pass has a process of its own"


def test_text_is_the_passes_own_log_lines(cli: Cli) -> None:
    done = cli("every", "500ms", "--for", "1500ms", "--", "candles", "gen", "-i", "1m")
    assert done.code == 0
    assert done.out == ""
    lines = done.err.splitlines()
    assert lines
    assert all("[CandleGenerationWorker] Generated 1m candles: 0 success, 0 failed" in line for line in lines)


def test_quiet_and_verbose_reach_the_passes(cli: Cli) -> None:
    quiet = cli("every", "500ms", "--for", "1s", "-q", "--", "tickers", "update")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    verbose = cli("-v", "every", "500ms", "--for", "1s", "--", "tickers", "update")
    assert "[TickerUpdateWorker] Starting ticker update..." in verbose.err


def test_a_held_lock_is_tolerated(cli: Cli, database_url: str) -> None:
    with pass_lock(database_url, "tickers"):
        done = cli("every", "500ms", "--for", "1500ms", "--json", "--", "tickers", "update")
    documents = [json.loads(line) for line in done.out.splitlines()]
    assert documents
    assert {(document["status"], document["exit_code"]) for document in documents} == {("skipped", 75)}
    assert "Previous run still running, skipping..." in done.err
    assert done.code == 0


def test_failures_do_not_end_the_loop_but_decide_its_exit_code(cli: Cli) -> None:
    nobody = {"MAVEN_DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
    with running(
        cli.start("every", "200ms", "--for", "4s", "--json", "--", "tickers", "update", env=nobody)
    ) as every:
        assert [every.document()["exit_code"] for _ in range(2)] == [69, 69]
        assert every.end() == 69


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_pass_does_not_end_the_loop(
    cli: Cli, blocked: Callable[[], None], number: signal.Signals
) -> None:
    with running(cli.start("every", "200ms", "--json", "--", "tickers", "update")) as every:
        os.kill(every.child(), number)
        document = every.document()
        assert document["command"] == "tickers update"
        assert (document["status"], document["exit_code"]) == ("error", 128 + number)
        blocked()
        assert every.document_with(0)["data"]["updated"] == 1
        assert every.stop() == 143
    assert f"[maven every] tickers update was ended by {number.name}" in every.err.decode()


def test_a_pass_that_takes_too_long_is_stopped_and_the_loop_goes_on(
    cli: Cli, blocked: Callable[[], None]
) -> None:
    with running(
        cli.start("every", "200ms", "--timeout", "1s", "--json", "--", "tickers", "update")
    ) as every:
        assert every.document_with(143)["status"] == "error"
        blocked()
        assert every.document_with(0)["data"]["updated"] == 1
        assert every.stop() == 143
    assert "[maven every] tickers update took longer than 1s and was stopped" in every.err.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_the_running_pass_and_then_the_loop(
    cli: Cli, conn: psycopg.Connection, blocked: Callable[[], None], number: signal.Signals, code: int
) -> None:
    with running(cli.start("every", "200ms", "--json", "--", "tickers", "update")) as every:
        wait_for_blocked_pass(conn)
        child = every.child()
        every.process.send_signal(number)
        assert every.end() == code
        assert gone(child)
        document = every.document()
        assert document["status"] == "error"
        assert f"stopped by {number.name}" in document["errors"][0]["message"]
        assert every.rest() == []
    blocked()
    outcome = conn.execute("SELECT outcome FROM worker_runs").fetchall()
    assert outcome == [("stopped",)]


def test_ctrl_c_in_a_terminal_reaches_the_pass_once(
    cli: Cli, conn: psycopg.Connection, blocked: Callable[[], None]
) -> None:
    controller, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "maven_cli", "every", "200ms", "--json", "--", "tickers", "update"],
            env=cli.environment(),
            stdin=terminal,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        with running(process) as every:
            wait_for_blocked_pass(conn)
            os.write(controller, b"\x03")
            assert every.end() == 130
            assert "stopped by SIGINT" in every.document()["errors"][0]["message"]
        assert every.err.decode().count("stopped by") == 1
    finally:
        os.close(controller)
        os.close(terminal)


def test_a_signal_to_the_whole_group_is_one_request(
    cli: Cli, conn: psycopg.Connection, blocked: Callable[[], None]
) -> None:
    """timeout(1) signals its child, and at once the group."""
    with running(cli.start("every", "200ms", "--json", "--", "tickers", "update")) as every:
        wait_for_blocked_pass(conn)
        child = every.child()
        every.process.send_signal(signal.SIGTERM)
        os.kill(child, signal.SIGTERM)
        every.process.send_signal(signal.SIGTERM)
        assert every.end() == 143
        assert every.document()["exit_code"] != 137


def test_a_second_signal_ends_at_once(
    cli: Cli, conn: psycopg.Connection, blocked: Callable[[], None]
) -> None:
    with running(cli.start("every", "200ms", "--json", "--", "tickers", "update")) as every:
        wait_for_blocked_pass(conn)
        child = every.child()
        os.kill(child, signal.SIGSTOP)  # it can't follow the first request
        every.process.send_signal(signal.SIGTERM)
        time.sleep(1.0)
        assert every.process.poll() is None
        every.process.send_signal(signal.SIGTERM)
        assert every.end() == 143
        assert gone(child)
        assert every.document()["exit_code"] == 137


def test_a_killed_loop_leaves_no_pass_behind(
    cli: Cli, conn: psycopg.Connection, blocked: Callable[[], None]
) -> None:
    with running(cli.start("every", "200ms", "--", "tickers", "update")) as every:
        wait_for_blocked_pass(conn)
        child = every.child()
        every.process.kill()
        eventually(lambda: gone(child), "the end of the pass")


def test_the_loop_ends_when_nobody_reads_its_documents(cli: Cli) -> None:
    with cli.start("every", "200ms", "--json", "--", "tickers", "update") as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["exit_code"] == 0
            process.stdout.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_the_loop_itself_has_no_threads_and_no_connections(
    cli: Cli, conn: psycopg.Connection, blocked: Callable[[], None]
) -> None:
    """What makes forking safe. The child has some of both at the same time."""

    def counts(pid: int) -> tuple[int, int]:
        links = [str(item.readlink()) for item in Path(f"/proc/{pid}/fd").iterdir()]
        return len(list(Path(f"/proc/{pid}/task").iterdir())), sum(
            link.startswith("socket:") for link in links
        )

    with running(cli.start("every", "200ms", "--", "tickers", "update")) as every:
        wait_for_blocked_pass(conn)
        threads, sockets = counts(every.child())
        assert threads > 1
        assert sockets > 1
        assert counts(every.process.pid) == (1, 0)


PRELOADED = """
import sys
from maven_cli import loop
from maven_cli.__main__ import run
from maven_cli.cli import every
path = every._check_pass(sys.argv[1:])
every._preload(path)
before = set(sys.modules)
def body():
    run(sys.argv[1:])
    print(sorted(name for name in set(sys.modules) - before if name.startswith(("maven_cli", "redis", "psycopg", "pydantic"))))
    return 0
world = loop.RealWorld()
with world.installed():
    loop.run_forked(body, 0, world, None)
"""


@pytest.mark.parametrize("line", ["tickers update", "ticker update", "candles gen -i 1m"])
def test_a_pass_finds_everything_imported(cli: Cli, market: Market, line: str) -> None:
    market.trade(-timedelta(minutes=5))
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED, *line.split()],
        env=cli.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Updated 1 tickers" in done.stderr or "1 success" in done.stderr
    assert done.stdout == "[]\n"


FORKED = """
import signal, sys, time
from maven_cli import loop
loop.KILL_AFTER = 0.2
def deaf():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
    return 0
def bug():
    raise SystemExit(3)
world = loop.RealWorld()
with world.installed():
    print(loop.run_forked(lambda: 42, 5, world, None))
    print(loop.run_forked(bug, 6, world, None))
    ended = loop.run_forked(deaf, 7, world, 0.5)
    print(ended.code, ended.killed_by, ended.timed_out, ended.seconds < 30)
"""


def test_a_deaf_pass_is_killed_and_a_bug_is_70() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, timeout=60, check=True
    )
    first, second, third = done.stdout.splitlines()
    assert first.startswith("Ended(slot=5, code=42,")
    assert second.startswith("Ended(slot=6, code=70,")
    assert third == "137 9 True True"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("every", "put the pass after --"),
        ("every 5s", "put the pass after --"),
        ("every 5s tickers update", "put the pass after --"),
        ("every 5s --", "name a pass after --"),
        ("every -- tickers update", "STEP"),
        ("every 5s tickers -- update", "only STEP and options go before --"),
        ("every 5s -- nonsense", "no command 'nonsense'"),
        ("every 5s -- ticker", "name the pass after -- tickers; choose from update\n"),
        ("every 5s -- demo", "demo is not a pass; choose from tickers update, candles gen, "),
        ("every 5s -- demo --live --nonsense", "demo is not a pass; choose from tickers update, "),
        ("every 5s -- candles show BTC/USDT -i 1m", "candles show is not a pass; choose from "),
        ("every 5s -- ticker show", "tickers show is not a pass; choose from "),
        ("every 5s -- up", "up is not a pass; choose from "),
        ("every 5s -- db", "db has no pass; choose from tickers update, "),
        ("every 5s -- tickers update --pair", "requires an argument; see: maven tickers update --help"),
        ("every 5s -- tickers nonsense", "nonsense"),
        ("every 5s -- tickers update --nonsense", "--nonsense"),
        ("every 5s -- tickers update --concurrency 0", "concurrency"),
        ("every 5s -- candles gen", "interval"),
        ("every 5s -- every 5s -- tickers update", "every can't run every"),
        ("every 5s -- -q every 5s -- tickers update", "every can't run every"),
        ("every 0 -- tickers update", "STEP must be at least 100ms"),
        ("every 99ms -- tickers update", "STEP must be at least 100ms"),
        ("every -5s -- tickers update", "-5"),
        ("every soon -- tickers update", "'soon' is not a duration"),
        ("every 5s --phase 5s -- tickers update", "--phase must be shorter than STEP (5s)"),
        ("every 5s --phase=-1s -- tickers update", "'-1s' is not a duration"),
        ("every 5s --for 0 -- tickers update", "--for must be longer than 0s"),
        ("every 5s --timeout 0s -- tickers update", "--timeout must be longer than 0s"),
        ("every 5s --timeout x -- tickers update", "'x' is not a duration"),
        ("every 5s -q -- tickers update -v", "--quiet and --verbose exclude each other"),
        ("every 5s -- tickers update -q -v", "--quiet and --verbose exclude each other"),
    ],
)
def test_wrong_usage_ends_at_once(line: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert program.run(line.split()) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err
