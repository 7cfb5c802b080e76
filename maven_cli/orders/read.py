"""Orders as operators look at them: what is about to end, and one order's story."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.db.queries import load
from maven_cli.errors import UsageError


def expiring(
    conn: psycopg.Connection, until: datetime, *, pairs: Sequence[int] | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """Live orders that end until then, the first to end first.

    Each: id, user_id, pair, side, type, remaining, expires_at, releases (in `asset`; None where no rule says), state
    (live, due, failed, discarded, books differ, engine gone), error.
    """
    cursor = conn.cursor(row_factory=dict_row)
    return cursor.execute(
        load("orders", "expiring"),
        {"until": until, "pairs": None if pairs is None else list(pairs), "limit": limit},
    ).fetchall()


def order(conn: psycopg.Connection, number: int) -> dict[str, Any]:
    """An order's fields, what its lock holds, and `story`: what happened to it, each with `at`, `what` and `detail`.

    Raises UsageError when there is no such order.
    """
    cursor = conn.cursor(row_factory=dict_row)
    found = cursor.execute(
        "SELECT o.*, p.symbol AS pair, l.remaining AS lock_remaining FROM orders o"
        " LEFT JOIN trading_pairs p ON p.id = o.trading_pair_id LEFT JOIN locks l ON l.id = o.lock_id WHERE o.id = %s",
        [number],
    ).fetchone()
    if found is None:
        raise UsageError(f"there is no order {number}")
    story = cursor.execute(load("orders", "order_story"), {"id": number}).fetchall()
    return {**found, "story": story}
