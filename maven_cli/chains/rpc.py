"""JSON-RPC over HTTP to one endpoint: batches matched by id, bounded in time, size, rate and concurrency.

What providers do differently is handled here and nowhere else: batches that come back out of order, short, or not at all;
429 and 503 with or without Retry-After; limits told as JSON-RPC errors; pages of HTML. Every message names the endpoint,
never its URL, which often is its key.

Neither proxies nor ~/.netrc are used: a node is talked to directly, or not at all. Certificates are checked against the
system's, or SSL_CERT_FILE.
"""

from __future__ import annotations

import json
import random
import re
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from itertools import repeat
from typing import Any
from urllib.parse import unquote

import httpx

from maven_cli import __version__
from maven_cli.chains import NodeBehindError, NodeDownError
from maven_cli.chains.transport import TimedTransport
from maven_cli.errors import ConfigurationError
from maven_cli.logs import mute
from maven_cli.times import format_duration

mute("httpx", "httpcore")

ATTEMPTS = 4
BATCH = 100  # calls in one request
BODY_LIMIT = 64 * 2**20  # bytes of one answer

_FIRST_PAUSE = 0.25  # seconds before the second attempt; twice that before each further one
_LONGEST_PAUSE = 5.0  # seconds, also when Retry-After asks for more
_TRY_AGAIN = (408, 425, 429, 500, 502, 503, 504, 524)
_SLOW = (408, 504, 524)
_STARTING = -28  # Bitcoin Core's code: it loads its blocks, or its wallet
_LINE = 500  # characters of a refusal: some say only at their end which range of blocks would work
_SECRET = 6  # characters; what is shorter is no key, but a word like rpc or eth
# What providers say, in JSON-RPC, instead of 429.
_LIMITED = re.compile(
    r"rate.?limit|too many requests|request (rate|count|limit)|requests? (per|in|limit)|per.second|\d ?/ ?s(ec(ond)?)?\b"
    r"|compute units|throughput|quota",
    re.IGNORECASE,
)
# And when a batch has too many calls for them, though they know batches.
_BATCH_SIZE = re.compile(r"size|large|limit|many|more than|max|exceed", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a node is. rate: requests a second, None for no bound. concurrency: requests at once."""

    name: str
    url: str = field(repr=False)
    rate: float | None = None
    concurrency: int = 4


@dataclass(frozen=True, slots=True)
class RpcError:
    """A call that the node refused. message: the node's words, in one line of at most 500 characters."""

    code: int
    message: str


Call = tuple[str, Sequence[Any]]


class TooMuchError(NodeDownError):
    """An answer is too large, or takes a node too long."""


class TooSlowError(TooMuchError):
    """An answer takes a node too long."""


class Rpc:
    """A client of one endpoint. May be used from several threads.

    check: called between requests; what it raises ends the call. timeout: of one request, from its first byte to its
    last.
    """

    def __init__(
        self, endpoint: Endpoint, timeout: timedelta, check: Callable[[], None] = lambda: None
    ) -> None:
        """Raises ConfigurationError, which names the endpoint and never its address."""
        self.name = endpoint.name
        self.requests = 0
        self._check = check
        self._timeout = timeout.total_seconds()
        self._largest = BATCH * 10  # calls that the node takes at once, as far as it told
        self._id = 0
        self._lock = threading.Lock()
        self._gap = 1 / endpoint.rate if endpoint.rate else 0.0
        self._next = 0.0
        self.concurrency = endpoint.concurrency
        # Not as the client's base_url, which gains a slash at its end.
        self._url, auth = _address(endpoint)
        self._secrets = _secrets(endpoint.url)
        tls = ssl.create_default_context() if self._url.scheme == "https" else False
        self._transport = TimedTransport(tls, endpoint.concurrency)
        self._client = httpx.Client(
            auth=auth,
            transport=self._transport,
            headers={"User-Agent": f"maven/{__version__}", "Content-Type": "application/json"},
            timeout=httpx.Timeout(self._timeout),
            follow_redirects=False,
            trust_env=False,
        )

    @property
    def batches(self) -> bool:
        """Whether the node has taken every batch so far; one that takes none is asked call by call."""
        return self._largest > 1

    def call(self, method: str, *params: Any) -> Any:
        """The result. Raises NodeDownError also for a call that the node refuses."""
        (result,) = self.batch([(method, params)])
        if isinstance(result, RpcError):
            raise NodeDownError(f"node {self.name} refuses {method}: {result.message}")
        return result

    def batch(self, calls: Sequence[Call], *, size: int = BATCH, divisible: bool = False) -> list[Any]:
        """The results in the order of the calls, an RpcError for each that the node refused.

        Calls go out `size` at a time, in parallel as far as the endpoint allows. divisible: the caller can ask for less,
        so what takes the node too long isn't tried again. Raises NodeDownError, and TooMuchError where less may help.
        """
        parts = [calls[start : start + size] for start in range(0, len(calls), size)]
        if len(parts) <= 1 or self.concurrency == 1:
            return [result for part in parts for result in self._part(part, divisible)]
        with ThreadPoolExecutor(min(len(parts), self.concurrency)) as pool:
            return [result for part in pool.map(self._part, parts, repeat(divisible)) for result in part]

    def pause(self, seconds: float) -> None:
        """Waits, and looks up every quarter of a second whether it should go on."""
        end = time.monotonic() + seconds
        self._check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.25))
            self._check()

    def close(self) -> None:
        self._client.close()

    # -------------------------------------------------------------------------------------------------- one request

    def _part(self, calls: Sequence[Call], divisible: bool) -> list[Any]:
        """The results of some calls in one request, or in more where the node wants it so."""
        if len(calls) > self._largest:
            parts = [calls[start : start + self._largest] for start in range(0, len(calls), self._largest)]
            return [result for part in parts for result in self._part(part, divisible)]
        half = len(calls) // 2
        results: list[Any] | None = None
        try:
            results = self._patiently(calls, divisible)
        except _BatchError as refusal:
            if not refusal.smaller:
                self._largest = half = 1
            elif len(calls) > 3:
                self._largest = half
            # Else hardly for their number: one of the calls will have brought it on the others.
        except TooMuchError:
            if divisible or len(calls) == 1:
                raise
        if results is None:
            return self._part(calls[:half], divisible) + self._part(calls[half:], divisible)
        # Some nodes answer the first calls of a batch, up to a number of bytes, and refuse the others.
        rest = [place for place, result in enumerate(results) if _is_too_large(result)]
        if 0 < len(rest) < len(calls):
            for place, result in zip(
                rest, self._part([calls[place] for place in rest], divisible), strict=True
            ):
                results[place] = result
        return results

    def _patiently(self, calls: Sequence[Call], divisible: bool) -> list[Any]:
        """The results of one request. What may be over soon is tried again, after a pause that grows."""
        for attempt in range(ATTEMPTS):
            try:
                return self._send(calls)
            except _LaterError as later:
                if divisible and later.slow:
                    raise TooSlowError(f"node {self.name} {later}") from None
                if attempt + 1 == ATTEMPTS:
                    raise NodeDownError(f"node {self.name} {later}") from None
                # Jitter: passes of several chains must not knock in step.
                pause = max(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1.5), later.after)
            self.pause(min(pause, _LONGEST_PAUSE))
        raise AssertionError

    def _send(self, calls: Sequence[Call]) -> list[Any]:
        self._wait_for_turn()
        with self._lock:
            self.requests += 1
            first = self._id + 1
            self._id += len(calls)
        asked = [
            {"jsonrpc": "2.0", "id": first + place, "method": method, "params": list(params)}
            for place, (method, params) in enumerate(calls)
        ]
        try:
            status, body, after = self._exchange(json.dumps(asked[0] if len(asked) == 1 else asked))
        except (httpx.ReadTimeout, httpx.WriteTimeout):
            raise _LaterError(
                f"gave no answer within {format_duration(timedelta(seconds=self._timeout))}", slow=True
            ) from None
        except httpx.TimeoutException:
            raise _LaterError("takes no connection") from None
        except httpx.TransportError as error:
            reason = _line(self._discreet(error)) or type(error).__name__
            raise _LaterError(f"can't be reached: {reason}") from None
        except httpx.HTTPError as error:
            raise _LaterError(f"sent what isn't HTTP: {type(error).__name__}") from None
        if status in (401, 403):
            raise NodeDownError(f"node {self.name} answered HTTP {status}; check the secret of this endpoint")
        if status == 413:
            raise TooMuchError(f"node {self.name} answered HTTP 413")
        document = _document(body)
        # Bitcoin Core answers 404 and 500 to calls that it refuses, with JSON; anybody else's 5xx is trouble.
        if status in _TRY_AGAIN and not (status == 500 and _is_answer(document)):
            raise _LaterError(f"answered HTTP {status}", after, slow=status in _SLOW)
        if len(calls) == 1:
            return [self._only(document, first, status, after)]
        if isinstance(document, list):
            return self._matched(document, first, len(calls), after)
        # A single error for the whole batch: a limit, or a node without batches.
        if _is_answer(document):
            raise _BatchError(smaller=_BATCH_SIZE.search(self._usable(document, after).message) is not None)
        if status in (400, 404, 405, 415, 422):
            raise _BatchError(smaller=False)
        raise _LaterError(f"answered HTTP {status} with what is no JSON-RPC")

    def _only(self, document: Any, first: int, status: int, after: float) -> Any:
        """The result of a call that went out alone."""
        if isinstance(document, list) and len(document) == 1:
            (document,) = document
        if not _is_answer(document):
            raise _LaterError(f"answered HTTP {status} with what is no JSON-RPC")
        number = document.get("id")
        # A refusal may come before the node has read the question's id.
        if number not in (first, str(first)) and not (number is None and document.get("error") is not None):
            raise _LaterError("answered another question")
        return self._usable(document, after)

    def _matched(self, answers: list[Any], first: int, count: int, after: float) -> list[Any]:
        """Answers belong to their calls by id alone: order and number of what comes back prove nothing."""
        found: dict[int, Any] = {}
        for answer in answers:
            number = answer.get("id") if _is_answer(answer) else None
            if isinstance(number, str) and number.isdecimal():
                number = int(number)
            if type(number) is not int or not first <= number < first + count or number in found:
                raise _LaterError("answered a batch with what doesn't belong to it")
            found[number] = self._usable(answer, after)
        if len(found) != count:
            raise _LaterError(f"answered {len(found)} of the {count} calls of a batch")
        return [found[number] for number in range(first, first + count)]

    def _usable(self, answer: dict[str, Any], after: float) -> Any:
        """The result, or the refusal."""
        error = answer.get("error")
        if error is None:
            return answer.get("result")
        code, message = (error.get("code"), error.get("message")) if isinstance(error, dict) else (0, error)
        refusal = RpcError(code if type(code) is int else 0, _line(self._discreet(message)))
        if _is_limit(refusal):
            raise _LaterError(f"refuses more: {refusal.message}", after)
        if refusal.code == _STARTING:
            raise _LaterError(f"is still starting: {refusal.message}", after)
        return refusal

    def _discreet(self, said: Any) -> str:
        """What somebody else said, without what is secret of the endpoint's address."""
        text = str(said)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _exchange(self, body: str) -> tuple[int, bytes, float]:
        """Status, body, and the seconds that Retry-After asks for."""
        self._transport.start(self._timeout)
        chunks: list[bytes] = []
        size = 0
        with self._client.stream("POST", self._url, content=body) as response:
            for chunk in response.iter_bytes():
                chunks.append(chunk)
                size += len(chunk)
                if size > BODY_LIMIT:
                    raise TooMuchError(f"node {self.name} sent more than {BODY_LIMIT // 2**20} MiB")
            return response.status_code, b"".join(chunks), _seconds(response.headers.get("Retry-After"))

    # ------------------------------------------------------------------------------------------------------ patience

    def _wait_for_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        self.pause(turn - now)


