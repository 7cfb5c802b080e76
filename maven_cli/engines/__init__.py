"""Matching engines: how an order that is over gets out of the book. One small interface, two protocols.

Both protocols are specified in docs/reference/engine-protocols.md. What makes them safe to use with money is the request
key: an engine that has removed an order keeps its answer under that key and repeats it, so that a pass which died before
it wrote the answer down asks again and learns the same remainder.

`http` needs httpx and `redis` a client; each is imported when its engine is opened, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from maven_cli.errors import ConfigurationError
from maven_cli.settings import Settings


@dataclass(frozen=True)
class Removal:
    """An order to take out of the book.

    pair: as in ``trading_pairs.symbol``, ``BTC/USDT``. side: ``buy`` or ``sell``.
    request_key: the same at every repetition, and never another order's; printable ASCII, at most 200 characters.
    """

    order_id: int
    pair: str
    side: str
    request_key: str


@dataclass(frozen=True)
class Removed:
    """The engine took the order out of its book, now or at an earlier asking with the same key.

    remaining: the quantity that was left at that moment, in the unit of ``orders.remaining_quantity``, at least 0.
    sequence: the engine's own number or revision of the removal, if it tells one.
    """

    remaining: Decimal
    sequence: str | None


@dataclass(frozen=True)
class NotFound:
    """The engine has no such order in its book, and no answer recorded under this key."""


@dataclass(frozen=True)
class Unreachable:
    """No answer; whether the order was removed is not known. `reason` is one line without secrets."""

    reason: str


@dataclass(frozen=True)
class Nonsense:
    """An answer that isn't one: HTML, a negative remainder, another order's. `reason` is one line without secrets."""

    reason: str


@dataclass(frozen=True)
class NotAsked:
    """Nothing was sent about this order: the engine gave no answer to others. `reason` is one line without secrets."""

    reason: str


Answer = Removed | NotFound | Unreachable | Nonsense | NotAsked


class Engine(Protocol):
    """A matching engine. `name` is that of its circuit: ``engine:http``."""

    @property
    def name(self) -> str: ...

    def cancel(self, removals: Sequence[Removal]) -> Iterator[tuple[Removal, Answer]]:
        """One answer for each removal, in the order in which they come.

        Each wait is bounded by MAVEN_ENGINE_TIMEOUT, and after a few removals without an answer the rest is NotAsked at
        once. Never raises for what an engine can cause. The same key twice in one call is a ValueError.
        """
        ...

    def close(self) -> None:
        """Lets go of what the engine holds open."""
        ...


def open_engine(settings: Settings, redis_url: str | Callable[[], str]) -> Engine | None:
    """The engine of MAVEN_ENGINE; None for ``none``. Nothing is connected yet, and a callable `redis_url` not called.

    Raises ConfigurationError for settings that no engine can be talked to with.
    """
    if settings.engine == "none":
        return None
    if settings.engine == "redis":
        from maven_cli.engines.redis import RedisEngine

        return RedisEngine(redis_url, settings.engine_stream, settings.engine_timeout)
    if settings.engine_url is None:
        raise ConfigurationError("MAVEN_ENGINE=http needs MAVEN_ENGINE_URL, the address of the engine's API")
    from maven_cli.engines.http import HttpEngine

    token = settings.engine_token
    return HttpEngine(
        settings.engine_url.get_secret_value(),
        token.get_secret_value() if token is not None else None,
        settings.engine_timeout,
    )


def check_keys(removals: Sequence[Removal]) -> None:
    """Raises ValueError when two removals share a key: their answers couldn't be told apart."""
    if len({removal.request_key for removal in removals}) != len(removals):
        raise ValueError("two removals of one call share a request key")
