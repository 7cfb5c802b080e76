"""`maven trades`: bring them in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.output import Result
from maven_cli.cli.parsing import Group

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from maven_cli.market.trade_import import Imported

app = typer.Typer(cls=Group, no_args_is_help=True, help="Bring trades in.")


@app.callback()
def group() -> None:
    """Bring trades in."""


@command(app, "import")
def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV or Binance trade dump, also gzip; - is stdin.")
    ],
    pair: Annotated[
        str, typer.Option("--pair", "-p", metavar="SYMBOL", help="The pair that the trades belong to.")
    ],
    create_pair: Annotated[
        bool, typer.Option("--create-pair", help="Add the pair if it isn't there.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every line against the database too, and import nothing.")
    ] = False,
) -> Result:
    """Import a file of trades: all of it or nothing. Importing it again changes nothing.

    A CSV names its columns in the first line: trade_id, executed_at_ms or executed_at, price, quantity and, if known,
    side. Binance's public trade dumps have no header and are read as they are.
    """
    from maven_cli.db.connection import session
    from maven_cli.market.trade_files import open_trade_file
    from maven_cli.market.trade_import import import_trades

    with (
        _progress(file) as advance,
        open_trade_file(file, advance) as trades,
        session(current().services.database_url, "trades import") as conn,
    ):
        found = import_trades(conn, trades, pair, create_pair=create_pair, dry_run=dry_run)
    return Result(found, lambda out: _tell(out, found))


def _tell(out: Console, found: Imported) -> None:
    verb = "Would import" if found.dry_run else "Imported"
    there = f"{found.already_there} {'was' if found.already_there == 1 else 'were'} already there"
    line = (
        f"{verb} {found.imported} {'trade' if found.imported == 1 else 'trades'} into {found.pair} ({there})"
    )
    if found.first_executed_at and found.last_executed_at:
        line += f", {_short(found.first_executed_at)} to {_short(found.last_executed_at)}"
    out.print(line, markup=False)


def _short(moment: datetime) -> str:
    """Without the zeros at the end of a fraction: ``2019-10-11T00:00:11.62Z``."""
    from maven_cli.times import iso

    text = iso(moment).removesuffix("Z")
    return f"{text.rstrip('0') if '.' in text else text}Z"


@contextmanager
def _progress(path: str) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr for whoever watches a file being read."""
    from maven_cli.cli.output import console
    from maven_cli.market.trade_files import file_size

    size = file_size(path)
    if size is None or current().quiet or current().json or not sys.stderr.isatty():
        yield None
        return
    screen = console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        console=screen,
        transient=True,
    ) as bar:
        task = bar.add_task("Importing", total=size)
        yield lambda taken: bar.update(task, completed=taken)
