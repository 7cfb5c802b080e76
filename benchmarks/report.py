"""What a benchmark found, as a line for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# The figures that the platform publishes about its own workers; for scale only.
PLATFORM = {
    "tickers": "the platform: 50–150 ms / 10 pairs",
    "candles": "the platform: 100–200 ms (1m), 200–400 ms (1h), 300–600 ms (1d) / 10 pairs",
    "expiry": "the platform: 20–50 ms / 100 active orders",
    "credit": "the platform: 50–150 ms per credit",
}


@dataclass(frozen=True)
class Finding:
    """One measured number and the goal it has to meet; no goal: for scale.

    value: a ratio unless `unit` says otherwise. rounds: of which `value` is the median. spread: the smallest and the
    largest of them.
    """

    goal: str
    what: str
    value: float
    at_most: float | None = None
    at_least: float | None = None
    unit: str = "×"
    rounds: int = 1
    spread: tuple[float, float] | None = None
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.at_most is not None:
            return self.value <= self.at_most
        if self.at_least is not None:
            return self.value >= self.at_least
        return None

    def line(self) -> str:
        bound = ""
        if self.at_most is not None:
            bound = f"≤ {_number(self.at_most)}"
        elif self.at_least is not None:
            bound = f"≥ {_number(self.at_least)}"
        verdict = {True: "met", False: "MISSED", None: ""}[self.met]
        spread = f" ({_number(self.spread[0])}–{_number(self.spread[1])})" if self.spread else ""
        measured = f"{_number(self.value)} {self.unit}{spread}"
        return (
            f"{self.goal:<4} {self.what:<66} {measured:<28} {bound:<11} {verdict:<7} {self.detail}".rstrip()
        )


@dataclass
class Report:
    """All findings of a run, and the machine they were made on."""

    machine: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        self.findings.append(finding)
        print(finding.line(), flush=True)

    def write(self, path: Path) -> None:
        findings = [{**asdict(finding), "met": finding.met} for finding in self.findings]
        document = {"schema": 1, "machine": self.machine, "findings": findings}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def describe_machine(server_version: str) -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.platform(),
        "python": platform.python_version(),
        "postgresql": server_version,
        "load_average": os.getloadavg(),
    }


def scale(milliseconds: Sequence[tuple[str, float]], also: str = "") -> str:
    """Absolute times in words, for the line's end."""
    parts = [f"{name} {value:,.1f} ms" for name, value in milliseconds]
    return "; ".join([*parts, also] if also else parts)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
