"""Waiting for something to do, or for SIGTERM or SIGINT."""

from __future__ import annotations

import os
import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Any


class StopSignals:
    """While entered, SIGTERM and SIGINT end no process: they end ``wait`` and set ``received``.

    Other signals can be named that shall end ``wait`` alone. Only the main thread can enter it.
    """

    def __init__(self, *waking: signal.Signals) -> None:
        self.received = False
        self._waking = waking
        self._former: dict[signal.Signals, Any] = {}
        self._former_wakeup = -1
        self._reader = self._writer = -1

    def __enter__(self) -> StopSignals:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._former_wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, *self._waking):
            self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        signal.set_wakeup_fd(self._former_wakeup)
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, seconds: float, listener: socket.socket | None = None) -> bool:
        """Until a signal, a connection at the listener (then True), or the time is over."""
        watched: list[int | socket.socket] = [self._reader]
        if listener is not None:
            watched.append(listener)
        ready, _, _ = select.select(watched, [], [], seconds)
        if self._reader in ready:
            os.read(self._reader, 512)
        return listener is not None and listener in ready

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if number not in self._waking:
            self.received = True
