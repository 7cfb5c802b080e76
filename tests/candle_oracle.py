"""Candles computed the slow, plain way, to hold the real ones against: Python decimals, one trade after the other.

Shares no code with maven_cli: windows come from the calendar, not from an origin and a modulus.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import psycopg

NAMES = ("1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M")
FIELDS = (
    "open", "high", "low", "close", "base_volume", "quote_volume", "trade_count", "first_trade_id", "last_trade_id",
)  # fmt: skip
_MINUTES = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440}
# Enough digits that nothing is ever rounded.
_EXACT = Context(prec=400)

Values = tuple[Decimal, Decimal, Decimal, Decimal, Decimal, Decimal, int, int, int]
Key = tuple[int, str, datetime]  # pair id, interval, start


@dataclass(frozen=True)
class Trade:
    at: datetime
    id: int
    price: Decimal
    quantity: Decimal


def window(name: str, moment: datetime) -> tuple[datetime, datetime]:
    """[start, end) of the window that holds the moment."""
    day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    if name == "1M":
        start = day.replace(day=1)
        return start, (start + timedelta(days=32)).replace(day=1)
    if name == "1w":
        start = day - timedelta(days=day.weekday())
        return start, start + timedelta(days=7)
    size = _MINUTES[name]
    since = (moment.hour * 60 + moment.minute) // size * size
    start = day + timedelta(minutes=since)
    return start, start + timedelta(minutes=size)


def candle(trades: Iterable[Trade]) -> Values:
    """The candle of one window's trades."""
    ordered = sorted(trades, key=lambda trade: (trade.at, trade.id))
    base, quote = Decimal(0), Decimal(0)
    for trade in ordered:
        base = _EXACT.add(base, trade.quantity)
        quote = _EXACT.add(quote, _EXACT.multiply(trade.price, trade.quantity))
    prices = [trade.price for trade in ordered]
    return (
        prices[0], max(prices), min(prices), prices[-1], base, quote, len(ordered), ordered[0].id, ordered[-1].id,
    )  # fmt: skip


def windows(trades: Iterable[Trade], name: str) -> dict[datetime, list[Trade]]:
    """The trades of each window that has some."""
    found: dict[datetime, list[Trade]] = {}
    for trade in trades:
        found.setdefault(window(name, trade.at)[0], []).append(trade)
    return found


def trades_of(conn: psycopg.Connection) -> dict[int, list[Trade]]:
    """Every committed trade, by pair id."""
    found: dict[int, list[Trade]] = {}
    for pair, *rest in conn.execute("SELECT trading_pair_id, executed_at, id, price, quantity FROM trades"):
        at, number, price, quantity = rest
        found.setdefault(pair, []).append(Trade(at.astimezone(UTC), number, price, quantity))
    return found


def closed_until(conn: psycopg.Connection) -> dict[int, datetime]:
    return {
        pair: until.astimezone(UTC)
        for pair, until in conn.execute("SELECT trading_pair_id, closed_until FROM candle_progress")
    }


def expected(conn: psycopg.Connection) -> dict[Key, Values]:
    """What `candles` must hold: every window that has trades and ends by its pair's closed end."""
    ends = closed_until(conn)
    found: dict[Key, Values] = {}
    for pair, trades in trades_of(conn).items():
        for name in NAMES:
            for start, inside in windows(trades, name).items():
                if pair in ends and window(name, start)[1] <= ends[pair]:
                    found[pair, name, start] = candle(inside)
    return found


@dataclass(frozen=True)
class Stored:
    values: Values
    revision: int
    version: Any  # which transaction wrote the row: the same only if nothing touched it


def stored(conn: psycopg.Connection) -> dict[Key, Stored]:
    """What `candles` holds."""
    rows = conn.execute(
        f"SELECT trading_pair_id, interval, start_at, {', '.join(FIELDS)}, revision, (xmin::text, ctid)::text FROM candles"
    )
    return {
        (row[0], row[1], row[2].astimezone(UTC)): Stored(tuple(row[3:12]), row[12], row[13]) for row in rows
    }


def wrong(conn: psycopg.Connection) -> list[str]:
    """Every difference between the candles and their trades, in words; empty when all is right."""
    want, have = expected(conn), {key: row.values for key, row in stored(conn).items()}
    return [
        f"{key[1]} {key[2]:%F %R} of pair {key[0]}: stored {have.get(key)}, its trades say {want.get(key)}"
        for key in sorted(want.keys() | have.keys(), key=str)
        if want.get(key) != have.get(key)
    ]
