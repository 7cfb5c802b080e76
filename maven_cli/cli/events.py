"""`maven events`: deliver them, look at them, send them again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import DryRun
from maven_cli.cli.output import Column, Result, document, jsonable, table
from maven_cli.cli.parsing import Group

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    from rich.console import Console

    from maven_cli.events.replay import Replayed
    from maven_cli.events.stream import Entry

app = typer.Typer(
    cls=Group, no_args_is_help=True, help="Deliver events to Redis, look at them, send them again."
)

Types = Annotated[
    list[str] | None,
    typer.Option("--type", "-t", metavar="TYPE", help="Only events of this type; repeatable."),
]


@command(app, "relay")
def relay(
    limit: Annotated[int | None, typer.Option(min=1, help="Deliver at most so many.")] = None,
    dry_run: DryRun = False,
) -> Result:
    """Deliver what a crash or a Redis outage left in the outbox, and prune what was delivered long ago."""
    from maven_cli.passes import events

    outcome = events.relay(current().services, limit=limit, dry_run=dry_run)
    return from_outcome(outcome, outcome.data)


@command(app, "tail")
def tail(
    type_: Types = None,
    count: Annotated[int, typer.Option("--count", "-n", min=0, max=10_000, help="So many at first.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C (which exits 0).")
    ] = False,
) -> Result:
    """Show the newest events of the Redis stream, oldest first.

    With --follow and --json each line is a document with one or more events.
    """
    from maven_cli.cache import open_cache
    from maven_cli.events import stream
    from maven_cli.events.types import check_types

    types = check_types(type_)
    context = current()
    with open_cache(context.services.redis_url) as client:
        found, position = stream.newest(client, context.settings.events_stream, count, types)
        if follow:
            _follow(client, found, position, types)
    return Result(found, lambda out: _print(found, out))


def _follow(client: redis.Redis, found: list[Entry], position: str, types: list[str] | None) -> None:
    """Prints events as they come. The stream needn't exist yet."""
    from maven_cli.cli.live import stopping
    from maven_cli.cli.output import console
    from maven_cli.events import stream

    out = console()
    with stopping() as stopped:
        while True:
            if found and current().json:
                print(document(current().path, Result(found)), flush=True)
            elif found:
                _print(found, out)
            if stopped():
                break
            found, position = stream.following(client, current().settings.events_stream, position, 250, types)
    raise typer.Exit(0)


def _print(entries: Sequence[Entry], out: Console) -> None:
    """A line per event: when, what, about what, and its data."""
    for entry in entries:
        event: Any = entry.event
        time = str(event.get("time", "-")) if isinstance(event, dict) else "-"
        data = event.get("data") if isinstance(event, dict) else event
        words = [time, entry.event_id or "-", entry.aggregate or "-", _compact(data)]
        # Somebody else may have written to the stream: what a terminal would obey isn't printed.
        line = "  ".join(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in word) for word in words
        )
        print(line, file=out.file, flush=True)


def _compact(data: Any) -> str:
    return json.dumps(jsonable(data), ensure_ascii=False, separators=(",", ":"))


@command(app, "pending")
def pending(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="List at most so many.")] = 50,
) -> Result:
    """List the events that wait for their delivery, first in line first, and how many there are."""
    from psycopg.rows import dict_row

    from maven_cli.db.connection import session
    from maven_cli.db.queries import load
    from maven_cli.events.publish import waiting

    with session(current().services.database_url, "events pending") as conn:
        total, _ = waiting(conn)
        cursor = conn.cursor(row_factory=dict_row).execute(load("events", "pending"), {"limit": limit})
        found = cursor.fetchall()
    return Result({"total": total, "events": found}, lambda out: _pending_table(out, total, found))


def _pending_table(out: Console, total: int, found: list[dict[str, Any]]) -> None:
    from maven_cli.times import iso

    columns = [
        Column("ID", right=True),
        Column("EVENT"),
        Column("AGGREGATE"),
        Column("CREATED"),
        Column("AGE", right=True),
    ]
    rows = [
        [
            str(row["id"]),
            row["event_id"],
            row["aggregate"],
            iso(row["created_at"]),
            f"{round(row['age'].total_seconds())}s",
        ]
        for row in found
    ]
    table(out, columns, rows, empty="no events wait")
    if total > len(found):
        out.print(f"{len(found)} of {total} events that wait")


@command(app, "replay")
def replay(
    first: Annotated[
        str,
        typer.Option(
            "--from", metavar="ID", help="The first: an outbox id, or one like OrderExpiredEvent:12."
        ),
    ],
    last: Annotated[
        str | None, typer.Option("--to", metavar="ID", help="The last, included. Without it: the newest.")
    ] = None,
    type_: Types = None,
) -> Result:
    """Send delivered events to the stream once more, in their order, with the ids they had.

    Meanwhile nothing else is delivered, and what waits for its first delivery stays with the relay and follows.
    """
    from maven_cli.cache import open_cache
    from maven_cli.db.connection import session
    from maven_cli.events.replay import replay
    from maven_cli.events.types import check_types

    types = check_types(type_)
    services, settings = current().services, current().settings
    with session(services.database_url, "events replay") as conn, open_cache(services.redis_url) as client:
        found = replay(
            conn, client, first, last, types, stream=settings.events_stream, maxlen=settings.events_maxlen
        )
    return Result(found, lambda out: _replayed(out, found))


def _replayed(out: Console, found: Replayed) -> None:
    from maven_cli.times import iso

    until = "the newest" if found.last is None else str(found.last)
    out.print(f"sent {found.replayed} events again, from {found.first} to {until}")
    if found.pending:
        out.print(f"{found.pending} events of the range wait for their first delivery: maven events relay")
    if found.trimmed:
        out.print(f"the stream keeps {found.replayed - found.trimmed} of them (MAVEN_EVENTS_MAXLEN)")
    if found.pruned_until is not None:
        out.print(
            f"part of the range may be missing: events created before {iso(found.pruned_until)} were pruned"
        )
