"""Tokens that are left alone for a while, by an operator's decision; and tokens that maven itself has halted."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.deposits.chains import Chain
from maven_cli.errors import UsageError
from maven_cli.numbers import plain
from maven_cli.operations import incidents
from maven_cli.operations.text import one_line


def tokens(conn: psycopg.Connection, chains: list[int] | None = None) -> list[dict[str, Any]]:
    """Tokens with their chain, contract (as text), asset, decimals, minimum, confirmations, state and reason."""
    return (
        conn.cursor(row_factory=dict_row)
        .execute(
            "SELECT t.id, c.name AS chain, maven_hash_text(c.family, t.contract) AS contract, a.symbol AS asset, t.decimals, t.minimum,"
            " coalesce(t.confirmations, c.confirmations) AS confirmations, t.state, t.state_reason AS reason, t.checked_at"
            " FROM tokens t JOIN chains c ON c.id = t.chain_id JOIN assets a ON a.id = t.asset_id"
            " WHERE %(chains)s::bigint[] IS NULL OR c.id = ANY (%(chains)s) ORDER BY c.name, a.symbol, t.contract NULLS FIRST",
            {"chains": chains},
        )
        .fetchall()
    )


def find_token(conn: psycopg.Connection, chain: Chain, text: str) -> dict[str, Any]:
    """The chain's token of that contract or asset. Raises UsageError naming what there is."""
    known = tokens(conn, [chain.id])
    found = [row for row in known if row["asset"] == text.upper()]
    if not found:
        contract = None if chain.family == "bitcoin" else _contract(chain, text)
        found = [row for row in known if contract is not None and row["contract"] == contract]
    if len(found) > 1:
        contracts = ", ".join(row["contract"] or "the chain's coin" for row in found)
        raise UsageError(
            f"{text.upper()} is {len(found)} tokens on {chain.name}; name one by its contract: {contracts}"
        )
    if not found:
        names = ", ".join(dict.fromkeys(row["asset"] for row in known))
        raise UsageError(
            f"no token {text[:60]!r} on {chain.name}; choose from {names or 'none: maven chains add FILE'}"
        )
    return found[0]


def _contract(chain: Chain, text: str) -> str | None:
    """A contract as the database writes it."""
    try:
        token = chain.notation.token(text)
    except UsageError:
        return None
    return "0x" + token.hex() if chain.family == "evm" else chain.notation.write_token(token)


def suspend(conn: psycopg.Connection, token: int, reason: str) -> bool:
    """New deposits of the token are held, and those on their way wait before they are confirmed. False when it was so already.

    In a transaction of the caller's. Raises UsageError for a token that is halted.
    """
    row = _locked(conn, token)
    if row["state"] == "HALTED":
        raise UsageError(f"the token is halted already: {row['state_reason']}")
    conn.execute(
        "UPDATE tokens SET state = 'SUSPENDED', state_reason = %s WHERE id = %s", [one_line(reason), token]
    )
    return bool(row["state"] == "ACTIVE")


def unsuspend(
    conn: psycopg.Connection, chain: Chain, token: dict[str, Any], operator: str
) -> tuple[bool, int]:
    """Lets a token go on; whether it wasn't so already, and how many deposits that were held for it are followed now.

    A halted token's are not: the next scan first asks the chain again what halted it, and then each is released by hand. In a
    transaction of the caller's.
    """
    row = _locked(conn, token["id"])
    if row["state"] == "ACTIVE":
        return False, 0
    conn.execute(
        "UPDATE tokens SET state = 'ACTIVE', state_reason = NULL, checked_at = CASE WHEN state = 'SUSPENDED' THEN checked_at END"
        " WHERE id = %s",
        [token["id"]],
    )
    if row["state"] == "HALTED":
        item = f"token:{chain.name}:{token['contract'] or token['asset']}"
        _close_halted(conn, item, operator)
        return True, 0
    held = "d.chain_id = %(chain)s AND d.token_id = %(token)s AND d.status = 'HELD' AND d.reason LIKE 'token suspended: %%'"
    values = {
        "chain": chain.id,
        "token": token["id"],
        "below": f"below the minimum of {plain(row['minimum'])}",
    }
    conn.execute(f"SELECT FROM deposits d WHERE {held} ORDER BY d.id FOR NO KEY UPDATE", values)
    done = conn.execute(
        "UPDATE deposits d SET status = CASE WHEN d.amount < t.minimum OR d.immature THEN 'HELD' ELSE 'PENDING' END,"
        " reason = CASE WHEN d.amount < t.minimum THEN %(below)s WHEN d.immature THEN 'immature' END, updated_at = now()"
        f" FROM tokens t WHERE t.id = d.token_id AND {held} RETURNING d.status",
        values,
    ).fetchall()
    return True, [status for (status,) in done].count("PENDING")


def _locked(conn: psycopg.Connection, token: int) -> dict[str, Any]:
    row = (
        conn.cursor(row_factory=dict_row)
        .execute("SELECT state, state_reason, minimum FROM tokens WHERE id = %s FOR NO KEY UPDATE", [token])
        .fetchone()
    )
    assert row is not None, "tokens are never deleted"
    return row


def _close_halted(conn: psycopg.Connection, item: str, operator: str) -> None:
    """The incident says the contract in the chain's notation, capitals included."""
    items = [found.item for found in incidents.listed(conn, kind="token_halted")]
    mine = [one for one in items if one.lower() == item.lower()]
    incidents.close(conn, ["token_halted"], mine, operator, "to be checked again by the next scan")
