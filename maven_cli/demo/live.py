"""The sample exchange goes on: trades and orders every second, and each pass on its grid of the wall clock.

Tickers every 5 s, order expiry every 10 s, the relay of events every 10 s in between, 1m candles at each minute's boundary.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.db.connection import database_now, session
from maven_cli.demo import database
from maven_cli.demo.build import Demo, settle
from maven_cli.demo.exchange import Trade, Walk
from maven_cli.demo.platform import Order
from maven_cli.intervals import MINUTE
from maven_cli.market.pairs import TradingPair
from maven_cli.passes import candles, events, expiry, tickers
from maven_cli.runner import Services

TICKERS_EVERY = 5  # seconds
EXPIRY_EVERY = 10
RELAY_AFTER = 5  # the expiry pass, which delivers its own events
ORDERS_A_SECOND = 2
MOST_ORDERS = 80
# Some end before your eyes, some last a while.
SHORTEST, LONGEST = timedelta(seconds=8), timedelta(seconds=75)
NEAR = 0.0015  # of the last price: where the market is likely to come by
# As the schedule has it: the trades of the minute's last moments need to be there.
CANDLES_AFTER = 1  # second


@dataclass
class Engine:
    """Two threads: one trades, one runs the passes. `failure` is what ended either, if anything did."""

    services: Services
    demo: Demo
    trades: int = 0
    ticker_passes: int = 0
    failure: BaseException | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[Engine]:
        """Trades inside the block; at its end both threads have ended, the pass in hand finished."""
        self.trades = self.demo.trades
        threads = [
            threading.Thread(target=self._guarded, args=[work], name=f"demo {work.__name__.strip('_')}")
            for work in (self._trade, self._passes)
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._done.set()
            for thread in threads:
                thread.join()

    def check(self) -> None:
        """Raises what ended the market, if anything did."""
        if self.failure is not None:
            raise self.failure

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 handed to the main thread, which raises it
            self.failure = self.failure or error

    def _trade(self) -> None:
        """What each pair trades in a second, a second late, so that it is never dated in the future."""
        walking = [
            (pair, walk)
            for pair, walk in zip(self.demo.pairs, self.demo.walks, strict=True)
            if not walk.market.silent
        ]
        since = self.demo.as_of
        with session(self.services.database_url, "demo market") as conn:
            book = Book(self.demo, conn, [walk for _, walk in walking])
            while not self._done.wait(1 - time.time() % 1):
                now = database_now(conn)
                # Behind by more than a minute at most after a suspended laptop: then the market was closed.
                since = max(since, now - timedelta(minutes=1))
                if since < now:
                    fresh = [(pair, walk.minute(since, now - since)) for pair, walk in walking]
                    self.trades += sum(len(some) for _, some in fresh)
                    database.insert(conn, [(pair, book.meet(pair, some, now)) for pair, some in fresh])
                    book.place(now)
                    since = now

    def _passes(self) -> None:
        pairs = [pair.symbol for pair in self.demo.pairs]
        next_minute = MINUTE.after(MINUTE.floor(self.demo.as_of))
        grid: dict[str, tuple[float, float, Callable[[], object]]] = {
            "tickers": (TICKERS_EVERY, 0.0, lambda: tickers.update(self.services)),
            "expiry": (EXPIRY_EVERY, 0.0, lambda: expiry.expire(self.services, pairs=pairs)),
            "relay": (EXPIRY_EVERY, RELAY_AFTER, lambda: events.relay(self.services)),
        }
        due = {name: _next(*when[:2]) for name, when in grid.items()} | {"tickers": 0.0}
        while not self._done.wait(0.1):
            if datetime.now(UTC) >= next_minute + timedelta(seconds=CANDLES_AFTER):
                candles.generate(self.services, MINUTE)
                next_minute = MINUTE.after(MINUTE.floor(datetime.now(UTC)))
            for name, (every, after, run) in grid.items():
                if time.time() >= due[name] and not self._done.is_set():
                    run()
                    due[name] = _next(every, after)
                    self.ticker_passes += name == "tickers"


def _next(every: float, after: float) -> float:
    """The next slot of a grid, in seconds since the epoch."""
    return ((time.time() - after) // every + 1) * every + after


class Book:
    """The live orders, as the platform's matching engine would know them."""

    def __init__(self, demo: Demo, conn: psycopg.Connection, walks: Sequence[Walk]) -> None:
        self._orders = list(demo.orders)
        self._traders = demo.traders
        self._walks = {walk.market.symbol: walk for walk in walks}
        self._platform = demo.platform.on(conn)

    def meet(self, pair: TradingPair, trades: list[Trade], now: datetime) -> list[Trade]:
        """Settles the first of these trades that comes by a live order, at that order's price; returns the others."""
        for at, trade in enumerate(trades):
            for order in self._orders:
                if order.pair == pair and order.expires_at > now and _reaches(order, trade):
                    self._fill(order, trade)
                    return trades[:at] + trades[at + 1 :]
        return trades

    def place(self, now: datetime) -> None:
        """New orders near the market; those that are past their end are the expiry pass's."""
        self._orders = [order for order in self._orders if order.expires_at > now and order.remaining]
        draw = self._traders.random
        for _ in range(min(ORDERS_A_SECOND, MOST_ORDERS - len(self._orders))):
            walk = draw.choice(list(self._walks.values()))
            lifetime = SHORTEST + (LONGEST - SHORTEST) * draw.random() ** 2
            wish = self._traders.wish(walk.market, walk.price, lifetime, near=NEAR)
            order = self._platform.place(wish)
            if order is not None:
                self._orders.append(order)

    def _fill(self, order: Order, trade: Trade) -> None:
        market = self._walks[order.pair.symbol].market
        part = replace(
            trade,
            price=order.price,
            quantity=min(trade.quantity, order.remaining),
            side="sell" if order.side == "buy" else "buy",
        )
        settle(self._platform, self._traders, market, order, part)


def _reaches(order: Order, trade: Trade) -> bool:
    """Whether a trade at that price would have gone to this order first."""
    if not order.remaining:
        return False
    return trade.price <= order.price if order.side == "buy" else trade.price >= order.price


@dataclass(frozen=True)
class Run:
    """A worker's last run, and how many it had."""

    scope: str
    runs: int
    started_at: datetime
    duration_ms: int
    outcome: str
    error: str | None


def last_runs(conn: psycopg.Connection) -> list[Run]:
    """Each worker's last run, as `worker_runs` has it."""
    rows = conn.execute(
        "SELECT DISTINCT ON (scope) scope, count(*) OVER (PARTITION BY scope), started_at, duration_ms, outcome, error"
        "  FROM worker_runs ORDER BY scope, started_at DESC, id DESC"
    )
    return [Run(row[0], row[1], row[2].astimezone(UTC), *row[3:]) for row in rows]


def courses(conn: psycopg.Connection, now: datetime) -> dict[str, list[Decimal]]:
    """Each pair's last day, by symbol: the closes of its 15-minute candles, oldest first."""
    found: dict[str, list[Decimal]] = {}
    rows: Any = conn.execute(
        "SELECT p.symbol, c.close FROM candles c JOIN trading_pairs p ON p.id = c.trading_pair_id"
        " WHERE c.interval = '15m' AND c.start_at > %s ORDER BY c.start_at",
        [now - timedelta(hours=24)],
    )
    for symbol, close in rows:
        found.setdefault(symbol, []).append(close)
    return found
