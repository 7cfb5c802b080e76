"""The candle pass: close what has ended, correct what changed, refresh Redis.

1. Ingest: mark closed ranges whose trades became visible since the last pass.
2. Recompute the marked ranges, all nine intervals at once.
3. Close every window that has ended, up to the newest boundary of the pass's interval, oldest first. Whatever ends at
   the same instant closes in the same transaction, so the 1m pass never leaves an hour or a month overdue, and a pass
   of a longer interval finishes the job of a 1m pass that isn't there.
4. Write the newest candles to Redis: all nine intervals in the 1m pass, its own in the others.

Each transaction is bounded (MAVEN_CANDLE_CHUNK), and so is the pass (MAVEN_CANDLE_BUDGET); what is left is found again
from the same data. While there is something to close, corrections take half of the budget at most: after a restore
everything is marked, and the market doesn't wait for that.

A dry run takes no lock, and holds what it writes until it rolls back. It therefore does one small step of correcting and
one of closing, and says whether that was all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from maven_cli.db.failures import explain
from maven_cli.intervals import INTERVALS, Interval
from maven_cli.market import candles
from maven_cli.market.candle_cache import refresh
from maven_cli.market.pairs import all_pairs, resolve_pairs
from maven_cli.runner import Outcome, Pass, Services, Worker, run

Step = Callable[[Sequence[int]], None]
Failed = Callable[[int, psycopg.Error], None]
LABEL = "CandleGenerationWorker"
# How long a pass of one interval waits for another interval's transaction to end.
WAIT_MS = 20_000
MARKS_AT_ONCE = 500
# A minute of all pairs is one small transaction; a long outage is caught up in many bounded ones.
LONG_LAG = timedelta(hours=1)
PAIRS_AT_ONCE = 100


def worker(interval: Interval) -> Worker:
    """The candle worker of one interval."""
    return Worker("candles", LABEL, f"candles:{interval.name}")


def generate(
    services: Services,
    interval: Interval,
    *,
    pairs: Sequence[str] = (),
    as_of: datetime | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Runs one candle pass. `data`: interval, as_of, dry_run, success, failed, trades_seen, rows inserted, changed, removed by
    interval, and complete: whether nothing was left to the next pass (a dry run does the first step alone).

    `pairs` (symbols) narrows the work, not the lock. `as_of` later than the database's clock is refused, since it would
    close windows that haven't ended.
    """
    return run(
        worker(interval),
        lambda current: _body(current, interval, pairs),
        services,
        as_of=as_of,
        dry_run=dry_run,
    )


def each_alone(pairs: Sequence[int], step: Step, failed: Failed) -> None:
    """Does a step for many pairs in one transaction; when that fails, halves until the bad pair stands alone.

    What isn't the pair's fault (a lost connection, a lock timeout, a missing right) is raised.
    """
    try:
        step(pairs)
    except psycopg.Error as error:
        if explain(error) is not None:
            raise
        if len(pairs) == 1:
            failed(pairs[0], error)
            return
        middle = len(pairs) // 2
        each_alone(pairs[:middle], step, failed)
        each_alone(pairs[middle:], step, failed)


