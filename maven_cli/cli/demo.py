"""`maven demo`: a sample exchange from nothing to a chart, on servers of its own."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.output import Result

if TYPE_CHECKING:
    import psycopg
    import redis
    from rich.console import Console
    from rich.text import Text

    from maven_cli.cli.render import Row
    from maven_cli.cli.services import LazyServices
    from maven_cli.demo.books import Orders
    from maven_cli.demo.build import Demo, Step
    from maven_cli.demo.live import Engine
    from maven_cli.market.candle_view import Candle
    from maven_cli.settings import Settings

app = typer.Typer(help="A sample exchange.")

HISTORY_CHART = "15m"  # what the closing picture shows of the two days
LIVE_CHART = "1m"


@command(app, "demo")
def demo(
    live: Annotated[
        bool,
        typer.Option("--live", help="Keep the market trading and the passes running, until Ctrl-C (exit 0)."),
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Another number gives another market.")] = 7,
    pairs: Annotated[int, typer.Option(min=1, max=7, help="How many pairs.")] = 7,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="With MAVEN_DATABASE_URL: run beside other pairs too; they stay as they are."
        ),
    ] = False,
) -> Result:
    """Simulate an exchange: two days of trades, live orders, candles and tickers; expire what is due, and prove the books.

    It lives in a home of its own, the directory `demo` in maven's home, so that nothing of yours is touched; every run
    starts anew. With MAVEN_DATABASE_URL it uses that database, but only an empty one or one that it made.
    """
    from maven_cli.db.locks import pass_lock
    from maven_cli.demo.build import build, start
    from maven_cli.demo.exchange import MARKETS
    from maven_cli.errors import LockHeldError, TryLaterError

    services, prefix = _services(current().settings)
    with _quiet_passes(), _reporting() as (report, steps):
        start(services, report)
        try:
            with pass_lock(services.lock_url, "demo"):
                made = build(services, seed=seed, markets=MARKETS[:pairs], yes=yes, report=report)
                if live:
                    _live(services, made)
                return _finished(services, made, steps, _commands(prefix, made), seed)
        except LockHeldError as held:
            raise TryLaterError("another maven demo is running there; end it first") from held


def _services(settings: Settings) -> tuple[LazyServices, str]:
    """The demo's own servers, and what a command needs in front of it to use them too."""
    from maven_cli import embedded
    from maven_cli.cli.services import LazyServices

    home = (settings.home or embedded.default_home()) / "demo"
    prefix = f"MAVEN_HOME={shlex.quote(str(home))} " if settings.embedded else ""
    # Its orders are in the database alone: a matching engine that MAVEN_ENGINE names never heard of them.
    changes: dict[str, Any] = {"home": home, "engine": "none", "expiry_require_engine": False}
    if settings.database_url is None:
        # A MAVEN_REDIS_URL alone belongs to somebody's exchange: its tickers mustn't become the demo's.
        changes |= {"redis_url": None, "lock_database_url": None}
        prefix = ("MAVEN_REDIS_URL= " if settings.redis_url is not None else "") + prefix
    return LazyServices(settings.model_copy(update=changes), announce=False), prefix


def _commands(prefix: str, made: Demo) -> list[str]:
    """What to try next, ready to be pasted into this shell."""
    maven = _invocation()
    pair = made.pairs[min(1, len(made.pairs) - 1)].symbol
    return [
        f"{prefix}{maven} candles show {pair} --interval 5m --chart",
        f"{prefix}{maven} orders expiring",
        f"{maven} demo --live",
    ]


