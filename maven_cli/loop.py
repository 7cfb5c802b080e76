"""A pass again and again on the wall-clock grid, each time in a child forked from this warm process.

Why a child per pass, and not a call: a segfault, a leak or a pass that hangs in C code ends with the child, and the
loop goes on; a timeout is a kill. It costs some 20 ms of CPU against 330 ms for a process of its own (the imports are
paid once, and the child shares their memory). What makes forking safe here: this process has no threads and no
connections, so nothing is shared with the child that either could break.

The slots are at ``k × step + phase`` since the Unix epoch, in UTC: 5 s gives :00, :05, …; 10 s with phase 2 s gives
:02, :12, …. Days have no daylight-saving hours there. A slot that comes while a pass runs is skipped, and so are the
slots that a suspended or set clock jumped over; the loop looks at the clock again after each wait of at most a second.

The loop is one thread that waits for signals instead of handling them, so nothing ever interrupts it half-way.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn, Protocol

from maven_cli.errors import DependencyDownError, LockHeldError

SECOND = 1_000_000_000  # all instants and lengths of the grid are whole nanoseconds
MINUTE = 60 * SECOND

# cron starts a process up to this late in its minute …
CRON_LATE = 5 * SECOND
# … and `--for 58s` leaves so much for the last pass to end before the next process comes.
CRON_SPARE = 2 * SECOND

# After SIGTERM a pass has this long to cancel its statement and leave its run record.
KILL_AFTER = 5.0  # seconds
# timeout(1), systemd and terminals signal a process and its group at once: that is one request, not two.
SAME_REQUEST = 0.5  # seconds
LONGEST_WAIT = 1.0  # seconds

_STOPPING = frozenset({signal.SIGTERM, signal.SIGINT})
_WAITED_FOR = _STOPPING | {signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1


def nanoseconds(value: timedelta) -> int:
    """A timedelta as whole nanoseconds, exactly."""
    return value // timedelta(microseconds=1) * 1000


@dataclass(frozen=True)
class Grid:
    """The slots ``k × step + phase`` since the epoch, in nanoseconds."""

    step: int
    phase: int = 0

    def first(self, moment: int) -> int:
        """The first slot at or after a moment."""
        return moment + (self.phase - moment) % self.step

    def newest(self, moment: int) -> int:
        """The last slot at or before a moment."""
        return moment - (moment - self.phase) % self.step


@dataclass(frozen=True)
class Window:
    """The slots that one loop owns: those in ``[begin, end)``. `end` None: for ever."""

    begin: int
    end: int | None = None

    @classmethod
    def of(cls, start: int, length: int | None) -> Window:
        """What a loop that is started now owns.

        Normally ``[start, start + length)``. But a length of whole minutes, or up to two seconds less, is what cron
        is given, and there the windows of successive processes must meet exactly, however late each of them starts.
        So such a window ends with a minute on the clock; and it begins with one when that is at most five seconds
        ago, so that the slot at :00, when cron hasn't started us yet, is this process's too.
        """
        if length is None:
            return cls(start)
        minutes = -(-length // MINUTE)
        if minutes * MINUTE - length > CRON_SPARE:
            return cls(start, start + length)
        minute = start - start % MINUTE
        return cls(minute if start - minute <= CRON_LATE else start, minute + minutes * MINUTE)

    def first(self, grid: Grid, now: int) -> int:
        """The slot to begin with: the next one, or one that this window owns and has just missed."""
        newest = grid.newest(now)
        return newest if newest >= self.begin else grid.first(now)

    def over(self, slot: int) -> bool:
        """Whether a slot is somebody else's. Only the end counts: a clock set back must not end a loop."""
        return self.end is not None and slot >= self.end


class World(Protocol):
    """The clock and the signals, as the loop sees them."""

    def now(self) -> int:
        """The wall clock, in nanoseconds since the epoch."""

    def elapsed(self) -> float:
        """Seconds on a clock that nobody sets."""

    def wait(self, seconds: float) -> Signal | None:
        """Returns after that time, or earlier: with a signal, or for no reason."""


@dataclass(frozen=True)
class Signal:
    """SIGTERM or SIGINT. `to_all`: a terminal sent it, so the running pass has it too."""

    number: int
    to_all: bool = False


@dataclass(frozen=True)
class Ended:
    """How one pass ended."""

    slot: int
    code: int
    seconds: float
    killed_by: int | None = None
    timed_out: bool = False
    stopped_by: int | None = None
    """The signal that asked the loop to end meanwhile."""
    failure: str = ""
    """Why the pass could not even be started."""


