"""Are the candles right? Gaps (something traded, no candle) and verification (recomputed from raw, compared)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from maven_cli.db.queries import load
from maven_cli.intervals import MINUTE, Interval
from maven_cli.market.candles import Range, closed_ranges
from maven_cli.market.pairs import TradingPair

FIELDS = (
    "open", "high", "low", "close", "base_volume", "quote_volume", "trade_count", "first_trade_id", "last_trade_id",
)  # fmt: skip
# Trades of about this much market time are recomputed per statement; a longer window is one statement of its own.
SPAN = timedelta(days=1)


@dataclass(frozen=True)
class Gap:
    """Windows [start, end) of a pair that readers can't rely on.

    kind: *missing* (traded, no candle), *behind* (ended, not closed yet), *marked* (changed, not recomputed yet).
    """

    pair: str
    interval: str
    kind: str
    start: datetime
    end: datetime
    windows: int


@dataclass(frozen=True)
class Mismatch:
    """A closed window whose stored candle isn't what its trades say. kind: *missing*, *extra* or *different*.

    fields: name → (stored, recomputed), only those that differ. pending: a late trade or a mark explains it, and the next
    pass mends it.
    """

    pair: str
    interval: str
    start: datetime
    end: datetime
    kind: str
    fields: dict[str, tuple[Any, Any]]
    pending: bool


def gaps(
    conn: psycopg.Connection,
    pairs: Sequence[TradingPair],
    intervals: Sequence[Interval],
    start: datetime,
    end: datetime,
) -> list[Gap]:
    """Every gap of those pairs in [start, end). `conn` is inside one snapshot."""
    names = {pair.id: pair.symbol for pair in pairs}
    found: list[Gap] = []
    frontier: dict[int, datetime] = {}
    now = MINUTE.floor(end)
    # A pair that no pass has met yet is behind from its first trade on.
    for pair, closed in conn.execute(
        "SELECT * FROM (SELECT p.id, coalesce(g.closed_until, (SELECT min(executed_at) FROM trades t"
        "    WHERE t.trading_pair_id = p.id AND t.executed_at >= coalesce(p.trades_retained_from, '-infinity'))) AS closed"
        "  FROM trading_pairs p LEFT JOIN candle_progress g ON g.trading_pair_id = p.id WHERE p.id = ANY (%s)) f"
        " WHERE closed IS NOT NULL ORDER BY 1",
        [list(names)],
    ):
        frontier[pair] = closed.astimezone(UTC)
        for interval in intervals:
            lo, hi = max(interval.floor(frontier[pair]), interval.floor(start)), interval.floor(now)
            if lo < hi:
                found.append(Gap(names[pair], interval.name, "behind", lo, hi, _count(interval, lo, hi)))
    for pair, lo, hi in conn.execute(
        "SELECT trading_pair_id, from_at, to_at FROM candle_marks"
        " WHERE trading_pair_id = ANY (%s) AND from_at < %s AND to_at > %s ORDER BY 1, 2",
        [list(names), end, start],
    ):
        for interval in intervals:
            first, last = interval.floor(lo.astimezone(UTC)), interval.ceil(hi.astimezone(UTC))
            found.append(
                Gap(names[pair], interval.name, "marked", first, last, _count(interval, first, last))
            )
    for interval in intervals:
        source = _source(interval)
        query = load("market", "candles_gaps", source=source)
        rows = conn.execute(
            query,
            {
                "pairs": list(names),
                "interval": interval.name,
                "lo": interval.ceil(start),
                "hi": interval.floor(end),
            },
        )
        missing = [(pair, moment.astimezone(UTC)) for pair, moment in rows]
        for pair, moment in missing:
            if interval.after(moment) > frontier.get(pair, moment):
                continue
            newest = found[-1] if found else None
            here = (names[pair], interval.name, "missing")
            if newest and (newest.pair, newest.interval, newest.kind) == here and newest.end == moment:
                found[-1] = Gap(*here, newest.start, interval.after(moment), newest.windows + 1)
            else:
                found.append(Gap(*here, moment, interval.after(moment), 1))
    return found


def _source(interval: Interval) -> str:
    """The windows that should have a candle: those with trades, and with minutes whose trades may be gone by now."""
    return (
        f"SELECT t.trading_pair_id AS pair, {interval.sql('t.executed_at')} AS start_at FROM trades t"
        " JOIN trading_pairs p ON p.id = t.trading_pair_id"
        " WHERE t.trading_pair_id = ANY (%(pairs)s) AND t.executed_at >= %(lo)s AND t.executed_at < %(hi)s"
        " AND t.executed_at >= coalesce(p.trades_retained_from, '-infinity')"
        " UNION "
        f"SELECT c.trading_pair_id, {interval.sql('c.start_at')} FROM candles c"
        " WHERE c.trading_pair_id = ANY (%(pairs)s) AND c.interval = '1m'"
        " AND c.start_at >= %(lo)s AND c.start_at < %(hi)s"
    )


def _count(interval: Interval, lo: datetime, hi: datetime) -> int:
    if interval.length is None:
        return (hi.year - lo.year) * 12 + hi.month - lo.month
    return (hi - lo) // interval.length


def verify(
    conn: psycopg.Connection,
    pairs: Sequence[TradingPair],
    intervals: Sequence[Interval],
    start: datetime | None,
    end: datetime | None,
) -> Iterator[tuple[int, Mismatch | None]]:
    """Recomputes every closed window in [start, end) from raw trades. `conn` is inside one snapshot.

    Yields (pair id, mismatch), and (pair id, None) after each pair. Windows that reach below a pair's retention line
    are left alone: their trades may be gone.
    """
    symbols = {pair.id: pair.symbol for pair in pairs}
    lines = conn.execute(
        "SELECT id, trades_retained_from FROM trading_pairs WHERE id = ANY (%s) AND trades_retained_from IS NOT NULL",
        [list(symbols)],
    )
    retained = {pair: moment.astimezone(UTC) for pair, moment in lines}
    for item in closed_ranges(conn, list(symbols), start, end):
        pending = _pending(conn, item)
        for interval in intervals:
            # The window that the pair's first trade lies in, or the first that --from doesn't cut.
            first = interval.floor(item.lo)
            if start is not None:
                first = max(first, interval.ceil(start))
            if item.pair in retained:
                first = max(first, interval.ceil(retained[item.pair]))
            last = interval.floor(item.hi)
            query = load("market", "candles_verify", window=interval.sql("t.executed_at"))
            while (content := _next_content(conn, item.pair, interval, first, last)) is not None:
                first = max(first, interval.floor(content))
                until = min(max(interval.floor(first + SPAN), interval.after(first)), last)
                rows = conn.execute(
                    query, {"pair": item.pair, "interval": interval.name, "lo": first, "hi": until}
                ).fetchall()
                for row in rows:
                    yield item.pair, _mismatch(symbols[item.pair], interval, row, pending)
                first = until
        yield item.pair, None


def _next_content(
    conn: psycopg.Connection, pair: int, interval: Interval, first: datetime, last: datetime
) -> datetime | None:
    """Where in [first, last) a pair's next trade or stored candle lies: quiet years are one step."""
    row = conn.execute(
        "SELECT least((SELECT min(executed_at) FROM trades WHERE trading_pair_id = %(pair)s"
        "               AND executed_at >= %(lo)s AND executed_at < %(hi)s),"
        "             (SELECT min(start_at) FROM candles WHERE trading_pair_id = %(pair)s AND interval = %(interval)s"
        "               AND start_at >= %(lo)s AND start_at < %(hi)s))",
        {"pair": pair, "interval": interval.name, "lo": first, "hi": last},
    ).fetchone()
    assert row is not None
    moment: datetime | None = row[0]
    return moment.astimezone(UTC) if moment is not None else None


def _mismatch(
    symbol: str, interval: Interval, row: Sequence[Any], pending: Sequence[tuple[datetime, datetime]]
) -> Mismatch:
    start = row[0].astimezone(UTC)
    end = interval.after(start)
    stored, computed = row[2 : 2 + len(FIELDS)], row[2 + len(FIELDS) :]
    fields = {
        name: (before, after)
        for name, before, after in zip(FIELDS, stored, computed, strict=True)
        if before != after
    }
    explained = any(lo < end and hi > start for lo, hi in pending)
    return Mismatch(symbol, interval.name, start, end, row[1], fields, explained)


def _pending(conn: psycopg.Connection, item: Range) -> list[tuple[datetime, datetime]]:
    """Ranges of a pair that wait to be recomputed: marks, and trades that no ingest has seen."""
    rows = conn.execute(load("market", "tickers_dirty"), {"lo": item.lo, "hi": item.hi})
    return [(lo.astimezone(UTC), hi.astimezone(UTC)) for pair, lo, hi in rows if pair == item.pair]