def _invocation() -> str:
    """How this very program is called from this shell."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m maven_cli"
    found = shutil.which("maven")
    if found is not None and Path(found).resolve() == program.resolve():
        return "maven"
    return shlex.quote(str(program.absolute()))


@contextmanager
def _quiet_passes() -> Iterator[None]:
    """The passes' own messages would tear the screen; their failures and --verbose still show."""
    from maven_cli.logs import logger

    level = logger.level
    if level == logging.INFO:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _reporting() -> Iterator[tuple[Callable[[Step], None], list[Step]]]:
    """A function that prints each step as it ends (a terminal also shows the one that runs), and the list of them."""
    from maven_cli.cli.demo_screen import step_line
    from maven_cli.cli.output import console

    out, as_json = console(), current().json
    steps: list[Step] = []
    status = out.status("") if out.is_terminal and not as_json else None

    def report(step: Step) -> None:
        if step.seconds is not None:
            steps.append(step)
            if status is not None:
                status.stop()
            if not as_json:
                out.print(step_line(out, step))
        elif status is not None:
            status.update(step.name)
            status.start()

    try:
        yield report, steps
    finally:
        if status is not None:
            status.stop()


def _finished(
    services: LazyServices, made: Demo, steps: Sequence[Step], commands: list[str], seed: int
) -> Result:
    """The closing picture: what expired, the audit, tickers, a chart, what to try next."""
    from rich.text import Text

    from maven_cli.cli.candle_show import chart_size, chart_windows
    from maven_cli.cli.demo_screen import audit_line, chart_text, expired_table
    from maven_cli.cli.render import ticker_rows, ticker_table

    rows = ticker_rows(made.tickers)
    pair = made.pairs[0]
    total = sum((step.seconds for step in steps if step.seconds is not None), timedelta(0))

    def text(out: Console) -> None:
        width, height = chart_size(out)
        out.print()
        expired_table(out, made.expired)
        out.print(audit_line(out, made.audit))
        out.print()
        ticker_table(out, rows)
        out.print()
        # With the commands below it the chart fills a screen.
        candles = _candles(services, made, HISTORY_CHART, chart_windows(out))
        drawn = chart_text(
            out, f"{pair.symbol} {HISTORY_CHART}", candles, width, max(10, min(height - 5, 24))
        )
        print_lines(out, drawn)
        out.print(f"\nDone in {total.total_seconds():.1f} s. Try next:")
        for line in commands:
            # Never cut, and never broken but by the terminal itself: it is there to be pasted.
            out.print(Text(f"  {line}", "bold"), soft_wrap=True)

    data = {
        "as_of": made.as_of,
        "seed": seed,
        "trades": made.trades,
        "candles": made.candles,
        "seconds": total,
        "steps": steps,
        "orders": {
            "placed": made.placed,
            "live": len(made.orders),
            "expired": made.expired,
            "released_usdt": made.released,
            "events": made.events,
        },
        "audit": made.audit,
        "tickers": rows,
        "chart": {
            "pair": pair.symbol,
            "interval": HISTORY_CHART,
            "candles": _candles(services, made, HISTORY_CHART, 96),
        },
        "commands": commands,
    }
    return Result(data, text)


def print_lines(out: Console, text: Text) -> None:
    """Prints a text as it is: cut at a terminal's edge, whole elsewhere."""
    if out.is_terminal:
        out.print(text, no_wrap=True, overflow="crop", crop=True)
    else:
        print(text.plain, file=out.file)


def _candles(services: LazyServices, made: Demo, interval: str, count: int) -> list[Candle]:
    """The newest candles of the demo's first pair."""
    from maven_cli.db.connection import session
    from maven_cli.intervals import INTERVALS
    from maven_cli.market.candle_read import reading

    with (
        session(services.database_url, "demo chart") as conn,
        reading(conn, made.pairs[0], INTERVALS[interval], limit=count) as found,
    ):
        return list(found.candles)


def _live(services: LazyServices, made: Demo) -> NoReturn:
    """The dashboard, or in a pipe a line per ticker and run, until a signal; then the audit. Exit 1 when a row is wrong."""
    from maven_cli.cache import open_cache
    from maven_cli.cli.demo_screen import audit_line
    from maven_cli.cli.output import console, document
    from maven_cli.db.connection import session
    from maven_cli.demo.build import audit
    from maven_cli.demo.live import Engine

    out = console()
    show = _screen if out.is_terminal and not current().json else _lines
    with (
        session(services.database_url, "demo live") as conn,
        open_cache(services.redis_url) as client,
    ):
        with Engine(services, made).running() as engine:
            show(out, engine, conn, client)
        # Ctrl-C: nothing moves any more, and everything that did must add up.
        verdict = audit(services)
        if current().json:
            print(document("demo", Result({"audit": verdict})), flush=True)
        else:
            out.print(audit_line(out, verdict))
    raise typer.Exit(1 if verdict.wrong else 0)


