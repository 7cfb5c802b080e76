"""Instants and durations as text."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven_cli.times import format_duration, iso, iso_micros, parse_duration, parse_instant


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", timedelta(seconds=5)),
        ("5s", timedelta(seconds=5)),
        (" 5 s ", timedelta(seconds=5)),
        ("250ms", timedelta(milliseconds=250)),
        ("7us", timedelta(microseconds=7)),
        ("2min", timedelta(minutes=2)),
        ("2m", timedelta(minutes=2)),
        ("1.5h", timedelta(minutes=90)),
        ("0.1s", timedelta(milliseconds=100)),
        ("1d", timedelta(days=1)),
        ("0", timedelta(0)),
    ],
)
def test_durations_that_are_read(text: str, value: timedelta) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    "text", ["", "s", "-5s", "+5", "5 parsecs", "5S", "1h30m", "1e3", "nan", "inf", ".5s", "٥s"]
)
def test_durations_that_are_refused_say_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 5s, 250ms, 2min, 1h or 1d"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["1000000000d", "9" * 400, "9" * 5000 + "h"])
def test_a_duration_can_be_too_long(text: str) -> None:
    with pytest.raises(ValueError, match="too long a duration"):
        parse_duration(text)


@given(st.timedeltas(min_value=timedelta(0)))
def test_format_duration_is_read_back_exactly(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(seconds=90), "90s"),
        (timedelta(minutes=2), "2min"),
        (timedelta(hours=48), "2d"),
        (timedelta(milliseconds=1500), "1500ms"),
        (timedelta(microseconds=1), "1us"),
    ],
)
def test_format_duration_is_the_shortest(value: timedelta, text: str) -> None:
    assert format_duration(value) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T13:45", datetime(2026, 1, 31, 13, 45, tzinfo=UTC)),
        ("2026-01-31 13:45:01", datetime(2026, 1, 31, 13, 45, 1, tzinfo=UTC)),
        ("2026-01-31T13:45:00.5Z", datetime(2026, 1, 31, 13, 45, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T13:45:00+02:00", datetime(2026, 1, 31, 11, 45, tzinfo=UTC)),
        ("2026-11-01T01:30:00-04:00", datetime(2026, 11, 1, 5, 30, tzinfo=UTC)),
    ],
)
def test_instants_are_utc_whatever_the_host_is(
    text: str, value: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        found = parse_instant(text)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert found == value
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026", "2026-13-01", "2026-02-30", "31.01.2026", "1769866200", "0001-01-01T00:00:00+05:00"],
)
def test_instants_that_are_refused_say_what_is_accepted(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time; write 2026-01-31, 2026-01-31T13:45 or"):
        parse_instant(text)


@pytest.mark.parametrize(
    "text",
    [
        "0001-01-01",
        "1970-01-20T13:45",
        "1999-12-31T23:59:59.999999Z",
        "2200-01-01",
        "9999-12-31T23:59:59",
        "2199-12-31T23:00:00-02:00",
    ],
)
def test_instants_at_the_edges_of_the_calendar_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^'\S+' is not in the years 2000 to 2199$"):
        parse_instant(text)


instants = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001
    max_value=datetime(2199, 12, 31, 23, 59, 59, 999_999),  # noqa: DTZ001
    timezones=st.just(UTC),
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(instants, zones)
def test_iso_is_read_back_from_any_zone(moment: datetime, zone: timezone) -> None:
    for text in (iso(moment.astimezone(zone)), iso_micros(moment.astimezone(zone))):
        assert text.endswith("Z")
        assert parse_instant(text) == moment


@given(instants, instants)
def test_iso_micros_is_27_characters_and_text_order_is_time_order(one: datetime, other: datetime) -> None:
    assert len(iso_micros(one)) == len(iso_micros(other)) == 27
    assert (iso_micros(one) < iso_micros(other)) == (one < other)


def test_iso_has_decimals_only_when_there_are_any() -> None:
    assert iso(datetime(2026, 1, 31, tzinfo=UTC)) == "2026-01-31T00:00:00Z"
    assert iso(datetime(2026, 1, 31, 0, 0, 0, 1, tzinfo=UTC)) == "2026-01-31T00:00:00.000001Z"
