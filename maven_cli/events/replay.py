"""Sends delivered events once more, for a consumer, or a Redis, that lost them.

The whole replay is one publisher's turn, so that nothing new comes between: whoever had lost everything reads each
aggregate's events in order. Events that were never delivered are left to the relay, and follow: an aggregate's
undelivered events are always its newest. Whoever hadn't lost anything sees ids it has seen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
import redis

from maven_cli.db.queries import load
from maven_cli.errors import TryLaterError, UsageError
from maven_cli.events.publish import BATCH, Row, send, take_turn
from maven_cli.times import iso

# A person waits, so longer than a pass would.
WAIT_MS = 10_000


@dataclass
class Replayed:
    """What was sent again.

    first, last: outbox ids, last None for the newest. pending: events of the range that wait for their first delivery.
    trimmed: how many of the replayed ones the stream is too short for. pruned_until: set when events of the range may be
    gone, those created before this instant.
    """

    first: int
    last: int | None
    replayed: int = 0
    pending: int = 0
    trimmed: int = 0
    pruned_until: datetime | None = None


def replay(
    conn: psycopg.Connection,
    client: redis.Redis,
    first: str,
    last: str | None,
    types: Sequence[str] | None,
    *,
    stream: str,
    maxlen: int,
    batch: int = BATCH,
) -> Replayed:
    """Publishes again what was delivered from `first` to `last`, both included: outbox ids or event ids.

    Raises UsageError for an id that isn't there, TryLaterError while others publish without a pause, and what
    `maven_cli.events.publish.send` does. Whatever it raises, what was sent until then was sent.
    """
    start = _outbox_id(conn, first, "--from")
    end = None if last is None else _outbox_id(conn, last, "--to")
    if end is not None and end < start:
        raise UsageError(f"--from {first} comes after --to {last}")
    found = Replayed(start, end)
    names = None if types is None else list(types)
    try:
        with conn.transaction():
            take_turn(conn, WAIT_MS)
            parameters = {"first": start, "last": end, "types": names}
            row = conn.execute(load("events", "replay_range"), parameters).fetchone()
            assert row is not None
            delivered, found.pending, begins, created, pruned = row
            found.trimmed = max(0, delivered - maxlen) if maxlen else 0
            if pruned is not None and (begins is None or begins > start or created < pruned):
                found.pruned_until = pruned.astimezone(UTC)
            after = start - 1
            while rows := _rows(conn, after, end, names, batch):
                taken, refusal = send(client, rows, stream=stream, maxlen=maxlen)
                found.replayed += taken
                if refusal is not None:
                    raise refusal
                after = rows[-1][0]
    except psycopg.errors.LockNotAvailable:
        raise TryLaterError("others are publishing without a pause; nothing was sent, try again") from None
    return found


def _rows(
    conn: psycopg.Connection, after: int, last: int | None, types: list[str] | None, batch: int
) -> list[Row]:
    parameters = {"after": after, "last": last, "types": types, "limit": batch}
    return conn.execute(load("events", "replay_batch"), parameters).fetchall()


def _outbox_id(conn: psycopg.Connection, text: str, option: str) -> int:
    """The outbox id that a text means. A number below the oldest event stands: the range then begins with that one."""
    newest = conn.execute("SELECT id, event_id FROM outbox ORDER BY id DESC LIMIT 1").fetchone()
    if newest is None:
        raise UsageError(f"{option} {text}: the outbox has no events{_pruned(conn)}")
    if re.fullmatch(r"[0-9]{1,18}", text) and int(text) > 0:
        number = int(text)
        if number > newest[0]:
            raise UsageError(f"{option} {text}: no such event; the newest is {newest[0]} ({newest[1]})")
        return number
    row = conn.execute("SELECT id FROM outbox WHERE event_id = %s", [text.replace("\0", "")]).fetchone()
    if row is None:
        raise UsageError(
            f"{option} {text}: no such event; write an outbox id like {newest[0]}, or an event's like {newest[1]}{_pruned(conn)}"
        )
    return int(row[0])


def _pruned(conn: psycopg.Connection) -> str:
    row = conn.execute("SELECT nullif(pruned_until, '-infinity') FROM outbox_state").fetchone()
    return (
        "" if row is None or row[0] is None else f" (those created before {iso(row[0])} may have been pruned)"
    )
