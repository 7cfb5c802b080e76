"""Tokens: what the chain says of them, held against what was configured."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from maven_cli.chains import Node
from maven_cli.deposits.chains import Chain
from maven_cli.operations import incidents
from maven_cli.runner import Pass

# A contract behind a proxy may become another one.
AGAIN = timedelta(days=1)


def check(current: Pass, conn: psycopg.Connection, chain: Chain, node: Node) -> None:
    """Halts tokens whose decimals on the chain aren't the configured ones: each of their deposits would be credited wrongly
    by powers of ten. Asks once a day."""
    due = conn.execute(
        "SELECT t.id, t.contract, t.decimals, a.symbol FROM tokens t JOIN assets a ON a.id = t.asset_id"
        " WHERE t.chain_id = %s AND t.contract IS NOT NULL AND t.state = 'ACTIVE'"
        " AND (t.checked_at IS NULL OR t.checked_at < now() - %s) ORDER BY t.id LIMIT 100",
        [chain.id, AGAIN],
    ).fetchall()
    for number, contract, decimals, symbol in due:
        current.stop.check()
        found = node.token(contract)
        reason = None
        if found is None:
            reason = f"no token is at {chain.notation.write_token(contract)}"
        elif found.decimals != decimals:
            reason = f"it has {found.decimals} decimals on the chain, {decimals} are configured"
        with current.transaction(f"deposits:{chain.name}", conn=conn) as work:
            work.execute(
                "UPDATE tokens SET checked_at = now(), state = CASE WHEN %(reason)s::text IS NULL THEN state ELSE 'HALTED' END,"
                " state_reason = coalesce(%(reason)s, state_reason) WHERE id = %(id)s",
                {"reason": reason, "id": number},
            )
            if reason is not None:
                incidents.open_incident(
                    work,
                    "token_halted",
                    f"token:{chain.name}:{chain.notation.write_token(contract)}",
                    f"{symbol} on {chain.name} is halted: {reason}; its deposits are held until the configuration is mended",
                )
        if reason is not None:
            current.fail(f"token:{chain.name}:{symbol}", ValueError(reason))
            current.log.error(
                "token.halted", f"{symbol} on {chain.name} is halted: {reason}", chain=chain.name
            )
