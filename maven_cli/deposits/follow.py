"""Follows deposits from their block to their threshold: counts, candidates, and the verdict on what a node says of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from maven_cli.chains import Reference, Sighting
from maven_cli.db.queries import load
from maven_cli.deposits.chains import Chain
from maven_cli.deposits.record import MATURITY


@dataclass(frozen=True)
class Counted:
    """A deposit that is followed; `changed` when this pass counted more confirmations than the one before."""

    id: int
    confirmations: int
    changed: bool


@dataclass(frozen=True)
class Candidate:
    """A deposit at its threshold, as it was recorded."""

    id: int
    tx_hash: bytes
    kind: str
    ordinal: int
    key: bytes
    contract: bytes | None
    units: int
    block_height: int
    block_hash: bytes
    confirmations: int
    required: int

    @property
    def reference(self) -> Reference:
        return Reference(self.tx_hash, self.block_height, self.block_hash)


@dataclass(frozen=True)
class Verdict:
    """What the chain says of a candidate. evidence: what a credited deposit keeps."""

    id: int
    kind: Literal["confirmed", "failed", "missing"]
    reason: str = ""
    evidence: dict[str, Any] | None = None


def followed(conn: psycopg.Connection) -> set[int]:
    """The chains with deposits that are to be counted."""
    return {row[0] for row in conn.execute(load("deposits", "followed"))}


def count(conn: psycopg.Connection, chain: Chain, head: int) -> list[Counted]:
    """Counts the chain's deposits up to this head. A count never falls: a lower head is a lagging node's."""
    conn.execute(load("deposits", "held_no_more"), {"chain": chain.id, "mature": head - MATURITY})
    rows = conn.execute(load("deposits", "count"), {"chain": chain.id, "head": head})
    return [Counted(*row) for row in rows]


def candidates(
    conn: psycopg.Connection, chain: Chain, final: int | None, after: int, limit: int
) -> list[Candidate]:
    """Deposits with enough confirmations whose block is final by the chain's rule, by id."""
    rows = conn.cursor(row_factory=dict_row).execute(
        load("deposits", "candidates"),
        {
            "chain": chain.id,
            "by_count": chain.finality == "confirmations",
            "final": final,
            "after": after,
            "limit": limit,
        },
    )
    return [Candidate(**{**row, "units": int(row["units"])}) for row in rows]


def judge(candidate: Candidate, sighting: Sighting, endpoint: str, chain: Chain) -> Verdict:
    """Whether what a node says of the transaction is what was recorded."""
    block = sighting.block
    if sighting.state in ("pending", "missing") or block is None:
        return Verdict(candidate.id, "missing", f"{endpoint} says that its transaction is {sighting.state}")
    if block.hash != candidate.block_hash:
        return Verdict(
            candidate.id, "missing", f"{endpoint} has its transaction in another block, {block.height}"
        )
    if sighting.state == "failed":
        return Verdict(candidate.id, "failed", "the transaction was mined without effect (reverted)")
    same = any(
        (one.kind, one.ordinal, one.to, one.token, one.amount)
        == (candidate.kind, candidate.ordinal, candidate.key, candidate.contract, candidate.units)
        for one in sighting.transfers
    )
    if not same:
        return Verdict(candidate.id, "missing", f"{endpoint} says that its transaction doesn't pay it")
    assert sighting.digest is not None
    evidence = {
        "endpoint": endpoint,
        "height": block.height,
        "digest": sighting.digest.hex(),
        "confirmations": candidate.confirmations,
        "required": candidate.required,
        "finality": chain.finality,
    }
    return Verdict(candidate.id, "confirmed", evidence=evidence)


def confirm(conn: psycopg.Connection, chain: Chain, verdicts: Sequence[Verdict]) -> list[tuple[int, int]]:
    """Marks deposits CONFIRMED, unless they changed meanwhile; those that were, with their confirmations."""
    if not verdicts:
        return []
    rows = conn.execute(
        load("deposits", "confirm"),
        {
            "ids": [one.id for one in verdicts],
            "evidence": [Jsonb(one.evidence) for one in verdicts],
            "chain": chain.id,
            "epoch": chain.reorg_epoch,
        },
    ).fetchall()
    conn.execute("SELECT maven_deposit_events('Confirmed', %s)", [[row[0] for row in rows]])
    return [(row[0], row[1]) for row in rows]


def fail(conn: psycopg.Connection, deposit: int, reason: str) -> bool:
    """Marks a deposit FAILED; False when it isn't on its way any more."""
    return conn.execute("SELECT maven_fail_deposit(%s, %s)", [deposit, reason]).fetchone() == (True,)


def missing(conn: psycopg.Connection, deposits: Sequence[int]) -> None:
    """Notes since when deposits aren't where they were seen. Whether their chain took them back is the scan's to find."""
    if deposits:
        conn.execute(
            "UPDATE deposits SET missing_since = now(), updated_at = now() WHERE id = ANY (%s) AND missing_since IS NULL",
            [list(deposits)],
        )
