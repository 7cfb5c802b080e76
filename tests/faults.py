"""Passes that die, freeze or lose their connection at a chosen boundary between themselves and the world.

    with Passes() as passes:                                        # a process that has imported all of maven
        done = passes.run("orders", "expire", env=…, at=17)         # SIGKILL at the 17th boundary
        pid = passes.start("orders", "expire", env=…, at=17, act="freeze")
        frozen = passes.wait(pid)                                   # SIGSTOP at the 17th; os.kill(pid, SIGCONT) wakes it

    with crashing(17) as boundaries:                                # the same in this process, for maven's connections
        expire(services)                                            # raises Killed

Whatever a pass sends has two boundaries: before it is sent (the answer to what went before has come and was dealt with),
and when it has been sent, but its answer hasn't been looked at. PostgreSQL's statements count, BEGIN and COMMIT among them,
what goes to Redis, and requests to an engine or a node over HTTP (where the second boundary is when the answer has come). The product
knows nothing of this: psycopg, redis and httpx are patched, in the process that runs the pass.

Each pass is the real command line in a process of its own, forked from one that has imported everything and opened nothing.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, cast
from unittest.mock import patch

import httpx
import psycopg
import redis.connection

PATIENCE = 60.0  # seconds that a pass may take, or it hangs


class Killed(BaseException):
    """The process is gone: no handler of the pass may see to anything."""


@dataclass
class Boundaries:
    """Counts boundaries, and acts at one of them. where: what the last one was."""

    at: int
    act: Callable[[], None]
    count: int = 0
    where: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, where: str) -> None:
        with self._lock:
            self.count += 1
            self.where = where
            if self.count == self.at:
                self.act()


@contextmanager
def watching(
    boundaries: Boundaries, watched: Callable[[psycopg.Connection[Any]], bool] = lambda _: True
) -> Iterator[None]:
    """Counts what this process sends inside the block, over `watched` connections, Redis and HTTP."""
    wait = cast("Any", psycopg.Connection.wait)
    send = redis.connection.AbstractConnection.send_packed_command
    request = httpx.AsyncHTTPTransport.handle_async_request
    request_now = httpx.HTTPTransport.handle_request

    def waiting(self: psycopg.Connection[Any], gen: Any, *args: Any, **options: Any) -> Any:
        if threading.current_thread().name.startswith("heartbeat") or not watched(self):
            return wait(self, gen, *args, **options)
        what = _statement(gen)
        boundaries.reach(f"before {what}")
        return wait(self, _sent(gen, lambda: boundaries.reach(f"sent {what}")), *args, **options)

    def sending(self: Any, command: Any, *args: Any, **options: Any) -> Any:
        if self._sock is None:
            self.connect_check_health(check_health=False)  # its own commands first
        boundaries.reach("before a command to Redis")
        done = send(self, command, *args, **options)  # type: ignore[no-untyped-call]
        boundaries.reach("sent a command to Redis")
        return done

    async def requesting(self: httpx.AsyncHTTPTransport, what: httpx.Request) -> httpx.Response:
        boundaries.reach(f"before {what.method} {what.url.path}")
        found = await request(self, what)
        boundaries.reach(f"answered {what.method} {what.url.path}")
        return found

    def requesting_now(self: httpx.HTTPTransport, what: httpx.Request) -> httpx.Response:
        boundaries.reach(f"before {what.method} to a node")
        found = request_now(self, what)
        boundaries.reach(f"answered {what.method} to a node")
        return found

    with (
        patch.object(psycopg.Connection, "wait", waiting),
        patch.object(redis.connection.AbstractConnection, "send_packed_command", sending),
        patch.object(httpx.AsyncHTTPTransport, "handle_async_request", requesting),
        patch.object(httpx.HTTPTransport, "handle_request", requesting_now),
    ):
        yield


def _sent(gen: Any, reach: Callable[[], None]) -> Generator[Any, Any, Any]:
    """The same conversation with PostgreSQL; when it first waits for the answer, `reach` is called."""
    told, ready = False, None
    while True:
        try:
            wanted = gen.send(ready)
        except StopIteration as end:
            return end.value
        if not told:
            told = True
            reach()
        ready = yield wanted


def _statement(gen: Any) -> str:
    """What a conversation is about, for messages: the statement, or what psycopg's transaction() does."""
    query = gen.gi_frame.f_locals.get("query") if getattr(gen, "gi_frame", None) else None
    return " ".join(str(query or gen.__name__).split())[:100]


