"""Which deposits should have come further by now, why each hasn't, and whether the chains are watched at all.

As long as all goes well no node is asked and no adapter is loaded. Where a chain's head is old, or all its endpoints are left
alone, they are tried once more first; only when none answers, monitoring is not active.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.deposits.chains import Chain, all_chains
from maven_cli.deposits.diagnosis import ChainHealth, chain_health, diagnose
from maven_cli.deposits.read import stuck as stuck_rows
from maven_cli.errors import ConfigurationError, DatabaseDownError, DependencyDownError
from maven_cli.runner import Outcome, Pass, Services, Worker, run
from maven_cli.times import format_duration

WORKER = Worker("deposits-stuck", "DepositMonitoringWorker", "deposits-stuck")


@dataclass(frozen=True)
class Stuck:
    """One deposit that is stuck. cause, why, next, expected: as in maven_cli.deposits.diagnosis."""

    id: int
    chain: str
    tx_hash: str
    status: str
    confirmations: int
    required: int
    amount: Decimal
    asset: str
    user_id: int
    first_seen_at: datetime
    age: timedelta
    cause: str
    why: str
    next: str | None
    expected: datetime | None


@dataclass(frozen=True)
class Inactive:
    """A chain whose endpoints were all tried in vain."""

    chain: str
    error: str


def stuck(services: Services, *, older_than: timedelta = timedelta(hours=24), limit: int = 100) -> Outcome:
    """Looks for stuck deposits. `data`: as_of, older_than, total, stuck (list of Stuck, the oldest first, at most `limit`),
    inactive (list of Inactive). What is found is no failure."""
    return run(WORKER, lambda current: _body(current, older_than, limit), services, record=False)


def _body(current: Pass, older_than: timedelta, limit: int) -> dict[str, Any]:
    health = chain_health(current.conn)
    inactive = _revive(current, health)
    rows = stuck_rows(current.conn, current.as_of - older_than, limit)
    found = []
    for row in rows:
        diagnosis = diagnose(row, health[row["chain"]], current.as_of)
        found.append(
            Stuck(
                **{name: row[name] for name in Stuck.__dataclass_fields__ if name in row},
                age=current.as_of - row["first_seen_at"],
                **diagnosis.__dict__,
            )
        )
    total = rows[0]["total"] if rows else 0
    if found:
        _tell(current, found, total, older_than)
    return {
        "as_of": current.as_of,
        "older_than": older_than,
        "total": total,
        "stuck": found,
        "inactive": inactive,
    }


def _tell(current: Pass, found: list[Stuck], total: int, older_than: timedelta) -> None:
    current.log.warning(
        "deposits.stuck", f"Found {total} deposits stuck for >{hours(older_than)}:", stuck=total
    )
    for one in found:
        current.log.warning(
            "deposits.stuck_item",
            f"  - id: {one.id}, txHash: {one.tx_hash}, status: {one.status}, confirmations: {one.confirmations}, "
            f"age: {hours(one.age)}",
            deposit=one.id,
            cause=one.cause,
        )


def _revive(current: Pass, health: dict[str, ChainHealth]) -> list[Inactive]:
    """Tries the endpoints of chains that nobody has heard of lately, and brings `health` up to date."""
    now = current.as_of
    tried = [
        chain
        for chain in all_chains(current.conn)
        if chain.state == "ACTIVE" and (health[chain.name].stale(now) or health[chain.name].all_circuits_open)
    ]
    if not tried:
        return []
    # Only here: what is imported for it, a healthy run doesn't need.
    from maven_cli.deposits.endpoints import pinned
    from maven_cli.deposits.side_by_side import side_by_side

    def one(current: Pass, conn: psycopg.Connection, chain: Chain) -> tuple[str, str | None]:
        try:
            with pinned(conn, chain, current.settings, current.log, current.stop.check):
                return chain.name, None
        except DatabaseDownError:
            raise
        except (DependencyDownError, ConfigurationError) as error:
            return chain.name, str(error).removeprefix(f"no endpoint of {chain.name} can be used: ")

    answers = dict(side_by_side(current, tried, one))
    fresh = chain_health(current.conn)
    inactive = []
    for name, error in answers.items():
        # Nodes that are all behind answer, too, but tell nothing new.
        revived = error is None and health[name].stale(now) and not fresh[name].stale(now)
        health[name] = replace(fresh[name], unreachable=error, answered=revived)
        if error is not None:
            inactive.append(Inactive(name, error))
            current.log.error("chain.inactive", f"No endpoint of {name} answers: {error}", chain=name)
    if inactive:
        current.log.error(
            "chain.monitoring", "Blockchain monitoring is not active!", chains=[one.chain for one in inactive]
        )
    return inactive


def hours(age: timedelta) -> str:
    """``36h``: whole hours, as operators know it; a shorter time in the largest unit that fits."""
    if age >= timedelta(hours=1):
        return f"{age // timedelta(hours=1)}h"
    unit = timedelta(minutes=1) if age >= timedelta(minutes=1) else timedelta(seconds=1)
    return format_duration(age // unit * unit)
