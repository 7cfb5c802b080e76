"""The chart as a reader sees it: whole pictures of small markets, then what holds for any market and any terminal."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, localcontext
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from maven_cli.cli.chart import candle_chart, sparkline
from maven_cli.cli.chart_axes import compact, price_ticks, time_labels
from tests.conftest import FULL

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
INTERVALS = [
    *(timedelta(minutes=minutes) for minutes in (1, 5, 15, 30, 60, 240, 1440, 7 * 1440)),
    timedelta(days=31),
]
UP_BODIES, DOWN_BODIES, FLAT_BODIES = set("╻╽╹╿┃"), set("▄▀█"), set("─┴┬┼")


@dataclass(frozen=True)
class Candle:
    start: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    base_volume: Decimal = Decimal(1)
    closed: bool = True
    empty: bool = False


def market(
    *rows: str, start: datetime = NEW_YEAR - timedelta(hours=2), step: timedelta = timedelta(hours=1)
) -> list[Candle]:
    """Candles from ``open high low close volume``; a lone price is a window without trades."""
    candles = []
    for number, row in enumerate(rows):
        at = start + number * step
        first, *rest = map(Decimal, row.split())
        if rest:
            high, low, close, volume = rest
            candles.append(Candle(at, first, high, low, close, volume))
        else:
            candles.append(Candle(at, first, first, first, first, Decimal(0), empty=True))
    return candles


def still_running(candles: list[Candle]) -> list[Candle]:
    return [*candles[:-1], replace(candles[-1], closed=False)]


def picture(text: str) -> str:
    return dedent(text).strip("\n")


WEEK = market(
    "100 104 99 103.5 12",
    "103.5 109 103 108 40",
    "108 108.5 101 102 25.5",
    "102",
    "102 103 97 97.5 8",
    "97.5 99 95.25 97.5 3",
    "97.5 106 97.5 105.75 31",
    "105.75 107 104 105 5",
)


def test_without_colour_up_and_down_differ_in_shape() -> None:
    chart = candle_chart(still_running(WEEK), title="ACME/EUR 1h", width=72, height=16, color=False)
    assert chart.plain == picture("""
        ACME/EUR 1h  ┃ up  █ down  ▴ running  · no trades
        O 105.75  H 107.00  L 104.00  C 105.00  -0.71%  V 5
            ╽   █                                                         │
            ┃   █                   │                                     │
            ┃   █               ┃   █                                     ◂ 105
        ╻   ┃   █               ┃   │                                     │
        ┃   ╵   █       │       ┃                                         │
        ┃       █   ·   █       ┃                                         │
        ┃               █       ┃                                         ├ 100
        ╵               █   │   ┃                                         │
                        █   ┼   ╹                                         │
                            │                                             │
            ▆                   ▂                                         ├ V 40
        ▄   █   █       ▂   ▁   █   ▁                                     │
        ────────┬───────┬───────┬───▴─────────────────────────────────────┘
              1 Jan   02:00   04:00                                         UTC
    """)
    assert not chart.spans


def test_in_colour_both_are_lines_to_the_half_cell() -> None:
    chart = candle_chart(still_running(WEEK), title="ACME/EUR 1h", width=72, height=16, color=True)
    assert chart.plain == picture("""
        ACME/EUR 1h  ┃ up  ┃ down  ▴ running  · no trades
        O 105.75  H 107.00  L 104.00  C 105.00  -0.71%  V 5
            ╽   ╽                                                         │
            ┃   ┃                   │                                     │
            ┃   ┃               ┃   ┃                                     ◂ 105
        ╻   ┃   ┃               ┃   │                                     │
        ┃   ╵   ┃       │       ┃                                         │
        ┃       ╿   ·   ┃       ┃                                         │
        ┃               ┃       ┃                                         ├ 100
        ╵               ┃   │   ┃                                         │
                        ╿   ┼   ╹                                         │
                            │                                             │
            ▆                   ▂                                         ├ V 40
        ▄   █   █       ▂   ▁   █   ▁                                     │
        ────────┬───────┬───────┬───▴─────────────────────────────────────┘
              1 Jan   02:00   04:00                                         UTC
    """)

    def style(line: int, column: int) -> str:
        offset = sum(len(text) + 1 for text in chart.plain.split("\n")[:line]) + column
        return " ".join(str(span.style) for span in chart.spans if span.start <= offset < span.end)

    assert style(4, 4) == "green"
    assert style(4, 8) == "red"
    assert style(4, 28) == "dim red"  # still running
    assert "bold red" in style(4, 66)  # the last price


def test_ascii() -> None:
    chart = candle_chart(
        still_running(WEEK), title="ACME/EUR 1h", width=40, height=12, color=False, unicode=False
    )
    assert chart.plain == picture("""
        ACME/EUR 1h  o up  # down  ^ running
        C 105.00  -0.71%  V 5
            o   #                         |
            o   #               o   #     |
        o   o   #               o   #     < 105
        o   |   #   .   #       o         |
        o       |       #       o         + 100
        |               #   +   o         |
                        |   |             |
        .   #   .       .   .   :   .     + V 40
        --------+-------+-------+---^-----+
              1 Jan   02:00   04:00         UTC
    """)


def test_a_small_terminal_shows_the_newest_candles_and_says_so() -> None:
    candles = [
        replace(candle, start=NEW_YEAR + number * timedelta(hours=1))
        for number, candle in enumerate(WEEK * 3)
    ]
    assert candle_chart(candles, title="ACME/EUR 1h", width=30, height=8, color=False).plain == picture("""
        ACME/EUR 1h  newest 23 of 24
        ┃█    ╷ ┃█    ╷ ┃█    ╷ │
        ┃█   ┃█╻┃█   ┃█╻┃█   ┃█ ◂ 105
        ╵█·█ ┃ ┃╵█·█ ┃ ┃╵█·█ ┃  │
           █╷┃ ╿   █╷┃ ╿   █╷┃  ├ 100
           ▀┼╹     ▀┼╹     ▀┼╹  │
        ┬──────────┬────────────┘
        1 Jan    12:00            UTC
    """)


def test_a_single_candle() -> None:
    assert candle_chart(WEEK[:1], title="ACME/EUR 1h", width=40, height=9, color=False).plain == picture("""
        ACME/EUR 1h  ┃ up  █ down
        C 103.5  +3.50%  V 12
        ┃                                ◂ 103.5
        ┃                                ├ 102
        ┃                                │
        ╿                                ├ 100
        ▆                                ├ V 12
        ┬────────────────────────────────┘
        31 Dec 2025                        UTC
    """)


def test_a_flat_market_lies_in_the_middle() -> None:
    candles = market("5 5 5 5 1", "5 5 5 5 3", "5")
    assert candle_chart(candles, title="ACME/EUR 1h", width=40, height=9, color=False).plain == picture("""
        ACME/EUR 1h  ┃ up  █ down  · no trades
        O 5  H 5  L 5  C 5  +0.00%  V 0
                                          ├ 5.05
        ─   ─   ·                         ◂ 5.00
                                          │
                                          ├ 4.95
        ▂   ▆                             ├ V 3
        ────────┬─────────────────────────┘
              1 Jan                         UTC
    """)


def test_the_smallest_prices_have_no_exponent() -> None:
    one, two, three = (Decimal(f"{digit}E-18") for digit in (1, 2, 3))
    candles = [
        Candle(NEW_YEAR, one, three, one, two, Decimal("90071992547409.93")),
        Candle(NEW_YEAR + timedelta(hours=1), two, two, one, one, one),
    ]
    assert candle_chart(candles, title="DUST/BTC 1h", width=60, height=9, color=False).plain == picture("""
        DUST/BTC 1h  ┃ up  █ down
        C 0.000000000000000001  -50.00%  V 0.000000000000000001
        │                                     ├ 0.000000000000000003
        ╽   ▄                                 ├ 0.000000000000000002
        ┃   █                                 │
        ┃   █                                 ◂ 0.000000000000000001
        ▆   ▁                                 ├ V 90.1T
        ┬─────────────────────────────────────┘
        1 Jan 2026                              UTC
    """)


def test_no_candles_is_one_friendly_line() -> None:
    chart = candle_chart([], title="ACME/EUR 1h", width=80, height=24, color=False)
    assert chart.plain == "ACME/EUR 1h  no candles to draw"


def test_a_console_prints_exactly_the_plain_text() -> None:
    chart = candle_chart(WEEK, title="ACME/EUR 1h", width=72, height=16, color=True)
    console = Console(width=72, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(chart)
    assert capture.get() == chart.plain + "\n"


def test_a_title_cannot_tear_the_chart() -> None:
    chart = candle_chart(WEEK, title="A\n\x1b[2JB", width=60, height=16, color=True)
    assert chart.plain.startswith("A  [2JB  ┃ up")
    assert chart.plain.count("\n") == 15


def test_prices_of_18_decimals_as_the_database_returns_them() -> None:
    row = "64123.450000000000000000 64200.000000000000000000 64000.100000000000000000 64150.500000000000000000 1.50"
    lines = candle_chart(market(row), title="BTC/USDT 1h", width=80, height=12, color=False).plain.split("\n")
    assert lines[1] == "O 64,123.45  H 64,200.00  L 64,000.10  C 64,150.50  +0.04%  V 1.5"


@pytest.mark.parametrize(
    ("width", "summary"),
    [
        (80, "O 105.75  H 107.00  L 104.00  C 105.00  -0.71%  V 5"),
        (50, "C 105.00  -0.71%  V 5"),
        (20, "C 105.00  -0.71%"),
        (15, "C 105.00"),
        (5, "C 105"),
    ],
)
def test_the_summary_shortens_gracefully(width: int, summary: str) -> None:
    chart = candle_chart(WEEK, title="ACME/EUR 1h", width=width, height=12, color=False)
    assert chart.plain.split("\n")[1] == summary


@pytest.mark.parametrize(
    ("step", "count", "labels"),
    [
        (timedelta(minutes=1), 60, ["31 Dec 2025", "22:20", "22:30", "22:40", "22:50"]),
        (timedelta(minutes=5), 60, ["31 Dec", "23:00", "1 Jan", "01:00", "02:00"]),
        (timedelta(hours=1), 60, ["1 Jan", "12:00", "2 Jan", "12:00", "3 Jan"]),
        (timedelta(hours=4), 60, ["Jan 2026", "3 Jan", "5 Jan", "7 Jan", "9 Jan"]),
        (timedelta(days=1), 60, ["Jan 2026", "19 Jan", "2 Feb", "16 Feb"]),
        (timedelta(days=7), 60, ["2026", "Apr", "Jul", "Oct", "2027"]),
        (timedelta(days=28), 60, ["2026", "2027", "2028", "2029", "2030"]),
    ],
)
def test_the_time_axis_speaks_of_times_then_dates_then_years(
    step: timedelta, count: int, labels: list[str]
) -> None:
    starts = [NEW_YEAR - timedelta(hours=2) + number * step for number in range(count)]
    assert [label.text for label in time_labels(starts, range(count), count)][:5] == labels


def test_the_time_axis_is_in_utc() -> None:
    tokyo = [candle.start.astimezone(timezone(timedelta(hours=9))) for candle in WEEK]
    columns = range(0, 32, 4)
    assert time_labels(tokyo, columns, 40) == time_labels([candle.start for candle in WEEK], columns, 40)


@pytest.mark.parametrize(
    ("volume", "text"),
    [
        ("0", "0"),
        ("0.000000000000000000", "0"),
        ("0.00012345", "0.000123"),
        ("7.4849", "7.48"),
        ("15.0", "15"),
        ("999.4", "999"),
        ("1000", "1.00K"),
        ("61283", "61.3K"),
        ("3478000", "3.48M"),
        ("1E+18", "1,000,000T"),
    ],
)
def test_compact_volumes(volume: str, text: str) -> None:
    assert compact(Decimal(volume)) == text


def test_a_sparkline() -> None:
    def line(*values: int, width: int = 8) -> str:
        return sparkline([Decimal(value) for value in values], width)

    assert line() == ""
    assert line(5) == "▄"
    assert line(5, 5, 5) == "▄▄▄"
    assert line(0, 1, 2, 3, 4, 5, 6, 7) == "▁▂▃▄▅▆▇█"
    assert line(-1, 1) == "▁█"
    assert line(0, 9, 0, 9, 0, 1, width=3) == "██▁"  # the last of each share


# What holds for any market and any terminal.

prices = st.decimals(
    min_value=Decimal("1E-30"), max_value=Decimal("1E30"), allow_nan=False, allow_infinity=False
)
round_prices = st.integers(1, 400).map(lambda ticks: Decimal(ticks) / 4)
volumes = st.one_of(st.just(Decimal(0)), prices)


@st.composite
def markets(
    draw: st.DrawFn, prices: st.SearchStrategy[Decimal] = prices, most: int = 25, all_trade: bool = False
) -> list[Candle]:
    step = draw(st.sampled_from(INTERVALS))
    start = NEW_YEAR + draw(st.integers(-500, 500)) * step
    candles = []
    for number in range(draw(st.integers(1, most))):
        low, one, other, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
        opened, close = draw(st.permutations([one, other]))
        candle = Candle(start + number * step, opened, high, low, close, draw(volumes), draw(st.booleans()))
        if not all_trade and draw(st.booleans()):
            candle = replace(candle, open=close, high=close, low=close, base_volume=Decimal(0), empty=True)
        candles.append(candle)
    return candles


@settings(deadline=None, max_examples=200 if FULL else 30)
@given(markets(), st.text(max_size=30), st.integers(1, 130), st.integers(1, 40), st.booleans(), st.booleans())
def test_exactly_height_lines_none_wider_than_width(
    candles: list[Candle], title: str, width: int, height: int, color: bool, unicode: bool
) -> None:
    chart = candle_chart(candles, title=title, width=width, height=height, color=color, unicode=unicode)
    lines = chart.plain.split("\n")
    assert len(lines) == height
    assert all(cell_len(line) <= width for line in lines)
    assert all(line == line.rstrip() for line in lines)
    assert "E+" not in "".join(lines[1:])
    assert "E-" not in "".join(lines[1:])
    if not unicode:
        assert "".join(lines[1:]).isascii()
    if not color:
        assert not chart.spans


def pane(candles: list[Candle], rows: int) -> list[list[str]]:
    """The price pane of few candles with short prices in a wide terminal: what each candle draws, from the top down."""
    height = next(height for height in range(9, 99) if height - 4 - (height - 4) // 5 == rows)
    chart = candle_chart(candles, title="ACME/EUR", width=100, height=height, color=False)
    lines = [line.ljust(100) for line in chart.plain.split("\n")[2 : 2 + rows]]
    return [[line[4 * number] for line in lines] for number in range(len(candles))]


@given(markets(round_prices, most=12, all_trade=True), st.sampled_from([4, 5, 8, 12]))
def test_without_colour_each_direction_has_bodies_of_its_own(candles: list[Candle], rows: int) -> None:
    for candle, column in zip(candles, pane(candles, rows), strict=True):
        change = candle.close - candle.open
        bodies = UP_BODIES if change > 0 else DOWN_BODIES if change < 0 else FLAT_BODIES
        assert set(column) & (UP_BODIES | DOWN_BODIES | FLAT_BODIES) <= bodies
        assert set(column) & bodies


@given(markets(round_prices, most=12), st.sampled_from([4, 5, 8, 12]))
def test_wicks_end_where_the_prices_are(candles: list[Candle], rows: int) -> None:
    low, high = min(candle.low for candle in candles), max(candle.high for candle in candles)
    drawn = [[row for row, glyph in enumerate(column) if glyph != " "] for column in pane(candles, rows)]
    for candle, cells in zip(candles, drawn, strict=True):
        assert cells == list(range(cells[0], cells[-1] + 1))
        if low < high:
            assert cells[0] == 0 or candle.high < high
            assert cells[-1] == rows - 1 or candle.low > low
            # Exactly the row whose prices hold the wick's end; a row's share of the range is 1 / rows.
            assert (rows - 1 - cells[0]) * (high - low) <= (candle.high - low) * rows
            assert (candle.low - low) * rows <= (rows - cells[-1]) * (high - low)
    for (one, upper), (other, lower) in itertools.permutations(zip(candles, drawn, strict=True), 2):
        assert upper[0] <= lower[0] or one.high < other.high
        assert upper[-1] <= lower[-1] or one.low < other.low


@given(prices, prices, st.integers(3, 40))
def test_price_ticks_are_round_exact_and_few(one: Decimal, other: Decimal, most: int) -> None:
    low, high = sorted((one, other))
    if low == high:
        return
    with localcontext(prec=200):
        ticks = price_ticks(low, high, most)
        assert 1 <= len(ticks) <= most + 1
        assert low <= ticks[0]
        assert ticks[-1] <= high
        steps = {right - left for left, right in itertools.pairwise(ticks)}
        assert len(steps) <= 1
        assert all(step.normalize().as_tuple().digits in {(1,), (2,), (5,)} for step in steps)


@given(
    st.sampled_from(INTERVALS),
    st.sets(st.integers(-1000, 1000), min_size=1, max_size=60),
    st.booleans(),
    st.integers(1, 4),
    st.integers(0, 40),
)
def test_time_labels_keep_their_distance(
    step: timedelta, numbers: set[int], gapless: bool, pitch: int, spare: int
) -> None:
    windows = range(min(numbers), min(numbers) + len(numbers)) if gapless else sorted(numbers)
    starts = [NEW_YEAR + window * step for window in windows]
    columns = range(0, len(starts) * pitch, pitch)
    width = columns[-1] + 1 + spare
    labels = time_labels(starts, columns, width)
    assert all(left.end < right.begin for left, right in itertools.pairwise(labels))
    assert all(label.begin >= 0 and label.end <= width for label in labels)
    for label in labels:
        start = starts[columns.index(label.tick)]
        assert ":" not in label.text or label.text == f"{start:%H:%M}"


@given(st.lists(prices), st.integers(1, 30))
def test_a_sparkline_has_a_block_for_each_value_that_fits(values: list[Decimal], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(width, len(values))
    assert set(line) <= set("▁▂▃▄▅▆▇█")
    if 1 < len(values) <= width and min(values) < max(values):
        assert line[values.index(min(values))] == "▁"
        assert line[values.index(max(values))] == "█"