def _body(current: Pass, interval: Interval, symbols: Sequence[str]) -> dict[str, Any]:
    log = current.log
    log.debug("candles.start", f"Starting {interval.name} candle generation...")
    if symbols:
        selected = resolve_pairs(current.conn, symbols)
    else:
        selected = [pair for pair in all_pairs(current.conn) if pair.status == "ACTIVE"]
    only = [pair.id for pair in selected] if symbols else None
    names = {pair.id: pair.symbol for pair in all_pairs(current.conn)}
    until = interval.floor(current.as_of)
    changes = candles.Changes()
    failed: set[int] = set()

    def fail(pair: int, error: psycopg.Error) -> None:
        failed.add(pair)
        reason = current.fail(names[pair], error)
        log.error("candles.failed", f"Failed to generate {interval.name} candle for {names[pair]}: {reason}")

    def attempt(pairs: Sequence[int], step: Callable[[Sequence[int]], candles.Changes]) -> None:
        each_alone(pairs, lambda some: changes.merge(step(some)), fail)

    with current.transaction(candles.WRITE_KEY, wait_ms=WAIT_MS) as conn:
        ingested = candles.ingest(conn, current.as_of)
    budget = current.settings.candle_budget
    corrected = _correct_marks(current, only, attempt, failed, budget / 2)
    closed = _close_windows(current, until, only, attempt, failed, budget)
    if not current.dry_run:
        corrected = _correct_marks(current, only, attempt, failed, budget)
        wanted = list(INTERVALS.values()) if interval.name == "1m" else [interval]
        refresh(current, selected, wanted)
    success = [pair for pair in selected if pair.id not in failed]
    for pair in success:
        log.debug("candles.pair", f"Generated {interval.name} candle for {pair.symbol}", pair=pair.symbol)
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    log.info(
        "candles.done",
        f"Generated {interval.name} candles: {len(success)} success, {len(failed)} failed ({milliseconds}ms)",
        interval=interval.name,
        success=len(success),
        failed=len(failed),
        duration_ms=milliseconds,
    )
    if current.dry_run and not (corrected and closed):
        log.info("candles.dry", "Dry run: that was the first step, more is waiting")
    return {
        "interval": interval.name,
        "as_of": current.as_of,
        "dry_run": current.dry_run,
        "success": len(success),
        "failed": len(failed),
        "trades_seen": ingested.trades,
        "inserted": changes.inserted,
        "changed": changes.changed,
        "removed": changes.removed,
        "complete": corrected and closed,
    }


def _step_length(current: Pass) -> timedelta:
    """The most market time of a pair that one transaction works on."""
    chunk = current.settings.candle_chunk
    return min(chunk, LONG_LAG) if current.dry_run else chunk


Attempt = Callable[[Sequence[int], Callable[[Sequence[int]], candles.Changes]], None]


def _correct_marks(
    current: Pass, only: Sequence[int] | None, attempt: Attempt, failed: set[int], budget: timedelta
) -> bool:
    """Works the marks off, oldest first, and returns whether none is left.

    A pair that fails keeps its marks, and doesn't stand before the others. A dry run does one step.
    """

    def step(pairs: Sequence[int]) -> candles.Changes:
        with current.transaction(candles.WRITE_KEY, wait_ms=WAIT_MS) as conn:
            found = candles.marks(conn, MARKS_AT_ONCE, pairs)
            return candles.correct(conn, found, _step_length(current))

    stepped = False
    while current.elapsed() < budget:
        marked = [pair for pair in candles.marked_pairs(current.conn, only) if pair not in failed]
        if not marked or (stepped and current.dry_run):
            return not marked
        attempt(marked, step)
        stepped = True
    return False


def _close_windows(
    current: Pass,
    until: datetime,
    only: Sequence[int] | None,
    attempt: Attempt,
    failed: set[int],
    budget: timedelta,
) -> bool:
    """Closes what has ended, the pairs that are furthest behind first, and returns whether none is left behind.

    A dry run does one step.
    """

    def step(pairs: Sequence[int]) -> candles.Changes:
        with current.transaction(candles.WRITE_KEY, wait_ms=WAIT_MS) as conn:
            frontiers = candles.behind(conn, until, pairs)
            return candles.close(conn, frontiers, until, _step_length(current))

    stepped = False
    while current.elapsed() < budget:
        lagging = [item for item in candles.behind(current.conn, until, only) if item.pair not in failed]
        if not lagging or (stepped and current.dry_run):
            return not lagging
        if until - lagging[0].closed_until > LONG_LAG:
            lagging = lagging[:PAIRS_AT_ONCE]
        attempt([item.pair for item in lagging], step)
        stepped = True
    return False
