"""The chains of the database: which there are, in which state, and how far each was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg

from maven_cli.chains import Family, Head, Notation
from maven_cli.chains.families import notation
from maven_cli.db.queries import load
from maven_cli.errors import MavenError, TryLaterError, UsageError

Finality = Literal["confirmations", "safe", "finalized"]


class ChainMovedError(TryLaterError):
    """The chain was halted, reorganised or read by somebody else meanwhile; the next pass goes on from there."""


class ChainHaltedError(MavenError):
    """The chain was reorganised deeper than maven can follow; a person decides."""

    exit_code = 1


@dataclass(frozen=True)
class Chain:
    """One row of ``chains``. identity: chain id or genesis hash. tail: how many of the newest blocks' hashes are kept, and
    so how deep a reorganisation may be. backscan: how many blocks are read again for an address that is new."""

    id: int
    name: str
    family: Family
    identity: str
    network: str | None
    checkpoint_height: int | None
    checkpoint_hash: bytes | None
    confirmations: int
    finality: Finality
    tail: int
    backscan: int
    start_height: int | None
    state: str
    state_reason: str | None
    reorg_epoch: int

    @property
    def notation(self) -> Notation:
        return notation(self.family, self.network)


@dataclass(frozen=True)
class Progress:
    """How far a chain was read. cursor: all blocks up to it, once; final_cursor: twice, the second time when they were
    final. head_height, safe_height, finalized_height: where the chain stood when a node last told, at head_seen_at."""

    cursor: int | None
    cursor_hash: bytes | None
    final_cursor: int | None
    head_height: int | None
    head_at: datetime | None
    safe_height: int | None
    finalized_height: int | None
    head_seen_at: datetime | None
    endpoint: str | None


_CHAIN = ", ".join(Chain.__dataclass_fields__)
_PROGRESS = ", ".join(Progress.__dataclass_fields__)


def all_chains(conn: psycopg.Connection) -> list[Chain]:
    """Every chain, by name."""
    return [Chain(*row) for row in conn.execute(f"SELECT {_CHAIN} FROM chains ORDER BY name")]


def resolve_chains(conn: psycopg.Connection, names: Sequence[str]) -> list[Chain]:
    """The chains of those names, in that order without repeats. Raises UsageError naming what exists."""
    known = {chain.name: chain for chain in all_chains(conn)}
    for name in names:
        if name.lower() not in known:
            what = (
                f"choose from {', '.join(known)}"
                if known
                else "there are no chains yet: maven chains add FILE"
            )
            raise UsageError(f"no chain {name!r}; {what}")
    return [known[name] for name in dict.fromkeys(name.lower() for name in names)]


def progress(conn: psycopg.Connection, chain: Chain) -> Progress:
    """How far the chain was read; nothing of it yet where there is no row."""
    row = conn.execute(f"SELECT {_PROGRESS} FROM chain_progress WHERE chain_id = %s", [chain.id]).fetchone()
    return Progress(*row) if row else Progress(*([None] * 9))


def hold(conn: psycopg.Connection, chain: Chain, *, changing: bool = False) -> None:
    """Keeps the chain as it is to the end of the transaction: active, and not reorganised since `chain` was read.

    changing: nobody else may hold it meanwhile. Raises ChainMovedError.
    """
    row = conn.execute(
        "SELECT state, reorg_epoch FROM chains WHERE id = %s FOR "
        + ("NO KEY UPDATE" if changing else "SHARE"),
        [chain.id],
    ).fetchone()
    if row is None or row[0] != "ACTIVE":
        raise ChainMovedError(
            f"chain {chain.name} was {'removed' if row is None else row[0].lower()} meanwhile"
        )
    if row[1] != chain.reorg_epoch:
        raise ChainMovedError(
            f"chain {chain.name} was rewound by another pass; the next pass goes on from there"
        )


def record_head(conn: psycopg.Connection, chain: Chain, head: Head, endpoint: str) -> None:
    """Notes where a node stands. A head that is lower than one noted before is a lagging node's: it changes nothing."""
    conn.execute(
        load("deposits", "head_record"),
        {
            "chain": chain.id,
            "height": head.block.height,
            "at": head.block.at,
            "safe": head.safe,
            "finalized": head.finalized,
            "endpoint": endpoint,
        },
    )


def set_state(conn: psycopg.Connection, chain: Chain, state: str, reason: str | None) -> bool:
    """Pauses, halts or resumes a chain; False when it was so already. Waits for whoever holds it."""
    done = conn.execute(
        "UPDATE chains SET state = %s, state_reason = %s WHERE id = %s AND state <> %s",
        [state, reason, chain.id, state],
    )
    return done.rowcount == 1
