"""`maven tickers`: update them, and look at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import AsOf, DryRun, Pairs
from maven_cli.cli.output import Result
from maven_cli.cli.parsing import Group

if TYPE_CHECKING:
    import psycopg
    import redis

    from maven_cli.market.tickers import Ticker

app = typer.Typer(cls=Group, no_args_is_help=True, help="Rolling 24 h statistics of every active pair.")


@command(app, "update")
def update(
    pair: Pairs = None,
    as_of: AsOf = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=32, help="Connections that share the batches of MAVEN_TICKER_BATCH.")
    ] = 1,
    dry_run: DryRun = False,
) -> Result:
    """Compute the last 24 hours of every active pair and write them to Redis.

    With --as-of or --dry-run the tickers are printed instead; Redis and the lock aren't touched.
    """
    from maven_cli.passes import tickers

    outcome = tickers.update(
        current().services, pairs=pair or [], as_of=as_of, dry_run=dry_run, concurrency=concurrency
    )
    if outcome.data is None:
        return from_outcome(outcome, None)
    found: list[Ticker] = outcome.data.pop("tickers")
    if as_of is None and not dry_run:
        return from_outcome(outcome, outcome.data)
    from maven_cli.cli.render import ticker_rows, ticker_table

    data = {**outcome.data, "tickers": ticker_rows(found)}
    return from_outcome(outcome, data, lambda out: ticker_table(out, data["tickers"]))


@command(app, "show")
def show(
    pairs: Annotated[list[str] | None, typer.Argument(metavar="PAIR", help="Only these pairs.")] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing what changes, until Ctrl-C (which exits 0).")
    ] = False,
) -> Result:
    """Show the tickers that Redis has now, and how old they are.

    With --watch a terminal shows a table that stays current; a pipe gets a line per ticker that changed, and --json a
    document a line: all tickers first, then those that changed.
    """
    from maven_cli.cache import open_cache
    from maven_cli.cli.render import ticker_table
    from maven_cli.db.connection import session

    services = current().services
    with session(services.database_url, "tickers show") as conn, open_cache(services.redis_url) as client:
        if watch:
            _watch(conn, client, pairs or [])
        rows = _rows(conn, client, pairs or [])
    return Result(rows, lambda out: ticker_table(out, rows))


def _rows(conn: psycopg.Connection, client: redis.Redis, symbols: list[str]) -> list[dict[str, Any]]:
    """The named pairs, or all active ones: `ticker_rows` with their age, and a note where there is no ticker."""
    from maven_cli.cli.render import missing_row, ticker_rows
    from maven_cli.db.connection import database_now
    from maven_cli.market import ticker_read
    from maven_cli.market.pairs import all_pairs, resolve_pairs

    if symbols:
        pairs = resolve_pairs(conn, symbols)
    else:
        pairs = [pair for pair in all_pairs(conn) if pair.status == "ACTIVE"]
    found = ticker_read.read(client, pairs)
    now = database_now(conn)
    rows = []
    for pair, ticker in zip(pairs, found, strict=True):
        if ticker is None:
            rows.append({**missing_row(pair), "age": None})
        else:
            rows.append({**ticker_rows([ticker])[0], "note": None, "age": now - ticker.as_of})
    return rows


def _watch(conn: psycopg.Connection, client: redis.Redis, symbols: list[str]) -> NoReturn:
    """Shows the tickers until a signal: at every message of the ticker channel, and once a second for their age."""
    from maven_cli.cli.live import until_stopped
    from maven_cli.cli.output import console
    from maven_cli.cli.render import ticker_screen
    from maven_cli.market.tickers import CHANNEL

    out = console()
    with client.pubsub(ignore_subscribe_messages=True) as messages:  # type: ignore[no-untyped-call]
        messages.subscribe(CHANNEL)

        def wait(seconds: float) -> None:
            if messages.get_message(timeout=seconds) is not None:
                while messages.get_message(timeout=0) is not None:
                    pass

        if out.is_terminal and not current().json:
            until_stopped(out, lambda: ticker_screen(out, _rows(conn, client, symbols)), wait)
        else:
            _lines(conn, client, symbols, wait)
    raise typer.Exit(0)


def _lines(
    conn: psycopg.Connection, client: redis.Redis, symbols: list[str], wait: Callable[[float], None]
) -> None:
    """What changed since the last look, as lines: a JSON document each time, or one line per ticker."""
    from maven_cli.cli.live import stopping
    from maven_cli.cli.output import document
    from maven_cli.cli.render import ticker_line

    shown: dict[str, Any] = {}
    with stopping() as stopped:
        while not stopped():
            rows = _rows(conn, client, symbols)
            changed = [row for row in rows if row["pair"] not in shown or shown[row["pair"]] != row["as_of"]]
            shown = {row["pair"]: row["as_of"] for row in rows}
            if changed and current().json:
                print(document(current().path, Result(changed)), flush=True)
            for row in changed if not current().json else ():
                print(ticker_line(row), flush=True)
            wait(0.5)
