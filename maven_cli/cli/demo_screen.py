"""What `maven demo` puts on the screen: its steps, its closing picture, and the live dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.text import Text

from maven_cli.cli.chart import candle_chart, sparkline
from maven_cli.cli.chart_axes import decimals, grouped
from maven_cli.cli.render import (
    Field,
    Row,
    color,
    is_unicode,
    print_table,
    short_age,
    table_lines,
    ticker_fields,
)
from maven_cli.numbers import plain
from maven_cli.times import iso

if TYPE_CHECKING:
    from rich.console import Console

    from maven_cli.demo.books import Expired, Orders, Verdict
    from maven_cli.demo.build import Step
    from maven_cli.demo.live import Run
    from maven_cli.market.candle_view import Candle

_COURSE = 16  # columns of a sparkline
_LEAST_CHART = 6  # lines; with fewer the chart goes
_MOST_EXPIRED = 3  # lines of the dashboard
_TABLE = 8  # lines of the closing picture's table


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
    orders: Orders,
    courses: dict[str, list[Decimal]],
    runs: Sequence[Run],
    chart: tuple[str, Sequence[Candle]],
) -> Text:
    """The live picture, exactly as large as the terminal: header, tickers, orders, workers, and a chart in the room that
    is left.
    """
    width, height = out.width, out.height
    lines = [_header(width, now, trades)]
    # On a low screen expired orders, then the quieter pairs, and then the workers make room for the chart.
    run_lines = _run_lines(out, runs, now)
    ticker_lines = _ticker_lines(out, rows, courses)
    spare = height - 2 - len(ticker_lines) - len(run_lines) - _LEAST_CHART
    order_lines = _order_lines(orders, now, width)[: max(1, min(1 + _MOST_EXPIRED, 1 + spare))]
    most = max(2, height - 1 - len(order_lines) - len(run_lines) - _LEAST_CHART)
    lines += ticker_lines[:most]
    lines += order_lines
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


# ------------------------------------------------------------------------------------------------------------ orders


def expired_table(out: Console, expired: Sequence[Expired]) -> None:
    """What the expiry pass has ended; a terminal gets as many as are pleasant."""
    shown = expired[:_TABLE] if out.is_terminal else expired
    print_table(out, _expired_fields(), shown)
    if len(expired) > len(shown):
        out.print(f"and {len(expired) - len(shown)} more orders expired", style="dim")


def _expired_fields() -> list[Field[Expired]]:
    def amount(value: Decimal) -> str:
        return grouped(value, decimals(value))

    return [
        Field("order", "Expired", 0, lambda one: str(one.order), lambda one: Text(f"#{one.order}", "bold")),
        Field("user", "User", 1, lambda one: str(one.user), lambda one: Text(str(one.user), "dim")),
        Field("pair", "Pair", 0, lambda one: one.pair, lambda one: Text(one.pair, "bold"), right=False),
        Field("side", "Side", 2, lambda one: one.side, _side, right=False),
        Field("remaining", "Left", 3, lambda one: plain(one.remaining), lambda one: amount(one.remaining)),
        Field("price", "At", 4, lambda one: plain(one.price), lambda one: amount(one.price)),
        Field("released", "Released", 0, lambda one: plain(one.released), lambda one: amount(one.released)),
        Field("asset", "", 0, lambda one: one.asset, lambda one: one.asset, right=False),
    ]


def _side(one: Expired) -> Text:
    return Text(one.side, "green" if one.side == "buy" else "red")


def audit_line(out: Console, verdict: Verdict) -> Text:
    """The audit's verdict in one line, and a line for each wrong row that it names."""
    if not verdict.wrong:
        tick = "✓ " if is_unicode(out) and out.is_terminal else ""
        return Text.assemble(
            (f"{tick}Audit: nothing is wrong", "green"),
            (f" in {verdict.rows:,} rows, {verdict.checks} checks", "dim"),
        )
    text = Text(f"Audit: {verdict.wrong} of {verdict.rows:,} rows are wrong", "bold red")
    for row in verdict.named:
        text.append(f"\n  {row}")
    return text


def orders_line(orders: Orders, now: datetime) -> str:
    """The orders in one line of a pipe: time, how many live, how many expired in the last minute, what that released."""
    worth = "-" if orders.released_usdt is None else f"{orders.released_usdt:.2f}"
    return f"{iso(now)} orders {orders.live} live {orders.expired} expired {worth} USDT released"


def _order_lines(orders: Orders, now: datetime, width: int) -> list[Text]:
    """A line of figures, and one for each of the orders that expired last."""
    worth = "" if orders.released_usdt is None else f", {orders.released_usdt:,.0f} USDT worth released"
    head = Text.assemble(
        ("Orders", "bold"), f"  {orders.live} live   {orders.expired} expired in the last minute{worth}"
    )
    rows = [
        [
            Text(f"#{one.order}", "bold"),
            _side(one),
            Text.assemble(
                f"{plain(one.remaining)} ",
                (one.pair, "bold"),
                f" at {grouped(one.price, decimals(one.price))}",
            ),
            Text(f"{plain(one.released.normalize())} {one.asset} back"),
            Text(f"{short_age(now - one.at)} ago", "dim"),
        ]
        for one in orders.newest[:_MOST_EXPIRED]
    ]
    sizes = [max(row[at].cell_len for row in rows) for at in range(5)] if rows else []
    lines = [head]
    for row in rows:
        line = Text("  ")
        for cell, size in zip(row, sizes, strict=True):
            line.append_text(cell)
            line.append(" " * (size - cell.cell_len + 2))
        line.rstrip()
        lines.append(line)
    return lines
