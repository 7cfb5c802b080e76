"""Candles as readers get them: closed rows, the running window, and quiet windows filled from the last close."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.db.queries import load
from maven_cli.intervals import INTERVALS, Interval

ZERO = Decimal(0)
COLUMNS = "start_at, open, high, low, close, base_volume, quote_volume, trade_count, first_trade_id, last_trade_id, revision"


@dataclass(frozen=True, slots=True)
class Candle:
    """One window of one pair. Prices in quote per base; volumes in whole coins; a quiet window has no trade ids."""

    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    base_volume: Decimal
    quote_volume: Decimal
    trade_count: int
    first_trade_id: int | None
    last_trade_id: int | None
    revision: int
    closed: bool
    empty: bool


def from_row(row: Sequence[Any], *, closed: bool) -> Candle:
    """A candle from the values of `COLUMNS`, in that order."""
    start, open_, high, low, close, base, quote, count, first_id, last_id, revision = row
    start = start.astimezone(UTC)
    return Candle(
        start, open_, high, low, close, base, quote, count, first_id, last_id, revision, closed, empty=False
    )


def quiet(start: datetime, close: Decimal, *, closed: bool) -> Candle:
    """The candle of a window without trades: the previous close four times, no volume."""
    return Candle(start, close, close, close, close, ZERO, ZERO, 0, None, None, 0, closed, True)


def fill(
    candles: Iterator[Candle],
    interval: Interval,
    first: datetime,
    end: datetime,
    previous: Candle | None,
    closed_until: datetime,
) -> Iterator[Candle]:
    """Every window from `first` up to `end` in order: what traded as it is, the rest quiet.

    previous: the last candle before `first`. Nothing is made up before a pair's first trade.
    """
    close = previous.close if previous else None
    start = first
    waiting = next(candles, None)
    while start < end:
        following = interval.after(start)
        if waiting is not None and waiting.start == start:
            yield waiting
            close = waiting.close
            waiting = next(candles, None)
        elif close is not None:
            yield quiet(start, close, closed=following <= closed_until)
        start = following


def running(
    conn: psycopg.Connection,
    pairs: Sequence[int],
    intervals: Sequence[Interval],
    closed_until: datetime,
    as_of: datetime,
) -> dict[tuple[int, str], Candle]:
    """The unfinished windows at `as_of` of pairs that are closed up to `closed_until`, by (pair, interval name).

    Closed candles where there are any, raw trades after that. A window without trades is left out.
    """
    cells: dict[str, datetime] = {}
    for interval in INTERVALS.values():
        if interval.parent is not None:
            edge = interval.floor(closed_until)
            cells[interval.parent] = min(cells.get(interval.parent, edge), edge)
    rows = conn.execute(
        load("market", "candles_running"),
        {
            "pairs": list(pairs),
            "closed_until": closed_until,
            "as_of": as_of,
            "names": [interval.name for interval in intervals],
            "starts": [interval.floor(as_of) for interval in intervals],
            "cell_names": list(cells),
            "cell_los": list(cells.values()),
            "cell_his": [INTERVALS[name].floor(closed_until) for name in cells],
        },
    )
    return {(row[0], row[1]): from_row(row[2:], closed=False) for row in rows}