class _LaterError(Exception):
    """Nothing usable, which may be over soon. after: seconds that the node asked to be left alone. slow: it was asked for
    more than it can do in time."""

    def __init__(self, reason: str, after: float = 0.0, *, slow: bool = False) -> None:
        super().__init__(reason)
        self.after = after
        self.slow = slow


class _BatchError(Exception):
    """A batch is refused as such. smaller: a smaller one may do."""

    def __init__(self, *, smaller: bool) -> None:
        super().__init__()
        self.smaller = smaller


def require(value: Any, name: str, what: str) -> Any:
    """The value, unless the node has none. Raises NodeBehindError."""
    if value is None:
        raise NodeBehindError(f"node {name} has no {what}")
    return value


def _document(body: bytes) -> Any:
    """The JSON with exact numbers; None for anything else."""
    try:
        return json.loads(body, parse_float=Decimal, parse_constant=lambda _: None)
    except (ValueError, ArithmeticError, RecursionError):
        return None


def _is_answer(document: Any) -> bool:
    return isinstance(document, dict) and ("result" in document or document.get("error") is not None)


def _is_limit(error: RpcError) -> bool:
    """Whether it is about requests in a time. Codes don't tell: -32005 also stands for more than 10,000 results, which no
    waiting mends."""
    return error.code == 429 or _LIMITED.search(error.message) is not None


