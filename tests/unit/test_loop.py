from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from freezegun import freeze_time

from maven_cli.loop import (
    MINUTE,
    SECOND,
    Ended,
    Grid,
    RealWorld,
    Signal,
    Window,
    loop,
    nanoseconds,
    run_forked,
)
from tests.support import utc

NOON = int(utc("2026-01-31T12:00:00").timestamp()) * SECOND


def at(seconds: float) -> int:
    """Nanoseconds, so many seconds after noon."""
    return NOON + round(seconds * 1000) * (SECOND // 1000)


@dataclass
class FakeWorld:
    """A clock that goes on by waiting. `jumps`: when elapsed() reaches a time, the wall clock is set by so much."""

    moment: int
    jumps: list[tuple[float, float]] = field(default_factory=list)
    signals: list[tuple[float, Signal]] = field(default_factory=list)
    passed: float = 0.0
    waits: list[float] = field(default_factory=list)
    oversleep: float = 0.0

    def now(self) -> int:
        return self.moment

    def elapsed(self) -> float:
        return self.passed

    def spend(self, seconds: float) -> None:
        self.passed += seconds
        self.moment += round(seconds * SECOND)
        while self.jumps and self.jumps[0][0] <= self.passed:
            self.moment += round(self.jumps.pop(0)[1] * SECOND)

    def wait(self, seconds: float) -> Signal | None:
        assert len(self.waits) < 100_000, "the loop spins"
        self.waits.append(seconds)
        if self.signals and self.signals[0][0] <= self.passed + seconds:
            when, found = self.signals.pop(0)
            self.spend(max(when - self.passed, 0.0))
            return found
        self.spend(seconds + self.oversleep)
        return None


@dataclass
class Runs:
    """Stands for the forked pass: notes slots and start times, and takes as long as it is told."""

    world: FakeWorld
    takes: Callable[[int], float] = lambda _slot: 0.1
    codes: Iterator[int] | None = None
    stopped_by: dict[int, int] = field(default_factory=dict)
    slots: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)

    def __call__(self, slot: int) -> Ended:
        self.slots.append(slot)
        self.starts.append(self.world.now())
        seconds = self.takes(slot)
        self.world.spend(seconds)
        code = next(self.codes) if self.codes is not None else 0
        return Ended(slot, code, seconds, stopped_by=self.stopped_by.get(len(self.slots)))

    @property
    def seconds(self) -> list[float]:
        """The slots, in seconds after noon."""
        return [(slot - NOON) / SECOND for slot in self.slots]


def drive(
    world: FakeWorld,
    step: float,
    length: float,
    *,
    phase: float = 0.0,
    runs: Runs | None = None,
    skipped: Callable[[int], None] = lambda _count: None,
) -> tuple[Runs, int]:
    runs = runs or Runs(world)
    grid = Grid(nanoseconds(timedelta(seconds=step)), nanoseconds(timedelta(seconds=phase)))
    window = Window.of(world.now(), nanoseconds(timedelta(seconds=length)))
    return runs, loop(grid, window, world, runs, skipped=skipped)


@pytest.mark.parametrize(
    ("step", "phase", "moment", "first", "newest"),
    [
        (5, 0, 0, 0, 0),
        (5, 0, 0.001, 5, 0),
        (5, 0, 4.999, 5, 0),
        (10, 2, 0, 2, -8),
        (10, 2, 2, 2, 2),
        (10, 2, 2.5, 12, 2),
        (0.1, 0, 0.05, 0.1, 0),
        (0.25, 0.1, 0.3, 0.35, 0.1),
        (3600, 11, 60, 3611, 11),
        (86400, 15, 0, 43215, -43185),
    ],
)
def test_the_grid(step: float, phase: float, moment: float, first: float, newest: float) -> None:
    grid = Grid(nanoseconds(timedelta(seconds=step)), nanoseconds(timedelta(seconds=phase)))
    assert grid.first(at(moment)) == at(first)
    assert grid.newest(at(moment)) == at(newest)


