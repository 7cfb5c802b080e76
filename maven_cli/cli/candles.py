"""`maven candles`: make them, check them, look at them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import (
    AsOf,
    DryRun,
    From,
    IntervalOption,
    Intervals,
    OneInterval,
    Pairs,
    To,
    check_range,
)
from maven_cli.cli.output import Column, Result, table
from maven_cli.cli.parsing import Group
from maven_cli.intervals import INTERVALS

app = typer.Typer(cls=Group, no_args_is_help=True, help="OHLCV candles of nine intervals, without gaps.")


@command(app, "gen")
def gen(interval: IntervalOption, pair: Pairs = None, as_of: AsOf = None, dry_run: DryRun = False) -> Result:
    """Close every window that has ended, correct what changed, and refresh Redis.

    A dry run stays out of the way of live passes: it does the first step alone, at most an hour of a pair's market time,
    and `complete` in its result says whether that was all. Where it would have to wait for a live pass it ends with 75.
    """
    from maven_cli.passes import candles

    outcome = candles.generate(current().services, interval, pairs=pair or [], as_of=as_of, dry_run=dry_run)
    data = outcome.data
    if data is None or not dry_run:
        return from_outcome(outcome, data)
    return from_outcome(outcome, data, lambda out: out.print(_would_change(data), markup=False))


def _would_change(data: dict[str, Any]) -> str:
    """``Would insert 8, change 1, remove 0 candles (1m 1, 5m 1, …)``."""
    kinds = ("inserted", "changed", "removed")
    inserted, changed, removed = (sum(data[kind].values()) for kind in kinds)
    by_interval = {name: sum(data[kind].get(name, 0) for kind in kinds) for name in INTERVALS}
    listed = ", ".join(f"{name} {count}" for name, count in by_interval.items() if count)
    line = f"Would insert {inserted}, change {changed}, remove {removed} candles"
    return f"{line} ({listed})" if listed else line


@command(app, "backfill")
def backfill(
    pair: Pairs = None,
    start: From = None,
    end: To = None,
    interval: OneInterval = None,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, max=64, help="Connections that work side by side.")
    ] = 2,
) -> Result:
    """Close everything up to now, however far behind; Ctrl-C loses nothing, run it again to go on.

    With --from or --to what is already closed in that range is recomputed too, with --interval that interval alone.
    """
    from maven_cli.cli.progress import work_bar
    from maven_cli.passes.backfill import backfill as run

    check_range(start, end)
    with work_bar("Backfilling", quiet=current().quiet or current().json) as bar:
        outcome = run(
            current().services,
            pairs=pair or [],
            start=start,
            end=end,
            interval=interval,
            jobs=jobs,
            progress=lambda done, total: bar(done.total_seconds(), total.total_seconds()),
        )
    return from_outcome(outcome, outcome.data)


@command(app, "gaps")
def gaps(
    pair: Pairs = None,
    start: From = None,
    end: To = None,
    interval: Intervals = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 when there are gaps.")] = False,
) -> Result:
    """List windows that readers can't rely on: traded without a candle, not closed yet, or waiting for a correction.

    A window in which nobody traded is no gap. Looks at the last 7 days unless --from says otherwise.
    """
    from maven_cli.passes.candle_check import find_gaps
    from maven_cli.times import iso

    check_range(start, end)
    outcome = find_gaps(current().services, pairs=pair or [], start=start, end=end, intervals=interval or [])
    found = (outcome.data or {}).get("gaps", [])
    columns = [
        Column("pair"),
        Column("interval"),
        Column("kind"),
        Column("from"),
        Column("to"),
        Column("windows", True),
    ]
    rows = [[g.pair, g.interval, g.kind, iso(g.start), iso(g.end), str(g.windows)] for g in found]
    return Result(
        found,
        lambda out: table(out, columns, rows, empty="no gaps"),
        exit_code=1 if exit_code and found else 0,
    )


@command(app, "verify")
def verify(
    pair: Pairs = None,
    start: From = None,
    end: To = None,
    interval: Intervals = None,
    repair: Annotated[bool, typer.Option("--repair", help="Recompute what differs.")] = False,
) -> Result:
    """Recompute closed candles from raw trades and compare every field exactly; exit 1 when something stays wrong."""
    from maven_cli.cli.progress import work_bar
    from maven_cli.numbers import plain
    from maven_cli.passes.candle_check import LISTED, check
    from maven_cli.times import iso

    check_range(start, end)
    with work_bar("Verifying", quiet=current().quiet or current().json) as bar:
        outcome = check(
            current().services,
            pairs=pair or [],
            start=start,
            end=end,
            intervals=interval or [],
            repair=repair,
            progress=bar,
        )
    if outcome.data is None:
        return from_outcome(outcome, None)
    data = outcome.data
    count, pending = data.get("count", 0), data.get("pending", 0)

    def text(value: object) -> str:
        from decimal import Decimal

        return plain(value) if isinstance(value, Decimal) else "none" if value is None else str(value)

    columns = [
        Column("pair"),
        Column("interval"),
        Column("start"),
        Column("kind"),
        Column("stored → recomputed"),
    ]
    rows = [
        [
            m.pair,
            m.interval,
            iso(m.start),
            m.kind,
            ", ".join(f"{name} {text(before)} → {text(after)}" for name, (before, after) in m.fields.items()),
        ]
        for m in data.get("mismatches", [])
    ]
    listed = f" (the first {LISTED} are listed)" if count > LISTED else ""
    waiting = f"; {pending} wait for the next pass" if pending else ""
    repaired = f"; repaired: {data.get('repaired')} candles rewritten" if repair and count else ""
    verdict = (
        f"{data.get('pairs')} pairs, {count} windows differ from their trades{listed}{waiting}{repaired}"
    )

    def render(out: object) -> None:
        from rich.console import Console

        assert isinstance(out, Console)
        if rows:
            table(out, columns, rows, empty="")
        out.print(verdict)

    wrong = bool(count) and (not repair or bool(outcome.errors))
    return Result(
        data, render, outcome.errors, status="partial" if wrong else "success", exit_code=1 if wrong else 0
    )


@command(app, "show")
def show(
    pair: Annotated[str, typer.Argument(metavar="PAIR", help="Like BTC/USDT.")],
    interval: IntervalOption,
    start: From = None,
    end: To = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            min=1,
            metavar="N",
            help="Only the newest N windows. A table shows 60, a chart as many as fit, "
            "unless --from says where to start; --json shows all.",
        ),
    ] = None,
    fill: Annotated[
        Literal["previous", "none"],
        typer.Option(help="What a window without trades shows: the previous close, or nothing at all."),
    ] = "previous",
    chart: Annotated[bool, typer.Option("--chart/--table", help="Draw them, or list them.")] = False,
) -> Result:
    """Show candles, the running one included. A range holds the windows that start in it.

    Windows that the candle pass hasn't closed yet come from the trades themselves, with `closed` false. A chart shows as
    many of the newest as fit.
    """
    from maven_cli.cli import candle_show
    from maven_cli.cli.output import console
    from maven_cli.db.connection import session
    from maven_cli.market.candle_read import reading
    from maven_cli.market.pairs import resolve_pairs

    check_range(start, end)
    out = console()
    as_many_as_fit = start is None and limit is None
    # A document is read by programs: it is the whole history, streamed.
    if as_many_as_fit and not current().json:
        limit = candle_show.chart_windows(out) if chart else 60
    with session(current().services.database_url, "candles show") as conn:
        found = resolve_pairs(conn, [pair])[0]
        with reading(
            conn, found, interval, start=start, end=end, limit=limit, filled=fill == "previous"
        ) as candles:
            if current().json:
                candle_show.print_document(current().path, candles)
            elif chart:
                candle_show.print_chart(out, found.symbol, interval, candles, as_many_as_fit=as_many_as_fit)
            else:
                candle_show.print_table(out, found.symbol, interval, candles)
            candle_show.warn_of_lag(found.symbol, interval, end, candles)
    # A year of minutes is printed as it is read, never held: there is no result left to render.
    raise typer.Exit(0)
