"""P11: the most memory that a pass ever holds, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

from benchmarks import data
from benchmarks.bench import Bench, Services
from benchmarks.processes import variables
from benchmarks.report import Finding
from maven_cli.db.connection import connect, database_now
from maven_cli.intervals import MINUTE

# The kernel's own high-water mark of this process: a child's rusage would start at its parent's size.
_MEASURED = """
from pathlib import Path
from maven_cli.__main__ import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
"""
HISTORIES = {"6 months": timedelta(days=182), "5 years": timedelta(days=5 * 365)}
EVERY = timedelta(hours=1)
PAIRS = 4


def memory(bench: Bench) -> None:
    """P11, at the largest size, and with histories of two lengths."""
    market = bench.largest()
    size = f"{market.pairs:,} pairs, {market.trades:,} trades"
    for what, command in (
        ("a ticker pass", ["tickers", "update"]),
        ("a 1m candle pass", ["candles", "gen", "--interval", "1m"]),
    ):
        if command[0] == "candles":
            with market.connect() as conn:
                minute_ago = MINUTE.after(market.closed_until, -1)
                conn.execute("UPDATE candle_progress SET closed_until = %s", [minute_ago])
        bench.report.add(
            Finding(
                "P11",
                f"peak memory of {what}: {size}",
                _peak(market.services, command),
                at_most=128,
                unit="MB",
            )
        )
    peaks: dict[str, float] = {}
    for name, length in HISTORIES.items():
        services = bench.database("bench_history")
        with connect(services.database_url, "benchmark") as conn:
            data.add_pairs(conn, PAIRS)
            data.add_steady_trades(conn, database_now(conn) - length, EVERY, length // EVERY)
        with bench.telling(f"backfilling {name}"):
            peaks[name] = _peak(services, ["candles", "backfill", "--jobs", "2"])
        bench.drop("bench_history")
        bench.report.add(
            Finding("P11", f"peak memory of a backfill of {name}", peaks[name], at_most=128, unit="MB")
        )
    bench.report.add(
        Finding(
            "P11", "backfill's memory, 5 years / 6 months", peaks["5 years"] / peaks["6 months"], at_most=1.1
        )
    )


def _peak(services: Services, command: list[str]) -> float:
    """MB."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "--quiet", *command],
        env=variables(services),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return int(done.stdout.split()[-1]) / 1000
