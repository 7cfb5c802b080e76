"""How many deposits are where, and whether confirmed ones wait for the credit pass. Asks no node and writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from psycopg.rows import dict_row

from maven_cli.db.queries import load
from maven_cli.deposits.diagnosis import ago
from maven_cli.deposits.read import STATUSES
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("deposits-stats", "DepositMonitoringWorker", "deposits-stats")
# A confirmed deposit is credited by the next pass; one that is older was left by several.
WAITING = timedelta(minutes=2)


def stats(services: Services) -> Outcome:
    """Runs one stats pass. `data`: as_of; pending, confirming, confirmed, credited, failed, orphaned, held, rejected; waiting
    (confirmed for longer than WAITING); held_reasons and chains (the same for each chain)."""
    return run(WORKER, _body, services)


def _body(current: Pass) -> dict[str, Any]:
    with current.snapshot() as conn:
        rows = conn.cursor(row_factory=dict_row).execute(load("deposits", "stats")).fetchall()
        waiting = (
            conn.cursor(row_factory=dict_row)
            .execute(load("deposits", "waiting"), {"as_of": current.as_of, "after": WAITING})
            .fetchall()
        )
    by_chain: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_chain.setdefault(row["chain"], []).append(row)
    late = {row["chain"]: row["number"] for row in waiting}
    chains = [
        {"chain": chain, **_counts(found), "waiting": late.get(chain, 0), "held_reasons": _reasons(found)}
        for chain, found in by_chain.items()
    ]
    counts = _counts(rows)
    current.log.info(
        "deposits.stats",
        f"Deposit stats - Pending: {counts['pending']}, Confirming: {counts['confirming']}, "
        f"Confirmed: {counts['confirmed']}, Credited: {counts['credited']}",
        **counts,
    )
    for row in waiting:
        why = (
            "is maven deposits credit running?"
            if row["state"] == "ACTIVE"
            else f"the chain is {row['state'].lower()}"
        )
        current.log.warning(
            "deposits.uncredited",
            f"{row['number']} confirmed deposits of {row['chain']} wait to be credited, the longest for {ago(row['longest'])}: {why}",
            chain=row["chain"],
        )
    return {
        "as_of": current.as_of,
        **counts,
        "waiting": sum(late.values()),
        "held_reasons": _reasons(rows),
        "chains": chains,
    }


def _counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many are in each status."""
    counts = {status.lower(): 0 for status in STATUSES}
    for row in rows:
        if row["status"] is not None:
            counts[row["status"].lower()] += row["number"]
    return counts


def _reasons(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many are held for each reason."""
    reasons: dict[str, int] = {}
    for row in rows:
        if row["status"] == "HELD":
            reasons[row["reason"]] = reasons.get(row["reason"], 0) + row["number"]
    return reasons
