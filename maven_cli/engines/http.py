"""An engine behind HTTP: one DELETE for each order, a few at a time, each within its own deadline.

Requests run in an event loop on a thread of their own, so that a deadline ends a request wherever it stands (a client's
read time-out begins anew with every byte that drips in), and so that answers are taken while the caller writes down the
ones before.

Neither proxies nor ~/.netrc are used: an engine is talked to directly, or not at all. Certificates are checked against
the system's, or SSL_CERT_FILE.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from queue import SimpleQueue
from typing import Any

import httpx

from maven_cli import __version__
from maven_cli.engines import Answer, Nonsense, NotAsked, NotFound, Removal, Unreachable, check_keys
from maven_cli.engines.answers import check_order, removed
from maven_cli.errors import ConfigurationError
from maven_cli.times import format_duration

CONCURRENCY = 8
ATTEMPTS = 3
# So many removals in a row without an answer, and the rest of the call isn't sent any more.
GIVE_UP_AFTER = 3

_FIRST_PAUSE = 0.05  # seconds before the second attempt; twice that before the third
_BODY_LIMIT = 64 * 1024  # bytes
_TRY_AGAIN = (408, 425, 429)  # with every 5xx

_Result = tuple[Removal, Answer] | BaseException


class HttpEngine:
    """An engine that speaks the HTTP protocol of docs/reference/engine-protocols.md."""

    name = "http"

    def __init__(self, url: str, token: str | None, timeout: timedelta) -> None:
        """Raises ConfigurationError, which names the setting and never its value."""
        self._orders, self.target = _address(url, token)
        self._timeout = timeout
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        self._headers["User-Agent"] = f"maven/{__version__}"
        if token is not None:
            if re.fullmatch(r"[!-~]+", token) is None:
                raise ConfigurationError("MAVEN_ENGINE_TOKEN must be printable ASCII without blanks")
            self._headers["Authorization"] = f"Bearer {token}"
        # Loading the system's certificates takes longer than a request.
        self._tls: ssl.SSLContext | bool = ssl.create_default_context() if url.startswith("https") else False

    def cancel(self, removals: Sequence[Removal]) -> Iterator[tuple[Removal, Answer]]:
        """As `Engine.cancel`. A caller that stops listening waits for the requests that are in flight, no others."""
        check_keys(removals)
        if not removals:
            return
        results: SimpleQueue[_Result] = SimpleQueue()
        abandoned = threading.Event()

        def work() -> None:
            try:
                asyncio.run(self._ask_all(removals, results, abandoned))
            except BaseException as error:  # noqa: BLE001 — raised again where the caller is
                results.put(error)

        thread = threading.Thread(target=work, name="engine", daemon=True)
        thread.start()
        try:
            for _ in removals:
                result = results.get()
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            abandoned.set()
            # Not for ever: a look-up of a host's name can't be cancelled.
            thread.join(self._timeout.total_seconds() + 1)

    def close(self) -> None:
        """Nothing stays open between two calls."""

    async def _ask_all(
        self, removals: Sequence[Removal], results: SimpleQueue[_Result], abandoned: threading.Event
    ) -> None:
        """Puts one answer for each removal into `results`, unless it is abandoned."""
        failures = 0
        todo = iter(removals)

        async def work() -> None:
            nonlocal failures
            for removal in todo:  # shared: each removal goes to whoever is free
                if abandoned.is_set():
                    return
                if failures >= GIVE_UP_AFTER:
                    reason = f"not asked, because of those before: {self.target} gave no answer"
                    results.put((removal, NotAsked(reason)))
                    continue
                answer = await self._ask(client, removal)
                failures = failures + 1 if isinstance(answer, Unreachable) else 0
                results.put((removal, answer))

        # No time-outs of the client's own: each removal has one for all it does.
        async with (
            httpx.AsyncClient(
                headers=self._headers,
                verify=self._tls,
                timeout=None,
                limits=httpx.Limits(max_keepalive_connections=CONCURRENCY),
                follow_redirects=False,
                trust_env=False,
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(min(CONCURRENCY, len(removals))):
                group.create_task(work())

    async def _ask(self, client: httpx.AsyncClient, removal: Removal) -> Answer:
        """One removal: up to ATTEMPTS requests with the same key within the time-out."""
        answer: Answer = Unreachable(f"{self.target} gave no answer within {format_duration(self._timeout)}")
        # When the time is up, the answer is what the attempt before met, or that there was none.
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout.total_seconds()):
                for attempt in range(ATTEMPTS):
                    if attempt:
                        # Jitter: passes of several hosts must not knock in step.
                        await asyncio.sleep(_FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
                    answer = await self._attempt(client, removal)
                    if not isinstance(answer, Unreachable):
                        break
        return answer

    async def _attempt(self, client: httpx.AsyncClient, removal: Removal) -> Answer:
        """One request. Nothing that an engine sends, or fails to, raises."""
        try:
            async with client.stream(
                "DELETE",
                f"{self._orders}/{removal.order_id}",
                params={"pair": removal.pair, "side": removal.side},
                headers={"Idempotency-Key": removal.request_key},
            ) as response:
                body = b""
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > _BODY_LIMIT:
                        return Nonsense(f"{self.target} sent more than {_BODY_LIMIT // 1024} KiB")
        except httpx.TransportError as error:
            text = str(error).partition("\n")[0].rstrip(".")
            return Unreachable(f"{self.target} can't be reached: {text or type(error).__name__}")
        except httpx.HTTPError as error:
            return Nonsense(f"{self.target} sent what isn't HTTP: {type(error).__name__}")
        return self._meaning(removal, response.status_code, body)

    def _meaning(self, removal: Removal, status: int, body: bytes) -> Answer:
        if status >= 500 or status in _TRY_AGAIN:
            return Unreachable(f"{self.target} answered HTTP {status}")
        if status in (401, 403):
            return Nonsense(f"{self.target} answered HTTP {status}; check MAVEN_ENGINE_TOKEN")
        if status not in (200, 404):
            return Nonsense(f"{self.target} answered HTTP {status}; check MAVEN_ENGINE_URL")
        try:
            document = _document(body)
            if status == 200:
                return removed(
                    removal, document.get("orderId"), document.get("remaining"), document.get("sequence")
                )
            # A proxy that knows no such path says 404 too; only the engine knows this document.
            if document.get("error") != "order_not_found":
                raise ValueError("it doesn't say order_not_found")
            check_order(removal, document.get("orderId"))
            return NotFound()
        except ValueError as error:
            return Nonsense(f"{self.target} answered HTTP {status}, but {error}")


def _document(body: bytes) -> dict[str, Any]:
    """A JSON object with exact numbers. Raises ValueError in words that repeat nothing of it."""
    try:
        found = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, ArithmeticError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ValueError("the body is not a JSON object")  # noqa: TRY004 — the engine's value is wrong
    return found


def _no_number(_text: str) -> Any:
    raise ValueError("NaN and Infinity are no JSON")


def _address(url: str, token: str | None) -> tuple[str, str]:
    """Where orders are, and host and port for messages."""
    try:
        parts = httpx.URL(url)
        usual = 443 if parts.scheme == "https" else 80
        host, port = parts.host, usual if parts.port is None else parts.port
    except (httpx.InvalidURL, ValueError):
        host, port = "", 0
    if not host or not 0 < port < 65536:
        raise ConfigurationError("MAVEN_ENGINE_URL is not a valid address, like https://host:port/path")
    if parts.query or parts.fragment:
        raise ConfigurationError("MAVEN_ENGINE_URL must end with a path: no ?query and no #fragment")
    if parts.userinfo and token is not None:
        raise ConfigurationError("MAVEN_ENGINE_URL holds a user and MAVEN_ENGINE_TOKEN is set: choose one")
    return f"{url.rstrip('/')}/orders", f"{host}:{port}"
