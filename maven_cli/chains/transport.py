"""HTTP with one deadline for a whole request: to connect, to send, and to read headers and body.

The time-outs of an HTTP client begin anew with every byte that drips in.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import httpx


class TimedTransport(httpx.HTTPTransport):
    """A transport whose requests end in time. Each thread begins its own request with `start`."""

    def __init__(self, context: ssl.SSLContext | bool, connections: int) -> None:
        """context: False for a URL without TLS. Loading the system's certificates takes longer than a request."""
        super().__init__(verify=context, trust_env=False)
        self._current = threading.local()
        # The only way to a backend of one's own; httpx itself would take the rest of the pool's defaults, too.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context if isinstance(context, ssl.SSLContext) else None,
            max_connections=connections,
            network_backend=_Backend(self.left),
        )

    def start(self, seconds: float) -> None:
        self._current.end = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until the deadline of this thread's request. Raises httpcore.ReadTimeout when none is left."""
        left = float(self._current.end - time.monotonic())
        if left <= 0:
            raise httpcore.ReadTimeout
        return left


class _Backend(httpcore.NetworkBackend):
    def __init__(self, left: Callable[[], float]) -> None:
        self._backend = httpcore.SyncBackend()
        self._left = left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(host, port, self._left(), local_address, socket_options)
        return _Stream(stream, self._left)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._left()), self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
