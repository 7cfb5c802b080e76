"""Candles from trades: find what changed, recompute whole windows, never increment.

State, all in PostgreSQL:

* `candle_progress.closed_until` — per pair, the minute up to which all nine intervals are closed;
* `candle_marks` — closed ranges whose trades changed since;
* `ingest_state.snapshot` — what the last ingest could see.

Invariant, which tickers build on: in any snapshot of the database, a closed candle equals its raw trades, unless a
mark covers it or a trade in it is newer than the ingest's snapshot. It holds because everything that writes candles or
advances the ingest does so under one work lock (`WRITE_KEY`), taken before its statements take their snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import psycopg

from maven_cli.db.queries import load
from maven_cli.intervals import INTERVALS, MINUTE, Interval

WRITE_KEY = "candles"


@dataclass(frozen=True)
class Ingested:
    """trades: newly visible ones; pairs: those that traded for the first time; marks: late ranges found."""

    trades: int
    pairs: int
    marks: int


@dataclass(frozen=True)
class Range:
    """Minutes [lo, hi) of one pair to recompute.

    closed_until: the pair's closed end once that is done. Minutes below the pair's retention line stay as they are: the
    statement that reads the trades reads the line, too, since trades may be archived at any moment before it.
    """

    pair: int
    lo: datetime
    hi: datetime
    closed_until: datetime


@dataclass
class Changes:
    """Candle rows that a rebuild inserted, changed and removed, by interval."""

    inserted: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)

    def add(self, interval: str, inserted: int, changed: int, removed: int) -> None:
        for counts, number in ((self.inserted, inserted), (self.changed, changed), (self.removed, removed)):
            if number:
                counts[interval] = counts.get(interval, 0) + number

    def merge(self, other: Changes) -> None:
        for name in INTERVALS:
            self.add(
                name, other.inserted.get(name, 0), other.changed.get(name, 0), other.removed.get(name, 0)
            )

    @property
    def total(self) -> int:
        return sum(sum(counts.values()) for counts in (self.inserted, self.changed, self.removed))


def ingest(conn: psycopg.Connection, as_of: datetime) -> Ingested:
    """Marks what became visible since the last ingest. The caller's transaction holds WRITE_KEY exclusively.

    The database's identity is compared first: after a restore into another cluster, transaction ids start over, so
    everything is marked once.
    """
    row = conn.execute(
        "SELECT s.snapshot::text, s.system_identifier = c.system_identifier"
        "       AND pg_snapshot_xmin(s.snapshot) <= pg_snapshot_xmax(pg_current_snapshot())"
        "  FROM ingest_state s, pg_control_system() c"
    ).fetchone()
    if row is not None and row[1]:
        counts = conn.execute(
            load("market", "candles_ingest"), {"snapshot": row[0], "as_of": as_of}
        ).fetchone()
    else:
        counts = conn.execute(load("market", "candles_ingest_all"), {"as_of": as_of}).fetchone()
    assert counts is not None
    return Ingested(*counts)


def rebuild(conn: psycopg.Connection, work: Sequence[Range], intervals: Iterable[str] = INTERVALS) -> Changes:
    """Recomputes the minutes of `work` and every closed window above them, finest interval first.

    Ranges of one pair must be disjoint (see `merge_ranges`). A window above is recomputed when it ends by the range's
    `closed_until`. The caller's transaction holds WRITE_KEY.
    """
    wanted = set(intervals)
    changes = Changes()
    for interval in INTERVALS.values():
        if interval.name in wanted:
            windows = _windows(work, interval)
            if windows:
                changes.add(interval.name, *_rebuild_interval(conn, interval, windows))
    return changes


def _windows(work: Sequence[Range], interval: Interval) -> list[tuple[int, datetime, datetime]]:
    """The windows of one interval that the ranges touch and that are closed, as disjoint aligned ranges per pair."""
    if interval is MINUTE:
        return [(item.pair, item.lo, item.hi) for item in work if item.lo < item.hi]
    # Pairs move in lockstep: nearly all ranges are the same, and so are their bounds.
    bounds: dict[tuple[datetime, datetime, datetime], tuple[datetime, datetime]] = {}
    found: list[tuple[int, datetime, datetime]] = []
    for item in sorted(work, key=lambda item: (item.pair, item.lo)):
        key = (item.lo, item.hi, item.closed_until)
        if key not in bounds:
            end = min(interval.ceil(item.hi), interval.floor(item.closed_until))
            bounds[key] = (interval.floor(item.lo), end)
        lo, hi = bounds[key]
        if found and found[-1][0] == item.pair and lo < found[-1][2]:
            lo = found[-1][2]  # two ranges inside one window
        if lo < hi:
            found.append((item.pair, lo, hi))
    return found


def _rebuild_interval(
    conn: psycopg.Connection, interval: Interval, windows: list[tuple[int, datetime, datetime]]
) -> tuple[int, int, int]:
    write = load("market", "candles_write")
    params = {
        "pairs": [window[0] for window in windows],
        "los": [window[1] for window in windows],
        "his": [window[2] for window in windows],
        "lowest": min(window[1] for window in windows),
        "highest": max(window[2] for window in windows),
        "interval": interval.name,
        "parent": interval.parent,
    }
    if interval.parent is None:
        query = load("market", "candles_from_trades", window=interval.sql("t.executed_at"), write=write)
    else:
        query = load("market", "candles_from_candles", window=interval.sql("c.start_at"), write=write)
    row = conn.execute(query, params).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def merge_ranges(ranges: Iterable[Range]) -> list[Range]:
    """Overlapping and touching ranges of a pair become one: a trade counted twice would be a wrong volume."""
    merged: list[Range] = []
    for item in sorted(ranges, key=lambda item: (item.pair, item.lo)):
        last = merged[-1] if merged else None
        if last is not None and last.pair == item.pair and item.lo <= last.hi:
            closed_until = max(last.closed_until, item.closed_until)
            merged[-1] = Range(item.pair, last.lo, max(last.hi, item.hi), closed_until)
        elif item.lo < item.hi:
            merged.append(item)
    return merged


@dataclass(frozen=True)
class Frontier:
    """A pair's closed end."""

    pair: int
    closed_until: datetime


