"""Writes down what blocks hold: deposits, transfers that are nobody's, hashes, and how far the chain was read. All of a
range in one transaction with the cursor, so that what was read is never half there.

A transaction that is mined again may number its transfers anew. Its deposits are found again by what they are (whose,
which token, how much), one for one; what it no longer pays is orphaned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.chains import Block, Transfer
from maven_cli.db.queries import load
from maven_cli.deposits.chains import Chain, ChainMovedError, hold
from maven_cli.numbers import plain
from maven_cli.operations import incidents

# Blocks after which a coinbase output can be spent, in the Bitcoin family.
MATURITY = 100


@dataclass
class Recorded:
    """What changed. detected: new deposits, and such as were found again in another block. unmatched: transfers to our
    addresses that are no deposits."""

    detected: list[int] = field(default_factory=list)
    orphaned: list[int] = field(default_factory=list)
    unmatched: int = 0


def advance(
    conn: psycopg.Connection, chain: Chain, seen: tuple[int, bytes], blocks: Sequence[Block], last: int
) -> None:
    """Moves the cursor from `seen`, its height and hash, to `last` over blocks that were read and link to it.

    Raises ChainMovedError when it isn't there any more.
    """
    newest = blocks[-1] if blocks else None
    done = conn.execute(
        "UPDATE chain_progress SET cursor = %s, cursor_hash = %s WHERE chain_id = %s AND cursor = %s AND cursor_hash = %s",
        [last, newest.hash if newest else seen[1], chain.id, *seen],
    )
    if done.rowcount != 1:
        raise ChainMovedError(f"another pass has read {chain.name} meanwhile; nothing was changed")
    keep = [block for block in blocks if block.height > last - chain.tail]
    with conn.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO chain_blocks (chain_id, height, hash, parent, at) VALUES (%s, %s, %s, %s, %s)",
            [(chain.id, block.height, block.hash, block.parent, block.at) for block in keep],
        )
    # Never the newest, however long ago: it is what the next range links to.
    conn.execute(
        "DELETE FROM chain_blocks WHERE chain_id = %s AND height <= %s"
        " AND height < (SELECT max(height) FROM chain_blocks WHERE chain_id = %s)",
        [chain.id, last - chain.tail, chain.id],
    )


def record(conn: psycopg.Connection, chain: Chain, transfers: Iterable[Transfer]) -> Recorded:
    """Writes transfers down, in a transaction of the caller's that holds the chain. The same again changes nothing.

    The transfers of one transaction come together: all that it pays to watched keys.
    """
    found = Recorded()
    by_transaction: dict[bytes, list[Transfer]] = defaultdict(list)
    for transfer in transfers:
        by_transaction[transfer.tx_hash].append(transfer)
    if not by_transaction:
        return found
    known = Known(conn, chain, [transfer for group in by_transaction.values() for transfer in group])
    existing = _existing(conn, chain, list(by_transaction))
    for tx_hash, group in by_transaction.items():
        ours = []
        for transfer in group:
            if reason := known.unmatched(transfer):
                found.unmatched += _unmatched(conn, chain, transfer, known.users[transfer.to], reason)
            elif transfer.to in known.users:
                ours.append(transfer)
        _reconcile(conn, chain, known, existing[tx_hash], ours, found)
    tell(conn, "Detected", found.detected)
    tell(conn, "Orphaned", found.orphaned)
    return found


class Known:
    """What the database knows about these transfers: whose addresses, which tokens, which senders are the exchange's."""

    def __init__(self, conn: psycopg.Connection, chain: Chain, transfers: Sequence[Transfer]) -> None:
        keys = list({transfer.to for transfer in transfers})
        senders = list({sender for transfer in transfers for sender in transfer.senders})
        contracts = list({transfer.token for transfer in transfers if transfer.token is not None})
        self.users: dict[bytes, int] = dict(
            conn.execute(
                "SELECT key, user_id FROM deposit_addresses WHERE chain_id = %s AND key = ANY (%s)",
                [chain.id, keys],
            ).fetchall()
        )
        self._internal = {
            row[0]
            for row in conn.execute(load("deposits", "internal_keys"), {"chain": chain.id, "keys": senders})
        }
        self.tokens: dict[bytes | None, dict[str, Any]] = {
            row["contract"]: row
            for row in conn.cursor(row_factory=dict_row).execute(
                "SELECT id, contract, decimals, minimum, coalesce(confirmations, %s) AS required, state, state_reason FROM tokens"
                " WHERE chain_id = %s AND (contract IS NULL OR contract = ANY (%s))",
                [chain.confirmations, chain.id, contracts],
            )
        }

    def unmatched(self, transfer: Transfer) -> str | None:
        """Why a transfer to a watched address is no deposit."""
        if transfer.to not in self.users:
            return None
        if transfer.token not in self.tokens:
            return "unknown token" if transfer.token is not None else "coin not listed"
        if any(sender in self._internal for sender in transfer.senders):
            return "sent by the exchange"
        return None

    def held(self, transfer: Transfer) -> str | None:
        """Why a deposit waits for more than confirmations."""
        token = self.tokens[transfer.token]
        if token["state"] != "ACTIVE":
            return f"token {token['state'].lower()}: {token['state_reason']}"
        if transfer.amount < token["minimum"].scaleb(token["decimals"]):
            return f"below the minimum of {plain(token['minimum'])}"
        if transfer.immature:
            return "immature"
        return None


