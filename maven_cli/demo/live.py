"""The sample exchange goes on: new trades every second, tickers every 5 s, 1m candles at each minute's boundary."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.db.connection import database_now, session
from maven_cli.demo import database
from maven_cli.demo.build import Demo
from maven_cli.intervals import MINUTE
from maven_cli.passes import candles, tickers
from maven_cli.runner import Services

TICKERS_EVERY = 5  # seconds
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
            while not self._done.wait(1 - time.time() % 1):
                now = database_now(conn)
                # Behind by more than a minute at most after a suspended laptop: then the market was closed.
                since = max(since, now - timedelta(minutes=1))
                if since < now:
                    fresh = [(pair, walk.minute(since, now - since)) for pair, walk in walking]
                    self.trades += database.insert(conn, fresh)
                    since = now

    def _passes(self) -> None:
        next_tickers, next_minute = 0.0, MINUTE.after(MINUTE.floor(self.demo.as_of))
        while not self._done.wait(0.1):
            if datetime.now(UTC) >= next_minute + timedelta(seconds=CANDLES_AFTER):
                candles.generate(self.services, MINUTE)
                next_minute = MINUTE.after(MINUTE.floor(datetime.now(UTC)))
            if time.time() >= next_tickers and not self._done.is_set():
                tickers.update(self.services)
                self.ticker_passes += 1
                next_tickers = (time.time() // TICKERS_EVERY + 1) * TICKERS_EVERY


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
