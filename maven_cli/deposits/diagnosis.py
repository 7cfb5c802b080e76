"""Why a deposit waits, for how long still, and what to do: from what the database knows, without asking a node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.db.queries import load
from maven_cli.deposits.record import MATURITY

# A head that nobody told of for so long: no pass asks, or no node answers.
STALE = timedelta(minutes=5)
# The age from which a newest block means that its node stands still. Bitcoin's blocks come when they come.
OLD_HEAD = {"evm": timedelta(minutes=10), "bitcoin": timedelta(hours=3), "solana": timedelta(minutes=5)}
# The scan is behind when it would take the chain so long to make the blocks that it hasn't read.
SCAN_BEHIND = timedelta(minutes=10)


@dataclass(frozen=True)
class ChainHealth:
    """One chain as it was at an instant. interval: seconds between two blocks. unreachable: why no endpoint answers, where
    that was tried. answered: one did, although no pass had asked for long."""

    id: int
    name: str
    family: str
    state: str
    state_reason: str | None
    finality: str
    confirmations: int
    cursor: int | None
    head_height: int | None
    head_at: datetime | None
    head_seen_at: datetime | None
    safe_height: int | None
    finalized_height: int | None
    endpoint: str | None
    endpoints: int
    circuits_open: int
    last_error: str | None
    interval: float | None
    unreachable: str | None = None
    answered: bool = False

    def stale(self, now: datetime) -> bool:
        """Nobody was told of a head lately."""
        return self.head_seen_at is None or now - self.head_seen_at > STALE

    @property
    def all_circuits_open(self) -> bool:
        return self.circuits_open == self.endpoints > 0

    @property
    def unread(self) -> int:
        """Blocks that the scan hasn't read."""
        if self.head_height is None or self.cursor is None:
            return 0
        return max(0, self.head_height - self.cursor)

    @property
    def scan_behind(self) -> bool:
        if self.interval is None:
            return self.unread > 100
        return self.unread * self.interval > SCAN_BEHIND.total_seconds()

    @property
    def final(self) -> int | None:
        """The newest height that is final by the chain's word; None where it counts confirmations alone, or doesn't tell."""
        if self.finality == "confirmations":
            return None
        return self.safe_height if self.finality == "safe" else self.finalized_height

    def after(self, blocks: int, now: datetime) -> datetime | None:
        """When so many blocks more will have been made, about; None where nobody can say."""
        if self.interval is None:
            return None
        return (now + timedelta(seconds=max(blocks, 0) * self.interval)).replace(microsecond=0)


@dataclass(frozen=True)
class Diagnosis:
    """What a deposit waits for. cause: one word. next: the command to run, None where there is nothing to do. expected: about
    when it will be confirmed."""

    cause: str
    why: str
    next: str | None = None
    expected: datetime | None = None


def chain_health(conn: psycopg.Connection) -> dict[str, ChainHealth]:
    """Every chain by its name."""
    rows = conn.cursor(row_factory=dict_row).execute(load("deposits", "chain_health"))
    return {row["name"]: ChainHealth(**row) for row in rows}


def diagnose(deposit: Mapping[str, Any], chain: ChainHealth, now: datetime) -> Diagnosis:
    """deposit: a row of deposit_rows.sql."""
    number, status, reason = deposit["id"], deposit["status"], deposit["reason"]
    if status == "CREDITED":
        return Diagnosis(
            "credited", f"it was credited by entry {deposit['entry_seq']} of wallet {deposit['wallet_id']}"
        )
    if status == "REJECTED":
        return Diagnosis("rejected", f"it was rejected: {reason}")
    if status == "HELD":
        return _held(deposit, chain, now)
    if chain.state != "ACTIVE":
        return _stopped(chain)
    if status == "FAILED":
        return Diagnosis(
            "failed",
            f"it failed: {reason}; mend the cause first",
            f"maven deposits retry {number}",
        )
    if deposit["token_state"] != "ACTIVE":
        return Diagnosis(
            f"token_{deposit['token_state'].lower()}",
            f"{deposit['asset']} on {chain.name} is {deposit['token_state'].lower()}: {deposit['token_reason']}",
            f"maven chains unsuspend {chain.name} --token {deposit['contract'] or deposit['asset']}",
        )
    return (
        _nodes(chain, now)
        or _taken_back(deposit, chain)
        or _credit(deposit, now)
        or _verification(deposit, chain, now)
        or _count(deposit, chain, now)
    )


def _held(deposit: Mapping[str, Any], chain: ChainHealth, now: datetime) -> Diagnosis:
    number, reason = deposit["id"], deposit["reason"]
    if reason == "immature":
        ripe = deposit["block_height"] + MATURITY
        left = ripe - (chain.head_height or deposit["block_height"])
        return Diagnosis(
            "immature",
            f"it is newly made coin that can't be spent before block {ripe}, in {max(left, 0)} blocks; then it is followed by itself",
            None,
            chain.after(left + deposit["required"], now),
        )
    if deposit["token_state"] != "ACTIVE":
        return Diagnosis(
            "held",
            f"it is held, {reason}",
            f"maven chains unsuspend {chain.name} --token {deposit['contract'] or deposit['asset']}",
        )
    return Diagnosis(
        "held",
        f"it is held, {reason}",
        f"maven deposits release {number} --reason TEXT, or: maven deposits reject {number} --reason TEXT",
    )


