"""The numbers on a chart's two axes: round prices and round UTC times, spelled to fit a row of cells.

Prices are exact Decimals throughout. Whoever calls holds a decimal context wide enough for a price over a tick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import count, pairwise
from typing import NamedTuple

from maven_cli.numbers import plain

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MAGNITUDES = ((12, "T"), (9, "B"), (6, "M"), (3, "K"))
_LABEL_GAP = 3  # fewer blanks between two times read as one long number
_LAST_PRICE_EXTRA = 4  # decimals that the last price may have beyond the ticks' own


def decimals(value: Decimal) -> int:
    """How many digits after the point the exact value needs."""
    return len(plain(value).partition(".")[2])


def grouped(value: Decimal, places: int) -> str:
    """``64,123.45``: thousands separators and exactly ``places`` decimals, never an exponent."""
    return format(value, f",.{places}f")


def compact(volume: Decimal) -> str:
    """About three significant digits for a narrow place: ``61.3K``, ``7.48``, ``0.000123``."""
    for power, suffix in _MAGNITUDES:
        if volume >= Decimal(10) ** power:
            scaled = volume.scaleb(-power)
            return grouped(scaled, max(0, 2 - scaled.adjusted())) + suffix
    return plain(round(volume, max(0, 2 - volume.adjusted()))) if volume else "0"


@dataclass(frozen=True)
class PriceAxis:
    """The prices low < high over ``rows`` rows of two half cells each, and what is written beside them.

    ``labels`` are by row, 0 on top, and aligned on the decimal point; the one of ``last_row`` is the last price.
    """

    low: Decimal
    high: Decimal
    rows: int
    labels: dict[int, str]
    last_row: int


def half_cell(price: Decimal, low: Decimal, high: Decimal, rows: int) -> int:
    """The half cell that a price falls into: 0 at the bottom, 2 × rows − 1 on top."""
    return min(2 * rows - 1, int((price - low) * 2 * rows / (high - low)))


def price_axis(low: Decimal, high: Decimal, last: Decimal, rows: int) -> PriceAxis:
    """The axis for prices in [low, high]; a flat market lies in the middle of ± 1 %.

    The last price is exact, unless the range is so wide that its last digits say nothing.
    """
    if low == high:
        low, high = low * Decimal("0.99"), high * Decimal("1.01")
    ticks = price_ticks(low, high, max(3, rows // 3))
    places = max(map(decimals, ticks))
    last_places = max(places, min(decimals(last), places + _LAST_PRICE_EXTRA))

    def row(price: Decimal) -> int:
        return rows - 1 - half_cell(price, low, high, rows) // 2

    labels = {row(tick): grouped(tick, places) for tick in ticks} | {row(last): grouped(last, last_places)}
    whole = max(len(label.partition(".")[0]) for label in labels.values())
    aligned = {at: " " * (whole - len(label.partition(".")[0])) + label for at, label in labels.items()}
    return PriceAxis(low, high, rows, aligned, row(last))


def price_ticks(low: Decimal, high: Decimal, most: int) -> list[Decimal]:
    """The multiples in [low, high] of the finest 1, 2 or 5 × 10ⁿ that is at least (high − low) / ``most``.

    low < high. That is at least one multiple when ``most`` >= 3, and never more than ``most`` + 1.
    """
    span = high - low
    for exponent in count(span.adjusted() - len(str(most))):
        for mantissa in (1, 2, 5):
            step = Decimal((0, (mantissa,), exponent))
            if span <= step * most:
                first = int((low / step).to_integral_value(ROUND_CEILING))
                last = int((high / step).to_integral_value(ROUND_FLOOR))
                return [step * multiple for multiple in range(first, last + 1)]
    raise AssertionError("the steps grow without end")


class TimeLabel(NamedTuple):
    """A tick's column, the text below it, where that begins, and whether it turns the page: a new day or year."""

    tick: int
    begin: int
    text: str
    turns: bool

    @property
    def end(self) -> int:
        return self.begin + len(self.text)


