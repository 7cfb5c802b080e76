"""The nine candle intervals: their names, their windows, and which one each rolls up from.

A window is ``[start, start + interval)`` in UTC. Weeks start on Monday, months on the 1st, so a month is a calendar
month and never thirty days.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

# A Monday at midnight: every fixed interval, the week included, divides the time since then into its windows.
ORIGIN = datetime(2001, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Interval:
    """One candle interval."""

    name: str
    length: timedelta | None  # None: a calendar month
    parent: str | None  # the next finer interval that this one's candles are made from; None: raw trades

    def floor(self, moment: datetime) -> datetime:
        """The start of the window that holds the moment."""
        if self.length is None:
            utc = moment.astimezone(UTC)
            return utc.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return moment - (moment - ORIGIN) % self.length

    def ceil(self, moment: datetime) -> datetime:
        """The first window start that isn't before the moment."""
        start = self.floor(moment)
        return start if start == moment else self.after(start)

    def after(self, start: datetime, count: int = 1) -> datetime:
        """The start of the window `count` windows after the one that starts at `start`; negative: before."""
        if self.length is None:
            months = start.year * 12 + start.month - 1 + count
            return start.replace(year=months // 12, month=months % 12 + 1)
        return start + self.length * count

    def sql(self, column: str) -> str:
        """The SQL expression for the start of the window that holds a timestamptz column, in any session time zone."""
        if self.length is None:
            return f"date_trunc('month', {column}, 'UTC')"
        seconds = self.length // timedelta(seconds=1)
        return f"date_bin('{seconds} seconds', {column}, '{ORIGIN.isoformat()}')"


INTERVALS: dict[str, Interval] = {
    interval.name: interval
    for interval in (
        Interval("1m", timedelta(minutes=1), None),
        Interval("5m", timedelta(minutes=5), "1m"),
        Interval("15m", timedelta(minutes=15), "5m"),
        Interval("30m", timedelta(minutes=30), "15m"),
        Interval("1h", timedelta(hours=1), "30m"),
        Interval("4h", timedelta(hours=4), "1h"),
        Interval("1d", timedelta(days=1), "4h"),
        Interval("1w", timedelta(days=7), "1d"),
        Interval("1M", None, "1d"),
    )
}

MINUTE = INTERVALS["1m"]

# systemd unit names and case-insensitive file systems can't tell 1m from 1M.
ALIASES = {"1mo": "1M", "1mon": "1M", "60m": "1h", "1D": "1d", "1W": "1w", "7d": "1w"}


def parse_interval(text: str) -> Interval:
    """The interval of that name or alias. Raises ValueError naming all of them."""
    try:
        return INTERVALS[ALIASES.get(text, text)]
    except KeyError:
        raise ValueError(f"{text!r} is not an interval; choose from {', '.join(INTERVALS)}") from None
