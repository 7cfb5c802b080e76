"""Why a transaction that the chain knows is no deposit, or not yet."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from maven_cli.chains import Sighting, Transfer
from maven_cli.deposits import record
from maven_cli.deposits.chains import Chain, Progress


@dataclass(frozen=True)
class Verdict:
    """What a chain says of a transaction. state: unknown, pending, failed, not_ours, unmatched, not_read, missed, deposit.
    why: in a sentence. next: the command to run, None where there is nothing to do."""

    chain: str
    endpoint: str
    state: str
    why: str
    height: int | None = None
    block_hash: str | None = None
    next: str | None = None


def verdict(
    conn: psycopg.Connection, chain: Chain, where: Progress, endpoint: str, sighting: Sighting, *, known: bool
) -> Verdict:
    """known: whether the database has deposits of this transaction."""
    block = sighting.block
    if sighting.state == "missing" or (block is None and sighting.state != "pending"):
        why = f"{endpoint} doesn't know it: it was never sent to {chain.name}, or was dropped or replaced"
        return Verdict(chain.name, endpoint, "unknown", why)
    if sighting.state == "pending" or block is None:
        why = f"{endpoint} knows it, but it is in no block yet; a scan finds it once it is"
        return Verdict(chain.name, endpoint, "pending", why)

    def found(state: str, why: str, next_: str | None = None) -> Verdict:
        return Verdict(
            chain.name, endpoint, state, why, block.height, chain.notation.write_block_hash(block.hash), next_
        )

    if sighting.state == "failed":
        return found(
            "failed", f"it was mined in block {block.height} without effect (reverted): it paid nobody"
        )
    rules = record.Known(conn, chain, sighting.transfers)
    ours = [one for one in sighting.transfers if one.to in rules.users]
    if not ours:
        return found("not_ours", _not_ours(chain, sighting.transfers, block.height))
    refused = [(one, reason) for one in ours if (reason := rules.unmatched(one))]
    if len(refused) == len(ours):
        what = "; ".join(f"{_payment(chain, rules, one)}: {reason}" for one, reason in refused)
        return found("unmatched", f"it was mined in block {block.height} and pays {what}")
    pays = "; ".join(_payment(chain, rules, one) for one in ours if not rules.unmatched(one))
    if known:
        return found("deposit", f"it is in block {block.height} and pays {pays}")
    if where.cursor is None or block.height > where.cursor:
        at = "nothing yet" if where.cursor is None else f"up to block {where.cursor}"
        return found(
            "not_read",
            f"it is in block {block.height} and pays {pays}; the scan has read {at}",
            f"maven deposits scan --chain {chain.name}",
        )
    return found(
        "missed",
        f"it is in block {block.height} and pays {pays}, but that block was passed before the address or the token was known, or "
        "before the chain's start",
        f"maven chains rescan {chain.name} --from {block.height} --dry-run",
    )


def _payment(chain: Chain, rules: record.Known, one: Transfer) -> str:
    what = "of the chain's coin" if one.token is None else f"of token {chain.notation.write_token(one.token)}"
    return f"user {rules.users[one.to]} {one.amount} base units {what}"


def _not_ours(chain: Chain, transfers: tuple[Transfer, ...], height: int) -> str:
    if transfers:
        return (
            f"it was mined in block {height}; none of its {len(transfers)} payments is to a deposit address"
        )
    why = f"it was mined in block {height} and pays nobody"
    return why + "; what a contract sends within it isn't looked at" if chain.family == "evm" else why
