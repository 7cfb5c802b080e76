"""`python -m benchmarks [P1 P2 …]`: runs the benchmarks and prints what they found."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from benchmarks import backfill, candles, deposits, expiry, memory, processes, publishing, tickers
from benchmarks.bench import Bench, started

# In this order: the later ones close minutes that the earlier ones want to find open.
GOALS: dict[str, Callable[[Bench], None]] = {
    "P1": tickers.ticker_pass,
    "P2": tickers.more_trades,
    "P3": publishing.publishing,
    "P4": candles.one_minute,
    "P5": backfill.sparse_history,
    "P6": expiry.expiring,
    "MIDNIGHT": expiry.midnight,
    "P7": expiry.idle,
    "P8": deposits.crediting,
    "P9": processes.start_up,
    "P10": processes.resident,
    "P11": memory.memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("goals", nargs="*", metavar="GOAL", help=f"all, or some of {', '.join(GOALS)}")
    parser.add_argument("--pairs", type=_sizes, default=[10, 200, 2000], help="sizes of P1 (10,200,2000)")
    parser.add_argument(
        "--trades", type=_number, default=10_000_000, help="in 24 h at the most pairs, e.g. 333k or 10M (10M)"
    )
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds of each comparison (7)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings here")
    options = parser.parse_args()
    if unknown := [goal for goal in options.goals if goal not in GOALS]:
        parser.error(f"no goal {unknown[0]}; choose from {', '.join(GOALS)}")
    for name in [name for name in os.environ if name.startswith("MAVEN_") or name == "LOG_LEVEL"]:
        del os.environ[name]
    with started(options.pairs, options.trades, options.rounds) as bench:
        machine = bench.report.machine
        print(
            f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; PostgreSQL {machine['postgresql']}, "
            f"Python {machine['python']}; {machine['date']}, load {machine['load_average'][0]:.1f}",
            flush=True,
        )
        for goal, run in GOALS.items():
            if not options.goals or goal in options.goals:
                run(bench)
        if options.json:
            bench.report.write(options.json)


def _sizes(text: str) -> list[int]:
    return sorted({_number(part) for part in text.split(",")})


def _number(text: str) -> int:
    """``33k`` → 33000, ``10M`` → 10000000."""
    factor = {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    return int(text.rstrip("kM")) * factor


if __name__ == "__main__":
    main()
