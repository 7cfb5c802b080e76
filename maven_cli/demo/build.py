"""From nothing to an exchange with two days behind it: simulate, store, and catch up as the schedule would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from maven_cli.cache import open_cache
from maven_cli.db.connection import database_now, session, target
from maven_cli.demo import database
from maven_cli.demo.exchange import MARKETS, Market, Walk
from maven_cli.errors import TryLaterError
from maven_cli.intervals import INTERVALS, MINUTE
from maven_cli.market.pairs import TradingPair
from maven_cli.market.tickers import Ticker
from maven_cli.passes import candles, tickers
from maven_cli.passes.backfill import backfill
from maven_cli.runner import Outcome, Services


@dataclass(frozen=True)
class Step:
    """What was done, and how long it took; None: it has just begun."""

    name: str
    detail: str = ""
    seconds: timedelta | None = None


Report = Callable[[Step], None]


@dataclass(frozen=True)
class Demo:
    """A sample exchange. walks: each pair's market at the end of its history, ready to go on."""

    as_of: datetime
    pairs: list[TradingPair]
    walks: list[Walk]
    tickers: list[Ticker]
    trades: int
    candles: int


@contextmanager
def _step(report: Report, name: str) -> Iterator[list[str]]:
    """Times the block; it appends what is worth saying about it."""
    report(Step(name))
    began = time.perf_counter()
    detail: list[str] = []
    yield detail
    report(Step(name, "".join(detail), timedelta(milliseconds=round((time.perf_counter() - began) * 1000))))


def start(services: Services, report: Report) -> None:
    """Finds the servers, or starts the embedded ones."""
    embedded = services.settings.embedded
    with (
        _step(
            report, "Start PostgreSQL and Valkey" if embedded else "Connect to PostgreSQL and Redis"
        ) as detail,
        session(services.database_url, "demo") as conn,
        open_cache(services.redis_url),
    ):
        row = conn.execute("SELECT split_part(current_setting('server_version'), ' ', 1)").fetchone()
        detail.append(f"PostgreSQL {row[0]}" if row else "")


def build(services: Services, *, seed: int, markets: Sequence[Market], yes: bool, report: Report) -> Demo:
    """Makes the exchange anew, and tells `report` when each step begins and ends.

    Raises UsageError when the database or the Redis is somebody else's, with nothing changed.
    """
    every = [market.symbol for market in MARKETS]
    url = services.database_url
    with session(url, "demo") as conn, open_cache(services.redis_url) as client:
        with _step(report, "Make the pairs") as detail:
            database.check_database(conn, every, target(url), yes=yes)
            pairs = database.clear(conn, client, markets, every)
            detail.append(f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'}, empty")
        with _step(report, "Simulate two days of trading") as detail:
            now = database_now(conn)
            walks = [Walk.of(market, seed) for market in markets]
            history = [list(walk.history(now)) for walk in walks]
            detail.append(f"{sum(map(len, history)):,} trades, seed {seed}")
        with _step(report, "Store the trades") as detail:
            trades = database.insert(conn, list(zip(pairs, history, strict=True)))
            conn.execute("ANALYZE trades")
            detail.append(f"{trades:,} rows by COPY")
    with _step(report, "Close the candles") as detail:
        made = _data(backfill(services, jobs=2))["inserted"]
        count = sum(made.values())
        detail.append(f"{count:,} candles of {len(made)} intervals")
    with _step(report, "Run the 1m candle pass") as detail:
        _data(candles.generate(services, MINUTE))
        detail.append(f"newest candles of {len(INTERVALS)} intervals in Redis")
    with _step(report, "Run the ticker pass") as detail:
        found = [ticker for ticker in _data(tickers.update(services))["tickers"] if ticker.pair in pairs]
        detail.append(f"{len(found)} tickers in Redis")
    return Demo(now, pairs, walks, found, trades, count)


def _data(outcome: Outcome) -> dict[str, Any]:
    if outcome.data is None:
        raise TryLaterError("another maven process works on the demo's exchange; try again when it has ended")
    return outcome.data
