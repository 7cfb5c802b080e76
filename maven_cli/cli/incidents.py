"""`maven incidents`: what only a person can decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.operator import operator_name
from maven_cli.cli.options import Id, Reason, check_reason
from maven_cli.cli.output import Result, facts, jsonable
from maven_cli.cli.parsing import Group
from maven_cli.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg
    from rich.console import Console

    from maven_cli.operations.incidents import Incident

app = typer.Typer(cls=Group, no_args_is_help=True, help="What only a person can decide.")


@command(app, "list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    kind: Annotated[
        str | None, typer.Option("--kind", "-k", metavar="KIND", help="Only of this kind.")
    ] = None,
) -> Result:
    """Show the incidents that wait for a decision, oldest first."""
    from maven_cli.db.connection import database_now, session
    from maven_cli.operations import incidents

    with session(current().services.database_url, "incidents list") as conn:
        found = incidents.listed(conn, kind=kind, everything=everything)
        now = database_now(conn)
    return Result(found, lambda out: _table(out, found, now, everything))


def _table(out: Console, found: Sequence[Incident], now: datetime, everything: bool) -> None:
    from maven_cli.cli.render import Field, print_table, short_age
    from maven_cli.times import iso

    if not found:
        out.print("there are no incidents" if everything else "there are no open incidents")
        return

    def resolved(row: Incident) -> str:
        return "-" if row.resolved_at is None else iso(row.resolved_at)

    def state(row: Incident) -> str:
        return "open" if row.resolved_at is None else "resolved"

    fields: list[Field[Incident]] = [
        Field("id", "ID", 0, lambda row: str(row.id), lambda row: str(row.id)),
        Field("kind", "KIND", 0, lambda row: row.kind, lambda row: row.kind, right=False),
        Field("item", "ITEM", 0, lambda row: row.item, lambda row: row.item, right=False),
        Field("", "STATE", 0, None, state if everything else None, right=False),
        Field(
            "opened_at", "AGE", 0, lambda row: iso(row.opened_at), lambda row: short_age(now - row.opened_at)
        ),
        Field("last_seen_at", "", 0, lambda row: iso(row.last_seen_at), None, right=False),
        Field("resolved_at", "", 0, resolved, None, right=False),
        Field("summary", "SUMMARY", 0, lambda row: row.summary, lambda row: row.summary, right=False),
    ]
    print_table(out, fields, found)


@command(app, "show")
def show(number: Id) -> Result:
    """Show everything about one incident."""
    from maven_cli.db.connection import session

    with session(current().services.database_url, "incidents show") as conn:
        incident = _named(conn, number)
    return Result(incident, lambda out: _show(out, incident))


def _show(out: Console, incident: Incident) -> None:
    import json

    known = jsonable(incident)
    details = {
        f"details.{name}": value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in known.pop("details").items()
    }
    facts(out, [*known.items(), *details.items()])


@command(app, "resolve")
def resolve(number: Id, reason: Reason) -> Result:
    """Close an incident, with the reason and your name. A pass that still finds it opens a new one."""
    from maven_cli.db.connection import session
    from maven_cli.operations import incidents

    why = check_reason(reason)
    who = operator_name(current().settings)
    with session(current().services.database_url, "incidents resolve") as conn, conn.transaction():
        changed = incidents.resolve(conn, number, by=who, reason=why)
        incident = _named(conn, number)
    name = f"incident {number} ({incident.kind} {incident.item})"
    message = (
        f"{name} is resolved"
        if changed
        else f"{name} was already resolved by {incident.resolved_by}: {incident.reason}"
    )
    return Result({**jsonable(incident), "changed": changed}, lambda out: out.print(message, markup=False))


def _named(conn: psycopg.Connection, number: int) -> Incident:
    """The incident with that id. Raises UsageError."""
    from maven_cli.operations import incidents

    incident = incidents.find(conn, number)
    if incident is None:
        raise UsageError(f"there is no incident {number}; see: maven incidents list --all")
    return incident
