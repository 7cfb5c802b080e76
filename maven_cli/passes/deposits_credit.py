"""The credit pass: what is confirmed becomes balance, exactly once. Asks no node.

A deposit is credited on evidence that is young and from after the chain's last reorganisation; else it goes back and is
verified again. A batch is one transaction: ledger, status, events. One that fails is halved until the bad deposit stands
alone; that one is FAILED with its reason, and the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.db.failures import explain
from maven_cli.deposits import follow
from maven_cli.deposits.chains import Chain, all_chains, resolve_chains
from maven_cli.events.publish import publish_after
from maven_cli.numbers import plain
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("deposits-credit", "DepositMonitoringWorker", "deposits-credit")
BATCH = 500
# Somebody else holds a row, or won a race: nothing is wrong with the deposit, the next pass finds it again.
BUSY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


@dataclass(frozen=True)
class Credited:
    """A deposit that became balance; tx in its chain's notation."""

    id: int
    amount: Decimal
    asset: str
    tx: str


@dataclass
class _Credit:
    current: Pass
    done: list[Credited] = field(default_factory=list)
    stale: int = 0
    failed: int = 0
    busy: int = 0


def credit(services: Services, *, chains: Sequence[str] = ()) -> Outcome:
    """Runs one credit pass. `data`: as_of, credited (int), stale, failed, busy, deposits (list of Credited).

    stale: back to be verified again. busy: held by somebody else just now.
    """
    return run(WORKER, lambda current: _body(_Credit(current), chains), services)


def _body(credit: _Credit, names: Sequence[str]) -> dict[str, Any]:
    current, log = credit.current, credit.current.log
    log.debug("deposits.credit_start", "Crediting confirmed deposits...")
    current.check_clock()
    chosen = resolve_chains(current.conn, names) if names else all_chains(current.conn)
    for chain in chosen:
        if chain.state == "ACTIVE":
            _credit_chain(credit, chain)
    publish_after(current.services, current.conn, log, stop=current.stop.check)
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    log.info(
        "deposits.credited",
        f"Credited {len(credit.done)} deposits, {len(current.errors)} errors ({milliseconds}ms)",
        credited=len(credit.done),
        stale=credit.stale,
        busy=credit.busy,
        errors=len(current.errors),
        duration_ms=milliseconds,
    )
    return {
        "as_of": current.as_of,
        "credited": len(credit.done),
        "stale": credit.stale,
        "failed": credit.failed,
        "busy": credit.busy,
        "deposits": credit.done,
    }


def _credit_chain(credit: _Credit, chain: Chain) -> None:
    current = credit.current
    after = 0
    while True:
        current.stop.check()
        ids = [
            row[0]
            for row in current.conn.execute(
                "SELECT id FROM deposits WHERE status = 'CONFIRMED' AND chain_id = %s AND id > %s ORDER BY id LIMIT %s",
                [chain.id, after, BATCH],
            )
        ]
        if not ids:
            return
        after = ids[-1]
        _batch(credit, chain, ids)
        if len(ids) < BATCH:
            return


def _batch(credit: _Credit, chain: Chain, ids: list[int]) -> None:
    """One transaction; when it fails, halves."""
    current = credit.current
    try:
        with current.transaction("deposits:credit", money=True) as conn:
            rows = conn.execute(
                "SELECT deposit_id, status, amount, asset, tx FROM maven_credit_deposits(%s, %s, %s)",
                [chain.id, ids, current.settings.credit_evidence_max_age],
            ).fetchall()
    except psycopg.Error as error:
        if error.sqlstate == "MVD01":
            # Halted or paused since the pass began; nothing of it is lost.
            current.log.warning(
                "deposits.waiting", f"{len(ids)} deposits of {chain.name} wait: {error.diag.message_primary}"
            )
            return
        if not isinstance(error, BUSY) and explain(error) is not None:
            raise
        if len(ids) > 1:
            middle = len(ids) // 2
            _batch(credit, chain, ids[:middle])
            _batch(credit, chain, ids[middle:])
        elif isinstance(error, BUSY):
            credit.busy += 1
        else:
            _failed(credit, ids[0], error)
        return
    credit.busy += len(ids) - len(rows)
    for number, status, amount, asset, tx in rows:
        if status != "CREDITED":
            credit.stale += 1
            continue
        credit.done.append(Credited(number, amount, asset, tx))
        current.log.debug(
            "deposits.credit",
            f"Credited deposit {number}: {plain(amount)} {asset} (tx: {tx})",
            deposit=number,
            tx=tx,
        )


def _failed(credit: _Credit, number: int, error: BaseException) -> None:
    current = credit.current
    reason = current.fail(f"deposit:{number}", error)
    current.log.error("deposits.failed", f"Failed to credit deposit {number}: {reason}", deposit=number)
    with current.transaction("deposits:credit", money=True) as conn:
        if follow.fail(conn, number, reason):
            credit.failed += 1
