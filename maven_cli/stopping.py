"""SIGTERM and SIGINT as an orderly end of a pass."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from maven_cli.errors import InterruptedByUserError, StoppedError


class Stop:
    """Turns SIGTERM and SIGINT into an orderly end: cancel what runs, then raise at the next check."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.connections: list[psycopg.Connection] = []
        self._canceller: threading.Thread | None = None
        self._settled = threading.Event()

    def check(self) -> None:
        """Raises StoppedError once a signal has arrived."""
        if self.signal is not None:
            kind = InterruptedByUserError if self.signal == signal.SIGINT else StoppedError
            raise kind(f"stopped by {signal.Signals(self.signal).name}; the next pass goes on from here")

    def settle(self, conn: psycopg.Connection) -> None:
        """Ends the cancelling, so that it doesn't hit what `conn` does next."""
        self._settled.set()
        if self._canceller is not None:
            self._canceller.join()
        self.connections.remove(conn)

    def _arrived(self, number: int, _frame: object) -> None:
        self.signal = number
        if self._canceller is None:
            # From a thread: a handler runs between two bytecodes of whatever is waiting for that very connection.
            self._canceller = threading.Thread(target=self._cancel, daemon=True)
            self._canceller.start()

    def _cancel(self) -> None:
        # Again and again: the signal may have come just before a statement was sent.
        while not self._settled.is_set():
            for conn in list(self.connections):
                with suppress(psycopg.Error):
                    conn.cancel_safe(timeout=5)
            self._settled.wait(0.5)

    @contextmanager
    def installed(self) -> Iterator[Stop]:
        """Handles the two signals inside the block; only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        previous = {
            number: signal.signal(number, self._arrived) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield self
        finally:
            self._settled.set()
            for number, handler in previous.items():
                signal.signal(number, handler)
