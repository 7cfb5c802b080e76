"""What a command does with the servers: use them, keep them up, look for them, stop them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from maven_cli.embedded import control, users
from maven_cli.embedded.accounts import require_ours
from maven_cli.embedded.home import Home
from maven_cli.embedded.secret import read_password
from maven_cli.embedded.trouble import explained
from maven_cli.embedded.urls import database_url, redis_url
from maven_cli.errors import TryLaterError

# `launch` is imported where something has to be started or stopped: with it comes subprocess, which a command that
# finds the servers running doesn't need.

# An earlier generation gets this long to end: its own clean stop, then two insisting ones.
_ENDING_LIMIT = 100.0
# Enough for a supervisor that is killed again and again, and soon over when none can live at all.
_STARTS = 10


@dataclass(frozen=True)
class Servers:
    """The servers' URLs, empty for the one that wasn't asked for. Both hold the password."""

    database_url: str
    redis_url: str
    started: bool
    """Whether this call had to start any of them."""


def attach(home: Path, *, postgres: bool = True, redis: bool = True) -> Servers:
    """Uses the servers until this process ends; starts those that don't run. A few milliseconds when they do.

    Raises ConfigurationError, DiskFullError, DatabaseDownError, RedisDownError or TryLaterError.
    """
    place = Home.at(home)
    names = [name for name, wanted in (("valkey", redis), ("postgres", postgres)) if wanted]
    with explained(place.root):
        new = _hold(place)
        try:
            reply = _request(place, " ".join(["start", *names]))
            password = read_password(place)
        except BaseException:
            if new:
                users.let_go(place)
            raise
    return Servers(
        database_url(place.postgres_sockets, password) if postgres else "",
        redis_url(place.valkey_socket, password) if redis else "",
        started=reply == "started",
    )


def run_foreground(home: Path, ready: Callable[[Servers], None]) -> None:
    """Keeps both servers up until SIGTERM or SIGINT, or until they are stopped on purpose (``stop(force=True)``).

    Then they stop at once if nobody else uses them.
    """
    from maven_cli.embedded.stop_signals import StopSignals

    place = Home.at(home)
    try:
        with StopSignals() as signals:
            ready(attach(home))
            while not signals.received:
                signals.wait(1.0)
                if not place.control.exists():  # a crash would have left it
                    return
                if not signals.received:
                    attach(home)
        with suppress(TryLaterError):
            stop(home)
    finally:
        users.let_go(place)


def is_running(home: Path) -> bool:
    """Whether a supervisor is there to be asked."""
    place = Home.at(home)
    with explained(place.root):
        return control.listens(place)


def stop(home: Path, *, force: bool = False) -> bool:
    """Stops both servers and returns when they are gone. False when nothing ran.

    This process's own use ends with it. Other processes' use raises TryLaterError, or with ``force`` is ignored.
    """
    from maven_cli.embedded.launch import all_gone

    place = Home.at(home)
    request = "stop force" if force else "stop"
    with explained(place.root):
        mine = users.let_go(place)
        give_up = time.monotonic() + _ENDING_LIMIT
        while (reply := control.ask(place, request)) is None:
            if all_gone(place):
                return False
            _pause(place, give_up)
        if reply == "busy":
            others = users.holders(place.users_lock)
            if mine:
                users.hold(place)
            raise TryLaterError(
                f"{_who(others)} the embedded servers in {place.root}: end them first, or use --force"
            )
        while not all_gone(place) and not control.listens(place):
            _pause(place, give_up)
    return True


def _hold(place: Home) -> bool:
    if not place.users_lock.exists():
        from maven_cli.embedded.accounts import service_account
        from maven_cli.embedded.directories import make_home

        make_home(place, service_account())
    require_ours(place.root)
    return users.hold(place)


def _request(place: Home, request: str) -> str:
    """Asks the supervisor, after starting one if there is none."""
    give_up = time.monotonic() + _ENDING_LIMIT
    starts = 0
    while (reply := control.ask(place, request)) is None:
        from maven_cli.embedded import launch

        if starts == _STARTS:
            raise launch.supervisor_failure(place)
        if launch.start_supervisor(place):
            starts += 1
        else:
            _pause(place, give_up)
    return reply


def _pause(place: Home, give_up: float) -> None:
    """Between two looks at servers that are about to start or to end."""
    if time.monotonic() > give_up:
        raise TryLaterError(
            f"earlier servers in {place.root} don't end; end the processes that name it, then try again"
        )
    time.sleep(0.01)


def _who(pids: list[int]) -> str:
    if not pids:
        return "other maven processes use"
    return f"process {pids[0]} uses" if len(pids) == 1 else f"processes {', '.join(map(str, pids))} use"