def behind(conn: psycopg.Connection, until: datetime, pairs: Sequence[int] | None = None) -> list[Frontier]:
    """The pairs whose closed end lies before `until`, the furthest behind first."""
    rows = conn.execute(
        "SELECT g.trading_pair_id, g.closed_until FROM candle_progress g"
        " WHERE g.closed_until < %(until)s AND (%(pairs)s::bigint[] IS NULL OR g.trading_pair_id = ANY (%(pairs)s))"
        " ORDER BY g.closed_until, g.trading_pair_id",
        {"until": until, "pairs": list(pairs) if pairs is not None else None},
    )
    return [Frontier(row[0], row[1].astimezone(UTC)) for row in rows]


@dataclass(frozen=True)
class Mark:
    """A closed range of a pair whose trades changed."""

    id: int
    pair: int
    from_at: datetime
    to_at: datetime
    closed_until: datetime


def marks(conn: psycopg.Connection, limit: int, pairs: Sequence[int] | None = None) -> list[Mark]:
    """The oldest marks of pairs that have candles."""
    rows = conn.execute(
        "SELECT m.id, m.trading_pair_id, m.from_at, m.to_at, g.closed_until"
        "  FROM candle_marks m JOIN candle_progress g USING (trading_pair_id)"
        " WHERE %(pairs)s::bigint[] IS NULL OR m.trading_pair_id = ANY (%(pairs)s)"
        " ORDER BY m.id LIMIT %(limit)s",
        {"limit": limit, "pairs": list(pairs) if pairs is not None else None},
    )
    return [
        Mark(mark, pair, lo.astimezone(UTC), hi.astimezone(UTC), end.astimezone(UTC))
        for mark, pair, lo, hi, end in rows
    ]


def marked_pairs(conn: psycopg.Connection, pairs: Sequence[int] | None = None) -> list[int]:
    """The pairs that have marks to work off."""
    rows = conn.execute(
        "SELECT DISTINCT m.trading_pair_id FROM candle_marks m JOIN candle_progress g USING (trading_pair_id)"
        " WHERE %(pairs)s::bigint[] IS NULL OR m.trading_pair_id = ANY (%(pairs)s) ORDER BY 1",
        {"pairs": list(pairs) if pairs is not None else None},
    )
    return [row[0] for row in rows]


def add_mark(conn: psycopg.Connection, pair: int, lo: datetime, hi: datetime) -> None:
    """Asks for [lo, hi) of a pair to be recomputed by the next pass."""
    conn.execute(
        "INSERT INTO candle_marks (trading_pair_id, from_at, to_at) VALUES (%s, %s, %s)", [pair, lo, hi]
    )


def lock_pairs(conn: psycopg.Connection, pairs: Sequence[int]) -> None:
    """Excludes other writers of these pairs for the rest of the transaction, where WRITE_KEY is only shared."""
    conn.execute(
        "SELECT FROM candle_progress WHERE trading_pair_id = ANY (%s) ORDER BY trading_pair_id FOR UPDATE",
        [list(pairs)],
    )


