"""The audit as a pass: every check of the books and a look at the candles, in one snapshot; nothing is mended.

The transaction is READ ONLY, unless a checkpoint is to be written: then the same snapshot writes it, so that nothing is
recorded as proved that wasn't looked at.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg

from maven_cli.intervals import INTERVALS, MINUTE, Interval
from maven_cli.ledger.audit import CHECKS, Check, checks, write_checkpoints
from maven_cli.market.candle_check import Mismatch, verify
from maven_cli.market.candles import Range, closed_ranges
from maven_cli.market.pairs import TradingPair, all_pairs
from maven_cli.runner import Outcome, Pass, Services, Worker, limit_statements, run
from maven_cli.times import iso

WORKER = Worker("audit", "AuditWorker", "audit")
CANDLES = "candles are what their trades say"


def audit(
    services: Services,
    *,
    full: bool = False,
    checkpoint: bool = False,
    sample: int = 20,
    listed: int = 20,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Proves the books. `data`: as_of, full, checks (list of Check), wrong (rows in all), checkpoints (written).

    full: every entry from the first, and every candle; else from the checkpoints on, and `sample` minutes chosen at
    random and one window of each other interval. checkpoint: record up to where the books are proved, if nothing is
    wrong. listed: how many wrong rows each check names.
    """

    def body(current: Pass) -> dict[str, Any]:
        found: list[Check] = []
        written = 0
        conn = current.conn
        try:
            with conn.transaction():
                conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                if not checkpoint:
                    conn.execute("SET TRANSACTION READ ONLY")
                limit_statements(conn, current.settings)
                for check in checks(conn, full=full, listed=listed):
                    current.stop.check()
                    found.append(check)
                    progress(len(found), len(CHECKS) + 1)
                found.append(_candles(current, full, sample, listed))
                progress(len(CHECKS) + 1, len(CHECKS) + 1)
                wrong = sum(check.wrong for check in found)
                if checkpoint and not wrong:
                    written = write_checkpoints(conn)
        except psycopg.errors.QueryCanceled:
            current.stop.check()
            raise
        milliseconds = round(current.elapsed() / timedelta(milliseconds=1))
        current.log.info(
            "audit.done",
            f"Audited {sum(check.checked for check in found)} rows, {wrong} wrong ({milliseconds}ms)",
            wrong=wrong,
            duration_ms=milliseconds,
        )
        return {
            "as_of": current.as_of,
            "full": full,
            "checks": found,
            "wrong": wrong,
            "checkpoints": written,
        }

    return run(WORKER, body, services, record=False)


def _candles(current: Pass, full: bool, sample: int, listed: int) -> Check:
    """Closed candles against their trades: all, or some."""
    check = Check("candles", CANDLES)
    pairs = all_pairs(current.conn)
    if full:
        row = current.conn.execute("SELECT count(*) FROM candles").fetchone()
        assert row is not None
        check.checked = row[0]
        _count(check, verify(current.conn, pairs, list(INTERVALS.values()), None, None), listed)
        return check
    for pair, interval, start in _sample(current.conn, pairs, sample):
        current.stop.check()
        check.checked += 1
        _count(check, verify(current.conn, [pair], [interval], start, interval.after(start)), listed)
    return check


def _count(check: Check, found: Iterator[tuple[int, Mismatch | None]], listed: int) -> None:
    for _, mismatch in found:
        if mismatch is None:
            continue
        if mismatch.pending:
            check.unproven += 1
            continue
        check.wrong += 1
        if len(check.rows) < listed:
            fields = ", ".join(
                f"{name} {before}, not {after}" for name, (before, after) in mismatch.fields.items()
            )
            check.rows.append(
                f"candle {mismatch.pair} {mismatch.interval} {iso(mismatch.start)}: {mismatch.kind}"
                + (f" ({fields})" if mismatch.kind == "different" else "")
            )


def _sample(
    conn: psycopg.Connection, pairs: list[TradingPair], minutes: int
) -> Iterator[tuple[TradingPair, Interval, datetime]]:
    """Closed windows chosen at random: so many minutes, and one of each other interval if any is closed."""
    known = {pair.id: pair for pair in pairs}
    ranges = closed_ranges(conn, list(known), None, None)
    for interval in [MINUTE] * minutes + [each for each in INTERVALS.values() if each is not MINUTE]:
        closed = [(item, *window) for item in ranges if (window := _whole(interval, item, known[item.pair]))]
        if closed:
            item, first, end = random.choice(closed)
            moment = first + timedelta(seconds=random.randrange(int((end - first).total_seconds())))
            yield known[item.pair], interval, interval.floor(moment)


def _whole(interval: Interval, item: Range, pair: TradingPair) -> tuple[datetime, datetime] | None:
    """The windows of a pair that are closed and whose trades are all kept, or None when there are none."""
    first = interval.floor(item.lo)
    if pair.retained_from is not None:
        first = max(first, interval.ceil(pair.retained_from))
    end = interval.floor(item.hi)
    return (first, end) if first < end else None