def _existing(
    conn: psycopg.Connection, chain: Chain, hashes: list[bytes]
) -> dict[bytes, list[dict[str, Any]]]:
    """The deposits of these transactions, locked, in the order of their ids."""
    rows = conn.cursor(row_factory=dict_row).execute(
        load("deposits", "existing"), {"chain": chain.id, "hashes": hashes}
    )
    grouped: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        grouped[row["tx_hash"]].append(row)
    return grouped


def _reconcile(
    conn: psycopg.Connection,
    chain: Chain,
    known: Known,
    rows: list[dict[str, Any]],
    transfers: list[Transfer],
    found: Recorded,
) -> None:
    """Brings the deposits of one transaction in line with what it pays now."""
    left = list(rows)
    # Those that are the same in every respect first, then those that only moved, then those that now say something else.
    for same in (_identical, _equal, _same_place):
        for transfer in list(transfers):
            token = known.tokens[transfer.token]["id"]
            row = next((row for row in left if same(row, transfer, token)), None)
            if row is not None:
                left.remove(row)
                transfers.remove(transfer)
                _found_again(conn, chain, known, row, transfer, found)
    for transfer in transfers:
        found.detected.append(_insert(conn, chain, known, transfer))
    for row in left:
        if row["status"] == "CREDITED":
            alarm(conn, row, "the transaction was mined again and doesn't pay it any more")
        elif row["status"] not in ("ORPHANED", "REJECTED"):
            conn.execute(load("deposits", "orphan_one"), {"id": row["id"]})
            found.orphaned.append(row["id"])


def _identical(row: dict[str, Any], transfer: Transfer, token: int) -> bool:
    return _same_place(row, transfer, token) and _equal(row, transfer, token)


def _equal(row: dict[str, Any], transfer: Transfer, token: int) -> bool:
    return (row["kind"], row["key"], row["token_id"], row["units"]) == (
        transfer.kind, transfer.to, token, transfer.amount,
    )  # fmt: skip


def _same_place(row: dict[str, Any], transfer: Transfer, _token: int) -> bool:
    return (row["kind"], row["ordinal"]) == (transfer.kind, transfer.ordinal)


def _found_again(
    conn: psycopg.Connection,
    chain: Chain,
    known: Known,
    row: dict[str, Any],
    transfer: Transfer,
    found: Recorded,
) -> None:
    token = known.tokens[transfer.token]
    block = transfer.block
    if row["status"] == "CREDITED":
        if not _equal(row, transfer, token["id"]):
            alarm(conn, row, f"the transaction was mined again and pays {transfer.amount} units")
            return
        if row["block_hash"] != block.hash or row["ordinal"] != transfer.ordinal:
            conn.execute(
                "UPDATE deposits SET block_height = %s, block_hash = %s, block_at = %s, ordinal = %s, updated_at = now()"
                " WHERE id = %s",
                [block.height, block.hash, block.at, transfer.ordinal, row["id"]],
            )
        incidents.close(
            conn,
            ["credited_orphan"],
            [f"deposit:{row['id']}"],
            "maven",
            f"mined again in block {block.height}",
        )
        return
    if row["status"] == "REJECTED":
        if row["block_hash"] != block.hash:
            incidents.open_incident(
                conn,
                "rejected_deposit",
                f"deposit:{row['id']}",
                f"deposit {row['id']} of user {row['user_id']} was rejected, and its transaction was mined again in block {block.height}; "
                "decide about it: maven ledger adjust",
                {"block": block.height},
                unless_resolved=True,
            )
        return
    at_home = row["block_hash"] == block.hash and row["status"] != "ORPHANED"
    if at_home and _identical(row, transfer, token["id"]):
        return
    held = None if row["released_by"] else known.held(transfer)
    conn.execute(
        load("deposits", "attach"),
        {
            "id": row["id"],
            "ordinal": transfer.ordinal,
            "token": token["id"],
            "key": transfer.to,
            "user": known.users[transfer.to],
            "units": transfer.amount,
            "decimals": token["decimals"],
            "required": token["required"],
            "immature": transfer.immature,
            "status": "HELD" if held else "PENDING",
            "reason": held,
            "height": block.height,
            "hash": block.hash,
            "at": block.at,
        },
    )
    found.detected.append(row["id"])


