"""Backfill: close everything that lies behind, in bounded chunks, several connections side by side.

What a candle pass does for the last minute, done for years: pairs are split between the jobs, each job closes the pairs
that are furthest behind, and commits chunk by chunk, so that it can be stopped at any moment and goes on from the data.
A range that is already closed is recomputed by marking it, which survives a kill just as well.

Jobs share the candle write lock among each other and lock their pairs' progress rows; a candle pass takes the write
lock alone, and gets its turn between two chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

import psycopg

from maven_cli.errors import UsageError
from maven_cli.intervals import MINUTE, Interval
from maven_cli.market import candles
from maven_cli.market.pairs import TradingPair, all_pairs, resolve_pairs
from maven_cli.passes.candles import LABEL, MARKS_AT_ONCE, WAIT_MS, each_alone
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("candles", LABEL, "candles:backfill")
PAIRS_AT_ONCE = 100
# A chunk should take about this long: short enough that a live candle pass hardly waits, long enough to be worth it.
CHUNK_SECONDS = (0.3, 1.0)
LONGEST_CHUNK = timedelta(days=128)

Progress = Callable[[timedelta, timedelta], None]


@dataclass
class _Work:
    """What the jobs add up. `done` and `total` are market time × pairs."""

    progress: Progress
    total: timedelta = timedelta(0)
    done: timedelta = timedelta(0)
    changes: candles.Changes = field(default_factory=candles.Changes)
    failed: set[int] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)

    def add(self, done: timedelta, changes: candles.Changes) -> None:
        with self.lock:
            self.done += done
            self.changes.merge(changes)
            self.progress(min(self.done, self.total), self.total)


def backfill(
    services: Services,
    *,
    pairs: Sequence[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    interval: Interval | None = None,
    jobs: int = 1,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Closes all pairs (or those symbols) up to now; with `start` or `end` also recomputes what is closed in between.

    `interval` recomputes the closed windows of that interval alone. `data`: pairs, failed, rows inserted, changed and
    removed by interval, seconds.
    """
    return run(WORKER, lambda current: _body(current, pairs, start, end, interval, jobs, progress), services)


def _body(
    current: Pass,
    symbols: Sequence[str],
    start: datetime | None,
    end: datetime | None,
    interval: Interval | None,
    jobs: int,
    progress: Progress,
) -> dict[str, Any]:
    if start is not None and start >= current.as_of:
        raise UsageError("--from lies in the future; there is nothing to compute yet")
    everything = all_pairs(current.conn)
    selected = resolve_pairs(current.conn, symbols) if symbols else everything
    ids = [pair.id for pair in selected]
    until = MINUTE.floor(current.as_of)
    work = _Work(progress)
    with current.transaction(candles.WRITE_KEY, wait_ms=WAIT_MS) as conn:
        candles.ingest(conn, current.as_of)
        if (start or end) and interval is None:
            for item in candles.closed_ranges(conn, ids, start, end):
                candles.add_mark(conn, item.pair, item.lo, item.hi)
    frontiers = candles.behind(current.conn, until, ids)
    work.total = sum((until - item.closed_until for item in frontiers), timedelta(0))
    names = {pair.id: pair for pair in everything}
    # Dealt out one by one, so that busy neighbours don't end up in one job.
    dealt = [dealt for at in range(jobs) if (dealt := ids[at::jobs])]
    if len(dealt) <= 1:
        _job(current, current.conn, ids, until, interval, (start, end), work, names)
    else:
        with ThreadPoolExecutor(len(dealt)) as pool:
            list(
                pool.map(
                    lambda mine: _job_apart(current, mine, until, interval, (start, end), work, names), dealt
                )
            )
    seconds = current.elapsed().total_seconds()
    rows = work.changes.total
    current.log.info(
        "candles.backfilled",
        f"Backfilled {len(ids) - len(work.failed)} pairs, {len(work.failed)} failed: {rows} candles in {seconds:.1f}s",
        pairs=len(ids),
        failed=len(work.failed),
        rows=rows,
    )
    return {
        "as_of": current.as_of,
        "pairs": len(ids),
        "failed": len(work.failed),
        "inserted": work.changes.inserted,
        "changed": work.changes.changed,
        "removed": work.changes.removed,
        "seconds": f"{seconds:.3f}",
    }