def closed_ranges(
    conn: psycopg.Connection, pairs: Sequence[int], start: datetime | None, end: datetime | None
) -> list[Range]:
    """What is closed of each pair within [start, end), from its first trade or candle; whole minutes."""
    rows = conn.execute(
        "SELECT g.trading_pair_id, g.closed_until,"
        "       least((SELECT min(executed_at) FROM trades t WHERE t.trading_pair_id = g.trading_pair_id),"
        # All nine: a candle that somebody made by hand has none below it.
        "             (SELECT min(c.start_at) FROM unnest(%s::text[]) AS i (name) CROSS JOIN LATERAL"
        "               (SELECT start_at FROM candles c WHERE c.trading_pair_id = g.trading_pair_id AND c.interval = i.name"
        "                 ORDER BY start_at LIMIT 1) AS c))"
        "  FROM candle_progress g WHERE g.trading_pair_id = ANY (%s) ORDER BY 1",
        [list(INTERVALS), list(pairs)],
    )
    found = []
    for pair, closed_until, first in rows:
        if first is None:
            continue
        closed_until = closed_until.astimezone(UTC)
        lo = MINUTE.floor(max(first.astimezone(UTC), start) if start else first.astimezone(UTC))
        hi = min(MINUTE.ceil(end), closed_until) if end else closed_until
        if lo < hi:
            found.append(Range(pair, lo, hi, closed_until))
    return found


def correct(conn: psycopg.Connection, found: Sequence[Mark], span: timedelta) -> Changes:
    """Recomputes marked ranges, at most `span` of each, and deletes the marks; the rest of a long one is marked anew.

    The caller's transaction holds WRITE_KEY.
    """
    # A mark may reach into what isn't closed yet; closing it reads the trades anyway.
    closed = [(mark, min(mark.to_at, mark.closed_until)) for mark in found]
    closed = [(mark, end) for mark, end in closed if mark.from_at < end]
    steps = _steps(conn, [(mark.pair, mark.from_at, end) for mark, end in closed], span)
    ranges = []
    for (mark, end), hi in zip(closed, steps, strict=True):
        ranges.append(Range(mark.pair, mark.from_at, hi, mark.closed_until))
        if hi < end:
            add_mark(conn, mark.pair, hi, end)
    changes = rebuild(conn, merge_ranges(ranges))
    conn.execute("DELETE FROM candle_marks WHERE id = ANY (%s)", [[mark.id for mark in found]])
    return changes


def close(
    conn: psycopg.Connection, frontiers: Sequence[Frontier], until: datetime, span: timedelta
) -> Changes:
    """Closes the windows of each pair up to `until`, at most `span` of market time that has trades.

    The caller's transaction holds WRITE_KEY.
    """
    ends = _steps(conn, [(item.pair, item.closed_until, until) for item in frontiers], span)
    work = [Range(item.pair, item.closed_until, end, end) for item, end in zip(frontiers, ends, strict=True)]
    changes = rebuild(conn, work)
    conn.execute(
        "UPDATE candle_progress g SET closed_until = w.until"
        "  FROM unnest(%s::bigint[], %s::timestamptz[]) AS w (pair, until)"
        " WHERE g.trading_pair_id = w.pair AND g.closed_until < w.until",
        [[item.pair for item in work], [item.closed_until for item in work]],
    )
    return changes


def _steps(
    conn: psycopg.Connection, stretches: Sequence[tuple[int, datetime, datetime]], span: timedelta
) -> list[datetime]:
    """How far to go in one transaction in each stretch [lo, hi) of a pair: `span`, counted from its first activity.

    A quiet beginning costs nothing, however long: there is neither a trade to read nor a candle to remove.
    """
    ends = [hi for _, _, hi in stretches]
    far = [at for at, (_, lo, hi) in enumerate(stretches) if hi - lo > span]
    if far:
        rows = conn.execute(
            "SELECT w.at, least((SELECT min(t.executed_at) FROM trades t"
            "                     WHERE t.trading_pair_id = w.pair AND t.executed_at >= w.lo),"
            "                   (SELECT min(c.start_at) FROM candles c"
            "                     WHERE c.trading_pair_id = w.pair AND c.interval = '1m' AND c.start_at >= w.lo))"
            "  FROM unnest(%s::int[], %s::bigint[], %s::timestamptz[]) AS w (at, pair, lo)",
            [far, [stretches[at][0] for at in far], [stretches[at][1] for at in far]],
        )
        for at, first in rows:
            if first is not None:
                ends[at] = min(ends[at], MINUTE.floor(first.astimezone(UTC)) + span)
    return ends
