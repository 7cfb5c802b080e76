"""What `maven demo` puts on the screen: its steps, its closing picture, and the live dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.text import Text

from maven_cli.cli.chart import candle_chart, sparkline
from maven_cli.cli.render import Field, Row, color, is_unicode, short_age, table_lines, ticker_fields

if TYPE_CHECKING:
    from rich.console import Console

    from maven_cli.demo.build import Step
    from maven_cli.demo.live import Run
    from maven_cli.market.candle_view import Candle

_COURSE = 16  # columns of a sparkline
_LEAST_CHART = 6  # lines; with fewer the chart goes


def step_line(out: Console, step: Step) -> Text:
    """A step that is done."""
    done = Text("✓ " if is_unicode(out) and out.is_terminal else "", "green")
    took = "" if step.seconds is None else f"{step.seconds.total_seconds():6.2f} s"
    room = max(20, min(out.width, 80) - done.cell_len - len(took) - 30)
    return Text.assemble(done, f"{step.name:<30}", (f"{step.detail:<{room}}", "dim"), took, no_wrap=True)


def chart_text(out: Console, title: str, candles: Sequence[Candle], width: int, height: int) -> Text:
    """A candle chart as this console can show it."""
    return candle_chart(
        candles,
        title=title,
        width=width,
        height=height,
        color=out.is_terminal and not out.no_color,
        unicode=is_unicode(out),
    )


def dashboard(
    out: Console,
    *,
    now: datetime,
    trades: int,
    rows: Sequence[Row],
    courses: dict[str, list[Decimal]],
    runs: Sequence[Run],
    chart: tuple[str, Sequence[Candle]],
) -> Text:
    """The live picture, exactly as large as the terminal: header, tickers, workers, and a chart in the room that is left."""
    width, height = out.width, out.height
    lines = [_header(width, now, trades)]
    # On a low screen the quieter pairs and then the workers make room for the chart.
    run_lines = _run_lines(out, runs, now)
    most = max(2, height - 1 - len(run_lines) - _LEAST_CHART)
    lines += _ticker_lines(out, rows, courses)[:most]
    lines += run_lines
    room = height - len(lines)
    if room >= _LEAST_CHART:
        lines += chart_text(out, chart[0], chart[1], width, room).split("\n")
    for line in lines:
        line.truncate(width, overflow="crop")
    return Text("\n", no_wrap=True, overflow="crop").join(lines[:height])


def _header(width: int, now: datetime, trades: int) -> Text:
    left = [("maven demo", "bold"), (f"  {now:%H:%M:%S} UTC  {trades:,} trades", "")]
    right = "Ctrl-C ends"
    text = Text.assemble(*left)
    if text.cell_len + len(right) + 2 <= width:
        text.append(" " * (width - text.cell_len - len(right)))
        text.append(right, "dim")
    text.stylize("reverse")
    return text


def _ticker_lines(out: Console, rows: Sequence[Row], courses: dict[str, list[Decimal]]) -> list[Text]:
    unicode = is_unicode(out)
    fields = ticker_fields(rows, unicode)
    if unicode:

        def course(row: Row) -> Text:
            values = courses.get(row["pair"], [])
            if row["last"] is not None and values:
                values = [*values, row["last"]]
            return Text(sparkline(values, _COURSE), color(values[-1] - values[0]) if values else "")

        at = next(at for at, field in enumerate(fields) if field.key == "change_percent")
        fields.insert(at + 1, Field("", "Last 24 hours", 3, None, course, right=False))
    return list(table_lines(fields, rows, out.width))


def _run_lines(out: Console, runs: Sequence[Run], now: datetime) -> list[Text]:
    """Each worker's last run, as many side by side as fit; the outcome is a tick, or the word when it isn't success."""
    tick = "✓" if is_unicode(out) else "ok"
    lines: list[Text] = []
    for run in runs:
        good = run.outcome == "success"
        cell = Text.assemble(
            (f"{tick} ", "green") if good else "",
            (run.scope, "bold"),
            ""
            if good
            else (f" {run.outcome}", "yellow" if run.outcome in ("skipped", "partial") else "bold red"),
            f" {run.duration_ms} ms",
            (f" {short_age(now - run.started_at)} ago", "dim"),
        )
        if lines and lines[-1].cell_len + 3 + cell.cell_len <= out.width:
            lines[-1].append("   ").append_text(cell)
        else:
            lines.append(cell)
    return lines