Bounds = tuple[datetime | None, datetime | None]


def _job_apart(
    current: Pass,
    pairs: Sequence[int],
    until: datetime,
    interval: Interval | None,
    bounds: Bounds,
    work: _Work,
    names: dict[int, TradingPair],
) -> None:
    """A job on a connection of its own."""
    conn = current.connect()
    try:
        _job(current, conn, pairs, until, interval, bounds, work, names)
    finally:
        current.stop.connections.remove(conn)
        conn.close()


def _job(
    current: Pass,
    conn: psycopg.Connection,
    pairs: Sequence[int],
    until: datetime,
    interval: Interval | None,
    bounds: Bounds,
    work: _Work,
    names: dict[int, TradingPair],
) -> None:
    failed: set[int] = set()

    def fail(pair: int, error: psycopg.Error) -> None:
        failed.add(pair)
        with work.lock:
            work.failed.add(pair)
            reason = current.fail(names[pair].symbol, error)
        current.log.error("candles.failed", f"Failed to backfill {names[pair].symbol}: {reason}")

    span = timedelta(days=1)

    def close(some: Sequence[int]) -> None:
        with current.transaction(candles.WRITE_KEY, conn=conn, wait_ms=WAIT_MS, shared=True):
            candles.lock_pairs(conn, some)
            before = candles.behind(conn, until, some)
            changes = candles.close(conn, before, until, span)
            after = {item.pair: item.closed_until for item in candles.behind(conn, until, some)}
        work.add(
            sum((after.get(item.pair, until) - item.closed_until for item in before), timedelta(0)), changes
        )

    def correct(some: Sequence[int]) -> None:
        with current.transaction(candles.WRITE_KEY, conn=conn, wait_ms=WAIT_MS, shared=True):
            candles.lock_pairs(conn, some)
            changes = candles.correct(conn, candles.marks(conn, MARKS_AT_ONCE, some), span)
        work.add(timedelta(0), changes)

    # Corrections first: a window that closes over a wrong one would have to be closed again.
    while marked := [pair for pair in candles.marked_pairs(conn, pairs) if pair not in failed]:
        started = time.monotonic()
        each_alone(marked[:PAIRS_AT_ONCE], correct, fail)
        span = _paced(span, time.monotonic() - started)
    while lagging := [item.pair for item in candles.behind(conn, until, pairs) if item.pair not in failed]:
        started = time.monotonic()
        each_alone(lagging[:PAIRS_AT_ONCE], close, fail)
        span = _paced(span, time.monotonic() - started)
    if interval is not None:
        for pair in pairs:
            if pair not in failed:
                each_alone(
                    [pair], lambda some: _one_interval(current, conn, some, interval, bounds, work), fail
                )


def _one_interval(
    current: Pass,
    conn: psycopg.Connection,
    pairs: Sequence[int],
    interval: Interval,
    bounds: Bounds,
    work: _Work,
) -> None:
    """Recomputes the closed windows of one interval from the interval below it."""
    span = timedelta(days=31)
    for item in candles.closed_ranges(conn, pairs, *bounds):
        lo = item.lo
        while lo < item.hi:
            hi = min(interval.ceil(lo + span), item.hi)
            with current.transaction(candles.WRITE_KEY, conn=conn, wait_ms=WAIT_MS, shared=True):
                candles.lock_pairs(conn, [item.pair])
                piece = candles.Range(item.pair, lo, hi, item.closed_until)
                changes = candles.rebuild(conn, [piece], [interval.name])
            work.add(timedelta(0), changes)
            lo = hi


def _paced(span: timedelta, seconds: float) -> timedelta:
    """The next chunk's length, so that it takes about CHUNK_SECONDS."""
    least, most = CHUNK_SECONDS
    if seconds < least:
        return min(span * 2, LONGEST_CHUNK)
    return max(span / 2, timedelta(hours=1)) if seconds > most else span
