"""The scan pass: what arrived at the users' addresses, on every chain that is active.

Chains run side by side, each on a thread and a connection of its own; what goes wrong on one is that chain's error, and the
others go on. On each chain, in this order: an endpoint that is on the right chain and not behind; a reorganisation is
found and what it took back is orphaned; addresses that are new are looked for in the newest blocks; new blocks are
read; what has become final is read once more, from another endpoint where there is one. Afterwards events are published.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from maven_cli.deposits import tokens
from maven_cli.deposits.chains import Chain, all_chains, resolve_chains
from maven_cli.deposits.endpoints import configured, pinned
from maven_cli.deposits.scanning import ChainScan, Scanner
from maven_cli.deposits.side_by_side import side_by_side
from maven_cli.events.publish import publish_after
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("deposits-scan", "DepositMonitoringWorker", "deposits-scan")


def scan(services: Services, *, chains: Sequence[str] = ()) -> Outcome:
    """Runs one scan pass. `data`: as_of, chains (list of ChainScan), blocks, detected, orphaned, unmatched.

    detected: new deposits, and such as were found again in another block. orphaned: taken back by their chain.
    """
    return run(WORKER, lambda current: _body(current, chains), services)


def _body(current: Pass, names: Sequence[str]) -> dict[str, Any]:
    log = current.log
    current.check_clock()
    chosen = resolve_chains(current.conn, names) if names else all_chains(current.conn)
    active = [chain for chain in chosen if chain.state == "ACTIVE"]
    log.debug("deposits.scan_start", f"Scanning {', '.join(chain.name for chain in active) or 'no chain'}...")
    done = side_by_side(current, active, _scan_chain)
    publish_after(current.services, current.conn, log, stop=current.stop.check)
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    totals = {
        name: sum(getattr(one, name) for one in done)
        for name in ("blocks", "detected", "orphaned", "unmatched")
    }
    log.info(
        "deposits.scanned",
        f"Scanned {totals['blocks']} blocks on {len(done)} chains: {totals['detected']} deposits, {totals['orphaned']} orphaned, "
        f"{len(current.errors)} errors ({milliseconds}ms)",
        **totals,
        errors=len(current.errors),
        duration_ms=milliseconds,
    )
    return {"as_of": current.as_of, "chains": done, **totals}


def _scan_chain(current: Pass, conn: psycopg.Connection, chain: Chain) -> ChainScan:
    settings, log, check = current.settings, current.log, current.stop.check
    scanner = Scanner(current, conn, chain)
    with pinned(conn, chain, settings, log, check) as first:
        tokens.check(current, conn, chain, first.node)
        scanner.read(first)
        scanner.done.requests += first.node.requests
        alone = len(configured(conn, chain)) == 1
        if alone:
            scanner.read_again(first.node)
            scanner.done.requests = first.node.requests
    if not alone:
        with pinned(conn, chain, settings, log, check, avoid=first.node.name) as second:
            scanner.read_again(second.node)
            scanner.done.requests += second.node.requests
    log.debug(
        "deposits.chain",
        f"Scanned {scanner.done.blocks} blocks of {chain.name}: {scanner.done.detected} deposits, {scanner.done.lag} blocks left",
        chain=chain.name,
    )
    return scanner.done
