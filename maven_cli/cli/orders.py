"""`maven orders`: expire them, and look at them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import AsOf, DryRun, Pairs, option_parser
from maven_cli.cli.output import Column, Result, table
from maven_cli.cli.parsing import Group
from maven_cli.times import parse_duration

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(cls=Group, no_args_is_help=True, help="Orders past their end: expire them, look at them.")


@command(app, "expire")
def expire(
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many orders.")
    ] = None,
    pair: Pairs = None,
    as_of: AsOf = None,
    dry_run: DryRun = False,
) -> Result:
    """End every order that is past its end: out of the engine, EXPIRED, its locked balance released once.

    With --dry-run the orders that would end are listed; the engine isn't asked.
    """
    from maven_cli.passes import expiry

    outcome = expiry.expire(current().services, pairs=pair or [], as_of=as_of, limit=limit, dry_run=dry_run)
    return from_outcome(
        outcome, outcome.data, (lambda out: _expired(out, outcome.data or {})) if dry_run else None
    )


def _expired(out: Console, data: dict[str, Any]) -> None:
    from maven_cli.numbers import plain

    columns = [Column("ORDER", True), Column("RELEASES", True), Column("ASSET"), Column("LOCK", True)]
    rows = [
        [str(one.id), plain(one.released), one.asset, "-" if one.lock_id is None else str(one.lock_id)]
        for one in data["orders"]
    ]
    table(out, columns, rows, empty="no order would expire")


@command(app, "expiring")
def expiring(
    within: Annotated[
        timedelta,
        typer.Option(
            parser=option_parser(parse_duration),
            metavar="DURATION",
            help="How far to look ahead; 0 shows what is due now.",
        ),
    ] = "1h",  # type: ignore[assignment]  # Typer parses defaults, too
    pair: Pairs = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many orders.")
    ] = 1000,
) -> Result:
    """Show which orders end soon, or should have ended, and what each gives back."""
    from maven_cli.db.connection import database_now, session
    from maven_cli.market.pairs import resolve_pairs
    from maven_cli.orders import read

    with session(current().services.database_url, "orders expiring") as conn:
        pairs = [one.id for one in resolve_pairs(conn, pair)] if pair else None
        now = database_now(conn)
        rows = read.expiring(conn, now + within, pairs=pairs, limit=limit)
    for row in rows:
        row["within"] = row["expires_at"] - now
    return Result(rows, lambda out: _expiring(out, rows, limit))


def _expiring(out: Console, rows: list[dict[str, Any]], limit: int) -> None:
    from decimal import Decimal

    from maven_cli.numbers import plain
    from maven_cli.times import iso

    columns = [
        Column("ORDER", True),
        Column("USER", True),
        Column("PAIR"),
        Column("SIDE"),
        Column("REMAINING", True),
        Column("EXPIRES"),
        Column("RELEASES", True),
        Column("ASSET"),
        Column("STATE"),
    ]
    table(
        out,
        columns,
        [
            [
                str(row["id"]),
                str(row["user_id"]),
                row["pair"] or "-",
                row["side"],
                plain(row["remaining"]),
                iso(row["expires_at"].replace(microsecond=0)),
                "-" if row["releases"] is None else plain(row["releases"]),
                row["asset"] or "-",
                row["state"],
            ]
            for row in rows
        ],
        empty="no order ends within that time",
    )
    totals: dict[str, Decimal] = {}
    for row in rows:
        if row["releases"] is not None and row["asset"]:
            totals[row["asset"]] = totals.get(row["asset"], Decimal(0)) + row["releases"]
    if rows:
        held = ", ".join(f"{plain(amount)} {asset}" for asset, amount in sorted(totals.items()))
        cut = " (the first of more; see --limit)" if len(rows) == limit else ""
        out.print(f"{len(rows)} orders{cut}, releasing {held or 'nothing'}", markup=False)


@command(app, "show")
def show(
    order: Annotated[int, typer.Argument(metavar="ID", min=1, help="The order's id.")],
) -> Result:
    """Tell an order's story: from the order, the ledger, the engine's answers and the events."""
    from maven_cli.db.connection import session
    from maven_cli.orders import read

    with session(current().services.database_url, "orders show") as conn:
        found = read.order(conn, order)
    return Result(found, lambda out: _story(out, found))


def _story(out: Console, found: dict[str, Any]) -> None:
    from maven_cli.numbers import plain
    from maven_cli.times import iso

    lock = "no lock"
    if found["lock_id"] is not None:
        lock = f"lock {found['lock_id']} holds {plain(found['lock_remaining'])}"
    out.print(
        f"Order {found['id']} of user {found['user_id']}: {found['side']} {found['pair'] or 'of a pair that is gone'}, "
        f"{found['status']}, {plain(found['remaining_quantity'])} left, {lock}",
        markup=False,
    )
    rows = [[iso(row["at"]), row["what"], row["detail"] or ""] for row in found["story"]]
    table(out, [Column("WHEN"), Column("WHAT"), Column("")], rows, empty="nothing is known about it")
