"""Reads one chain on from where it was left: reorganisations, addresses that are new, new blocks, and once more what has
become final.

Nothing here believes a node more than it must: each range links to what was read before, and the cursor moves in the
transaction that writes down what was found.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NoReturn

import psycopg

from maven_cli.chains import Block, Node, NodeBehindError, Scan
from maven_cli.deposits import record
from maven_cli.deposits.chains import (
    Chain,
    ChainHaltedError,
    ChainMovedError,
    Progress,
    hold,
    progress,
    set_state,
)
from maven_cli.deposits.endpoints import Pinned
from maven_cli.operations import incidents
from maven_cli.runner import Pass

# Up to so many addresses a node is asked for them by name; a longer filter is refused by many.
FEW = 200
CHUNK = 50  # blocks in one transaction


@dataclass
class ChainScan:
    """What one pass did on one chain. lag: blocks that are left to the next pass."""

    chain: str
    blocks: int = 0
    detected: int = 0
    orphaned: int = 0
    unmatched: int = 0
    rewound: int = 0
    lag: int = 0
    requests: int = 0


@dataclass
class Scanner:
    """One chain under way, on a connection of its own."""

    current: Pass
    conn: psycopg.Connection
    chain: Chain
    done: ChainScan = field(init=False)

    def __post_init__(self) -> None:
        self.done = ChainScan(self.chain.name)

    @property
    def key(self) -> str:
        return f"deposits:{self.chain.name}"

    @contextmanager
    def writing(self) -> Iterator[psycopg.Connection]:
        with self.current.transaction(self.key, conn=self.conn, money=True) as conn:
            yield conn

    # ------------------------------------------------------------------------------------------------------- the scan

    def read(self, pinned: Pinned) -> None:
        """Reads up to the head that the endpoint had when it was pinned, or to the pass's bounds."""
        # The head was read first: an address that is loaded below may only be older than it.
        head = pinned.head.block.height
        where = self._start(pinned)
        if _cursor(where)[0] > head:
            # Behind what was read before: it has nothing new, and can't say what is gone.
            return
        where = self._rewind(pinned.node, where)
        self._new_addresses(pinned.node, where)
        where = self._forward(pinned, where, head)
        assert where.cursor is not None
        self.done.lag = max(0, head - where.cursor)

    def read_again(self, node: Node) -> None:
        """Reads what is final by now for the second time; what a lagging node left out the first time is found."""
        where = progress(self.conn, self.chain)
        final = final_height(self.chain, where)
        if final is None or where.final_cursor is None:
            return
        watch = Watched(self.conn, self.chain)
        reread = where.final_cursor
        while reread < final and self._room():
            self.current.stop.check()
            last = min(reread + CHUNK, final)
            found = node.scan(reread + 1, last, watch, final=True)
            with self.writing() as conn:
                hold(conn, self.chain)
                moved = conn.execute(
                    "UPDATE chain_progress SET final_cursor = %s WHERE chain_id = %s AND final_cursor = %s",
                    [last, self.chain.id, reread],
                )
                if moved.rowcount != 1:
                    return
                self._record(conn, found, reread + 1, last)
            reread = last

    def _room(self) -> bool:
        settings = self.current.settings
        return self.done.blocks < settings.scan_blocks and self.current.elapsed() < settings.scan_budget

    def _record(self, conn: psycopg.Connection, found: Scan, first: int, last: int) -> None:
        """What was found, and what isn't there any more: after a rescan deposits may stand above the cursor."""
        self._add(record.record(conn, self.chain, found.transfers))
        self._add(record.Recorded(orphaned=record.settle(conn, self.chain, found.blocks, first, last)))

    def _add(self, found: record.Recorded) -> None:
        self.done.detected += len(found.detected)
        self.done.orphaned += len(found.orphaned)
        self.done.unmatched += found.unmatched

    def _start(self, pinned: Pinned) -> Progress:
        """Where the chain was left; a chain that was never read begins at its start, or at the head."""
        where = progress(self.conn, self.chain)
        if where.cursor is not None:
            return where
        height = pinned.head.block.height
        if self.chain.start_height is not None:
            height = max(self.chain.start_height - 1, 0)
        (block,) = pinned.node.blocks([height])
        if block is None:
            raise NodeBehindError(
                f"node {pinned.node.name} has no block {height}, where {self.chain.name} is to start"
            )
        with self.writing() as conn:
            hold(conn, self.chain)
            conn.execute(
                "UPDATE chain_progress SET cursor = %s, cursor_hash = %s, final_cursor = %s WHERE chain_id = %s AND cursor IS NULL",
                [block.height, block.hash, block.height, self.chain.id],
            )
            conn.execute(
                "INSERT INTO chain_blocks (chain_id, height, hash, parent, at) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [self.chain.id, block.height, block.hash, block.parent, block.at],
            )
        return progress(self.conn, self.chain)

    # ---------------------------------------------------------------------------------------------- reorganisations

    def _rewind(self, node: Node, where: Progress) -> Progress:
        """Goes back to the newest block that is still in the chain."""
        cursor, known = _cursor(where)
        # Not the cursor's own height, which may have no block (Solana).
        tip = self.conn.execute(
            "SELECT height, hash FROM chain_blocks WHERE chain_id = %s AND height <= %s ORDER BY height DESC LIMIT 1",
            [self.chain.id, cursor],
        ).fetchone()
        if tip is not None:
            (block,) = node.blocks([tip[0]])
            if block is not None and block.hash == tip[1]:
                return where
        ancestor = self._ancestor(node, cursor)
        if ancestor is None:
            self._halt(node, cursor)
        with self.writing() as conn:
            self._add(record.rewind(conn, self.chain, ancestor, (cursor, known)))
        self.done.rewound += cursor - ancestor.height
        self.current.log.warning(
            "chain.reorg",
            f"{self.chain.name} was reorganised from block {ancestor.height + 1} on, {cursor - ancestor.height} blocks deep",
            chain=self.chain.name,
            depth=cursor - ancestor.height,
        )
        self.chain = replace(self.chain, reorg_epoch=self.chain.reorg_epoch + 1)
        return progress(self.conn, self.chain)

    def _ancestor(self, node: Node, cursor: int) -> Block | None:
        """The newest kept block that the node has, too."""
        rows = self.conn.execute(
            "SELECT height, hash FROM chain_blocks WHERE chain_id = %s AND height <= %s ORDER BY height DESC",
            [self.chain.id, cursor],
        ).fetchall()
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            blocks = node.blocks([height for height, _ in part])
            for (_, known), block in zip(part, blocks, strict=True):
                if block is not None and block.hash == known:
                    return block
        return None

    def _halt(self, node: Node, cursor: int) -> NoReturn:
        reason = f"a reorganisation deeper than the {self.chain.tail} blocks that are kept, seen by {node.name} at block {cursor}"
        with self.writing() as conn:
            hold(conn, self.chain, changing=True)
            set_state(conn, self.chain, "HALTED", reason)
            incidents.open_incident(
                conn,
                "chain_halted",
                f"chain:{self.chain.name}",
                f"{self.chain.name} halted: {reason}; compare with another source, then: maven chains rescan {self.chain.name} --from N",
            )
        raise ChainHaltedError(f"{self.chain.name} halted: {reason}; see: maven incidents list")

    # ------------------------------------------------------------------------------------------------------- reading

    def _new_addresses(self, node: Node, where: Progress) -> None:
        """Reads the newest blocks once more for addresses that weren't there when they were read."""
        cursor, _ = _cursor(where)
        row = self.conn.execute(
            "SELECT count(*), min(coalesce(from_height, %s)) FROM deposit_addresses WHERE chain_id = %s AND scanned_from IS NULL",
            [max(cursor - self.chain.backscan, 0) + 1, self.chain.id],
        ).fetchone()
        assert row is not None
        if row[0] == 0:
            return
        # What is older than the chain's beginning is somebody's decision: maven chains rescan.
        first = max(row[1], self._beginning())
        taken = self.conn.execute(
            "SELECT key FROM deposit_addresses WHERE chain_id = %s AND scanned_from IS NULL", [self.chain.id]
        ).fetchall()
        for start in range(first, cursor + 1, CHUNK):
            self.current.stop.check()
            last = min(start + CHUNK - 1, cursor)
            found = node.scan(start, last, Watched(self.conn, self.chain), final=False)
            with self.writing() as conn:
                hold(conn, self.chain)
                self._unchanged(conn, where)
                self._add(record.record(conn, self.chain, found.transfers))
        with self.writing() as conn:
            hold(conn, self.chain)
            self._unchanged(conn, where)
            conn.execute(
                "UPDATE deposit_addresses SET scanned_from = least(%s, coalesce(from_height, %s))"
                " WHERE chain_id = %s AND key = ANY (%s)",
                [first, first, self.chain.id, [key for (key,) in taken]],
            )

    def _beginning(self) -> int:
        """The first block that is read at all."""
        if self.chain.start_height is not None:
            return self.chain.start_height
        row = self.conn.execute(
            "SELECT min(height) FROM chain_blocks WHERE chain_id = %s", [self.chain.id]
        ).fetchone()
        assert row is not None
        return int(row[0] or 0)

    def _unchanged(self, conn: psycopg.Connection, where: Progress) -> None:
        row = conn.execute(
            "SELECT cursor FROM chain_progress WHERE chain_id = %s FOR NO KEY UPDATE", [self.chain.id]
        ).fetchone()
        if row != (where.cursor,):
            raise ChainMovedError(f"another pass has read {self.chain.name} meanwhile")

    def _forward(self, pinned: Pinned, where: Progress, head: int) -> Progress:
        watch = Watched(self.conn, self.chain)
        final = final_height(self.chain, progress(self.conn, self.chain)) or -1
        while _cursor(where)[0] < head and self._room():
            self.current.stop.check()
            cursor, known = _cursor(where)
            bound = self.current.settings.scan_blocks - self.done.blocks
            last = min(cursor + CHUNK, cursor + bound, head)
            if cursor < final < last:
                last = final
            found = pinned.node.scan(cursor + 1, last, watch, final=last <= final)
            if found.blocks and found.blocks[0].parent != known:
                # Reorganised since we looked.
                where = self._linked_again(pinned.node, where, found.blocks[0])
                continue
            with self.writing() as conn:
                hold(conn, self.chain)
                record.advance(conn, self.chain, (cursor, known), found.blocks, last)
                self._record(conn, found, cursor + 1, last)
            self.done.blocks += last - cursor
            where = replace(where, cursor=last, cursor_hash=found.blocks[-1].hash if found.blocks else known)
        return where

    def _linked_again(self, node: Node, where: Progress, block: Block) -> Progress:
        """Goes back to where the chain links to what was read. Raises NodeBehindError when it says that nothing changed."""
        back = self._rewind(node, where)
        if back.cursor_hash == where.cursor_hash:
            raise NodeBehindError(
                f"node {node.name} has a block {block.height} that doesn't follow the one before it; the next pass asks again"
            )
        return back