def time_labels(starts: Sequence[datetime], columns: Sequence[int], width: int) -> list[TimeLabel]:
    """What the time axis says, left to right. ``starts[i]`` (aware) is drawn in column ``columns[i]`` of ``width``.

    The finest grid of round UTC times whose labels keep their distance wins: HH:MM, and the date where the day changes;
    dates, and the year where it changes; months, likewise. The first column says the date that the others build on.
    It may take the room of a label beside it, but of none that turns the page.
    """
    instants = [start.astimezone(UTC) for start in starts]
    for grid in _GRIDS:
        labels = _on_grid(grid, instants, columns, width)
        if all(left.end + _LABEL_GAP <= right.begin for left, right in pairwise(labels)):
            break
    else:
        labels = []
    date = _spell_day(instants[0], False)
    with_corner = []
    for corner in (f"{date} {instants[0].year}", date):
        hidden = [label for label in labels if label.begin < len(corner) + _LABEL_GAP]
        if len(corner) <= width and not any(label.turns for label in hidden):
            with_corner.append([TimeLabel(columns[0], 0, corner, True), *labels[len(hidden) :]])
    if not with_corner:
        return labels
    # Among times the year is worth less than one of them; among dates it is worth more.
    return max(with_corner, key=len) if grid.page is _day else with_corner[0]


_Count = Callable[[datetime], int]


class _Grid(NamedTuple):
    """A label for every new bucket; on a new page (day or year) it is spelled so that the next ones needn't say it."""

    bucket: _Count
    page: _Count
    spell: Callable[[datetime, bool], str]


def _on_grid(
    grid: _Grid, instants: Sequence[datetime], columns: Sequence[int], width: int
) -> list[TimeLabel]:
    """A label for every candle that is the first of its bucket, with its own time: after a gap that isn't a round one."""
    labels = []
    labelled = instants[0]
    for (before, instant), column in zip(pairwise(instants), columns[1:], strict=True):
        if grid.bucket(instant) != grid.bucket(before):
            turns = grid.page(instant) != grid.page(labelled)
            text = grid.spell(instant, turns)
            begin = max(0, min(column - len(text) // 2, width - len(text)))
            labels.append(TimeLabel(column, begin, text, turns))
            labelled = instant
    return labels if all(label.end <= width for label in labels) else []


def _minutes(size: int) -> _Count:
    return lambda instant: (instant.toordinal() * 1440 + instant.hour * 60 + instant.minute) // size


def _days(size: int) -> _Count:
    return lambda instant: (instant.toordinal() - 1) // size  # weeks begin on Monday: ordinal 1 was one


def _months(size: int) -> _Count:
    return lambda instant: (instant.year * 12 + instant.month - 1) // size


def _day(instant: datetime) -> int:
    return instant.toordinal()


def _year(instant: datetime) -> int:
    return instant.year


def _month_name(instant: datetime) -> str:
    return _MONTHS[instant.month - 1]  # strftime would ask the locale


def _spell_time(instant: datetime, turns: bool) -> str:
    return _spell_day(instant, False) if turns else f"{instant:%H:%M}"


def _spell_day(instant: datetime, turns: bool) -> str:
    return f"{_month_name(instant)} {instant.year}" if turns else f"{instant.day} {_month_name(instant)}"


def _spell_month(instant: datetime, turns: bool) -> str:
    return str(instant.year) if turns else _month_name(instant)


_GRIDS = (
    *(_Grid(_minutes(size), _day, _spell_time) for size in (1, 5, 10, 15, 30, 60, 120, 180, 240, 360, 720)),
    *(_Grid(_days(size), _year, _spell_day) for size in (1, 2, 7, 14)),
    *(_Grid(_months(size), _year, _spell_month) for size in (1, 3, 6, 12, 24, 60, 120)),
)
