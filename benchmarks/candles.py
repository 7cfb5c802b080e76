"""P4: a minute of all pairs at once, against pair by pair."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg

from benchmarks.bench import Bench
from benchmarks.report import PLATFORM, Finding, scale
from benchmarks.timing import in_turns
from maven_cli.db.locks import work_lock
from maven_cli.intervals import INTERVALS, MINUTE
from maven_cli.market import candles
from maven_cli.passes.candles import generate

_TRADES = """
SELECT id, price, quantity FROM trades
 WHERE trading_pair_id = %s AND executed_at >= %s AND executed_at < %s ORDER BY executed_at, id
"""
_UPSERT = """
INSERT INTO candles (trading_pair_id, interval, start_at, open, high, low, close, base_volume, quote_volume, trade_count,
                     first_trade_id, last_trade_id)
VALUES (%s, '1m', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (trading_pair_id, interval, start_at) DO UPDATE
   SET open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
       base_volume = excluded.base_volume, quote_volume = excluded.quote_volume, trade_count = excluded.trade_count,
       first_trade_id = excluded.first_trade_id, last_trade_id = excluded.last_trade_id
"""


def one_minute(bench: Bench) -> None:
    """P4. Each round closes another minute; what a step is to write is deleted before it.

    Both sides do their database work only, with what every design has to do around it (Redis, locks, records) left out.
    The usual design commits each pair by itself, and so waits for the disk each time; the same loop in one transaction is
    shown for scale.
    """
    market = bench.largest()
    with market.connect() as conn, market.connect() as looping:
        minutes = iter(_plain_minutes(market.closed_until, bench.rounds + 2))
        moment = next(minutes)
        pairs = [row[0] for row in conn.execute("SELECT id FROM trading_pairs ORDER BY id")]

        def fresh() -> None:
            _forget(conn, moment)

        def next_minute() -> None:
            nonlocal moment
            moment = next(minutes)
            _forget(conn, moment)

        samples = in_turns(
            {
                "one transaction": lambda: _pair_by_pair(looping, pairs, moment, together=True),
                "commits": lambda: _pair_by_pair(looping, pairs, moment, together=False),
                "maven": lambda: _close(conn, moment),
                "again": lambda: _close(conn, moment),
            },
            bench.rounds,
            before={
                "one transaction": next_minute,
                "commits": fresh,
                "maven": fresh,
                "again": lambda: _reopen(conn, moment),
            },
        )
        minute_ago = MINUTE.after(market.closed_until, -1)
        whole = in_turns(
            {"pass": lambda: generate(market.services, MINUTE, as_of=market.end)},
            bench.rounds,
            before={"pass": lambda: _reopen(conn, minute_ago)},
        )
        conn.execute("VACUUM (ANALYZE) candles, candle_progress")
    size = f"{market.pairs:,} pairs, {market.trades // (24 * 60):,} trades"
    for name, what in (("commits", "a commit per pair"), ("one transaction", "in one transaction")):
        ratios = samples.ratios(name, "maven")
        bench.report.add(
            Finding(
                "P4",
                f"a minute pair by pair, {what} / at once: {size}",
                samples.ratio(name, "maven"),
                at_least=25 if name == "commits" else None,
                rounds=samples.rounds,
                spread=(min(ratios), max(ratios)),
                detail=scale([(name, samples.median(name) * 1000) for name in (name, "maven")]),
            )
        )
    seconds = whole.seconds["pass"]
    bench.report.add(
        Finding(
            "P4",
            f"the whole 1m pass, Redis for nine intervals included: {market.pairs:,} pairs",
            whole.median("pass") * 1000,
            unit="ms",
            rounds=whole.rounds,
            spread=(min(seconds) * 1000, max(seconds) * 1000),
        )
    )
    ratios = samples.ratios("again", "maven")
    bench.report.add(
        Finding(
            "P4",
            "the same minute again, unchanged / for the first time",
            samples.ratio("again", "maven"),
            at_most=1,
            rounds=samples.rounds,
            spread=(min(ratios), max(ratios)),
            detail=scale([("again", samples.median("again") * 1000)], PLATFORM["candles"]),
        )
    )


def _plain_minutes(closed_until: datetime, count: int) -> list[datetime]:
    """Recent minutes that end no longer window: only their one-minute candles are due."""
    found: list[datetime] = []
    minute = closed_until - timedelta(minutes=1)
    while len(found) < count:
        end = minute + timedelta(minutes=1)
        if INTERVALS["5m"].floor(end) != end:
            found.append(minute)
        minute -= timedelta(minutes=1)
    return found


def _forget(conn: psycopg.Connection, minute: datetime) -> None:
    conn.execute("DELETE FROM candles WHERE interval = '1m' AND start_at = %s", [minute])
    _reopen(conn, minute)


def _reopen(conn: psycopg.Connection, minute: datetime) -> None:
    conn.execute("UPDATE candle_progress SET closed_until = %s", [minute])


def _close(conn: psycopg.Connection, minute: datetime) -> None:
    """The transactions of the candle pass."""
    until = minute + timedelta(minutes=1)
    with conn.transaction():
        work_lock(conn, candles.WRITE_KEY, timeout_ms=1000)
        candles.ingest(conn, until)
    with conn.transaction():
        work_lock(conn, candles.WRITE_KEY, timeout_ms=1000)
        candles.close(conn, candles.behind(conn, until), until, timedelta(days=1))


def _pair_by_pair(conn: psycopg.Connection, pairs: list[int], minute: datetime, *, together: bool) -> None:
    """The usual design: for each pair read the minute's trades, and upsert its candle if there are any."""
    if together:
        with conn.transaction():
            _pair_by_pair(conn, pairs, minute, together=False)
        return
    until = MINUTE.after(minute)
    for pair in pairs:
        trades = conn.execute(_TRADES, [pair, minute, until]).fetchall()
        if trades:
            prices = [price for _, price, _ in trades]
            conn.execute(
                _UPSERT,
                [
                    pair,
                    minute,
                    prices[0],
                    max(prices),
                    min(prices),
                    prices[-1],
                    sum(quantity for _, _, quantity in trades),
                    sum(price * quantity for _, price, quantity in trades),
                    len(trades),
                    trades[0][0],
                    trades[-1][0],
                ],
            )
