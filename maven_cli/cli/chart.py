"""Candlesticks in a terminal, readable with and without colour. Pure rendering: candles in, text out.

    XRP/ETH 5m  newest 64 of 120  ┃ up  █ down       what it is, what is left out, how to read it
    O …  H …  L …  C …  +0.12%  V …                  the newest candle
     ╷┃ █                          ├ 0.0015          prices, to half a cell
    ┃┃╿ ▀                          ◂ 0.00148589      the last price
    ▂▇▁ ▃                          ├ V 57.6K         volumes, to an eighth of a cell
    ─────────┬───────────┬───────▴─┘                 ▴ below a candle that is still running
    11 Oct 2019        06:00         UTC

A body is a thick line, without colour a block where the price fell. ``chart_axes`` has the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal, localcontext
from itertools import groupby
from operator import itemgetter
from typing import Protocol

from rich.cells import cell_len
from rich.text import Text

from maven_cli.cli.chart_axes import PriceAxis, compact, decimals, grouped, half_cell, price_axis, time_labels

_DIGITS = 200  # of the decimal context: any NUMERIC(36, 18) over any other stays exact, with room to spare
_MOST_SPACING = 3  # blanks between two candles; more no longer reads as a series
_LEAST_COLUMNS = 8  # where the price axis would leave fewer for the candles, it goes


class ChartCandle(Protocol):
    """One OHLCV candle, ``start`` aware: 0 < low <= open, close <= high (quote per base), volume >= 0 (base)."""

    @property
    def start(self) -> datetime: ...
    @property
    def open(self) -> Decimal: ...
    @property
    def high(self) -> Decimal: ...
    @property
    def low(self) -> Decimal: ...
    @property
    def close(self) -> Decimal: ...
    @property
    def base_volume(self) -> Decimal: ...
    @property
    def closed(self) -> bool: ...
    @property
    def empty(self) -> bool: ...


@dataclass(frozen=True)
class _Glyphs:
    """What a chart is drawn with.

    ``up`` and ``down`` bodies are indexed by 3 × upper half + lower half of their cell, each 0 nothing, 1 wick, 2 body;
    ``flat`` (close = open) by 1 × wick above + 2 × wick below. ``bars`` rise from nothing to a full cell.
    """

    up: str = " ╷╻╵│╽╹╿┃"
    down: str = " ╷▄╵│█▀██"
    flat: str = "─┴┬┼"
    empty: str = "·"
    running: str = "▴"
    bars: str = " ▁▂▃▄▅▆▇█"
    axis: str = "│"
    tick: str = "├"
    last: str = "◂"
    rule: str = "─"
    rule_tick: str = "┬"
    corner: str = "┘"


# Without colour the two directions differ in shape. With it they needn't, and the line alphabet is the exact one: no
# block has a wick in its other half, so that there the whole cell is body.
_PLAIN = _Glyphs()
_COLORED = replace(_PLAIN, down=_PLAIN.up)
_ASCII = _Glyphs(" |o||oooo", " |#||####", "-+++", ".", "^", " .:#", "|", "+", "<", "-", "+", "+")
_BODY = 8

_UP, _DOWN, _FLAT = "green", "red", ""


@dataclass(frozen=True)
class _Layout:
    """The candles that fit, each with its column, within ``plot`` columns; then the axis in ``gutter`` columns or none."""

    candles: Sequence[ChartCandle]
    columns: Sequence[int]
    plot: int
    gutter: int
    axis: PriceAxis
    volume_rows: int
    glyphs: _Glyphs


def candle_chart(
    candles: Sequence[ChartCandle],
    *,
    title: str,
    width: int,
    height: int,
    color: bool,
    unicode: bool = True,
    total: int | None = None,
) -> Text:
    """The newest of ``candles`` (oldest first) that fit into ``height`` lines of at most ``width`` cells (both >= 1).

    ``.plain`` of the result is exactly what it prints; lines have no trailing blanks, the last one no newline. Up is
    told from down by shape without ``color``, by colour with it. Without candles it is one line that says so.
    ``unicode=False`` draws with ASCII alone. ``total``: of how many the candles are the newest, when the title has to
    say what is left out; by default their own number.
    """
    glyphs = _ASCII if not unicode else _COLORED if color else _PLAIN
    # A line break or an escape sequence in a name must not tear the chart.
    heading = Text("".join(character if character.isprintable() else " " for character in title), "bold")
    if candles:
        with localcontext(prec=_DIGITS):
            lines = _lines(candles, len(candles) if total is None else total, heading, width, height, glyphs)
    else:
        lines = [_fitted([(0, heading), (1, Text("no candles to draw"))], width)]
    for line in lines:
        line.truncate(width, overflow="crop")
        line.rstrip()
    chart = Text("\n", no_wrap=True, overflow="crop").join(lines)
    return chart if color else Text(chart.plain, no_wrap=True, overflow="crop")


def sparkline(values: Sequence[Decimal], width: int) -> str:
    """The course of ``values`` in at most ``width`` (>= 1) eighth blocks, lowest ▁ to highest █; a flat one is ▄▄▄.

    Of more values than fit, each column shows the last one of its share, so that the newest always shows.
    """
    if not values:
        return ""
    columns = min(width, len(values))
    shown = [values[(column + 1) * len(values) // columns - 1] for column in range(columns)]
    low, high = min(shown), max(shown)
    if low == high:
        return "▄" * columns
    with localcontext(prec=_DIGITS):
        return "".join("▁▂▃▄▅▆▇█"[min(7, int((value - low) * 8 / (high - low)))] for value in shown)


def _lines(
    candles: Sequence[ChartCandle], total: int, title: Text, width: int, height: int, glyphs: _Glyphs
) -> list[Text]:
    """Everything, as far as ``height`` goes: prices always, then times, the volumes and a line for the newest candle."""
    has_times, has_summary = height >= 5, height >= 9
    rows = height - 1 - has_summary - 2 * has_times
    volume_rows = rows // 5 if has_summary else 0
    layout = _laid_out(candles, width, rows - volume_rows, volume_rows, glyphs)

    heading = [(0, title)]
    if len(layout.candles) < total:
        heading.append((1, Text(f"newest {len(layout.candles)} of {total}", "yellow")))
    if has_summary:
        lines = [_fitted(heading + _legend(layout), width), _fitted(_summary(candles[-1]), width)]
    else:
        lines = [_fitted(heading + _summary(candles[-1]), width)]
    if rows:
        lines += _price_pane(layout)
    if volume_rows:
        lines += _volume_pane(layout)
    if has_times:
        lines += _time_axis(layout)
    return lines


def _laid_out(
    candles: Sequence[ChartCandle], width: int, price_rows: int, volume_rows: int, glyphs: _Glyphs
) -> _Layout:
    """Which candles fit depends on the axis's width, and that on which candles show: they go until both agree."""
    shown = candles[-width:]
    while True:
        axis = _axis_of(shown, price_rows)
        gutter = 3 + max(map(len, (*axis.labels.values(), _volume_label(shown))))
        if width - gutter < _LEAST_COLUMNS:
            shown, gutter = candles[-width:], 0
            axis = _axis_of(shown, price_rows)
        plot = width - gutter
        if len(shown) <= plot:
            break
        shown = shown[-plot:]
    pitch = max(1, min(1 + _MOST_SPACING, (plot - 1) // max(1, len(shown) - 1)))
    return _Layout(shown, range(0, len(shown) * pitch, pitch), plot, gutter, axis, volume_rows, glyphs)


def _axis_of(candles: Sequence[ChartCandle], rows: int) -> PriceAxis:
    low, high = min(candle.low for candle in candles), max(candle.high for candle in candles)
    return price_axis(low, high, candles[-1].close, rows)


def _volume_label(candles: Sequence[ChartCandle]) -> str:
    return f"V {compact(max(candle.base_volume for candle in candles))}"


def _fitted(parts: Sequence[tuple[int, Text]], width: int) -> Text:
    """The (rank, text) parts side by side; as long as they don't fit, those of the highest rank go."""
    line = Text("  ").join(text for _, text in parts)
    fewer = [part for part in parts if part[0] < max(rank for rank, _ in parts)]
    return _fitted(fewer, width) if fewer and cell_len(line.plain) > width else line


def _legend(layout: _Layout) -> list[tuple[int, Text]]:
    glyphs = layout.glyphs
    legend = [
        (2, Text.assemble((glyphs.up[_BODY], _UP), (" up", "dim"))),
        (2, Text.assemble((glyphs.down[_BODY], _DOWN), (" down", "dim"))),
    ]
    if not all(candle.closed for candle in layout.candles):
        legend.append((3, Text(f"{glyphs.running} running", "dim")))
    if any(candle.empty for candle in layout.candles):
        legend.append((4, Text(f"{glyphs.empty} no trades", "dim")))
    return legend


def _summary(candle: ChartCandle) -> list[tuple[int, Text]]:
    """The candle's exact prices, its change from open to close, its volume."""
    places = max(map(decimals, (candle.open, candle.high, candle.low, candle.close)))
    change = (candle.close - candle.open) * 100 / candle.open

    def named(name: str, price: Decimal) -> Text:
        return Text.assemble((f"{name} ", "dim"), (grouped(price, places), _color(candle)))

    return [
        (5, named("O", candle.open)),
        (5, named("H", candle.high)),
        (5, named("L", candle.low)),
        (2, named("C", candle.close)),
        (3, Text(f"{change:+z,.2f}%", _color(candle))),
        (4, Text.assemble(("V ", "dim"), compact(candle.base_volume))),
    ]


def _color(candle: ChartCandle) -> str:
    return _UP if candle.close > candle.open else _DOWN if candle.close < candle.open else _FLAT


_Cell = tuple[str, str]  # a glyph and its style


def _text(cells: Iterable[_Cell]) -> Text:
    runs = groupby(cells, key=itemgetter(1))
    return Text.assemble(*(("".join(glyph for glyph, _ in run), style) for style, run in runs))


def _price_pane(layout: _Layout) -> list[Text]:
    axis, glyphs = layout.axis, layout.glyphs
    cells: list[list[_Cell]] = [[(" ", "")] * layout.plot for _ in range(axis.rows)]
    for candle, column in zip(layout.candles, layout.columns, strict=True):
        style = _color(candle) if candle.closed else f"dim {_color(candle)}"
        for row, glyph in _drawn(candle, axis, glyphs):
            cells[row][column] = (glyph, style)
    if layout.gutter:
        last_style = f"bold {_color(layout.candles[-1])}"
        for row, line in enumerate(cells):
            if row == axis.last_row:
                line += [(" ", ""), (f"{glyphs.last} {axis.labels[row]}", last_style)]
            elif row in axis.labels:
                line += [(" ", ""), (glyphs.tick, "dim"), (f" {axis.labels[row]}", "")]
            else:
                line += [(" ", ""), (glyphs.axis, "dim")]
    return [_text(line) for line in cells]


def _drawn(candle: ChartCandle, axis: PriceAxis, glyphs: _Glyphs) -> list[tuple[int, str]]:
    """The (row, glyph) of each cell that the candle covers."""

    def half(price: Decimal) -> int:
        return half_cell(price, axis.low, axis.high, axis.rows)

    def part(at: int) -> int:
        return 2 if bottom <= at <= top else 1 if low <= at <= high else 0

    low, high = half(candle.low), half(candle.high)
    bottom, top = sorted((half(candle.open), half(candle.close)))
    if candle.empty:
        return [(axis.rows - 1 - top // 2, glyphs.empty)]
    bodies = glyphs.down if candle.close < candle.open else glyphs.up
    drawn = {cell: bodies[3 * part(2 * cell + 1) + part(2 * cell)] for cell in range(low // 2, high // 2 + 1)}
    if candle.close == candle.open:
        drawn[top // 2] = glyphs.flat[(high > top) + 2 * (low < top)]
    return [(axis.rows - 1 - cell, glyph) for cell, glyph in drawn.items()]


def _volume_pane(layout: _Layout) -> list[Text]:
    """The greatest bar fills the pane but for a hair, so that it doesn't touch a candle; the least still shows."""
    rows, glyphs = layout.volume_rows, layout.glyphs
    full = len(glyphs.bars) - 1
    highest = rows * full - full // 4
    most = max(candle.base_volume for candle in layout.candles)
    cells: list[list[_Cell]] = [[(" ", "")] * layout.plot for _ in range(rows)]
    for candle, column in zip(layout.candles, layout.columns, strict=True):
        level = max(1, int(candle.base_volume * highest / most)) if candle.base_volume else 0
        for row in range(rows):
            part = max(0, min(full, level - (rows - 1 - row) * full))
            cells[row][column] = (glyphs.bars[part], f"dim {_color(candle)}")
    if layout.gutter:
        for line in cells:
            line += [(" ", ""), (glyphs.axis, "dim")]
        cells[0][-1] = (f"{glyphs.tick} {_volume_label(layout.candles)}", "dim")
    return [_text(line) for line in cells]


def _time_axis(layout: _Layout) -> list[Text]:
    """The rule below the panes with its ticks and the mark of each running candle, then the labels."""
    glyphs = layout.glyphs
    rule: list[_Cell] = [(glyphs.rule, "dim")] * layout.plot
    text = ""
    starts = [candle.start for candle in layout.candles]
    for label in time_labels(starts, layout.columns, layout.plot):
        rule[label.tick] = (glyphs.rule_tick, "dim")
        text = text.ljust(label.begin) + label.text
    for candle, column in zip(layout.candles, layout.columns, strict=True):
        if not candle.closed:
            rule[column] = (glyphs.running, "bold")
    if layout.gutter:
        rule += [(glyphs.rule, "dim"), (glyphs.corner, "dim")]
        text = f"{text:<{layout.plot + 3}}UTC"
    return [_text(rule), Text(text, "dim")]
