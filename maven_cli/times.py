"""Instants and durations as text: what settings, options and our JSON speak."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

_UNITS = {
    "us": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "min": timedelta(minutes=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
# Instants outside of these years are a mistake, like seconds read as milliseconds (January 1970), and within them every
# window's neighbours are dates too.
YEARS = range(2000, 2200)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min|m|h|d)?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """``5``, ``5s``, ``250ms``, ``2min``, ``1.5h``, ``1d`` → timedelta; a bare number is seconds.

    Raises ValueError with what is accepted.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write 5s, 250ms, 2min, 1h or 1d")
    number, unit = match.groups()
    try:
        # Not a float: from 285 years on it would lose microseconds.
        micros = Decimal(number) * (_UNITS[unit or "s"] // _UNITS["us"])
        return timedelta(microseconds=int(micros.to_integral_value()))
    except (OverflowError, ArithmeticError):
        raise ValueError(f"{text!r} is too long a duration") from None


def format_duration(value: timedelta) -> str:
    """The shortest exact form that ``parse_duration`` reads back: ``5s``, ``250ms``, ``2min``."""
    micros = value // timedelta(microseconds=1)
    for unit in ("d", "h", "min", "s", "ms"):
        size = _UNITS[unit] // timedelta(microseconds=1)
        if micros and micros % size == 0:
            return f"{micros // size}{unit}"
    return f"{micros}us" if micros else "0s"


def parse_instant(text: str) -> datetime:
    """An ISO 8601 date or time → aware datetime in UTC. Without an offset it is UTC, never the host's zone.

    Raises ValueError with what is accepted: only times in `YEARS` are.
    """
    try:
        if len(text) == 10:
            value = datetime.combine(date.fromisoformat(text), time(), UTC)
        else:
            value = datetime.fromisoformat(text)
            value = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is not a time; write 2026-01-31, 2026-01-31T13:45 or 2026-01-31T13:45:00.5Z (UTC)"
        ) from None
    if value.year not in YEARS:
        raise ValueError(f"{text!r} is not in the years {YEARS[0]} to {YEARS[-1]}")
    return value


def iso(value: datetime) -> str:
    """``2026-01-31T13:45:00Z``, with six decimals only when there are any."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def iso_micros(value: datetime) -> str:
    """``2026-01-31T13:45:00.000000Z``: always 27 characters, so that text order is time order."""
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
