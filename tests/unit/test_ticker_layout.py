"""How a ticker's window is cut into candles: disjoint, complete, aligned, as coarse as it can be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maven_cli.intervals import INTERVALS, Interval
from maven_cli.market.tickers import Piece, layout, whole_cells

BASE = datetime(2026, 3, 1, tzinfo=UTC)
# From the coarsest: what a piece could have been instead.
CELLS = [INTERVALS[name] for name in ("4h", "1h", "15m", "5m", "1m")]
minutes = st.integers(0, 3 * 1440)
MICRO = timedelta(microseconds=1)


def minute(number: int) -> datetime:
    return BASE + timedelta(minutes=number)


def cells(pieces: list[Piece]) -> list[tuple[Interval, datetime, datetime]]:
    found = []
    for piece in pieces:
        start = piece.lo
        while start < piece.hi:
            found.append((piece.interval, start, piece.interval.after(start)))
            start = piece.interval.after(start)
    return found


@given(minutes, minutes)
def test_cells_are_disjoint_and_cover_exactly(lo: int, hi: int) -> None:
    found = cells(layout(minute(lo), minute(hi)))
    edge = minute(lo)
    for _, start, end in found:
        assert start == edge
        edge = end
    assert edge == max(minute(lo), minute(hi)) if lo < hi else found == []


@given(minutes, minutes)
def test_cells_are_aligned_and_as_coarse_as_fits(lo: int, hi: int) -> None:
    for interval, start, end in cells(layout(minute(lo), minute(hi))):
        assert interval.floor(start) == start
        for coarser in CELLS[: CELLS.index(interval)]:
            window = coarser.floor(start)
            assert window < minute(lo) or coarser.after(window) > minute(hi), (
                f"{start} is inside a whole {coarser.name}"
            )
        assert end <= minute(hi)


@given(minutes)
def test_a_day_needs_few_cells(lo: int) -> None:
    pieces = layout(minute(lo), minute(lo + 1439))
    assert len(pieces) <= 9
    assert len(cells(pieces)) < 60


def test_nothing_is_cut_from_nothing() -> None:
    assert layout(BASE, BASE) == []
    assert layout(BASE + timedelta(hours=1), BASE) == []
    assert whole_cells([], BASE, BASE + timedelta(hours=1)) is None


def test_an_example() -> None:
    found = [(p.interval.name, p.lo, p.hi) for p in layout(minute(9 * 60 + 58), minute(18 * 60 + 7))]
    assert found == [
        ("1m", minute(598), minute(600)),
        ("1h", minute(600), minute(720)),
        ("4h", minute(720), minute(960)),
        ("1h", minute(960), minute(1080)),
        ("5m", minute(1080), minute(1085)),
        ("1m", minute(1085), minute(1087)),
    ]


@given(minutes, st.integers(1, 1500), st.integers(-(10**11), 3 * 10**11), st.integers(1, 10**11))
def test_whole_cells_cover_what_lies_in_the_pieces_and_no_cell_more(
    lo: int, length: int, offset: int, micros: int
) -> None:
    pieces = layout(minute(lo), minute(lo + length))
    from_at = minute(lo) + offset * MICRO
    to_at = from_at + micros * MICRO
    touched = [cell for cell in cells(pieces) if cell[1] < to_at and cell[2] > from_at]
    found = whole_cells(pieces, from_at, to_at)
    if not touched:
        assert found is None
    else:
        assert found == (touched[0][1], touched[-1][2])


@pytest.mark.parametrize("edge", ["lo", "hi"])
def test_a_range_that_only_touches_an_edge_takes_nothing(edge: str) -> None:
    pieces = layout(minute(7), minute(700))
    if edge == "lo":
        assert whole_cells(pieces, minute(0), minute(7)) is None
        assert whole_cells(pieces, minute(0), minute(7) + MICRO) == (minute(7), minute(8))
    else:
        assert whole_cells(pieces, minute(700), minute(800)) is None
        # The last cell is five minutes long.
        assert whole_cells(pieces, minute(700) - MICRO, minute(800)) == (minute(695), minute(700))