class Watched:
    """The chain's deposit addresses, looked up where they are: a million of them need no memory here."""

    def __init__(self, conn: psycopg.Connection, chain: Chain) -> None:
        self._conn = conn
        self._chain = chain.id
        rows = conn.execute(
            "SELECT key FROM deposit_addresses WHERE chain_id = %s LIMIT %s", [chain.id, FEW + 1]
        ).fetchall()
        self.few = frozenset(key for (key,) in rows) if len(rows) <= FEW else None

    def owned(self, keys: Collection[bytes]) -> set[bytes]:
        """Those of the keys that are deposit addresses now."""
        if not keys:
            return set()
        rows = self._conn.execute(
            "SELECT key FROM deposit_addresses WHERE chain_id = %s AND key = ANY (%s)",
            [self._chain, list(keys)],
        )
        return {key for (key,) in rows}


def final_height(chain: Chain, where: Progress) -> int | None:
    """Up to where the chain won't be reorganised any more, by its rule; None where nothing is final yet."""
    if chain.finality == "safe":
        return where.safe_height
    if chain.finality == "finalized":
        return where.finalized_height
    if where.head_height is None:
        return None
    height = where.head_height - max(chain.confirmations, 1)
    return height if height >= 0 else None


def _cursor(where: Progress) -> tuple[int, bytes]:
    assert where.cursor is not None
    assert where.cursor_hash is not None
    return where.cursor, where.cursor_hash
