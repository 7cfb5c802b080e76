"""Orders that are due: find them, and end them in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg

from maven_cli.db.queries import load
from maven_cli.operations.dead_letters import NOT_DUE

WORK_KEY = "orders:expire"  # the work lock of every transaction that ends orders or records removals
BATCH = 500  # orders per transaction: more don't make it faster, and hold wallets longer
SHORT_WAIT = timedelta(milliseconds=20)
BEGINNING = (datetime(1, 1, 2, tzinfo=UTC), 0)


@dataclass(frozen=True)
class DueOrder:
    """An order past its end, as it was seen. pair: None when its pair is gone."""

    id: int
    expires_at: datetime
    pair: str | None
    side: str
    remaining: Decimal
    changed_at: datetime


@dataclass(frozen=True)
class Expired:
    """An order that has ended. rule: what the platform's formula would have released; None where it can't say.

    differs: its own lock held another amount than the rule says. The lock's was released.
    """

    id: int
    released: Decimal
    rule: Decimal | None
    lock_id: int | None
    asset: str
    differs: bool


def due_orders(
    conn: psycopg.Connection,
    as_of: datetime,
    after: tuple[datetime, int],
    *,
    pairs: Sequence[int] | None = None,
    limit: int = BATCH,
) -> list[DueOrder]:
    """The next orders behind `after` (expires_at, id), oldest first."""
    rows = conn.execute(
        load("orders", "expiry_due", not_due=NOT_DUE),
        {
            "as_of": as_of,
            "after_at": after[0],
            "after_id": after[1],
            "pairs": None if pairs is None else list(pairs),
            "limit": limit,
        },
    )
    return [DueOrder(*row) for row in rows]


def anything_due(conn: psycopg.Connection, as_of: datetime) -> bool:
    """Whether any order is past its end: one look at the beginning of a small index, planned in no time."""
    found = conn.execute(
        "SELECT EXISTS (SELECT FROM orders WHERE status IN ('OPEN', 'PARTIALLY_FILLED') AND expires_at <= %s)",
        [as_of],
    ).fetchone()
    return found == (True,)


def count_due(conn: psycopg.Connection, as_of: datetime, pairs: Sequence[int] | None = None) -> int:
    """How many orders (of these pairs) are past their end, whatever keeps them."""
    row = conn.execute(
        "SELECT count(*) FROM orders WHERE status IN ('OPEN', 'PARTIALLY_FILLED') AND expires_at <= %s"
        " AND (%s::bigint[] IS NULL OR trading_pair_id = ANY (%s))",
        [as_of, None if pairs is None else list(pairs), None if pairs is None else list(pairs)],
    ).fetchone()
    assert row is not None
    return int(row[0])


def overdue(conn: psycopg.Connection, ids: Sequence[int], until: datetime) -> list[int]:
    """Those of the orders that still live and should have ended until that instant, oldest first."""
    rows = conn.execute(
        "SELECT id FROM orders WHERE id = ANY (%s) AND status IN ('OPEN', 'PARTIALLY_FILLED') AND expires_at <= %s"
        " ORDER BY expires_at, id",
        [list(ids), until],
    )
    return [number for (number,) in rows]


def hurry(conn: psycopg.Connection) -> None:
    """For the rest of the open transaction: whatever somebody holds is waited for hardly at all."""
    milliseconds = SHORT_WAIT // timedelta(milliseconds=1)
    conn.execute("SELECT set_config('lock_timeout', %s, true)", [f"{milliseconds}ms"])


def ended_elsewhere(
    conn: psycopg.Connection, worker: str, kinds: Sequence[str]
) -> list[tuple[str, str | None]]:
    """Items of open dead letters of the worker, and of open incidents of these kinds, whose order has ended, each with the
    order's status; None: it doesn't exist any more."""
    return conn.execute(
        load("orders", "ended_elsewhere"), {"worker": worker, "kinds": list(kinds)}
    ).fetchall()


def expire(
    conn: psycopg.Connection,
    as_of: datetime,
    orders: Sequence[tuple[int, Decimal, datetime]],
    *,
    formula: bool,
) -> list[Expired]:
    """Ends orders (id, what remains, last change) that are still so, and releases what they held.

    One that changed meanwhile, or that somebody else holds, is left out. Raises psycopg.Error when one can't be ended as
    it stands; the transaction is the caller's.
    """
    ids, remaining, seen = (list(column) for column in zip(*orders, strict=True))
    rows = conn.execute(
        load("orders", "expire"),
        {"as_of": as_of, "ids": ids, "remaining": remaining, "seen": seen, "formula": formula},
    )
    return [Expired(row[0], row[1], row[2], row[3], row[4], bool(row[5])) for row in rows]
