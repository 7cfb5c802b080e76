"""From nothing to an exchange with two days behind it: simulate, store, trade, and catch up as the schedule would."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from maven_cli.cache import open_cache
from maven_cli.db.connection import database_now, session, target
from maven_cli.demo import books, database
from maven_cli.demo.books import Expired, Verdict
from maven_cli.demo.exchange import MARKETS, Market, Trade, Walk
from maven_cli.demo.platform import Order, Platform
from maven_cli.demo.traders import FILLED, Traders, holdings, users
from maven_cli.errors import TryLaterError
from maven_cli.intervals import INTERVALS, MINUTE
from maven_cli.market.pairs import TradingPair, split_symbol
from maven_cli.market.tickers import Ticker
from maven_cli.passes import audit as books_audit
from maven_cli.passes import candles, events, expiry, tickers
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
    """A sample exchange. walks, traders: its markets and people as they are now, ready to go on. orders: those that live.

    expired: the orders that the expiry pass ended. events: how many are in the stream.
    """

    as_of: datetime
    pairs: list[TradingPair]
    walks: list[Walk]
    traders: Traders
    platform: Platform
    orders: list[Order]
    tickers: list[Ticker]
    trades: int
    candles: int
    placed: int
    expired: list[Expired]
    released: Decimal | None
    events: int
    audit: Verdict


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
        newest = _newest(markets, history)
        with _step(report, "Store the trades") as detail:
            trades = database.insert(conn, list(zip(pairs, history, strict=True)))
            conn.execute("ANALYZE trades")
            detail.append(f"{trades:,} rows by COPY")
        platform = Platform(conn, {pair.symbol: pair for pair in pairs})
        traders = Traders.of(seed)
        with _step(report, "Open accounts") as detail:
            assets = list(dict.fromkeys(name for market in markets for name in split_symbol(market.symbol)))
            wallets = platform.fund(holdings(seed, assets))
            detail.append(f"{len(users())} users, {wallets} wallets")
        with _step(report, "Place orders, and fill some") as detail:
            orders, placed, filled = _open(platform, traders, markets, walks, newest)
            trades += len(newest)
            detail.append(f"{placed} orders with locks, {filled} partly filled")
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
    with _step(report, "Run the expiry pass") as detail:
        # By name: beside another exchange its orders aren't ours to end.
        _data(expiry.expire(services, pairs=[pair.symbol for pair in pairs]))
        with session(url, "demo") as conn:
            expired = books.expired(conn)
        released = books.worth(expired, found)
        worth = "" if released is None else f", {released:,.0f} USDT worth released"
        detail.append(f"{len(expired)} orders{worth}")
    with _step(report, "Deliver the events") as detail:
        pending = _data(events.relay(services))["pending"]
        with session(url, "demo") as conn:
            delivered = books.delivered(conn)
        waiting = f", {pending} pending" if pending else ""
        detail.append(f"{delivered} events in {services.settings.events_stream}{waiting}")
    with _step(report, "Audit the books") as detail:
        verdict = audit(services)
        detail.append(f"{verdict.checks} checks, {verdict.rows:,} rows, {verdict.wrong} wrong")
    gone = {one.order for one in expired}
    return Demo(
        as_of=now,
        pairs=pairs,
        walks=walks,
        traders=traders,
        platform=platform,
        orders=[order for order in orders if order.id not in gone],
        tickers=found,
        trades=trades,
        candles=count,
        placed=placed,
        expired=expired,
        released=released,
        events=delivered,
        audit=verdict,
    )


def _newest(markets: Sequence[Market], history: Sequence[list[Trade]]) -> list[tuple[Market, Trade]]:
    """Takes the last trades out of the history: they are settled between orders instead of copied, the oldest first."""
    trading = [(market, some) for market, some in zip(markets, history, strict=True) if not market.silent]
    found: list[tuple[Market, Trade]] = []
    for at in range(FILLED):
        market, some = trading[at % len(trading)]
        if some:
            found.append((market, some.pop()))
    return sorted(found, key=lambda one: one[1].executed_at)


def _open(
    platform: Platform,
    traders: Traders,
    markets: Sequence[Market],
    walks: Sequence[Walk],
    newest: Sequence[tuple[Market, Trade]],
) -> tuple[list[Order], int, int]:
    """Places the first orders and settles the newest trades between them; those that live, how many were placed and filled.

    A trade whose users hadn't enough is stored like the others: then it was between people who aren't in this demo.
    """
    by_symbol = {market.symbol: market for market in markets}
    last = {walk.market.symbol: walk.price for walk in walks}
    orders: list[Order] = []
    filled = 0
    for wish, trade in traders.opening(markets, last, newest):
        order = platform.place(wish)
        if order is not None:
            orders.append(order)
        if trade is not None:
            filled += settle(platform, traders, by_symbol[wish.symbol], order, trade)
    return orders, len(orders), filled


def settle(platform: Platform, traders: Traders, market: Market, maker: Order | None, trade: Trade) -> bool:
    """Fills a part of an order: somebody else's order of that size is placed and settled against it; else the trade is
    only stored. Whether it was settled.
    """
    taker = platform.place(traders.taker(maker.user, market, trade)) if maker is not None else None
    if maker is None or taker is None:
        database.insert(platform.conn, [(platform.pairs[market.symbol], [trade])])
        return False
    buy, sell = (taker, maker) if trade.side == "buy" else (maker, taker)
    return platform.settle(trade, buy, sell)


def audit(services: Services) -> Verdict:
    """The audit's verdict on everything in the database."""
    return Verdict.of(_data(books_audit.audit(services)))


def _data(outcome: Outcome) -> dict[str, Any]:
    if outcome.data is None:
        raise TryLaterError("another maven process works on the demo's exchange; try again when it has ended")
    return outcome.data
