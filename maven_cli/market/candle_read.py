"""A pair's candles for readers: closed ones as stored, what isn't closed yet from its trades, quiet windows filled.

A pair that is behind is no pair that doesn't trade: every window that the candle pass hasn't closed comes from the trades
themselves, with `closed` false, so that nobody reads "no trades" where there are some.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any
from uuid import uuid4

import psycopg

from maven_cli.db.queries import load
from maven_cli.intervals import INTERVALS, Interval
from maven_cli.market.candle_view import COLUMNS, Candle, fill, from_row
from maven_cli.market.pairs import TradingPair

_AT_ONCE = 2000  # rows that are fetched, and so held, at a time
_MOST = 2**31 - 1  # windows that a limit can mean; more than there are


@dataclass(frozen=True)
class Reading:
    """Candles, oldest first, as the database had them at `as_of`; the pair was closed up to `closed_until` then.

    `candles` comes from open cursors, once, and as long as the block of `reading` lasts.
    """

    as_of: datetime
    closed_until: datetime | None
    candles: Iterator[Candle]

    @property
    def lag(self) -> timedelta:
        """How far the candle pass is behind; up to a minute is no lag."""
        return self.as_of - self.closed_until if self.closed_until else timedelta(0)


@contextmanager
def reading(
    conn: psycopg.Connection,
    pair: TradingPair,
    interval: Interval,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    limit: int | None = None,
    filled: bool = True,
) -> Iterator[Reading]:
    """The windows that start in [start, end), the running one included; of those, with `limit`, the newest ones.

    filled: a window without trades is a quiet candle, from the pair's first trade on; otherwise it is left out. `conn` is
    in autocommit; the block is one read-only snapshot, however many candles there are.
    """
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = conn.execute(
            "SELECT clock_timestamp(), (SELECT closed_until FROM candle_progress WHERE trading_pair_id = %(pair)s),"
            "       (SELECT min(start_at) FROM candles WHERE trading_pair_id = %(pair)s AND interval = '1m'),"
            "       (SELECT min(executed_at) FROM trades WHERE trading_pair_id = %(pair)s)",
            {"pair": pair.id},
        ).fetchone()
        assert row is not None
        as_of = row[0].astimezone(UTC)
        closed_until = row[1] and row[1].astimezone(UTC)
        known = [moment.astimezone(UTC) for moment in row[2:] if moment is not None]
        if not known or (first := interval.floor(min(known))) > as_of:
            yield Reading(as_of, closed_until, iter(()))
            return
        # Never closed anything: all of it comes from the trades.
        view = _View(conn, pair, interval, closed_until or first, as_of)
        after_running = interval.after(interval.floor(as_of))
        until = min(end, after_running) if end else after_running
        lo = max(first, interval.ceil(start)) if start and start < until else first
        if until <= lo or (start and start >= until):
            found: Iterator[Candle] = iter(())
        elif filled:
            found = view.filled(_newest(interval, lo, until, limit), until)
        else:
            found = view.traded(lo, until, None if limit is None else min(limit, _MOST))
        yield Reading(as_of, closed_until, found)


def _newest(interval: Interval, lo: datetime, until: datetime, limit: int | None) -> datetime:
    """The start of the first of the newest `limit` windows in [lo, until)."""
    if limit is None:
        return lo
    last = interval.floor(until - timedelta(microseconds=1))
    try:
        return max(lo, interval.after(last, 1 - limit))
    except (OverflowError, ValueError):  # further back than there are dates
        return lo


@dataclass(frozen=True)
class _View:
    conn: psycopg.Connection
    pair: TradingPair
    interval: Interval
    closed_until: datetime
    as_of: datetime

    def filled(self, lo: datetime, until: datetime) -> Iterator[Candle]:
        previous = self._close_before(lo)
        traded = self.traded(lo, until, None)
        if previous is None:
            earliest = next(traded, None)
            if earliest is None:
                return iter(())
            lo, traded = earliest.start, chain([earliest], traded)
        return fill(traded, self.interval, lo, until, previous, self.closed_until)

    def traded(self, lo: datetime, until: datetime, limit: int | None) -> Iterator[Candle]:
        """The windows with trades that start in [lo, until); with a limit the newest ones."""
        if limit is None:
            return chain(self._closed(lo, until, None), self._open(lo, until))
        newest = deque(self._open(lo, until), maxlen=limit)
        missing = limit - len(newest)
        return chain(self._closed(lo, until, missing) if missing else (), newest)

    def _closed(self, lo: datetime, until: datetime, limit: int | None) -> Iterator[Candle]:
        order = "start_at" if limit is None else "start_at DESC LIMIT %(limit)s"
        rows = self._stream(
            f"SELECT * FROM (SELECT {COLUMNS} FROM candles WHERE trading_pair_id = %(pair)s AND interval = %(interval)s"
            f" AND start_at >= %(lo)s AND start_at < %(until)s ORDER BY {order}) newest ORDER BY start_at",
            {
                "pair": self.pair.id,
                "interval": self.interval.name,
                "lo": lo,
                "until": min(until, self.interval.floor(self.closed_until)),
                "limit": limit,
            },
        )
        return (from_row(row, closed=True) for row in rows)

    def _open(self, lo: datetime, until: datetime) -> Iterator[Candle]:
        first = max(lo, self.interval.floor(self.closed_until))
        if first >= until:
            return iter(())
        # What of the first open window is closed already, as coarse cells: a month isn't read trade by trade.
        cells: list[tuple[str, datetime, datetime]] = []
        above = self.interval
        while above.parent is not None:
            cell = INTERVALS[above.parent]
            cells.append((cell.name, above.floor(self.closed_until), cell.floor(self.closed_until)))
            above = cell
        rows = self._stream(
            load("market", "candles_open", window=self.interval.sql("at")),
            {
                "pair": self.pair.id,
                "closed_until": self.closed_until,
                "as_of": self.as_of,
                "first": first,
                "until": self.interval.ceil(until),
                "cell_names": [cell[0] for cell in cells],
                "cell_los": [cell[1] for cell in cells],
                "cell_his": [cell[2] for cell in cells],
            },
        )
        return (from_row(row, closed=False) for row in rows)

    def _close_before(self, lo: datetime) -> Candle | None:
        """A candle that ends before `lo` and has the last price before it: of the last trade, else the last minute."""
        row: tuple[Any, ...] | None = None
        if lo > self.closed_until:
            row = self.conn.execute(
                "SELECT executed_at, price, price, price, price, quantity, price * quantity, 1, id, id, 0 FROM trades"
                " WHERE trading_pair_id = %s AND executed_at >= %s AND executed_at < %s"
                " ORDER BY executed_at DESC, id DESC LIMIT 1",
                [self.pair.id, self.closed_until, lo],
            ).fetchone()
        if row is None:
            row = self.conn.execute(
                f"SELECT {COLUMNS} FROM candles WHERE trading_pair_id = %s AND interval = '1m' AND start_at < %s"
                " ORDER BY start_at DESC LIMIT 1",
                [self.pair.id, lo],
            ).fetchone()
        return from_row(row, closed=True) if row else None

    def _stream(self, query: Any, parameters: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        with self.conn.cursor(name=f"candles_{uuid4().hex[:8]}") as cursor:
            cursor.itersize = _AT_ONCE
            cursor.execute(query, parameters)
            yield from cursor
