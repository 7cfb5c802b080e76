"""What there is to see of chains and deposits, for the commands that only look. Asks no node and imports no adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.db.queries import load
from maven_cli.errors import UsageError

STATUSES = ("PENDING", "CONFIRMING", "CONFIRMED", "CREDITED", "FAILED", "ORPHANED", "HELD", "REJECTED")

_LISTED = (
    "(%(statuses)s::text[] IS NULL OR d.status = ANY (%(statuses)s))"
    " AND (%(chains)s::bigint[] IS NULL OR d.chain_id = ANY (%(chains)s))"
    " AND (%(user)s::bigint IS NULL OR d.user_id = %(user)s)"
)


def chains(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """Every chain with its progress and what is configured for it, by name."""
    return conn.cursor(row_factory=dict_row).execute(load("deposits", "chains_list")).fetchall()


def chain_ids(conn: psycopg.Connection, names: Sequence[str]) -> list[int] | None:
    """The ids of the chains of those names; None for no names, which means all. Raises UsageError."""
    from maven_cli.deposits.chains import resolve_chains

    return [chain.id for chain in resolve_chains(conn, names)] if names else None


def parse_status(text: str) -> str:
    """A status in any case. Raises UsageError."""
    if text.upper() not in STATUSES:
        raise UsageError(f"no status {text!r}; choose from {', '.join(STATUSES)}")
    return text.upper()


def listed(
    conn: psycopg.Connection,
    *,
    statuses: Sequence[str] | None = None,
    chains: Sequence[int] | None = None,
    user: int | None = None,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Deposits, the newest first; each with the columns of deposit_rows.sql."""
    return _rows(
        conn,
        _LISTED,
        "d.id DESC",
        {"statuses": _array(statuses), "chains": _array(chains), "user": user, "limit": limit},
    )


def named(conn: psycopg.Connection, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The deposits of those ids, in that order without repeats. Raises UsageError naming those that there aren't."""
    found = {
        row["id"]: row
        for row in _rows(conn, "d.id = ANY (%(ids)s)", "d.id", {"ids": list(ids), "limit": None})
    }
    missing = [str(number) for number in dict.fromkeys(ids) if number not in found]
    if missing:
        raise UsageError(f"there is no deposit {', '.join(missing)}; see: maven deposits list")
    return [found[number] for number in dict.fromkeys(ids)]


def of_transaction(conn: psycopg.Connection, chain: int, tx_hash: bytes) -> list[dict[str, Any]]:
    """The deposits that one transaction makes."""
    return _rows(
        conn,
        "d.chain_id = %(chain)s AND d.tx_hash = %(hash)s",
        "d.kind, d.ordinal",
        {"chain": chain, "hash": tx_hash, "limit": None},
    )


def stuck(conn: psycopg.Connection, before: Any, limit: int) -> list[dict[str, Any]]:
    """Deposits that are on their way, or that failed, or that their chain took back, and were first seen before that
    instant; the oldest first. What is held waits for somebody, and isn't stuck."""
    return _rows(
        conn,
        "d.status IN ('PENDING', 'CONFIRMING', 'CONFIRMED', 'FAILED', 'ORPHANED') AND d.first_seen_at < %(before)s",
        "d.first_seen_at, d.id",
        {"before": before, "limit": limit},
    )


def unmatched(
    conn: psycopg.Connection,
    *,
    chains: Sequence[int] | None = None,
    tx_hash: bytes | None = None,
    limit: int | None = 100,
) -> list[dict[str, Any]]:
    """Transfers to our addresses that are no deposits, those seen last first; units as no decimals are known."""
    return (
        conn.cursor(row_factory=dict_row)
        .execute(
            load("deposits", "unmatched_rows"), {"chains": _array(chains), "hash": tx_hash, "limit": limit}
        )
        .fetchall()
    )


def story(conn: psycopg.Connection, number: int) -> list[dict[str, Any]]:
    """What happened to a deposit, each with `at`, `what` and `detail`."""
    return (
        conn.cursor(row_factory=dict_row)
        .execute(load("deposits", "deposit_story"), {"id": number})
        .fetchall()
    )


def _rows(
    conn: psycopg.Connection, condition: str, order: str, values: dict[str, Any]
) -> list[dict[str, Any]]:
    query = load("deposits", "deposit_rows", condition=condition, order=order)
    return conn.cursor(row_factory=dict_row).execute(query, values).fetchall()


def _array(values: Sequence[Any] | None) -> list[Any] | None:
    return None if values is None else list(values)
