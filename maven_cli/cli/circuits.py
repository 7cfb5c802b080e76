"""`maven circuits`: what failed again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.output import Result
from maven_cli.cli.parsing import Group
from maven_cli.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from maven_cli.operations.circuits import Circuit

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="What is left alone for a while because it failed again and again."
)


@command(app, "list")
def list_() -> Result:
    """Show every circuit that ever counted a failure: whether it is open, and when it lets a probe through."""
    from maven_cli.db.connection import database_now, session
    from maven_cli.operations import circuits

    with session(current().services.database_url, "circuits list") as conn:
        found = circuits.listed(conn)
        now = database_now(conn)
    return Result(found, lambda out: _table(out, found, now))


def _table(out: Console, found: Sequence[Circuit], now: datetime) -> None:
    from maven_cli.cli.render import Field, print_table, short_age
    from maven_cli.times import iso

    if not found:
        out.print("there are no circuits: nothing has failed as a whole yet")
        return

    def moment(value: datetime | None) -> str:
        return "-" if value is None else iso(value)

    def wait(row: Circuit) -> str:
        if row.retry_at is None:
            return "-"
        return "now" if row.retry_at <= now else short_age(row.retry_at - now)

    fields: list[Field[Circuit]] = [
        Field("name", "NAME", 0, lambda row: row.name, lambda row: row.name, right=False),
        Field("state", "STATE", 0, lambda row: row.state, lambda row: row.state, right=False),
        Field("failures", "FAILURES", 0, lambda row: str(row.failures), lambda row: str(row.failures)),
        Field("opened_at", "", 0, lambda row: moment(row.opened_at), None, right=False),
        Field("retry_at", "RETRY", 0, lambda row: moment(row.retry_at), wait),
        Field("updated_at", "", 0, lambda row: moment(row.updated_at), None, right=False),
        Field(
            "last_error",
            "LAST ERROR",
            0,
            lambda row: row.last_error or "-",
            lambda row: row.last_error or "-",
            right=False,
        ),
    ]
    print_table(out, fields, found)


@command(app, "reset")
def reset(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As in: maven circuits list")],
) -> Result:
    """Close circuits and forget their failures: the next pass runs. All of those named, or none."""
    from maven_cli.db.connection import session
    from maven_cli.operations import circuits

    with session(current().services.database_url, "circuits reset") as conn:
        known = [circuit.name for circuit in circuits.listed(conn)]
        for name in names:
            if name not in known:
                what = f"choose from {', '.join(known)}" if known else "there are none yet"
                raise UsageError(f"no circuit {name!r}; {what}")
        with conn.transaction():
            changed = {name: circuits.reset(conn, name) for name in sorted(set(names))}
    data = [{"name": name, "changed": changed[name]} for name in dict.fromkeys(names)]

    def tell(out: Console) -> None:
        for row in data:
            out.print(f"{row['name']} {'is now' if row['changed'] else 'was already'} closed", markup=False)

    return Result(data, tell)
