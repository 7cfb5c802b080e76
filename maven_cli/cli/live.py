"""Screens that stay current: drawn again and again until a signal, the terminal left as it was.

Ctrl-C is how such a command is meant to end, so it exits 0; SIGTERM exits 143 like everywhere else.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from maven_cli.errors import StoppedError
from maven_cli.stopping import Stop

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

# The longest that a signal or a resized window waits for an answer.
_TICK = 0.25


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether a signal has come. Raises StoppedError at the end when that was SIGTERM."""
    stop = Stop()
    with stop.installed():
        yield lambda: stop.signal is not None
    if stop.signal == signal.SIGTERM:
        raise StoppedError("stopped by SIGTERM")


def until_stopped(
    out: Console, draw: Callable[[], RenderableType], wait: Callable[[float], None], *, every: float = 1.0
) -> None:
    """Draws on a screen of its own whenever `wait` returns early, the window was resized, or `every` seconds went by.

    wait: returns after at most that many seconds, sooner when there is something new. What was last drawn stays on the
    terminal.
    """
    import time

    from rich.live import Live

    last: RenderableType = ""
    with stopping() as stopped:
        with Live(
            console=out, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False
        ) as live:
            while not stopped():
                size, due = out.size, time.monotonic() + every
                last = draw()
                live.update(last, refresh=True)
                while not (stopped() or out.size != size or time.monotonic() >= due):
                    asked = min(due - time.monotonic(), _TICK)
                    began = time.monotonic()
                    wait(max(0.0, asked))
                    if time.monotonic() - began < asked * 0.9:
                        break
        out.print(last)
