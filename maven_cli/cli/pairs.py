"""`maven pairs`: list, add, activate and halt them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.output import Column, Result, table
from maven_cli.cli.parsing import Group

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

app = typer.Typer(cls=Group, no_args_is_help=True, help="List, add, activate and halt trading pairs.")

Symbols = Annotated[list[str], typer.Argument(metavar="SYMBOL...", help="Pairs like BTC/USDT.")]


@command(app, "list")
def list_() -> Result:
    """Show every pair: its status, its newest trade, and up to where its candles are closed."""
    from psycopg.rows import dict_row

    from maven_cli.db.connection import session
    from maven_cli.db.queries import load

    with session(current().services.database_url, "pairs list") as conn:
        found = conn.cursor(row_factory=dict_row).execute(load("market", "pairs_list")).fetchall()
    return Result(found, lambda out: _table(out, found))


def _table(out: Console, found: list[dict[str, Any]]) -> None:
    columns = [
        Column("ID", right=True),
        Column("PAIR"),
        Column("STATUS"),
        Column("LAST TRADE"),
        Column("CANDLES CLOSED UNTIL"),
    ]
    rows = [
        [
            str(row["id"]),
            row["symbol"],
            row["status"],
            _time(row["last_trade_at"]),
            _time(row["closed_until"]),
        ]
        for row in found
    ]
    table(out, columns, rows, empty="there are no pairs yet: maven pairs add BTC/USDT")


def _time(moment: datetime | None) -> str:
    from maven_cli.times import iso

    return iso(moment) if moment else "-"


@command(app, "add")
def add(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="BASE/QUOTE, like BTC/USDT.")],
    halted: Annotated[
        bool, typer.Option("--halted", help="Without tickers and candles until it is activated.")
    ] = False,
) -> Result:
    """Add a pair, and its assets if they are new. One that is there already stays as it is."""
    from maven_cli.db.connection import session
    from maven_cli.market.pairs import add_pair, all_pairs, split_symbol

    symbol = "/".join(split_symbol(symbol))
    with session(current().services.database_url, "pairs add") as conn:
        added = all(pair.symbol != symbol for pair in all_pairs(conn))
        pair = add_pair(conn, symbol, active=not halted)
    message = (
        f"added {pair.symbol} ({pair.status})" if added else f"{pair.symbol} is there already ({pair.status})"
    )
    data = {"id": pair.id, "symbol": pair.symbol, "status": pair.status, "added": added}
    return Result(data, lambda out: out.print(message, markup=False))


@command(app, "activate")
def activate(symbols: Symbols) -> Result:
    """Give pairs tickers and candles again. All of those named, or none."""
    return _set_status(symbols, "ACTIVE")


@command(app, "halt")
def halt(symbols: Symbols) -> Result:
    """Stop the tickers and candles of pairs; their trades and candles stay. All of those named, or none."""
    return _set_status(symbols, "HALTED")


def _set_status(symbols: list[str], status: str) -> Result:
    from maven_cli.db.connection import session
    from maven_cli.market.pairs import resolve_pairs, set_status

    with session(current().services.database_url, "pairs") as conn, conn.transaction():
        before = resolve_pairs(conn, symbols)
        # By id, so that two who change the same pairs wait for each other instead of deadlocking.
        for pair in sorted(before, key=lambda pair: pair.id):
            set_status(conn, pair.symbol, status)
    data = [
        {"id": pair.id, "symbol": pair.symbol, "status": status, "changed": pair.status != status}
        for pair in before
    ]

    def tell(out: Console) -> None:
        for row in data:
            out.print(
                f"{row['symbol']} {'is now' if row['changed'] else 'was already'} {status}", markup=False
            )

    return Result(data, tell)
