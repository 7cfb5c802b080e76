"""Timing in turns: what is compared runs in the same second, so that the machine's other work hits both alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Step = Callable[[], object]


@dataclass(frozen=True)
class Samples:
    """Seconds per round of several things that were run in turns: the same index is the same round."""

    seconds: Mapping[str, list[float]]

    @property
    def rounds(self) -> int:
        return len(next(iter(self.seconds.values())))

    def median(self, name: str) -> float:
        """The median of one thing, in seconds."""
        return median(self.seconds[name])

    def ratio(self, name: str, baseline: str) -> float:
        """The median of the rounds' ratios."""
        return median(self.ratios(name, baseline))

    def ratios(self, name: str, baseline: str) -> list[float]:
        pairs = zip(self.seconds[name], self.seconds[baseline], strict=True)
        return [measured / base for measured, base in pairs]


def in_turns(
    steps: Mapping[str, Step],
    rounds: int,
    *,
    warm_up: int = 1,
    before: Mapping[str, Step] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Samples:
    """Runs every step once per round. `before` prepares a step and isn't timed. The first rounds only warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(warm_up + rounds):
        for name, step in steps.items():
            if before is not None and name in before:
                before[name]()
            gc.collect()
            started = clock()
            step()
            if number >= warm_up:
                seconds[name].append(clock() - started)
            else:
                clock()
    return Samples(seconds)
