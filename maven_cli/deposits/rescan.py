"""A chain is read again from an earlier block: what that changes at once, and what it would change when it is read.

Going back moves the cursor and makes all evidence void; deposits stay where they are until the scan reads their blocks again.
What it finds is recorded as ever, the same again changes nothing, and what is attached to a block that isn't there any more is
taken back then (`record.settle`). So a chain that halted goes on from a block that a person has compared with another source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from maven_cli.chains import Block, Node, NodeBehindError, Scan
from maven_cli.deposits import record
from maven_cli.deposits.chains import Chain, ChainMovedError, Progress
from maven_cli.deposits.read import named
from maven_cli.errors import UsageError
from maven_cli.operations import incidents

# How far back a block is looked for where heights may have none (Solana).
SKIPPED = 500
_AT_ONCE = 50


@dataclass
class Changes:
    """What reading a range again would change: deposits as rows of deposit_rows.sql, and summaries of incidents."""

    created: list[dict[str, Any]] = field(default_factory=list)
    moved: list[dict[str, Any]] = field(default_factory=list)
    orphaned: list[dict[str, Any]] = field(default_factory=list)
    incidents: list[str] = field(default_factory=list)
    unmatched: int = 0


def check_range(chain: Chain, where: Progress, first: int) -> None:
    """Raises UsageError unless the chain was read from `first` on already."""
    if first < 1:
        raise UsageError("--from must be at least 1: block 0 is the genesis, which pays nobody")
    if where.cursor is None:
        raise UsageError(
            f"{chain.name} was never read; its first scan begins at start of the chains file, or at the head"
        )
    if first > where.cursor:
        raise UsageError(
            f"{chain.name} was read up to block {where.cursor} only; --from {first} would leave blocks out"
        )


def block_below(node: Node, first: int) -> Block:
    """The newest block below `first`. Raises NodeBehindError."""
    # The first look is all it takes where every height has a block.
    bounds = [(first - 1, first - 2)]
    bounds += [(top, top - _AT_ONCE) for top in range(first - 2, first - 2 - SKIPPED, -_AT_ONCE)]
    for top, end in bounds:
        heights = list(range(top, max(end, -1), -1))
        found = [block for block in node.blocks(heights) if block is not None] if heights else []
        if found:
            return found[0]
    raise NodeBehindError(f"node {node.name} has no block {first - 1}, from which the chain is to be read on")


def go_back(conn: psycopg.Connection, chain: Chain, first: int, below: Block, operator: str) -> None:
    """Sets the chain back, so that the next scan reads on at `first`, the block after `below`; a halted chain is active again.

    In a transaction of the caller's. Raises ChainMovedError when the chain isn't as `chain` says any more.
    """
    row = conn.execute(
        "SELECT state, reorg_epoch FROM chains WHERE id = %s FOR NO KEY UPDATE", [chain.id]
    ).fetchone()
    if row != (chain.state, chain.reorg_epoch):
        raise ChainMovedError(f"chain {chain.name} was changed by somebody else meanwhile; nothing was done")
    halted = chain.state == "HALTED"
    done = conn.execute(
        "UPDATE chain_progress SET cursor = %(to)s, cursor_hash = %(hash)s, final_cursor = least(final_cursor, %(to)s)"
        " WHERE chain_id = %(chain)s AND cursor >= %(to)s",
        {"to": first - 1, "hash": below.hash, "chain": chain.id},
    )
    if done.rowcount != 1:
        raise ChainMovedError(f"chain {chain.name} was set back by somebody else meanwhile; nothing was done")
    conn.execute(
        "UPDATE chains SET reorg_epoch = reorg_epoch + 1, state = CASE WHEN %(halted)s THEN 'ACTIVE' ELSE state END,"
        " state_reason = CASE WHEN %(halted)s THEN NULL ELSE state_reason END WHERE id = %(chain)s",
        {"halted": halted, "chain": chain.id},
    )
    # A chain that halted has none of its kept blocks any more.
    conn.execute(
        "DELETE FROM chain_blocks WHERE chain_id = %s AND (height >= %s OR %s)",
        [chain.id, below.height, halted],
    )
    conn.execute(
        "INSERT INTO chain_blocks (chain_id, height, hash, parent, at) VALUES (%s, %s, %s, %s, %s)",
        [chain.id, below.height, below.hash, below.parent, below.at],
    )
    incidents.close(
        conn, ["chain_halted"], [f"chain:{chain.name}"], operator, f"read again from block {first}"
    )


def changes(conn: psycopg.Connection, chain: Chain, scans: Sequence[tuple[int, int, Scan]]) -> Changes:
    """What recording these ranges does, in a transaction of the caller's that is rolled back afterwards."""
    detected: list[int] = []
    orphaned: list[int] = []
    found = Changes()
    for first, last, scan in scans:
        recorded = record.record(conn, chain, scan.transfers)
        detected += recorded.detected
        orphaned += recorded.orphaned + record.settle(conn, chain, scan.blocks, first, last)
        found.unmatched += recorded.unmatched
    now = conn.execute("SELECT now()").fetchone()
    assert now is not None
    for row in named(conn, detected) if detected else []:
        # One that an earlier block of the range took away may come back in a later one.
        if row["status"] != "ORPHANED":
            (found.created if row["first_seen_at"] == now[0] else found.moved).append(row)
    for row in named(conn, orphaned) if orphaned else []:
        if row["status"] == "ORPHANED":
            found.orphaned.append(row)
    found.incidents = [
        summary
        for (summary,) in conn.execute(
            "SELECT summary FROM incidents WHERE kind = 'credited_orphan' AND resolved_at IS NULL AND last_seen_at >= now()"
            " ORDER BY id"
        )
    ]
    return found