@contextmanager
def crashing(at: int) -> Iterator[Boundaries]:
    """Raises Killed in this process at a boundary, with all of maven's connections gone at once."""
    seen: set[psycopg.Connection[Any]] = set()

    def watched(conn: psycopg.Connection[Any]) -> bool:
        found = (conn.info.parameter_status("application_name") or "").startswith("maven ")
        if found:
            seen.add(conn)
        return found

    def die() -> None:
        for conn in seen:
            conn.pgconn.finish()
        raise Killed

    boundaries = Boundaries(at, die)
    with watching(boundaries, watched):
        yield boundaries


# ------------------------------------------------------------------------------------------------- the tests' side


@dataclass(frozen=True)
class Ended:
    """A pass that has ended, or stands still. code: None while it does; -9 when it was killed.

    boundaries: how many it has reached; where: what the last one was.
    """

    code: int | None
    boundaries: int
    where: str
    out: str
    err: str

    def __str__(self) -> str:
        return f"code {self.code} at boundary {self.boundaries} ({self.where})\n{self.err}"


class Passes:
    """Runs commands in forked processes. All of them are gone after the block."""

    def __enter__(self) -> Passes:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults"],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE + 5)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()

    def start(self, *args: str, env: Mapping[str, str], at: int = 0, act: str = "kill") -> int:
        """Starts `maven args…`, which is to be killed, or to freeze, at a boundary (0: at none). Returns its process id."""
        return int(self._ask(do="start", args=args, env=dict(env), at=at, act=act)["pid"])

    def wait(self, pid: int) -> Ended:
        """Waits until it has ended, or stands still."""
        found = self._ask(do="wait", pid=pid)
        assert not found.pop("hung"), f"a pass hangs: {found}"
        return Ended(**found)

    def run(self, *args: str, env: Mapping[str, str], at: int = 0, act: str = "kill") -> Ended:
        return self.wait(self.start(*args, env=env, at=at, act=act))

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        assert isinstance(found, dict)
        return found


# ------------------------------------------------------------------------------------------------------ the process


@dataclass
class _Child:
    """A forked pass, and the files that hold what it said."""

    pid: int
    out: int
    err: int
    report: int


def _warm() -> None:
    for name in (
        "cli.orders",
        "cli.events",
        "passes.expiry",
        "passes.events",
        "engines.http",
        "engines.redis",
    ):
        importlib.import_module(f"maven_cli.{name}")
    from maven_cli.cli.app import root_command

    for group in ("orders", "events"):
        root_command().get_command(None, group)


def _start(args: list[str], env: dict[str, str], at: int, act: str) -> _Child:
    out, err, report = (os.memfd_create(name) for name in ("out", "err", "report"))
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        os.environ.clear()
        os.environ.update(env)
        _be(args, at, act, report)
    return _Child(pid, out, err, report)


def _be(args: list[str], at: int, act: str, report: int) -> NoReturn:
    """The forked process: `maven args…`."""
    from maven_cli.__main__ import main

    def tell() -> None:
        os.pwrite(report, json.dumps([boundaries.count, boundaries.where]).encode().ljust(300), 0)

    def die() -> None:
        tell()
        os.kill(os.getpid(), signal.SIGKILL if act == "kill" else signal.SIGSTOP)

    boundaries = Boundaries(at, die)
    sys.argv = ["maven", *args]
    code: Any = 70
    try:
        with watching(boundaries):
            main()
    except SystemExit as end:
        code = end.code
    finally:
        tell()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _wait(child: _Child) -> tuple[dict[str, Any], bool]:
    """What has become of it, and whether it has ended."""
    deadline = time.monotonic() + PATIENCE
    while (found := os.waitpid(child.pid, os.WNOHANG | os.WUNTRACED)) == (0, 0):
        if time.monotonic() > deadline:
            return {"hung": True, "err": _text(child.err)}, False
        signal.sigtimedwait({signal.SIGCHLD}, 0.2)
    stopped = os.WIFSTOPPED(found[1])
    count, where = json.loads(_text(child.report) or '[0, "nothing"]')
    answer = {
        "hung": False,
        "code": None if stopped else os.waitstatus_to_exitcode(found[1]),
        "boundaries": count,
        "where": where,
        "out": _text(child.out),
        "err": _text(child.err),
    }
    return answer, not stopped


def _text(file: int) -> str:
    return os.pread(file, 1 << 20, 0).decode(errors="replace")


def _serve() -> None:
    _warm()
    # So that none is missed between a look and the wait for the next one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    children: dict[int, _Child] = {}
    for line in sys.stdin:
        request = json.loads(line)
        if request.pop("do") == "start":
            child = _start(**request)
            children[child.pid] = child
            answer: dict[str, Any] = {"pid": child.pid}
        else:
            child = children[request["pid"]]
            answer, ended = _wait(child)
            if ended:
                del children[child.pid]
                for file in (child.out, child.err, child.report):
                    os.close(file)
        print(json.dumps(answer), flush=True)
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    _serve()