def test_the_grid_starts_at_the_epoch_and_stays_exact_after_decades() -> None:
    grid = Grid(7 * SECOND)
    assert grid.first(0) == 0
    assert grid.first(1) == 7 * SECOND
    assert grid.first(NOON) % (7 * SECOND) == 0
    assert Grid(SECOND // 10).first(at(0.1)) == at(0.1)


def test_summer_time_does_not_move_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Berlin's clocks jump at 01:00 UTC on 2026-03-29 and back on 2026-10-25; hours there come once each, in UTC."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        for day in ("2026-03-29", "2026-10-25"):
            slots = []
            for hour in range(4):
                with freeze_time(f"{day}T{hour:02}:30:00"):
                    slots.append(Grid(60 * MINUTE).first(RealWorld().now()))
            assert slots == [int(utc(f"{day}T{hour:02}:00:00").timestamp()) * SECOND for hour in range(1, 5)]
            local = [
                datetime.fromtimestamp(slot / SECOND, ZoneInfo("Europe/Berlin")).minute for slot in slots
            ]
            assert local == [0, 0, 0, 0]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_first_pass_waits_for_the_next_slot() -> None:
    world = FakeWorld(at(31.4))
    runs, code = drive(world, 5, 12)
    assert runs.seconds == [35, 40]
    assert runs.starts == [at(35), at(40)]
    assert code == 0
    assert max(world.waits) <= 1.0


def test_a_loop_that_starts_on_a_slot_runs_it() -> None:
    runs, _ = drive(FakeWorld(at(30)), 5, 6)
    assert runs.seconds == [30, 35]


def test_the_end_is_not_part_of_the_window() -> None:
    runs, _ = drive(FakeWorld(at(30)), 5, 10)
    assert runs.seconds == [30, 35]


def test_slots_that_come_while_a_pass_runs_are_skipped() -> None:
    world = FakeWorld(at(10))
    missed: list[int] = []
    runs = Runs(world, takes=lambda slot: 12.0 if slot == at(15) else 0.1)
    drive(world, 5, 35, runs=runs, skipped=missed.append)
    assert runs.seconds == [10, 15, 30, 35, 40]
    assert runs.starts == runs.slots, "a pass started off the grid"
    assert missed == [2]


def test_a_pass_that_ends_exactly_on_a_slot_does_not_cost_that_slot() -> None:
    world = FakeWorld(at(10))
    runs, _ = drive(world, 5, 11, runs=Runs(world, takes=lambda _slot: 5.0))
    assert runs.seconds == [10, 15, 20]


def test_waking_late_runs_the_slot_once() -> None:
    world = FakeWorld(at(8), oversleep=0.4)
    runs, _ = drive(world, 5, 15)
    assert runs.seconds == [10, 15, 20]


@pytest.mark.parametrize(
    ("step", "phase"), [(5, 0), (10, 2), (10, 7), (30, 4), (60, 18), (5, 4.5), (2.5, 0), (60, 59.5)]
)
@pytest.mark.parametrize("length", [58, 59.5, 60])
def test_cron_minutes_cover_every_slot_exactly_once(step: float, phase: float, length: float) -> None:
    jitter = random.Random(7)
    covered: list[float] = []
    for minute in range(60):
        # cron comes 0.1 to 1 s late, and a busy box takes a while to start Python
        runs, _ = drive(FakeWorld(at(minute * 60 + jitter.uniform(0.1, 2.4))), step, length, phase=phase)
        covered += runs.seconds
    first = phase
    assert covered == [first + k * step for k in range(int((3600 - first - 1e-9) // step) + 1)]


def test_a_cron_process_that_comes_very_late_neither_catches_up_nor_runs_into_its_successor() -> None:
    runs, _ = drive(FakeWorld(at(17.2)), 5, 58)
    assert runs.seconds == [20, 25, 30, 35, 40, 45, 50, 55]


def test_several_minutes_less_two_seconds_are_whole_minutes_too() -> None:
    assert Window.of(at(0.3), 118 * SECOND) == Window(at(0), at(120))
    assert Window.of(at(0.3), 117 * SECOND) == Window(at(0.3), at(117.3))
    assert Window.of(at(33), 10 * SECOND) == Window(at(33), at(43))
    assert Window.of(at(33), None) == Window(at(33), None)


@pytest.mark.parametrize("hours", [1, 9, 24 * 30])
def test_a_clock_set_forward_causes_no_burst(hours: int) -> None:
    """Also a suspended laptop: at 12:00:22 it is suddenly hours and 1.3 s later."""
    world = FakeWorld(at(10), jumps=[(12.0, hours * 3600 + 1.3)], signals=[(30.0, Signal(15))])
    runs = Runs(world)
    assert loop(Grid(5 * SECOND), Window(at(10)), world, runs) == 143
    later = hours * 3600
    assert runs.seconds == [10, 15, 20, *(later + second for second in (25, 30, 35, 40))]
    assert runs.starts == runs.slots


@pytest.mark.parametrize("hours", [1, 24 * 30])
def test_a_clock_set_back_does_not_freeze_the_loop(hours: int) -> None:
    world = FakeWorld(at(10), jumps=[(12.0, -hours * 3600)], signals=[(31.0, Signal(15))])
    runs = Runs(world)
    loop(Grid(5 * SECOND), Window(at(10)), world, runs)
    # The window began "in the future": its owner goes on none the less.
    assert runs.seconds == [10, 15, 20, *(second - hours * 3600 for second in (25, 30, 35, 40))]


def test_a_clock_set_back_a_little_does_not_repeat_a_slot() -> None:
    world = FakeWorld(at(8), jumps=[(2.05, -0.7)])
    runs, _ = drive(world, 5, 15)
    assert runs.seconds == [10, 15, 20]


def test_a_clock_set_back_does_not_keep_a_cron_process_beyond_its_minute() -> None:
    world = FakeWorld(at(0.3), jumps=[(31.0, -3600.0)])
    runs, code = drive(world, 5, 58)
    assert code == 0
    assert world.elapsed() < 65
    assert len(runs.slots) <= 14


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0, 0], 0),
        ([75, 0, 75], 0),
        ([0, 69, 0], 69),
        ([69, 1, 75], 1),
        ([1, 137, 0], 137),
        ([0, 0, 70], 70),
    ],
)
def test_the_exit_code_is_the_last_that_is_neither_0_nor_75(codes: list[int], expected: int) -> None:
    world = FakeWorld(at(10))
    runs, code = drive(world, 5, 15, runs=Runs(world, codes=iter(codes)))
    assert len(runs.slots) == 3
    assert code == expected


@pytest.mark.parametrize(("number", "expected"), [(15, 143), (2, 130)])
def test_a_signal_between_passes_ends_the_loop(number: int, expected: int) -> None:
    world = FakeWorld(at(11), signals=[(6.0, Signal(number))])
    runs, code = drive(world, 5, 50, runs=Runs(world, codes=iter([69])))
    assert runs.seconds == [15]
    assert code == expected


def test_a_signal_during_a_pass_ends_the_loop_after_it() -> None:
    world = FakeWorld(at(10))
    runs, code = drive(world, 5, 50, runs=Runs(world, stopped_by={2: 15}))
    assert runs.seconds == [10, 15]
    assert code == 143


def test_a_system_without_room_for_a_process_is_a_failed_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", full)
    ended = run_forked(lambda: 0, at(5), FakeWorld(at(5)), 1.0)
    assert (ended.slot, ended.code) == (at(5), 69)
    assert ended.failure == "no process could be started: Resource temporarily unavailable"