def _insert(conn: psycopg.Connection, chain: Chain, known: Known, transfer: Transfer) -> int:
    token, held, block = known.tokens[transfer.token], known.held(transfer), transfer.block
    row = conn.execute(
        load("deposits", "insert"),
        {
            "chain": chain.id,
            "tx": transfer.tx_hash,
            "kind": transfer.kind,
            "ordinal": transfer.ordinal,
            "token": token["id"],
            "key": transfer.to,
            "user": known.users[transfer.to],
            "units": transfer.amount,
            "decimals": token["decimals"],
            "required": token["required"],
            "immature": transfer.immature,
            "status": "HELD" if held else "PENDING",
            "reason": held,
            "height": block.height,
            "hash": block.hash,
            "at": block.at,
        },
    ).fetchone()
    assert row is not None
    return int(row[0])


def _unmatched(conn: psycopg.Connection, chain: Chain, transfer: Transfer, user: int, reason: str) -> int:
    """1 for one that wasn't known yet."""
    row = conn.execute(
        load("deposits", "unmatched"),
        {
            "chain": chain.id,
            "tx": transfer.tx_hash,
            "kind": transfer.kind,
            "ordinal": transfer.ordinal,
            "contract": transfer.token,
            "key": transfer.to,
            "user": user,
            "units": transfer.amount,
            "reason": reason,
            "height": transfer.block.height,
            "hash": transfer.block.hash,
        },
    ).fetchone()
    return 1 if row == (True,) else 0


def alarm(conn: psycopg.Connection, row: dict[str, Any], what: str) -> None:
    """A credited deposit that the chain took back: never debited without a person."""
    incidents.open_incident(
        conn,
        "credited_orphan",
        f"deposit:{row['id']}",
        f"deposit {row['id']} of user {row['user_id']} was credited with {plain(row['amount'])}, but {what}; decide about the balance: "
        "maven ledger adjust",
        {"user": row["user_id"], "exposure": row["amount"], "asset": row["asset"]},
    )


def rewind(conn: psycopg.Connection, chain: Chain, ancestor: Block, cursor: tuple[int, bytes]) -> Recorded:
    """Takes back what was read above the newest block that is still in the chain, in a transaction of the caller's.

    What wasn't credited is ORPHANED, and found again where its transaction is mined again; what was credited becomes an
    incident with its exposure. Raises ChainMovedError when the chain isn't as `chain` and `cursor` say any more.
    """
    hold(conn, chain, changing=True)
    done = conn.execute(
        "UPDATE chain_progress SET cursor = %s, cursor_hash = %s, final_cursor = least(final_cursor, %s)"
        " WHERE chain_id = %s AND cursor = %s AND cursor_hash = %s",
        [ancestor.height, ancestor.hash, ancestor.height, chain.id, *cursor],
    )
    if done.rowcount != 1:
        raise ChainMovedError(f"another pass has read {chain.name} meanwhile; nothing was changed")
    conn.execute("UPDATE chains SET reorg_epoch = reorg_epoch + 1 WHERE id = %s", [chain.id])
    above = {"chain": chain.id, "height": ancestor.height}
    conn.execute("DELETE FROM chain_blocks WHERE chain_id = %(chain)s AND height > %(height)s", above)
    conn.execute(
        "DELETE FROM unmatched_transfers WHERE chain_id = %(chain)s AND block_height > %(height)s", above
    )
    found = Recorded(orphaned=[row[0] for row in conn.execute(load("deposits", "orphan_above"), above)])
    tell(conn, "Orphaned", found.orphaned)
    credited = conn.cursor(row_factory=dict_row).execute(load("deposits", "credited_above"), above).fetchall()
    for row in credited:
        alarm(conn, row, f"block {row['block_height']} isn't part of {chain.name} any more")
    return found


def settle(
    conn: psycopg.Connection, chain: Chain, blocks: Sequence[Block], first: int, last: int
) -> list[int]:
    """Takes back what is attached to heights that were just read, from `first` to `last`, but to other blocks than these; what
    was credited becomes an incident. The ids of those that are ORPHANED now.

    In a transaction of the caller's that holds the chain, after `record` has attached what these blocks pay.
    """
    values = {
        "chain": chain.id,
        "first": first,
        "last": last,
        "heights": [block.height for block in blocks],
        "hashes": [block.hash for block in blocks],
    }
    rows = conn.cursor(row_factory=dict_row).execute(load("deposits", "off_chain"), values).fetchall()
    gone = [row for row in rows if row["status"] != "CREDITED"]
    for row in gone:
        conn.execute(load("deposits", "orphan_one"), {"id": row["id"]})
    tell(conn, "Orphaned", [row["id"] for row in gone])
    for row in rows:
        if row["status"] == "CREDITED":
            alarm(conn, row, f"block {row['block_height']} isn't part of {chain.name} any more")
    return [row["id"] for row in gone]


def tell(conn: psycopg.Connection, kind: str, ids: Sequence[int]) -> None:
    """Writes the events of that kind (``Detected``) about deposits."""
    if ids:
        conn.execute("SELECT maven_deposit_events(%s, %s)", [kind, list(ids)])
