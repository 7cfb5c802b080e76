"""`maven dlq`: items that failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.operator import operator_name
from maven_cli.cli.options import Id, Ids, Reason, check_reason, option_parser, parse_id
from maven_cli.cli.output import Result, facts
from maven_cli.cli.parsing import Group
from maven_cli.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg
    from rich.console import Console

    from maven_cli.operations.dead_letters import DeadLetter

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Dead letters: items that failed; look at them, retry or discard them.",
)

WorkerName = Annotated[
    str | None,
    typer.Option("--worker", "-w", metavar="NAME", help="Only of this worker, as in orders-expire."),
]


@command(app, "list")
def list_(
    worker: WorkerName = None,
    everything: Annotated[bool, typer.Option("--all", help="Resolved and discarded ones too.")] = False,
) -> Result:
    """Show the items that failed and wait for their next attempt, oldest first."""
    from maven_cli.db.connection import database_now, session
    from maven_cli.operations import dead_letters

    with session(current().services.database_url, "dlq list") as conn:
        found = dead_letters.listed(conn, worker=worker, everything=everything)
        now = database_now(conn)
    return Result(found, lambda out: _table(out, found, now, everything))


def _table(out: Console, found: Sequence[DeadLetter], now: datetime, everything: bool) -> None:
    from maven_cli.cli.render import Field, print_table
    from maven_cli.times import iso

    if not found:
        out.print("there are no dead letters" if everything else "there are no open dead letters")
        return
    fields: list[Field[DeadLetter]] = [
        Field("id", "ID", 0, lambda row: str(row.id), lambda row: str(row.id)),
        Field("worker", "WORKER", 0, lambda row: row.worker, lambda row: row.worker, right=False),
        Field("item", "ITEM", 0, lambda row: row.item, lambda row: row.item, right=False),
        Field(
            "state",
            "STATE",
            0,
            lambda row: row.state,
            (lambda row: row.state) if everything else None,
            right=False,
        ),
        Field("attempts", "TRIES", 0, lambda row: str(row.attempts), lambda row: str(row.attempts)),
        Field("first_failed_at", "", 0, lambda row: iso(row.first_failed_at), None, right=False),
        Field("last_failed_at", "", 0, lambda row: iso(row.last_failed_at), None, right=False),
        Field(
            "next_attempt_at",
            "NEXT",
            0,
            lambda row: iso(row.next_attempt_at) if row.state == "OPEN" else "-",
            lambda row: _next(row, now),
        ),
        Field("error", "ERROR", 0, lambda row: row.error, lambda row: row.error, right=False),
    ]
    print_table(out, fields, found)


def _next(letter: DeadLetter, now: datetime) -> str:
    from maven_cli.cli.render import short_age

    if letter.state != "OPEN":
        return "-"
    return "due" if letter.next_attempt_at <= now else short_age(letter.next_attempt_at - now)


@command(app, "show")
def show(number: Id) -> Result:
    """Show everything about one item that failed."""
    from dataclasses import asdict

    from maven_cli.db.connection import session

    with session(current().services.database_url, "dlq show") as conn:
        letter = _named(conn, [number])[number]
    return Result(letter, lambda out: facts(out, list(asdict(letter).items())))


@command(app, "retry")
def retry(
    ids: Annotated[
        list[int] | None,
        typer.Argument(
            parser=option_parser(parse_id),
            metavar="[ID]...",
            help="Also discarded ones; all of them, or none.",
        ),
    ] = None,
    worker: WorkerName = None,
    everything: Annotated[bool, typer.Option("--all", help="Every open one, of all workers.")] = False,
) -> Result:
    """Let the next pass try items again, without waiting for their time.

    A discarded one is opened again only by its ID, not by --worker or --all.
    """
    from maven_cli.db.connection import session
    from maven_cli.operations import dead_letters

    if sum([bool(ids), worker is not None, everything]) != 1:
        raise UsageError("name either IDs, or --worker NAME, or --all")
    with session(current().services.database_url, "dlq retry") as conn, conn.transaction():
        if not ids:
            changed = dead_letters.retry(conn, worker=worker)
            return Result(
                [_row(letter, changed=True) for letter in changed],
                lambda out: out.print(
                    "1 dead letter is due now"
                    if len(changed) == 1
                    else f"{len(changed)} dead letters are due now"
                ),
            )
        before = _named(conn, ids)
        due = {letter.id: letter for letter in dead_letters.retry(conn, ids=ids)}
    letters = [due.get(number) or before[number] for number in before]
    return _told(letters, due, "is due now")


@command(app, "discard")
def discard(ids: Ids, reason: Reason) -> Result:
    """Give items up: no pass tries them again, and they stay in the list of --all. All of those named, or none."""
    from maven_cli.db.connection import session
    from maven_cli.operations import dead_letters

    why = check_reason(reason)
    who = operator_name(current().settings)
    with session(current().services.database_url, "dlq discard") as conn, conn.transaction():
        _named(conn, ids)
        gone = {letter.id: letter for letter in dead_letters.discard(conn, ids, by=who, reason=why)}
        after = _named(conn, ids)
    return _told(list(after.values()), gone, "is discarded")


def _named(conn: psycopg.Connection, ids: Sequence[int]) -> dict[int, DeadLetter]:
    """The dead letters of those ids, in their order without repeats. Raises UsageError naming what there isn't."""
    from maven_cli.operations import dead_letters

    found = dead_letters.find(conn, ids)
    missing = [str(number) for number in dict.fromkeys(ids) if number not in found]
    if missing:
        raise UsageError(f"there is no dead letter {', '.join(missing)}; see: maven dlq list --all")
    return {number: found[number] for number in ids}


def _row(letter: DeadLetter, *, changed: bool) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(letter), "changed": changed}


def _told(letters: Sequence[DeadLetter], changed: dict[int, DeadLetter], what: str) -> Result:
    """What became of each one: `what`, or why nothing did."""

    def tell(out: Console) -> None:
        for letter in letters:
            name = f"{letter.id} ({letter.worker} {letter.item})"
            if letter.id in changed:
                out.print(f"{name} {what}", markup=False)
            else:
                reason = f": {letter.reason}" if letter.reason else ""
                out.print(f"{name} was already {letter.state} by {letter.closed_by}{reason}", markup=False)

    return Result([_row(letter, changed=letter.id in changed) for letter in letters], tell)