def _screen(out: Console, engine: Engine, conn: psycopg.Connection, client: redis.Redis) -> None:
    from maven_cli.cli.candle_show import chart_windows
    from maven_cli.cli.demo_screen import dashboard
    from maven_cli.cli.live import until_stopped
    from maven_cli.db.connection import database_now
    from maven_cli.demo.live import courses, last_runs
    from maven_cli.intervals import INTERVALS
    from maven_cli.market.candle_read import reading

    pair = engine.demo.pairs[0]

    def draw() -> Text:
        engine.check()
        now = database_now(conn)
        with reading(conn, pair, INTERVALS[LIVE_CHART], limit=chart_windows(out)) as found:
            candles = list(found.candles)
        return dashboard(
            out,
            now=now,
            trades=engine.trades,
            rows=_rows(engine, client, now),
            orders=_orders(engine, client, conn, now),
            courses=courses(conn, now),
            # Without what ran only once, at the start.
            runs=[run for run in last_runs(conn) if run.scope != "candles:backfill"],
            chart=(f"{pair.symbol} {LIVE_CHART}", candles),
        )

    until_stopped(out, draw, time.sleep)


def _lines(_out: Console, engine: Engine, conn: psycopg.Connection, client: redis.Redis) -> None:
    """After each ticker pass what it found, and the worker runs since the last look."""
    from maven_cli.cli.demo_screen import orders_line
    from maven_cli.cli.live import stopping
    from maven_cli.cli.output import document
    from maven_cli.cli.render import ticker_line
    from maven_cli.db.connection import database_now
    from maven_cli.demo.live import last_runs
    from maven_cli.times import iso

    passes, seen = 0, {run.scope: run.started_at for run in last_runs(conn)}
    with stopping() as stopped:
        while not stopped():
            engine.check()
            if engine.ticker_passes == passes:
                time.sleep(0.1)
                continue
            passes = engine.ticker_passes
            now = database_now(conn)
            rows = _rows(engine, client, now)
            orders = _orders(engine, client, conn, now)
            runs = [run for run in last_runs(conn) if seen.get(run.scope) != run.started_at]
            seen |= {run.scope: run.started_at for run in runs}
            if current().json:
                print(
                    document(
                        "demo",
                        Result({"trades": engine.trades, "tickers": rows, "orders": orders, "runs": runs}),
                    ),
                    flush=True,
                )
                continue
            for row in rows:
                print(ticker_line(row))
            print(orders_line(orders, now))
            for run in runs:
                print(f"{iso(run.started_at)} {run.scope} {run.outcome} {run.duration_ms}ms")
            sys.stdout.flush()


def _orders(engine: Engine, client: redis.Redis, conn: psycopg.Connection, now: datetime) -> Orders:
    """The demo's orders at this moment."""
    from maven_cli.demo import books
    from maven_cli.market import ticker_read

    newest = books.expired(conn)
    minute = [one for one in newest if one.at > now - timedelta(minutes=1)]
    tickers = [ticker for ticker in ticker_read.read(client, engine.demo.pairs) if ticker is not None]
    return books.Orders(books.live(conn), len(minute), books.worth(minute, tickers), newest[:5])


def _rows(engine: Engine, client: redis.Redis, now: datetime) -> list[Row]:
    """The demo's tickers as Redis has them."""
    from maven_cli.cli.render import missing_row, ticker_rows
    from maven_cli.market import ticker_read

    found = ticker_read.read(client, engine.demo.pairs)
    return [
        {**missing_row(pair), "age": None}
        if ticker is None
        else {**ticker_rows([ticker])[0], "note": None, "age": now - ticker.as_of}
        for pair, ticker in zip(engine.demo.pairs, found, strict=True)
    ]
