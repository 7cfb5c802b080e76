"""A wallet as its owner's support would want to see it: balances, open locks, newest entries."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.db.queries import load
from maven_cli.errors import UsageError

LARGEST = 2**63 - 1


@dataclass(frozen=True)
class WalletView:
    """A wallet with its open locks (oldest first) and its newest entries (newest first), as rows by column name.

    wallet: id, user_id, asset, available, locked, seq, and entry_available and entry_locked: what its newest entry says.
    """

    wallet: dict[str, Any]
    locks: list[dict[str, Any]]
    entries: list[dict[str, Any]]


def find_wallet(conn: psycopg.Connection, name: str) -> dict[str, Any]:
    """The wallet called `name`: its id, or ``USER/ASSET`` like ``42/BTC``. Raises UsageError when there is none."""
    match = re.fullmatch(r"(\d{1,19})(?:/(\S+))?", name, re.ASCII)
    if match is None or int(match[1]) > LARGEST:
        raise UsageError(f"{name!r} is not a wallet; write its id, or USER/ASSET like 42/BTC")
    number, asset = int(match[1]), match[2]
    parameters = {
        "wallet": None if asset else number,
        "user": number if asset else None,
        "asset": asset and asset.upper(),
    }
    found = conn.cursor(row_factory=dict_row).execute(load("ledger", "wallet_find"), parameters).fetchone()
    if found is None:
        raise UsageError(
            f"user {number} has no {asset.upper()} wallet" if asset else f"there is no wallet {number}"
        )
    return found


def read_wallet(conn: psycopg.Connection, name: str, limit: int) -> WalletView:
    """A wallet with at most `limit` locks and entries, all of one snapshot. Raises UsageError when there is none."""
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        wallet = find_wallet(conn, name)
        rows = conn.cursor(row_factory=dict_row)
        parameters = {"wallet": wallet["id"], "limit": limit}
        locks = rows.execute(load("ledger", "wallet_locks"), parameters).fetchall()
        entries = rows.execute(load("ledger", "wallet_entries"), parameters).fetchall()
        return WalletView(wallet, locks, entries)
