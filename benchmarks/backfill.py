"""P5: nine intervals of sparse history, with one connection and with two."""

from __future__ import annotations

from datetime import timedelta

from benchmarks import data
from benchmarks.bench import Bench, Services
from benchmarks.report import Finding, scale
from benchmarks.timing import in_turns
from maven_cli.db.connection import connect, database_now
from maven_cli.intervals import INTERVALS
from maven_cli.passes.backfill import backfill

PAIRS = 100
EVERY = timedelta(seconds=90)
DAYS = timedelta(days=6)

# The same rows into a table with the same indexes, in one statement: what PostgreSQL needs to store them.
_STORE = """
INSERT INTO candles (trading_pair_id, interval, start_at, open, high, low, close, base_volume, quote_volume, trade_count,
                     first_trade_id, last_trade_id)
SELECT trading_pair_id, interval, start_at, open, high, low, close, base_volume, quote_volume, trade_count,
       first_trade_id, last_trade_id
  FROM copied ORDER BY array_position(%s::text[], interval), trading_pair_id, start_at
"""


def sparse_history(bench: Bench) -> None:
    """P5. Every round backfills fresh copies of one database, in which hardly a minute has two trades."""
    count = DAYS // EVERY
    with bench.telling(f"making {DAYS.days} days of {PAIRS} pairs, {PAIRS * count:,} trades"):
        bench.database("bench_sparse")
        with connect(bench.url_of("bench_sparse"), "benchmark") as conn:
            data.add_pairs(conn, PAIRS)
            data.add_steady_trades(conn, database_now(conn) - DAYS, EVERY, count)
    rows: dict[int, int] = {}
    fresh: list[Services] = []

    def renew() -> None:
        if fresh:
            bench.drop("bench_sparse_copy")
        fresh[:] = [bench.database("bench_sparse_copy", template="bench_sparse")]

    def run(jobs: int) -> None:
        outcome = backfill(fresh[0], jobs=jobs)
        assert outcome.data is not None
        rows[jobs] = sum(outcome.data["inserted"].values())

    samples = in_turns(
        {"one": lambda: run(1), "two": lambda: run(2), "stored": lambda: _store(fresh[0])},
        max(3, bench.rounds // 2),
        warm_up=0,
        before={"one": renew, "two": renew, "stored": lambda: _copy(fresh[0])},
    )
    bench.drop("bench_sparse_copy")
    bench.drop("bench_sparse")
    for name, jobs in (("one", 1), ("two", 2)):
        rates = [rows[jobs] / seconds for seconds in samples.seconds[name]]
        bench.report.add(
            Finding(
                "P5",
                f"backfill of nine intervals, {jobs} connection{'s' * (jobs > 1)}, {rows[jobs]:,} candles",
                rows[jobs] / samples.median(name),
                at_least=70_000 if jobs == 1 else None,
                unit="rows/s",
                rounds=samples.rounds,
                spread=(min(rates), max(rates)),
                detail=scale([(name, samples.median(name) * 1000)]),
            )
        )
    for name, against, goal, what in (
        ("one", "two", 1.8, "backfill with 1 connection / with 2 (client and server share the cores)"),
        ("one", "stored", None, "backfill with 1 connection / only storing the same rows"),
    ):
        ratios = samples.ratios(name, against)
        bench.report.add(
            Finding(
                "P5",
                what,
                samples.ratio(name, against),
                at_least=goal,
                rounds=samples.rounds,
                spread=(min(ratios), max(ratios)),
            )
        )


def _copy(services: Services) -> None:
    with connect(services.database_url, "benchmark") as conn:
        conn.execute("CREATE TABLE copied AS SELECT * FROM candles")
        conn.execute("TRUNCATE candles")


def _store(services: Services) -> None:
    with connect(services.database_url, "benchmark") as conn:
        conn.execute(_STORE, [list(INTERVALS)])
