"""Corrections of a balance by hand: one operator proposes, another decides; and who checks the balances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from maven_cli.db.queries import load
from maven_cli.errors import MavenError, UsageError
from maven_cli.ledger.wallets import find_wallet
from maven_cli.numbers import check_fits

# `maven ledger mode enforced` waits for whoever holds a wallet, and everybody else waits for it.
MODE_WAIT = "5s"


class AdjustmentRefusedError(MavenError):
    """The ledger refuses the adjustment."""

    exit_code = 1


@dataclass(frozen=True)
class Mode:
    """Who checks balances, *enforced* or *observed*; since when, and who said so. opened: entries that the change wrote."""

    mode: str
    changed_at: datetime
    changed_by: str
    opened: int = 0


def parse_amount(text: str) -> Decimal:
    """``1.5``, ``+1.5``, ``-1.5`` → exact. Raises ValueError when it is zero or doesn't fit 18 decimals."""
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text.removeprefix("+"))
    amount = check_fits(digits)
    return -amount if sign else amount


def parse_adjustment(text: str) -> UUID:
    """An adjustment's id. Raises UsageError."""
    try:
        return UUID(text)
    except ValueError:
        raise UsageError(f"{text[:60]!r} is not an adjustment's id; see: maven ledger adjust list") from None


def propose(
    conn: psycopg.Connection, wallet: str, amount: Decimal, reason: str, operator: str
) -> dict[str, Any]:
    """Proposes to add `amount` (negative: take away) to a wallet's available balance; nothing moves yet. Its row."""
    if not reason.strip():
        raise UsageError("--reason must say why")
    with conn.transaction():
        number = find_wallet(conn, wallet)["id"]
        row = conn.execute(
            "SELECT maven_ledger_propose(%s, %s, %s, %s)", [number, amount, reason.strip(), operator]
        ).fetchone()
        assert row is not None
        return _one(conn, row[0])


def approve(conn: psycopg.Connection, adjustment: UUID, operator: str) -> dict[str, Any]:
    """Posts a proposed adjustment. Raises AdjustmentRefusedError when the ledger refuses, UsageError when it isn't open.

    Returns its row, and as `seq` the number of the entry that it made.
    """
    with conn.transaction(), _refusals(adjustment, operator):
        _open(conn, adjustment)
        row = conn.execute("SELECT maven_ledger_adjust(%s, %s)", [adjustment, operator]).fetchone()
        assert row is not None
        return {**_one(conn, adjustment), "seq": row[0]}


def reject(conn: psycopg.Connection, adjustment: UUID, reason: str, operator: str) -> dict[str, Any]:
    """Turns a proposed adjustment down; its proposer may, too. Raises UsageError when it isn't open. Its row."""
    if not reason.strip():
        raise UsageError("--reason must say why")
    with conn.transaction():
        _open(conn, adjustment)
        conn.execute(
            "UPDATE ledger_adjustments SET state = 'REJECTED', decided_by = %s, decided_at = now(), rejection = %s"
            " WHERE id = %s",
            [operator, reason.strip(), adjustment],
        )
        return _one(conn, adjustment)


def adjustments(conn: psycopg.Connection, *, everything: bool, limit: int) -> list[dict[str, Any]]:
    """Adjustments, newest first: those that wait for a decision, or all."""
    rows = conn.cursor(row_factory=dict_row).execute(
        load("ledger", "adjustments"), {"all": everything, "limit": limit, "id": None}
    )
    return rows.fetchall()


def _open(conn: psycopg.Connection, adjustment: UUID) -> None:
    """Holds a proposed adjustment. Raises UsageError when it is none, or no longer."""
    row = conn.execute(
        "SELECT state, decided_by FROM ledger_adjustments WHERE id = %s FOR NO KEY UPDATE", [adjustment]
    ).fetchone()
    if row is None:
        raise UsageError(f"there is no adjustment {adjustment}; see: maven ledger adjust list --all")
    if row[0] != "PROPOSED":
        raise UsageError(f"adjustment {adjustment} is {row[0]} already, by {row[1]}")


def _one(conn: psycopg.Connection, adjustment: UUID) -> dict[str, Any]:
    row = (
        conn.cursor(row_factory=dict_row)
        .execute(load("ledger", "adjustments"), {"all": True, "limit": 1, "id": adjustment})
        .fetchone()
    )
    assert row is not None
    return row


@contextmanager
def _refusals(adjustment: UUID, operator: str) -> Iterator[None]:
    """What the ledger refuses, in words."""
    try:
        yield
    except psycopg.errors.CheckViolation as error:
        if error.diag.constraint_name != "ck_ledger_adjustments_two_people":
            raise
        raise AdjustmentRefusedError(
            f"adjustment {adjustment} was proposed by {operator}; somebody else must approve it (MAVEN_OPERATOR names you)"
        ) from None
    except psycopg.Error as error:
        if error.sqlstate not in ("MVL03", "MVL04"):
            raise
        raise AdjustmentRefusedError(
            f"adjustment {adjustment} can't be posted: {error.diag.message_primary}"
        ) from None


def read_mode(conn: psycopg.Connection) -> Mode:
    """Who checks balances."""
    row = conn.execute("SELECT mode, changed_at, changed_by FROM ledger_state").fetchone()
    assert row is not None
    return Mode(*row)


def set_mode(conn: psycopg.Connection, mode: str, operator: str) -> Mode:
    """Changes who checks balances; asking for the mode that it has changes nothing.

    Raises AdjustmentRefusedError for balances that no opening explains, TryLaterError when somebody holds a wallet for long.
    """
    try:
        with conn.transaction():
            conn.execute("SELECT set_config('lock_timeout', %s, true)", [MODE_WAIT])
            row = conn.execute("SELECT maven_ledger_mode(%s, %s)", [mode, operator]).fetchone()
            assert row is not None
            now = read_mode(conn)
            return Mode(now.mode, now.changed_at, now.changed_by, row[0])
    except psycopg.Error as error:
        if error.sqlstate != "MVL04":
            raise
        raise AdjustmentRefusedError(
            f"the mode stays as it is: {error.diag.message_primary}; see: maven ledger show"
        ) from None
