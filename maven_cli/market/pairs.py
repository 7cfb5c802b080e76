"""Trading pairs: find, add, activate and halt them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from maven_cli.errors import UsageError

ASSET = re.compile(r"[A-Z0-9][A-Z0-9._-]{0,19}")


@dataclass(frozen=True)
class TradingPair:
    """One market. `retained_from`: trades before it may be gone, and nothing recomputes below it."""

    id: int
    symbol: str
    status: str
    retained_from: datetime | None = None


def split_symbol(symbol: str) -> tuple[str, str]:
    """``BTC/USDT`` → its base and quote assets, in capitals however it is written. Raises UsageError."""
    base, slash, quote = symbol.upper().partition("/") if symbol.isascii() else (symbol, "", "")
    if not slash or ASSET.fullmatch(base) is None or ASSET.fullmatch(quote) is None or base == quote:
        raise UsageError(f"{symbol!r} is not a pair; write BASE/QUOTE, like BTC/USDT")
    return base, quote


def _row(row: tuple[Any, ...]) -> TradingPair:
    return TradingPair(row[0], row[1], row[2], row[3].astimezone(UTC) if row[3] else None)


def all_pairs(conn: psycopg.Connection) -> list[TradingPair]:
    """Every pair, by symbol."""
    query = "SELECT id, symbol, status, trades_retained_from FROM trading_pairs ORDER BY symbol"
    return [_row(row) for row in conn.execute(query)]


def resolve_pairs(conn: psycopg.Connection, symbols: Sequence[str]) -> list[TradingPair]:
    """The pairs of those symbols, in that order without repeats. Raises UsageError naming what exists."""
    known = {pair.symbol: pair for pair in all_pairs(conn)}
    found = []
    for symbol in dict.fromkeys(symbols):
        pair = known.get(symbol) or known.get(symbol.upper())
        if pair is None:
            raise UsageError(f"no pair {symbol!r}; {_what_exists(symbol, list(known))}")
        found.append(pair)
    return list(dict.fromkeys(found))


def _what_exists(symbol: str, known: list[str]) -> str:
    from difflib import get_close_matches

    if not known:
        return "there are no pairs yet: maven pairs add BTC/USDT"
    if close := get_close_matches(symbol.upper(), known, 3):
        return f"did you mean {' or '.join(close)}?"
    listed = ", ".join(known[:8]) + (
        f" and {len(known) - 8} more (maven pairs list)" if len(known) > 8 else ""
    )
    return f"choose from {listed}"


def add_pair(conn: psycopg.Connection, symbol: str, *, active: bool = True) -> TradingPair:
    """Creates a pair and the assets it needs; finding it already there is no error. Raises UsageError for a bad symbol."""
    base, quote = split_symbol(symbol)
    symbol = f"{base}/{quote}"
    with conn.transaction():
        conn.execute(
            "INSERT INTO assets (symbol) VALUES (%s), (%s) ON CONFLICT (symbol) DO NOTHING",
            sorted((base, quote)),
        )
        conn.execute(
            "INSERT INTO trading_pairs (symbol, base_asset_id, quote_asset_id, status)"
            " SELECT %s, b.id, q.id, %s FROM assets b, assets q WHERE b.symbol = %s AND q.symbol = %s"
            " ON CONFLICT (symbol) DO NOTHING",
            [symbol, "ACTIVE" if active else "HALTED", base, quote],
        )
        return resolve_pairs(conn, [symbol])[0]


def set_status(conn: psycopg.Connection, symbol: str, status: str) -> TradingPair:
    """Makes a pair ACTIVE or HALTED. Raises UsageError for an unknown pair."""
    pair = resolve_pairs(conn, [symbol])[0]
    conn.execute("UPDATE trading_pairs SET status = %s WHERE id = %s", [status, pair.id])
    return TradingPair(pair.id, pair.symbol, status, pair.retained_from)
