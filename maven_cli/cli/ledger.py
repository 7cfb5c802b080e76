"""`maven ledger`: look at a wallet, adjust it with a second person, say who checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.operator import operator_name
from maven_cli.cli.output import Column, Result, table
from maven_cli.cli.parsing import Group

if TYPE_CHECKING:
    from decimal import Decimal

    from rich.console import Console

    from maven_cli.ledger.wallets import WalletView

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Wallets and their ledger: look, adjust, say who checks."
)
adjust = typer.Typer(
    cls=Group, no_args_is_help=True, help="Correct a balance: one operator proposes, another approves."
)
app.add_typer(adjust, name="adjust")

Wallet = Annotated[str, typer.Argument(metavar="WALLET", help="A wallet's id, or USER/ASSET like 42/BTC.")]
Adjustment = Annotated[str, typer.Argument(metavar="ID", help="The adjustment's id.")]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, metavar="N", help="How many.")]


@command(app, "show")
def show(wallet: Wallet, limit: Limit = 20) -> Result:
    """Show a wallet: its balances, its open locks, and its newest entries with the balance after each."""
    from maven_cli.db.connection import session
    from maven_cli.ledger.wallets import read_wallet

    with session(current().services.database_url, "ledger show") as conn:
        found = read_wallet(conn, wallet, limit)
    return Result(found, lambda out: _wallet(out, found))


def _wallet(out: Console, found: WalletView) -> None:
    from maven_cli.numbers import plain
    from maven_cli.times import iso

    row = found.wallet
    out.print(
        f"wallet {row['id']}: user {row['user_id']}, {plain(row['available'])} {row['asset']} available,"
        f" {plain(row['locked'])} locked",
        markup=False,
    )
    if (row["available"], row["locked"]) != (row["entry_available"], row["entry_locked"]):
        out.print(
            f"its newest entry says {plain(row['entry_available'])} available and {plain(row['entry_locked'])} locked:"
            " the platform has moved it since",
            markup=False,
        )
    table(
        out,
        [
            Column("LOCK", right=True),
            Column("KIND"),
            Column("REFERENCE"),
            Column("REMAINING", right=True),
            Column("OF", right=True),
            Column("SINCE"),
            Column("ORDERS"),
        ],
        [
            [
                str(lock["id"]),
                lock["kind"],
                lock["reference"],
                plain(lock["remaining"]),
                plain(lock["amount"]),
                iso(lock["created_at"]),
                ", ".join(map(str, lock["order_ids"])) or "-",
            ]
            for lock in found.locks
        ],
        empty="no open locks",
    )
    table(
        out,
        [
            Column("ENTRY", right=True),
            Column("TIME"),
            Column("KIND"),
            Column("REFERENCE"),
            Column("AVAILABLE", right=True),
            Column("LOCKED", right=True),
            Column("AVAILABLE AFTER", right=True),
            Column("LOCKED AFTER", right=True),
            Column("NOTE"),
        ],
        [
            [
                str(entry["seq"]),
                iso(entry["created_at"]),
                entry["kind"],
                entry["reference"],
                _signed(entry["available_delta"]),
                _signed(entry["locked_delta"]),
                plain(entry["available_after"]),
                plain(entry["locked_after"]),
                f"{entry['reason']} (proposed by {entry['proposed_by']}, approved by {entry['decided_by']})"
                if entry["reason"]
                else "",
            ]
            for entry in found.entries
        ],
        empty="no entries",
    )


def _signed(amount: Decimal) -> str:
    from maven_cli.numbers import plain

    return f"+{plain(amount)}" if amount > 0 else plain(amount)


@command(app, "mode")
def mode(
    wanted: Annotated[
        Literal["enforced", "observed"] | None,
        typer.Argument(metavar="[enforced|observed]", help="The mode to change to; without it, show it."),
    ] = None,
) -> Result:
    """Show or change who checks balances: the database (enforced), or only the audit (observed).

    Entering the enforced mode writes an opening entry for each balance that the ledger doesn't know; wallets can't move
    while it does.
    """
    from maven_cli.db.connection import session
    from maven_cli.ledger.adjustments import read_mode, set_mode
    from maven_cli.times import iso

    with session(current().services.database_url, "ledger mode") as conn:
        found = (
            read_mode(conn) if wanted is None else set_mode(conn, wanted, operator_name(current().settings))
        )
    opened = f"; {found.opened} opening entries written" if found.opened else ""
    message = f"{found.mode} since {iso(found.changed_at)}, by {found.changed_by}{opened}"
    return Result(found, lambda out: out.print(message, markup=False))


# A negative amount begins like an option.
@command(adjust, "propose", context_settings={"ignore_unknown_options": True})
def propose(
    wallet: Wallet,
    amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="Added to what is available; with a minus taken away.")
    ],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever reads it later.")],
) -> Result:
    """Propose a correction of a balance. Nothing moves until somebody else approves it."""
    from maven_cli.db.connection import session
    from maven_cli.errors import UsageError
    from maven_cli.ledger import adjustments

    try:
        exact = adjustments.parse_amount(amount)
    except ValueError as error:
        raise UsageError(f"AMOUNT: {error}") from None
    operator = operator_name(current().settings)
    with session(current().services.database_url, "ledger adjust") as conn:
        row = adjustments.propose(conn, wallet, exact, reason, operator)
    message = (
        f"proposed {row['id']}: {_signed(exact)} {row['asset']} for user {row['user_id']} (wallet {row['wallet_id']});"
        f" somebody other than {operator} approves it with: maven ledger adjust approve {row['id']}"
    )
    return Result(row, lambda out: out.print(message, markup=False))


@command(adjust, "list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that were decided, too.")] = False,
    limit: Limit = 100,
) -> Result:
    """List the adjustments that wait for a decision, newest first."""
    from maven_cli.db.connection import session
    from maven_cli.ledger.adjustments import adjustments

    with session(current().services.database_url, "ledger adjust") as conn:
        found = adjustments(conn, everything=everything, limit=limit)
    return Result(found, lambda out: _adjustments(out, found))


def _adjustments(out: Console, found: list[dict[str, Any]]) -> None:
    from maven_cli.times import iso

    columns = [
        Column("ID"),
        Column("WALLET", right=True),
        Column("USER", right=True),
        Column("AMOUNT", right=True),
        Column("STATE"),
        Column("PROPOSED BY"),
        Column("AT"),
        Column("DECIDED BY"),
        Column("REASON"),
    ]
    rows = [
        [
            row["id"],
            str(row["wallet_id"]),
            str(row["user_id"]),
            f"{_signed(row['amount'])} {row['asset']}",
            row["state"],
            row["proposed_by"],
            iso(row["proposed_at"]),
            row["decided_by"] or "-",
            row["reason"] + (f"; rejected: {row['rejection']}" if row["rejection"] else ""),
        ]
        for row in found
    ]
    table(out, columns, rows, empty="no adjustments")


@command(adjust, "approve")
def approve(adjustment: Adjustment) -> Result:
    """Post a proposed adjustment. Whoever proposed it can't."""
    from maven_cli.db.connection import session
    from maven_cli.ledger import adjustments

    with session(current().services.database_url, "ledger adjust") as conn:
        row = adjustments.approve(
            conn, adjustments.parse_adjustment(adjustment), operator_name(current().settings)
        )
    message = (
        f"posted {_signed(row['amount'])} {row['asset']} to wallet {row['wallet_id']} as entry {row['seq']}"
        f" (proposed by {row['proposed_by']}, approved by {row['decided_by']}): {row['reason']}"
    )
    return Result(row, lambda out: out.print(message, markup=False))


@command(adjust, "reject")
def reject(
    adjustment: Adjustment,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why it is turned down.")],
) -> Result:
    """Turn a proposed adjustment down. It stays on record."""
    from maven_cli.db.connection import session
    from maven_cli.ledger import adjustments

    with session(current().services.database_url, "ledger adjust") as conn:
        row = adjustments.reject(
            conn, adjustments.parse_adjustment(adjustment), reason, operator_name(current().settings)
        )
    message = f"rejected {row['id']} by {row['decided_by']}: {row['rejection']}"
    return Result(row, lambda out: out.print(message, markup=False))
