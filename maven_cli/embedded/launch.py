"""Starting a supervisor: one at a time, and never before the last one's servers are gone."""

from __future__ import annotations

import fcntl
import math
import os
import shutil
import subprocess
import sys

from maven_cli.embedded import control
from maven_cli.embedded.accounts import service_account
from maven_cli.embedded.directories import make_home, make_run
from maven_cli.embedded.home import Home
from maven_cli.embedded.logfile import roll
from maven_cli.errors import ConfigurationError, MavenError

_LINGER = "MAVEN_EMBEDDED_LINGER"


def start_supervisor(home: Home) -> bool:
    """Starts one and returns when it can be asked. False while another is being started, runs, or is ending.

    The lock and the listening socket are made here and inherited: there is no moment at which the new supervisor
    exists without them.
    """
    lock = _take(home)
    if lock is None:
        return False
    try:
        account = service_account()
        make_home(home, account)
        make_run(home, account)
        home.logs.mkdir(0o700, exist_ok=True)
        try:
            _spawn(home, lock)
        except BaseException:
            shutil.rmtree(home.run, ignore_errors=True)
            raise
    finally:
        os.close(lock)
    return True


def all_gone(home: Home) -> bool:
    """Whether no supervisor and no server is left of what ran here."""
    if not home.servers_lock.exists():
        return True
    lock = _take(home)
    if lock is None:
        return False
    os.close(lock)
    return True


def _take(home: Home) -> int | None:
    lock = os.open(home.servers_lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _spawn(home: Home, lock: int) -> None:
    """Runs the supervisor's first process, which ends as soon as it has forked the one that stays."""
    linger = _linger()
    roll(home.supervisor_log)
    with home.supervisor_log.open("ab") as log, control.listen(home) as listener:
        passed = (listener.fileno(), lock)
        # -P: without it Python would look for modules in the directory where the user happens to be.
        command = [sys.executable, "-P", "-m", "maven_cli.embedded.supervisor", str(home.root)]
        ended = subprocess.run(
            [*command, str(linger), *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=passed,
            start_new_session=True,
            check=False,
        )
    if ended.returncode > 0:  # one that was killed has nothing to say: the caller starts another
        raise supervisor_failure(home)


def supervisor_failure(home: Home) -> MavenError:
    lines = home.supervisor_log.read_text(errors="replace").splitlines() or ["it said nothing"]
    return MavenError(
        f"maven's supervisor did not start: {lines[-1].strip()} (all of it: {home.supervisor_log})"
    )


def _linger() -> float:
    """Seconds that the servers stay after their last user."""
    text = os.environ.get(_LINGER) or "30"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"{_LINGER} must be a number of seconds, like 30")
    return seconds
