"""Server processes that can't outlive the process that started them."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import ClassVar

from maven_cli.embedded.accounts import Account
from maven_cli.embedded.logfile import roll
from maven_cli.embedded.trouble import disk_full, is_full
from maven_cli.errors import MavenError, TryLaterError

_PR_SET_PDEATHSIG = 1
# Loaded here, because between fork and exec there is no time to look for libraries.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

# The caller's environment stays out: PG* variables steer PostgreSQL, MAVEN_* ones may hold secrets.
ENVIRONMENT = {"LC_ALL": "C", "TZ": "UTC", "PATH": "/usr/bin:/bin"}

# Recovery after a crash replays up to a gigabyte of WAL, and begins anew when it is cut short.
_START_LIMIT = 300.0
_STOP_LIMIT = 30.0
_TELLING = re.compile(r"fatal|panic|error|fail|can't|cannot|could not|no space|denied", re.IGNORECASE)
# "2026-01-31 13:45:00.123 UTC [4711] FATAL:  …", maybe after a prompt, and "4711:M 31 Jan 2026 13:45:00.123 # …"
_PREFIX = re.compile(r"^(.* UTC \[\d+\] [A-Z]+: +|\d+:[A-Z] .{24} \S |\w+: (error|fatal): )")


def die_with_parent(signal: Signals) -> Callable[[], None]:
    """For ``preexec_fn``, which runs after the user was dropped (setuid would clear this): the kernel sends the signal
    when the *thread* that forked ends, so only the main thread may start servers. Linux alone has it.
    """
    parent = os.getpid()

    def arm() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal), 0, 0, 0)
            if os.getppid() != parent:  # it died before it could be watched
                os._exit(1)

    return arm


def start(
    command: Sequence[str | Path],
    account: Account,
    *,
    death_signal: Signals,
    kept: Sequence[int],
    cwd: Path,
    stdin: int,
    stdout: int,
    stderr: int,
) -> subprocess.Popen[bytes]:
    """A child as the account, without the caller's environment; ``kept`` are the descriptors that it inherits."""
    return subprocess.Popen(
        list(command),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=ENVIRONMENT,
        umask=0o077,
        pass_fds=kept,
        preexec_fn=die_with_parent(death_signal),
        user=account.uid if account.dropped else None,
        group=account.gid if account.dropped else None,
        extra_groups=[] if account.dropped else None,
    )


def telling_line(output: str) -> str:
    """The line that says what went wrong: the last one that sounds like it, else the last one; without its prefix."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    line = next((line for line in reversed(lines) if _TELLING.search(line)), lines[-1] if lines else "")
    return _PREFIX.sub("", line)


class Server(ABC):
    """One server: started, awaited, stopped. What it is and how it says that it is ready, its class knows."""

    title: ClassVar[str]
    failure: ClassVar[type[MavenError]]
    stop_signal: ClassVar[Signals] = SIGTERM  # a clean end
    quit_signal: ClassVar[Signals] = SIGKILL  # when that takes too long

    def __init__(self, root: Path, log: Path, account: Account, kept: Sequence[int] = ()) -> None:
        self.root = root
        self.log = log
        self.account = account
        self.kept = kept
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @abstractmethod
    def launch(self) -> None:
        """Prepares the data directory and starts the process."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether this very process takes clients now."""

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def await_ready(self, stopping: Callable[[], bool]) -> None:
        """Returns when the server takes clients. Raises the server's own last words when it ended instead."""
        give_up = time.monotonic() + _START_LIMIT
        while not self.is_ready():
            if not self.is_running:
                raise self.failed(self._output())
            if stopping():
                raise TryLaterError(f"{self.title} was asked to stop while it started")
            if time.monotonic() > give_up:
                raise self.failed(f"not ready after {_START_LIMIT:.0f} s")
            time.sleep(0.003)

    def ask_to_stop(self) -> None:
        if self.process is not None and self.is_running:
            self.process.send_signal(self.stop_signal)

    def kill(self) -> None:
        """Leaves the server no time to touch any file."""
        if self.process is not None and self.is_running:
            self.process.kill()

    def await_stopped(self) -> None:
        """Waits for the clean end, then insists."""
        if self.process is None:
            return
        for insist in (self.quit_signal, SIGKILL):
            try:
                self.process.wait(_STOP_LIMIT)
                break
            except subprocess.TimeoutExpired:
                self.process.send_signal(insist)
        self.process.wait()
        self.process = None

    def failed(self, output: str) -> MavenError:
        """The error for a server that ended instead of starting: with its own last words, if the disk had room."""
        if is_full(self.root, output):
            return disk_full(self.root)
        said = telling_line(output) or "it said nothing"
        return self.failure(f"{self.title} did not start: {said} (all of it: {self.log})")

    def _spawn(self, command: Sequence[str | Path], cwd: Path, stdin: int = subprocess.DEVNULL) -> None:
        """Starts the process with its output in the log."""
        roll(self.log)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = start(
                command,
                self.account,
                death_signal=self.stop_signal,
                kept=self.kept,
                cwd=cwd,
                stdin=stdin,
                stdout=log.fileno(),
                stderr=log.fileno(),
            )

    def _output(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")
