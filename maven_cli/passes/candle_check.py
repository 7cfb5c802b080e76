"""Verification as a pass: recompute from raw trades, compare, and on request repair what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import psycopg

from maven_cli.intervals import INTERVALS, Interval
from maven_cli.market import candles
from maven_cli.market.candle_check import Gap, Mismatch, gaps, verify
from maven_cli.market.pairs import all_pairs, resolve_pairs
from maven_cli.passes.candles import LABEL, MARKS_AT_ONCE, WAIT_MS, each_alone
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("candles", LABEL, "candles:verify")
# More than this many differences are counted, not listed.
LISTED = 1000


def find_gaps(
    services: Services,
    *,
    pairs: Sequence[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    intervals: Sequence[Interval] = (),
) -> Outcome:
    """What readers can't rely on in [start, end), by default the last 7 days. `data`: gaps (list of Gap)."""

    def body(current: Pass) -> dict[str, Any]:
        selected = resolve_pairs(current.conn, pairs) if pairs else all_pairs(current.conn)
        until = min(end or current.as_of, current.as_of)
        with current.snapshot() as conn:
            found: list[Gap] = gaps(
                conn,
                selected,
                intervals or list(INTERVALS.values()),
                start or until - timedelta(days=7),
                until,
            )
        return {"gaps": found}

    return run(WORKER, body, services, record=False)


def check(
    services: Services,
    *,
    pairs: Sequence[str] = (),
    start: datetime | None = None,
    end: datetime | None = None,
    intervals: Sequence[Interval] = (),
    repair: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Compares closed candles with their raw trades. `data`: pairs, mismatches (the first 1000), count, pending, repaired.

    `repair` recomputes every window that differs, and the windows above and below it. `progress` gets pairs done and in all.
    """

    def body(current: Pass) -> dict[str, Any]:
        selected = resolve_pairs(current.conn, pairs) if pairs else all_pairs(current.conn)
        wrong: list[Mismatch] = []
        count = pending = done = 0
        ranges: dict[int, list[tuple[datetime, datetime]]] = {}
        with current.snapshot() as conn:
            for pair, mismatch in verify(conn, selected, intervals or list(INTERVALS.values()), start, end):
                current.stop.check()
                if mismatch is None:
                    done += 1
                    progress(done, len(selected))
                elif mismatch.pending:
                    pending += 1
                else:
                    count += 1
                    if len(wrong) < LISTED:
                        wrong.append(mismatch)
                    merge_into(ranges.setdefault(pair, []), mismatch.start, mismatch.end)
        progress(len(selected), len(selected))  # pairs without candles, too
        symbols = {pair.id: pair.symbol for pair in selected}
        repaired = _repair(current, symbols, ranges).total if repair and ranges else 0
        return {
            "pairs": len(selected),
            "count": count,
            "pending": pending,
            "repaired": repaired,
            "mismatches": wrong,
        }

    return run(WORKER, body, services, record=repair)


def merge_into(ranges: list[tuple[datetime, datetime]], lo: datetime, hi: datetime) -> None:
    """Adds a range, joined with the last one where they meet."""
    if ranges and ranges[-1][0] <= lo <= ranges[-1][1]:
        ranges[-1] = (ranges[-1][0], max(ranges[-1][1], hi))
    else:
        ranges.append((lo, hi))


def _repair(
    current: Pass, symbols: dict[int, str], ranges: dict[int, list[tuple[datetime, datetime]]]
) -> candles.Changes:
    """Marks what differs, in one transaction, and works the marks off: a kill in between leaves them to the next pass.

    A pair that fails is an error of its own, and keeps its marks.
    """
    changes = candles.Changes()
    failed: set[int] = set()

    def fail(pair: int, error: psycopg.Error) -> None:
        failed.add(pair)
        reason = current.fail(symbols[pair], error)
        current.log.error("candles.failed", f"Failed to repair {symbols[pair]}: {reason}")

    def correct(some: Sequence[int]) -> None:
        with current.transaction(candles.WRITE_KEY, wait_ms=WAIT_MS) as conn:
            marks = candles.marks(conn, MARKS_AT_ONCE, some)
            found = candles.correct(conn, marks, current.settings.candle_chunk)
        changes.merge(found)

    with current.transaction(candles.WRITE_KEY, wait_ms=WAIT_MS) as conn:
        for pair, found in ranges.items():
            for lo, hi in found:
                candles.add_mark(conn, pair, lo, hi)
    while marked := [pair for pair in candles.marked_pairs(current.conn, list(ranges)) if pair not in failed]:
        each_alone(marked, correct, fail)
    return changes