def loop(
    grid: Grid,
    window: Window,
    world: World,
    run: Callable[[int], Ended],
    *,
    skipped: Callable[[int], None] = lambda _count: None,
) -> int:
    """Calls `run(slot)` at every slot of the window until it ends or a signal comes, and returns the exit code.

    128 and the signal's number; else the last code that was neither 0 nor 75; else 0. `skipped` is told how many slots
    went by while a pass ran.
    """
    worst = 0
    last: int | None = None
    due = window.first(grid, world.now())
    # A clock that is set back doesn't prolong a loop whose successor cron has started by then.
    give_up = (
        None if window.end is None else world.elapsed() + (window.end - world.now()) / SECOND + LONGEST_WAIT
    )

    def following(now: int) -> int:
        slot = grid.first(now)
        # Set back by less than a step: this slot has had its pass.
        return slot + grid.step if slot == last else slot

    while True:
        now = world.now()
        # Asked again after every wait, so a clock that was set, or a suspended night, is followed at once.
        if not due <= now < due + grid.step:
            due = following(now)
        if window.over(due) or (give_up is not None and world.elapsed() > give_up):
            return worst
        if now < due:
            found = world.wait(min((due - now) / SECOND, LONGEST_WAIT))
            if found is not None:
                return 128 + found.number
            continue
        ended = run(due)
        if ended.code not in (0, LockHeldError.exit_code):
            worst = ended.code
        if ended.stopped_by is not None:
            return 128 + ended.stopped_by
        last, due = due, following(world.now())
        if due > last + grid.step:
            skipped((due - last) // grid.step - 1)


class RealWorld:
    """This process's clock and signals. Only one thread, and only inside `installed`."""

    def now(self) -> int:
        return time.time_ns()

    def elapsed(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> Signal | None:
        info = signal.sigtimedwait(_WAITED_FOR, max(seconds, 0.0))
        if info is None or info.si_signo == signal.SIGCHLD:
            return None
        # A positive code is the kernel's own: the terminal's Ctrl-C, which the whole foreground group received.
        return Signal(info.si_signo, to_all=info.si_code > 0)

    @contextmanager
    def installed(self) -> Iterator[RealWorld]:
        """Keeps the signals pending for `wait` inside the block."""
        # A parent that ignores SIGCHLD would have the kernel throw our children's exit codes away.
        previous = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
        try:
            yield self
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            signal.signal(signal.SIGCHLD, previous or signal.SIG_DFL)


def settle() -> None:
    """Makes what is in memory now cheap to share: the collector won't write to it in any child."""
    gc.collect()
    gc.freeze()


def run_forked(body: Callable[[], int], slot: int, world: World, timeout: float | None) -> Ended:
    """Runs `body` in a child and waits for it; its return value is the child's exit code.

    A stopping signal is passed on, and the pass stops at its next item; a second one kills it. So does the timeout:
    SIGTERM, and SIGKILL five seconds later. A system that has no room for a child now may have it at the next slot.
    """
    started = world.elapsed()
    try:
        pid = _fork(body, timeout)
    except OSError as error:
        reason = f"no process could be started: {error.strerror or error}"
        return Ended(slot, DependencyDownError.exit_code, 0.0, failure=reason)
    asked: Signal | None = None
    asked_at = 0.0
    timed_out = False
    kill_at: float | None = None
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        now = world.elapsed()
        if timeout is not None and not timed_out and now - started >= timeout:
            timed_out = True
            kill_at = now + KILL_AFTER
            _send(pid, signal.SIGTERM)
        if kill_at is not None and now >= kill_at:
            kill_at = None
            _send(pid, signal.SIGKILL)
        looks = [now + LONGEST_WAIT]
        if timeout is not None and not timed_out:
            looks.append(started + timeout)
        if kill_at is not None:
            looks.append(kill_at)
        found = world.wait(min(looks) - now)
        if found is None:
            continue
        if asked is None:
            asked, asked_at = found, world.elapsed()
            if not found.to_all:
                _send(pid, found.number)
        elif world.elapsed() - asked_at > SAME_REQUEST:
            _send(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return Ended(
        slot,
        code if code >= 0 else 128 - code,
        world.elapsed() - started,
        killed_by=-code if code < 0 else None,
        timed_out=timed_out,
        stopped_by=asked.number if asked is not None else None,
    )


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _fork(body: Callable[[], int], timeout: float | None) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(body, parent, timeout)
    return pid


def _child(body: Callable[[], int], parent: int, timeout: float | None) -> NoReturn:
    """The child's whole life. Nothing of the parent's call stack is returned to."""
    code = 70
    try:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_DFL)  # until the pass installs its own
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WAITED_FOR)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(128 + signal.SIGTERM)
        if timeout is not None:
            # The parent does this; but it may be gone by then.
            signal.setitimer(signal.ITIMER_REAL, timeout + KILL_AFTER + 1.0)
        code = body()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)
