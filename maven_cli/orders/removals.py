"""Between the engine and us: what it is asked, what it answered, and what that means for an order.

The intent is committed before the call and the answer after it, so that whatever dies in between, the next pass asks under
the same key and gets the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.db.queries import load
from maven_cli.engines import Answer, NotAsked, NotFound, Removal, Removed
from maven_cli.orders.due import DueOrder

# Any other answer is a failed attempt.
_KINDS: dict[type[Any], str] = {Removed: "removed", NotFound: "not_found"}
FAILED = "failed"


@dataclass(frozen=True)
class Verdict:
    """What the books say of one order: `kind` as in sql/expiry_verdicts.sql; the rest is as that statement saw it."""

    order_id: int
    remaining: Decimal
    changed_at: datetime
    request_key: str | None
    engine_remaining: Decimal | None
    answered_at: datetime | None
    error: str | None
    kind: str


@dataclass(frozen=True)
class OpenRemoval:
    """A removal that isn't settled, of an order that isn't due; `state` as in sql/removals_open.sql.

    attempts: failed calls since the order ended. amended: its end was moved after the intent.
    """

    removal: Removal
    status: str
    remaining: Decimal
    engine_remaining: Decimal | None
    attempts: int
    amended: bool
    state: str


def ask(
    conn: psycopg.Connection, orders: Sequence[DueOrder], as_of: datetime
) -> tuple[list[int], list[Removal]]:
    """Records the intent. Returns the orders that are to be removed, and what the engine is to be asked: those of them that
    it hasn't answered for yet. Left out is what isn't due any more, or is being deleted."""
    by_id = {order.id: order for order in orders}
    rows = conn.execute(load("orders", "removals_ask"), {"ids": list(by_id), "as_of": as_of}).fetchall()
    asked = [
        Removal(number, by_id[number].pair or "", by_id[number].side, key)
        for number, key, answered, _ in rows
        if not answered
    ]
    return [row[0] for row in rows], asked


def record(conn: psycopg.Connection, answers: Sequence[tuple[Removal, Answer]]) -> None:
    """Stores answers; the first that says what remained stands for ever. Who wasn't asked leaves no trace."""
    answers = [(removal, answer) for removal, answer in answers if not isinstance(answer, NotAsked)]
    kinds = [_KINDS.get(type(answer), FAILED) for _, answer in answers]
    conn.execute(
        load("orders", "removals_answer"),
        {
            "ids": [removal.order_id for removal, _ in answers],
            "keys": [removal.request_key for removal, _ in answers],
            "kinds": kinds,
            "remaining": [answer.remaining if isinstance(answer, Removed) else None for _, answer in answers],
            "sequences": [answer.sequence if isinstance(answer, Removed) else None for _, answer in answers],
            "errors": [getattr(answer, "reason", None) for _, answer in answers],
        },
    )


def verdicts(
    conn: psycopg.Connection,
    ids: Sequence[int],
    as_of: datetime,
    *,
    circuit: str,
    down: bool,
    grace: timedelta,
    settle: timedelta,
) -> list[Verdict]:
    """What the books say now of those orders that are still due.

    circuit: the engine's. down: a call has failed in this pass, and none has got an answer since.
    """
    rows = conn.execute(
        load("orders", "expiry_verdicts"),
        {
            "ids": list(ids),
            "as_of": as_of,
            "circuit": circuit,
            "down": down,
            "grace": grace,
            "settle": settle,
        },
    )
    return [Verdict(*row) for row in rows]


def open_removals(
    conn: psycopg.Connection,
    as_of: datetime,
    after: tuple[datetime, int],
    limit: int,
    *,
    base: timedelta,
    longest: timedelta,
) -> list[tuple[datetime, OpenRemoval]]:
    """Removals that are still open, oldest first, each with the time of its intent.

    What is owed is among them when its next attempt is due: `base` after the first failure, then twice as long each time, up
    to `longest`.
    """
    rows = conn.execute(
        load("orders", "removals_open"),
        {
            "as_of": as_of,
            "after_at": after[0],
            "after_id": after[1],
            "limit": limit,
            "base": base.total_seconds(),
            "longest": longest.total_seconds(),
        },
    )
    return [(row[0], OpenRemoval(Removal(row[1], row[2] or "", row[3], row[4]), *row[5:])) for row in rows]


def settle(conn: psycopg.Connection, ids: Sequence[int]) -> None:
    """Marks removals as done: the order has ended, and the engine has answered."""
    conn.execute(
        "UPDATE engine_removals SET settled_at = now()"
        " WHERE order_id = ANY (%s) AND settled_at IS NULL AND (answered_at IS NOT NULL OR not_found_at IS NOT NULL)",
        [list(ids)],
    )


def fence_stands(conn: psycopg.Connection) -> bool:
    """Whether the settlement fence is there and works for everybody."""
    row = conn.execute(
        "SELECT count(*) FROM pg_trigger WHERE tgrelid = to_regclass('trades')"
        " AND tgname IN ('maven_trades_fence', 'maven_trades_fence_update') AND tgenabled IN ('O', 'A')"
    ).fetchone()
    return row == (2,)