def _stopped(chain: ChainHealth) -> Diagnosis:
    if chain.state == "HALTED":
        return Diagnosis(
            "chain_halted",
            f"{chain.name} is halted: {chain.state_reason}",
            f"maven incidents list, then: maven chains rescan {chain.name} --from N",
        )
    return Diagnosis(
        "chain_paused", f"{chain.name} is paused: {chain.state_reason}", f"maven chains resume {chain.name}"
    )


def _nodes(chain: ChainHealth, now: datetime) -> Diagnosis | None:
    """What keeps every deposit of the chain waiting."""
    test = f"maven chains test {chain.name}"
    if chain.unreachable is not None:
        return Diagnosis("no_endpoint", f"no endpoint of {chain.name} answers: {chain.unreachable}", test)
    if chain.all_circuits_open:
        return Diagnosis(
            "no_endpoint",
            f"every endpoint of {chain.name} failed again and again and is left alone for a while: {chain.last_error}",
            test,
        )
    if chain.answered:
        return Diagnosis(
            "not_running",
            f"no pass had asked a node of {chain.name} for {ago(STALE)} or longer, but the nodes answer: is the scan scheduled?",
            f"maven deposits scan --chain {chain.name}",
        )
    if chain.stale(now):
        since = (
            f"no node of {chain.name} told its newest block yet"
            if chain.head_seen_at is None
            else f"for {ago(now - chain.head_seen_at)} no node of {chain.name} told of a block as new as {chain.head_height}"
        )
        said = f"; the last one that failed: {chain.last_error}" if chain.last_error else ""
        return Diagnosis("node_behind", since + said, test)
    if chain.head_at is not None and now - chain.head_at > OLD_HEAD[chain.family]:
        return Diagnosis(
            "node_behind",
            f"the newest block of {chain.name}, {chain.head_height}, is {ago(now - chain.head_at)} old: its nodes are behind, "
            "or the chain stands still",
            test,
        )
    return None


def _taken_back(deposit: Mapping[str, Any], chain: ChainHealth) -> Diagnosis | None:
    scan = f"maven deposits scan --chain {chain.name}"
    unread = f"; the scan is {chain.unread} blocks behind" if chain.scan_behind else ""
    if deposit["status"] == "ORPHANED":
        return Diagnosis(
            "orphaned",
            f"{chain.name} took its block back, and the transaction wasn't found in another one{unread}",
            scan
            if unread
            else f"maven deposits explain {deposit['tx_hash']} --chain {chain.name} --on-chain",
        )
    if deposit["missing_since"] is not None and deposit["status"] != "CONFIRMED":
        return Diagnosis(
            "vanished",
            f"its transaction isn't where it was seen, in block {deposit['block_height']}{unread}",
            scan
            if unread
            else f"maven deposits explain {deposit['tx_hash']} --chain {chain.name} --on-chain",
        )
    return None


def _credit(deposit: Mapping[str, Any], now: datetime) -> Diagnosis | None:
    if deposit["status"] != "CONFIRMED":
        return None
    if not deposit["verified_on_this_chain"]:
        why = "its chain was reorganised after it was verified; credit has it verified again"
    else:
        why = f"it is confirmed since {ago(now - deposit['confirmed_at'])} and waits for the credit pass"
    return Diagnosis("not_credited", why, "maven deposits credit", now.replace(microsecond=0))


def _verification(deposit: Mapping[str, Any], chain: ChainHealth, now: datetime) -> Diagnosis | None:
    """At its threshold."""
    if deposit["confirmations"] < deposit["required"]:
        return None
    if chain.finality != "confirmations" and (chain.final is None or deposit["block_height"] > chain.final):
        if chain.final is None:
            return Diagnosis(
                "not_final",
                f"{chain.endpoint} tells no {chain.finality} block of {chain.name}, which its finality needs",
                f"maven chains test {chain.name}",
            )
        left = deposit["block_height"] - chain.final
        behind = (chain.head_height or chain.final) - chain.final
        return Diagnosis(
            "not_final",
            f"its block {deposit['block_height']} isn't {chain.finality} yet: {chain.name} is {chain.finality} up to {chain.final}, "
            f"{behind} blocks behind its head",
            f"maven chains test {chain.name}",
            chain.after(left, now),
        )
    return Diagnosis(
        "not_verified",
        "it has its confirmations and waits for the confirm pass",
        f"maven deposits confirm --chain {chain.name}",
        now.replace(microsecond=0),
    )


def _count(deposit: Mapping[str, Any], chain: ChainHealth, now: datetime) -> Diagnosis:
    counted = deposit["confirmations"]
    has = counted
    if chain.head_height is not None and deposit["block_height"] is not None:
        has = max(counted, chain.head_height - deposit["block_height"] + 1)
    required = deposit["required"]
    if has >= required:
        return Diagnosis(
            "not_counted",
            f"it has {has} confirmations by the newest block, {counted} were counted: is the confirm pass running?",
            f"maven deposits confirm --chain {chain.name}",
            now.replace(microsecond=0),
        )
    left = required - has
    if chain.final is not None and deposit["block_height"] is not None and chain.head_height is not None:
        # How far the chain's own finality follows its head doesn't change much.
        left = max(left, deposit["block_height"] - chain.final)
    return Diagnosis("confirming", f"it has {has} of {required} confirmations", None, chain.after(left, now))


def ago(age: timedelta) -> str:
    """``45s``, ``25min``, ``36h``, ``12d``: for people, so rounded down."""
    seconds = max(0, int(age.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
