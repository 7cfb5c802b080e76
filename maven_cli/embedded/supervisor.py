"""The process that owns the servers: ``python -m maven_cli.embedded.supervisor HOME LINGER LISTENER LOCK``.

Commands start it (launch.py) with the listening socket and the servers' lock as open descriptors. It starts what is
asked for, stops it all when nobody has used it for a while, on SIGTERM, or when one of the servers has died: the next
command starts anew, after the kernel says that everything is gone.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from maven_cli.embedded import binaries, control
from maven_cli.embedded.accounts import service_account
from maven_cli.embedded.home import Home
from maven_cli.embedded.postgres import PostgreSQL
from maven_cli.embedded.processes import Server
from maven_cli.embedded.secret import ensure_password
from maven_cli.embedded.stop_signals import StopSignals
from maven_cli.embedded.trouble import explained
from maven_cli.embedded.users import is_still
from maven_cli.embedded.valkey import Valkey
from maven_cli.errors import MavenError


class Supervisor:
    """Serves one request after the other, so that no two of them meet on a server."""

    def __init__(self, home: Home, linger: float, listener: socket.socket, lock: int) -> None:
        self.home = home
        self.linger = linger
        self.listener = listener
        self.lock = lock
        self.account = service_account()
        self.servers: dict[str, Server] = {}
        self.signals = StopSignals(signal.SIGCHLD)
        self.asked_to_stop = False
        self.tidy = True
        self._users = os.open(home.users_lock, os.O_RDWR | os.O_CLOEXEC)
        self._last_use = time.monotonic()
        self._last_touch = 0

    def run(self) -> None:
        with self.signals:
            try:
                while not self._is_over():
                    if self.signals.wait(min(1.0, max(0.05, self.linger / 4)), self.listener):
                        connection, _ = self.listener.accept()
                        with connection:
                            self._serve(connection)
            finally:
                self._stop()

    def _is_over(self) -> bool:
        if self.asked_to_stop or self.signals.received:
            return True
        if not is_still(self.home.servers_lock, self.lock):
            _note("the home is gone")
            self.tidy = False
            if self.home.root.exists():
                # A successor's already: with a clean stop the servers would remove its sockets, named like theirs.
                for server in self.servers.values():
                    server.kill()
            return True
        if self._has_crashed():
            self.tidy = False
            return True
        return self._is_unused()

    def _has_crashed(self) -> bool:
        dead = [server.title for server in self.servers.values() if not server.is_running]
        if dead:
            _note(f"{' and '.join(dead)} died")
        return bool(dead)

    def _is_unused(self) -> bool:
        """Whether to stop now. If so, the users' lock stays ours until this process ends."""
        now = time.monotonic()
        if not self._lock_out_users():
            self._last_use = now
            return False
        if (touch := os.fstat(self._users).st_mtime_ns) != self._last_touch:
            self._last_touch = touch
            self._last_use = now
        if now - self._last_use >= (self.linger if self.servers else 0):
            _note("nobody uses the servers")
            return True
        fcntl.flock(self._users, fcntl.LOCK_UN)
        return False

    def _lock_out_users(self) -> bool:
        try:
            fcntl.flock(self._users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _serve(self, connection: socket.socket) -> None:
        match control.receive(connection).split():
            case ["start", *names]:
                # Unanswered after a crash: the command asks again, and gets the next supervisor.
                if not self._has_crashed():
                    control.answer(connection, self._start(names))
            case ["stop"] if not self._lock_out_users():
                control.answer(connection, "busy")
            case ["stop", *_]:
                # Before the answer: whoever finds somebody listening after it has found a successor.
                self._stop_listening()
                self.asked_to_stop = True
                control.answer(connection, "stopping")

    def _start(self, names: list[str]) -> str | MavenError:
        """Starts those that don't run yet, side by side; all of them or none."""
        new: dict[str, Server] = {}
        try:
            with explained(self.home.root):
                for name in names:
                    if name not in self.servers:
                        new[name] = self._make(name)
                        new[name].launch()
                for server in new.values():
                    server.await_ready(lambda: self.signals.received)
        except BaseException as error:
            _stop_all(new)
            if not isinstance(error, MavenError):
                raise
            _note(str(error))
            return error
        self.servers |= new
        if new:
            _note(f"started {' and '.join(server.title for server in new.values())}")
        return "started" if new else "running"

    def _make(self, name: str) -> Server:
        home, account, kept = self.home, self.account, (self.lock,)
        password = ensure_password(home)
        if name == "valkey":
            (binary,) = binaries.usable([binaries.valkey_bin()], account, home.binaries)
            log = home.logs / "valkey.log"
            return Valkey(binary, home.valkey_data, home.valkey_socket, password, log, account, kept)
        programs = [binaries.initdb_bin(), binaries.postgres_bin()]
        initdb, postgres = binaries.usable(programs, account, home.binaries)
        log = home.logs / "postgres.log"
        return PostgreSQL(
            initdb, postgres, home.postgres_data, home.postgres_sockets, password, log, account, kept
        )

    def _stop_listening(self) -> None:
        """Removes the socket, unless after a crash: `maven up` tells by it that nobody meant the servers to stop."""
        self.listener.close()
        if self.tidy:
            self.home.control.unlink(missing_ok=True)

    def _stop(self) -> None:
        self._stop_listening()
        _stop_all(self.servers)
        if self.tidy:
            shutil.rmtree(self.home.run, ignore_errors=True)
        _note("stopped")


def _stop_all(servers: dict[str, Server]) -> None:
    for server in servers.values():
        server.ask_to_stop()
    for server in servers.values():
        server.await_stopped()


def _note(text: str) -> None:
    """A line for HOME/log/supervisor.log. A full disk must not end the servers."""
    with suppress(OSError):
        sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} [{os.getpid()}] {text}\n")
        sys.stderr.flush()


def main(arguments: list[str]) -> None:
    home, linger, listener, lock = arguments
    if os.fork() != 0:
        os._exit(0)
    # The starting command's habits end here. The descriptors must not reach the servers unasked.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    for descriptor in (int(listener), int(lock)):
        os.set_inheritable(descriptor, False)
    Supervisor(Home.at(Path(home)), float(linger), socket.socket(fileno=int(listener)), int(lock)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
