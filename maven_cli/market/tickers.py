"""Rolling 24 h statistics of many pairs, exact, from rolled-up candles and raw edges.

The window is ``(as_of − 24 hours, as_of]``. It is cut into a raw left edge, a middle of closed candles (1m up to 4h and
back down), and a raw right edge. A middle cell that can't be trusted for a pair is read from that pair's trades.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg

from maven_cli.cache import AS_OF
from maven_cli.db.queries import load
from maven_cli.errors import UsageError
from maven_cli.intervals import INTERVALS, MINUTE, Interval
from maven_cli.market.pairs import TradingPair
from maven_cli.numbers import plain
from maven_cli.times import iso, iso_micros

WINDOW = timedelta(hours=24)
CHANNEL = "tickers"
# Which cells the middle is cut into. 30m and longer ones than 4h would save nothing: a day has six 4h windows.
_CELLS = tuple(INTERVALS[name] for name in ("4h", "1h", "15m", "5m", "1m"))


@dataclass(frozen=True, slots=True)
class Ticker:
    """A pair's last 24 hours. Prices in quote per base, volumes in whole coins.

    stale: it traded once, but not in the window; then open, high and low are the last price. A pair that never traded
    has no prices at all. last_trade_at is None, too, where the last trade was archived: its candle knows the price alone.
    """

    pair: TradingPair
    as_of: datetime
    last: Decimal | None
    open: Decimal | None
    high: Decimal | None
    low: Decimal | None
    prev_close: Decimal | None
    change: Decimal | None
    change_percent: Decimal | None
    volume: Decimal
    quote_volume: Decimal
    trade_count: int
    first_trade_id: int | None
    last_trade_id: int | None
    last_trade_at: datetime | None
    stale: bool


@dataclass(frozen=True)
class Piece:
    """Adjacent cells of one interval, [lo, hi)."""

    interval: Interval
    lo: datetime
    hi: datetime


def layout(lo: datetime, hi: datetime) -> list[Piece]:
    """[lo, hi), whole minutes, as the coarsest cells that fit, in order of time."""
    if lo >= hi:
        return []
    pieces: list[Piece] = []

    def cut(lo: datetime, hi: datetime, level: int) -> None:
        if lo >= hi:
            return
        interval = _CELLS[level]
        first, last = interval.ceil(lo), interval.floor(hi)
        if first < last:
            cut(lo, first, level + 1)
            pieces.append(Piece(interval, first, last))
            cut(last, hi, level + 1)
        else:
            cut(lo, hi, level + 1)

    cut(lo, hi, 0)
    return pieces


def whole_cells(pieces: Sequence[Piece], lo: datetime, hi: datetime) -> tuple[datetime, datetime] | None:
    """The smallest run of whole cells that covers what of [lo, hi) lies in the pieces; None when nothing does."""
    if not pieces:
        return None
    lo, hi = max(lo, pieces[0].lo), min(hi, pieces[-1].hi)
    if lo >= hi:
        return None
    starts = [piece.lo for piece in pieces]
    first = pieces[bisect.bisect_right(starts, lo) - 1]
    last = pieces[bisect.bisect_left(starts, hi) - 1]
    return first.interval.floor(lo), last.interval.ceil(hi)


def _dirty(
    conn: psycopg.Connection, pieces: Sequence[Piece], only: set[int]
) -> list[tuple[int, datetime, datetime]]:
    """Disjoint runs of cells, per pair, that must come from raw trades."""
    if not pieces:
        return []
    rows = conn.execute(load("market", "tickers_dirty"), {"lo": pieces[0].lo, "hi": pieces[-1].hi})
    found = []
    for pair, lo, hi in rows:
        cells = whole_cells(pieces, lo.astimezone(UTC), hi.astimezone(UTC)) if pair in only else None
        if cells is not None:
            found.append((pair, *cells))
    merged: list[tuple[int, datetime, datetime]] = []
    for pair, lo, hi in sorted(found):
        if merged and merged[-1][0] == pair and lo <= merged[-1][2]:
            merged[-1] = (pair, merged[-1][1], max(merged[-1][2], hi))
        else:
            merged.append((pair, lo, hi))
    return merged


def compute(conn: psycopg.Connection, pairs: Sequence[TradingPair], as_of: datetime) -> list[Ticker]:
    """The tickers of those pairs at `as_of`, in their order.

    `conn` is inside one REPEATABLE READ transaction: which cells can be trusted and what they hold must be read from the
    same state. Raises UsageError when a pair's window reaches below its retained trades.
    """
    window_start = as_of - WINDOW
    for pair in pairs:
        if pair.retained_from is not None and window_start < pair.retained_from:
            raise UsageError(
                f"{pair.symbol}'s trades are kept from {iso(pair.retained_from)}; "
                f"the earliest time that can be computed is {iso(pair.retained_from + WINDOW)}"
            )
    ids = [pair.id for pair in pairs]
    # After a restore into another cluster nothing closed can be trusted until an ingest has marked everything.
    row = conn.execute(
        "SELECT (SELECT max(closed_until) FROM candle_progress) FROM ingest_state s, pg_control_system() c"
        " WHERE s.system_identifier = c.system_identifier"
        "   AND pg_snapshot_xmin(s.snapshot) <= pg_snapshot_xmax(pg_current_snapshot())"
    ).fetchone()
    closed = row[0].astimezone(UTC) if row and row[0] else None
    # Strictly after the window's start, also when that is a whole minute: a trade at that very instant is outside.
    middle_start = MINUTE.floor(window_start) + timedelta(minutes=1)
    middle_end = max(middle_start, min(MINUTE.floor(as_of), closed)) if closed else middle_start
    pieces = layout(middle_start, middle_end)
    dirty = _dirty(conn, pieces, set(ids))
    rows = conn.execute(
        load("market", "tickers"),
        {
            "pairs": ids,
            "as_of": as_of,
            "window_start": window_start,
            "middle_start": middle_start,
            "middle_end": middle_end,
            "names": [piece.interval.name for piece in pieces],
            "los": [piece.lo for piece in pieces],
            "his": [piece.hi for piece in pieces],
            "dirty_pairs": [item[0] for item in dirty],
            "dirty_los": [item[1] for item in dirty],
            "dirty_his": [item[2] for item in dirty],
        },
    )
    by_id = {pair.id: pair for pair in pairs}
    found = {row[0]: _ticker(by_id[row[0]], as_of, *row[1:]) for row in rows}
    return [found[pair_id] for pair_id in ids]


def _ticker(
    pair: TradingPair,
    as_of: datetime,
    open_: Decimal | None,
    high: Decimal | None,
    low: Decimal | None,
    last: Decimal | None,
    volume: Decimal,
    quote_volume: Decimal,
    trades: int,
    first_id: int | None,
    last_id: int | None,
    last_at: datetime | None,
    previous: Decimal | None,
    change: Decimal | None,
    percent: Decimal | None,
) -> Ticker:
    at = last_at.astimezone(UTC) if last_at else None
    if trades == 0:
        nothing = None if last is None else Decimal(0)
        return Ticker(
            pair,
            as_of,
            last,
            last,
            last,
            last,
            previous,
            nothing,
            nothing,
            volume,
            quote_volume,
            0,
            None,
            None,
            at,
            stale=last is not None,
        )
    return Ticker(
        pair,
        as_of,
        last,
        open_,
        high,
        low,
        previous,
        change,
        percent,
        volume,
        quote_volume,
        trades,
        first_id,
        last_id,
        at,
        stale=False,
    )


def key(pair_id: int) -> str:
    """The Redis key of a pair's ticker."""
    return f"ticker:24h:{pair_id}"


