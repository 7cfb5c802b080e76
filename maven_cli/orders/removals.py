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
from maven_cli.engines import Answer, NotFound, Removal, Removed
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
    engine_remaining: Decimal | None
    answered_at: datetime | None
    error: str | None
    kind: str


@dataclass(frozen=True)
class OpenRemoval:
    """A removal that isn't settled, of an order that isn't due; `state` as in sql/removals_open.sql."""

    removal: Removal
    status: str
    remaining: Decimal
    engine_remaining: Decimal | None
    state: str


def ask(conn: psycopg.Connection, orders: Sequence[DueOrder]) -> list[Removal]:
    """Records the intent, and returns what the engine is to be asked: the orders that it hasn't answered for yet."""
    by_id = {order.id: order for order in orders}
    keys = conn.execute(load("orders", "removals_ask"), {"ids": list(by_id)})
    return [Removal(number, by_id[number].pair or "", by_id[number].side, key) for number, key in keys]


def record(conn: psycopg.Connection, answers: Sequence[tuple[Removal, Answer]]) -> None:
    """Stores answers; the first that says what remained stands for ever."""
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
    conn: psycopg.Connection, ids: Sequence[int], as_of: datetime, *, grace: timedelta, settle: timedelta
) -> list[Verdict]:
    """What the books say now of those orders that are still due."""
    rows = conn.execute(
        load("orders", "expiry_verdicts"),
        {"ids": list(ids), "as_of": as_of, "grace": grace, "settle": settle},
    )
    return [Verdict(*row) for row in rows]


def open_removals(
    conn: psycopg.Connection, as_of: datetime, after: tuple[datetime, int], limit: int
) -> list[tuple[datetime, OpenRemoval]]:
    """Removals that are still open, oldest first, each with the time of its intent."""
    rows = conn.execute(
        load("orders", "removals_open"),
        {"as_of": as_of, "after_at": after[0], "after_id": after[1], "limit": limit},
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
