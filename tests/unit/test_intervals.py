"""The nine intervals as calendar facts (C02, C03), and as inverse functions of each other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven_cli.intervals import ALIASES, INTERVALS, Interval, parse_interval

instants = st.datetimes(
    min_value=datetime(1900, 1, 1),  # noqa: DTZ001
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
intervals = st.sampled_from(list(INTERVALS.values()))


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_the_nine_names_in_order() -> None:
    assert list(INTERVALS) == ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"]


@pytest.mark.parametrize("name", list(INTERVALS))
def test_c01_a_day_s_first_and_last_microsecond(name: str) -> None:
    interval = INTERVALS[name]
    midnight = at("2026-06-01T00:00:00")  # a Monday and a 1st: the start of a window in all nine
    assert interval.floor(midnight) == midnight
    assert interval.floor(midnight - timedelta(microseconds=1)) == interval.after(midnight, -1)


def test_c02_a_week_starts_on_monday() -> None:
    week = INTERVALS["1w"]
    assert week.floor(at("2026-03-01T23:59:59")) == at("2026-02-23T00:00:00")  # Sunday
    assert week.floor(at("2026-03-02T00:00:00")) == at("2026-03-02T00:00:00")  # Monday
    assert all(week.floor(at("1999-12-27") + timedelta(days=day)).weekday() == 0 for day in range(3000))


def test_c03_months_are_calendar_months_and_weeks_cross_them() -> None:
    month, week = INTERVALS["1M"], INTERVALS["1w"]
    assert month.floor(at("2026-01-31T23:59:59.999999")) == at("2026-01-01T00:00:00")
    assert month.floor(at("2026-02-01T00:00:00")) == at("2026-02-01T00:00:00")
    assert month.floor(at("2028-02-29T12:00:00")) == at("2028-02-01T00:00:00")
    assert month.after(at("2028-02-01T00:00:00")) == at("2028-03-01T00:00:00")
    assert month.after(at("2026-12-01T00:00:00")) == at("2027-01-01T00:00:00")
    assert month.after(at("2026-01-01T00:00:00"), -1) == at("2025-12-01T00:00:00")
    assert month.after(at("2026-01-01T00:00:00"), 25) == at("2028-02-01T00:00:00")
    assert (
        week.floor(at("2026-04-01T00:00:00"))
        == at("2026-03-30T00:00:00")
        == week.floor(at("2026-03-31T09:00:00"))
    )


@given(intervals, instants)
def test_floor_is_the_window_that_holds_the_moment(interval: Interval, moment: datetime) -> None:
    start = interval.floor(moment)
    assert start <= moment < interval.after(start)
    assert interval.floor(start) == start
    assert interval.ceil(start) == start
    assert interval.floor(interval.after(start) - timedelta(microseconds=1)) == start


@given(intervals, instants)
def test_ceil_is_the_first_start_that_is_not_before(interval: Interval, moment: datetime) -> None:
    found = interval.ceil(moment)
    assert interval.floor(found) == found >= moment
    assert interval.after(found, -1) < moment


@given(intervals, instants, st.integers(-500, 500))
def test_after_is_its_own_inverse(interval: Interval, moment: datetime, count: int) -> None:
    start = interval.floor(moment)
    there = interval.after(start, count)
    assert interval.floor(there) == there
    assert interval.after(there, -count) == start
    assert (there > start) == (count > 0)


@given(intervals, instants)
def test_a_window_is_whole_windows_of_its_parent(interval: Interval, moment: datetime) -> None:
    if interval.parent is not None:
        parent = INTERVALS[interval.parent]
        start = interval.floor(moment)
        assert parent.floor(start) == start
        assert parent.floor(interval.after(start)) == interval.after(start)


@given(intervals, instants, st.sampled_from([-14, -4, 0, 5, 14]))
def test_floor_is_the_same_instant_in_any_zone(interval: Interval, moment: datetime, hours: int) -> None:
    from datetime import timezone

    assert interval.floor(moment.astimezone(timezone(timedelta(hours=hours)))) == interval.floor(moment)


def test_names_and_aliases_are_read() -> None:
    for name in INTERVALS:
        assert parse_interval(name).name == name
    assert parse_interval("1mo").name == "1M"
    assert {parse_interval(alias).name for alias in ALIASES} == {"1M", "1h", "1d", "1w"}


@pytest.mark.parametrize("text", ["", "2m", "1 m", "M", "1MO", "-1m", "1s"])
def test_c16_an_unknown_interval_names_the_valid_ones(text: str) -> None:
    with pytest.raises(ValueError, match="choose from 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w, 1M"):
        parse_interval(text)