def payload(ticker: Ticker) -> str:
    """The ticker's JSON text: names that exchange APIs use, decimals as strings, its time first."""
    return (
        f'{AS_OF % iso_micros(ticker.as_of)},"pairId":{ticker.pair.id},"symbol":"{ticker.pair.symbol}"'
        f',"lastPrice":{_text(ticker.last)},"openPrice":{_text(ticker.open)},"highPrice":{_text(ticker.high)}'
        f',"lowPrice":{_text(ticker.low)},"prevClosePrice":{_text(ticker.prev_close)}'
        f',"priceChange":{_text(ticker.change)},"priceChangePercent":{_text(ticker.change_percent)}'
        f',"volume":{_text(ticker.volume)},"quoteVolume":{_text(ticker.quote_volume)},"tradeCount":{ticker.trade_count}'
        f',"firstTradeId":{_number(ticker.first_trade_id)},"lastTradeId":{_number(ticker.last_trade_id)}'
        f',"lastTradeAt":{_time(ticker.last_trade_at)},"stale":{str(ticker.stale).lower()}}}'
    )


def _text(value: Decimal | None) -> str:
    return "null" if value is None else f'"{plain(value)}"'


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)


def _time(value: datetime | None) -> str:
    return "null" if value is None else f'"{iso(value)}"'


def future_trades(conn: psycopg.Connection, as_of: datetime) -> int:
    """How many trades are dated after `as_of`: clocks or data that need a look."""
    row = conn.execute("SELECT count(*) FROM trades WHERE executed_at > %s", [as_of]).fetchone()
    assert row is not None
    return int(row[0])