def _is_too_large(result: Any) -> bool:
    # geth's code, which others use as well: it needs the words.
    return isinstance(result, RpcError) and result.code == -32003 and "too large" in result.message.lower()


def _line(text: Any) -> str:
    line = " ".join(str(text).split())
    return line if len(line) <= _LINE else line[: _LINE - 1] + "…"


def _seconds(text: str | None) -> float:
    """Retry-After in seconds; as a date it isn't worth its parser."""
    return float(text) if text is not None and text.isdecimal() and len(text) < 6 else 0.0


def _address(endpoint: Endpoint) -> tuple[httpx.URL, httpx.BasicAuth | None]:
    """The URL without its user, and the user."""
    try:
        url = httpx.URL(endpoint.url)
        good = url.scheme in ("http", "https") and bool(url.host)
    except (httpx.InvalidURL, ValueError):
        good = False
    if not good:
        raise ConfigurationError(
            f"the secret of endpoint {endpoint.name} is not an address like https://host:port/path"
        )
    auth = httpx.BasicAuth(url.username, url.password) if url.userinfo else None
    return url.copy_with(userinfo=b""), auth


def _secrets(address: str) -> list[str]:
    """What of an address may be a key, as it is written and decoded: nodes like to repeat it in what they say."""
    rest = address.partition("://")[2]
    parts = {part for text in (rest, unquote(rest)) for part in re.split(r"[/?&=#@:]", text)}
    return sorted((part for part in parts if len(part) >= _SECRET), key=len, reverse=True)
