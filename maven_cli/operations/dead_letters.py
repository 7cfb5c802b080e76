"""Dead letters: items that failed, each in one row, tried again later and later until they go through or somebody
gives them up.

Every function takes an open connection, and the caller owns the transaction. `record` belongs into a transaction of its
own, after the one in which the item failed was rolled back. Times are the database's, returned in UTC.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.db.queries import load
from maven_cli.operations.text import in_utc, one_line

# What is not to be selected now, for the WHERE of an anti-join with `dead_letters` under its own name:
#
#     NOT EXISTS (SELECT FROM dead_letters WHERE worker = … AND item = … AND {not_due})
#
# The statement has the parameter as_of.
NOT_DUE = (
    "(dead_letters.state = 'DISCARDED'"
    " OR dead_letters.state = 'OPEN' AND dead_letters.next_attempt_at > %(as_of)s)"
)


@dataclass(frozen=True)
class DeadLetter:
    """One item that failed. state: OPEN, RESOLVED (it went through) or DISCARDED (a person gave it up)."""

    id: int
    worker: str
    item: str
    error: str
    attempts: int
    first_failed_at: datetime
    last_failed_at: datetime
    next_attempt_at: datetime
    state: str
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None


def record(
    conn: psycopg.Connection, worker: str, item: str, error: str, *, base: timedelta, limit: timedelta
) -> DeadLetter:
    """Notes that an item failed. Its next attempt is due `base` after the first failure, then twice as long each time,
    but never more than `limit`."""
    [letter] = _rows(
        conn,
        "dead_letter_record",
        {
            "worker": worker,
            "item": item,
            "error": one_line(error) or "no reason was given",
            "base": base.total_seconds(),
            "limit": limit.total_seconds(),
        },
    )
    return letter


def resolve(conn: psycopg.Connection, worker: str, items: Sequence[str], *, reason: str | None = None) -> int:
    """Closes the open dead letters of items that went through in the end, and returns how many there were.

    reason: why there is nothing to try any more, where the worker didn't do it itself.

    Made to be called after each batch: without items it costs nothing, and where the worker has no open dead letter,
    one look into an index.
    """
    if not items:
        return 0
    waiting = conn.execute(
        "SELECT EXISTS (SELECT FROM dead_letters WHERE state = 'OPEN' AND worker = %s)", [worker]
    ).fetchone()
    if waiting != (True,):
        return 0
    parameters = {"worker": worker, "items": list(items), "reason": reason}
    return conn.execute(load("operations", "dead_letters_resolve"), parameters).rowcount


def listed(
    conn: psycopg.Connection, *, worker: str | None = None, everything: bool = False
) -> list[DeadLetter]:
    """Open dead letters, with `everything` also resolved and discarded ones, oldest first."""
    return _rows(conn, "dead_letters_list", {"worker": worker, "everything": everything})


def find(conn: psycopg.Connection, ids: Sequence[int]) -> dict[int, DeadLetter]:
    """Those of the ids that there are."""
    cursor = conn.cursor(row_factory=dict_row)
    cursor.execute("SELECT * FROM dead_letters WHERE id = ANY (%s)", [list(ids)])
    return {row["id"]: _letter(row) for row in cursor}


def retry(
    conn: psycopg.Connection, *, ids: Sequence[int] | None = None, worker: str | None = None
) -> list[DeadLetter]:
    """Makes dead letters due now, and returns them: those of `ids`, also when they were discarded; else the open ones of
    one worker, or of all."""
    return _rows(conn, "dead_letters_retry", {"ids": None if ids is None else list(ids), "worker": worker})


def discard(conn: psycopg.Connection, ids: Sequence[int], *, by: str, reason: str) -> list[DeadLetter]:
    """Gives up those of the ids that are open, and returns them: no pass tries them again."""
    parameters = {"ids": list(ids), "by": one_line(by), "reason": one_line(reason)}
    return _rows(conn, "dead_letters_discard", parameters)


def _rows(conn: psycopg.Connection, query: str, parameters: dict[str, Any]) -> list[DeadLetter]:
    cursor = conn.cursor(row_factory=dict_row).execute(load("operations", query), parameters)
    return sorted(map(_letter, cursor), key=lambda letter: letter.id)


def _letter(row: dict[str, Any]) -> DeadLetter:
    return DeadLetter(**{name: in_utc(value) for name, value in row.items()})
