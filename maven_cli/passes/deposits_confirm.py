"""The confirm pass: counts confirmations, and looks once more at what has enough of them before it may be credited.

Counting is one statement per chain and asks nothing of a node but its head. A deposit at its threshold is verified: the
transaction is where it was seen, in the canonical chain, took effect, and pays what was recorded. Only then it is
CONFIRMED, with the evidence and the chain's epoch; a reorganisation after that makes the evidence void.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from maven_cli.deposits import follow
from maven_cli.deposits.chains import Chain, all_chains, hold, progress, resolve_chains
from maven_cli.deposits.endpoints import Pinned, pinned
from maven_cli.deposits.scanning import final_height
from maven_cli.deposits.side_by_side import side_by_side
from maven_cli.events.publish import publish_after
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("deposits-confirm", "DepositMonitoringWorker", "deposits-confirm")
# Candidates that one request verifies.
BATCH = 100


@dataclass
class ChainConfirm:
    """What one pass did on one chain. checked: deposits that are followed. missing: at their threshold, but not where they
    were seen."""

    chain: str
    checked: int = 0
    updated: int = 0
    confirmed: int = 0
    failed: int = 0
    missing: int = 0
    requests: int = 0


def confirm(services: Services, *, chains: Sequence[str] = ()) -> Outcome:
    """Runs one confirm pass. `data`: as_of, chains (list of ChainConfirm), checked, updated, confirmed, failed, missing."""
    return run(WORKER, lambda current: _body(current, chains), services)


def _body(current: Pass, names: Sequence[str]) -> dict[str, Any]:
    log = current.log
    log.debug("deposits.confirm_start", "Checking deposit confirmations...")
    current.check_clock()
    chosen = resolve_chains(current.conn, names) if names else all_chains(current.conn)
    followed = follow.followed(current.conn)
    # A chain without deposits to follow costs no request.
    active = [chain for chain in chosen if chain.state == "ACTIVE" and chain.id in followed]
    done = side_by_side(current, active, _confirm_chain)
    publish_after(current.services, current.conn, log, stop=current.stop.check)
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    totals = {
        name: sum(getattr(one, name) for one in done)
        for name in ("checked", "updated", "confirmed", "failed", "missing")
    }
    log.info(
        "deposits.checked",
        f"Checked {totals['checked']} deposits: {totals['updated']} updated, {totals['confirmed']} confirmed, "
        f"{len(current.errors)} errors ({milliseconds}ms)",
        **totals,
        errors=len(current.errors),
        duration_ms=milliseconds,
    )
    return {"as_of": current.as_of, "chains": done, **totals}


def _confirm_chain(current: Pass, conn: psycopg.Connection, chain: Chain) -> ChainConfirm:
    done = ChainConfirm(chain.name)
    with pinned(conn, chain, current.settings, current.log, current.stop.check) as endpoint:
        _count(current, conn, chain, endpoint, done)
        _verify(current, conn, chain, endpoint, done)
        done.requests = endpoint.node.requests
    return done


def _count(
    current: Pass, conn: psycopg.Connection, chain: Chain, endpoint: Pinned, done: ChainConfirm
) -> None:
    with current.transaction(f"deposits-confirm:{chain.name}", conn=conn, money=True) as work:
        hold(work, chain)
        counted = follow.count(work, chain, endpoint.head.block.height)
    done.checked = len(counted)
    for one in counted:
        if one.changed:
            done.updated += 1
            current.log.debug(
                "deposits.item",
                f"Updated deposit {one.id} confirmations: {one.confirmations}",
                deposit=one.id,
                confirmations=one.confirmations,
            )


def _verify(
    current: Pass, conn: psycopg.Connection, chain: Chain, endpoint: Pinned, done: ChainConfirm
) -> None:
    # The rule of this endpoint's own words, not of what another one said: it is the one that is asked.
    final = final_height(chain, progress(conn, chain))
    if chain.finality != "confirmations":
        told = endpoint.head.safe if chain.finality == "safe" else endpoint.head.finalized
        final = told if final is None or told is None else min(told, final)
    after = 0
    while candidates := follow.candidates(conn, chain, final, after, BATCH):
        current.stop.check()
        after = candidates[-1].id
        sightings = endpoint.node.look([one.reference for one in candidates])
        verdicts = [
            follow.judge(one, sighting, endpoint.node.name, chain)
            for one, sighting in zip(candidates, sightings, strict=True)
        ]
        with current.transaction(f"deposits-confirm:{chain.name}", conn=conn, money=True) as work:
            hold(work, chain)
            confirmed = follow.confirm(work, chain, [one for one in verdicts if one.kind == "confirmed"])
            for one in verdicts:
                if one.kind == "failed" and follow.fail(work, one.id, one.reason):
                    done.failed += 1
            follow.missing(work, [one.id for one in verdicts if one.kind == "missing"])
        for number, confirmations in confirmed:
            done.confirmed += 1
            current.log.debug(
                "deposits.confirmed",
                f"Confirmed deposit {number} with {confirmations} confirmations",
                deposit=number,
                confirmations=confirmations,
            )
        for one in verdicts:
            if one.kind == "missing":
                done.missing += 1
                current.log.warning(
                    "deposits.missing", f"Deposit {one.id} waits: {one.reason}", deposit=one.id
                )
        if len(candidates) < BATCH:
            return
