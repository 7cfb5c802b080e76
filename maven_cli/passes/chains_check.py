"""Every endpoint of a chain is asked what the passes need of it. Neither circuits nor progress change by it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from maven_cli.chains import Head, Node, NodeBehindError
from maven_cli.chains.families import open_node
from maven_cli.chains.rpc import Endpoint, Rpc
from maven_cli.chains.secrets import resolve
from maven_cli.deposits.chains import Chain, all_chains, progress, resolve_chains
from maven_cli.deposits.endpoints import LAG, Configured, circuit_of, configured, verify_chain
from maven_cli.deposits.scanning import Watched
from maven_cli.errors import ConfigurationError, DatabaseDownError, MavenError, StoppedError
from maven_cli.operations import circuits
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("chains-test", "DepositMonitoringWorker", "chains-test")


@dataclass(frozen=True)
class Checked:
    """What one endpoint said; None for what wasn't reached. lag: blocks behind the newest head that anybody told. reads: a
    whole block and its transfers, near the head and where it is final. code: the exit code of `error`, 0 without one."""

    chain: str
    endpoint: str
    identity: str | None = None
    head: int | None = None
    head_at: datetime | None = None
    lag: int | None = None
    safe: int | None = None
    finalized: int | None = None
    reads: bool | None = None
    batches: bool | None = None
    latency: timedelta | None = None
    requests: int = 0
    circuit: str = "closed"
    error: str | None = None
    code: int = 0


def check(services: Services, *, chains: Sequence[str] = ()) -> Outcome:
    """Asks the endpoints of these chains, or of all. `data`: as_of, endpoints (list of Checked)."""
    return run(WORKER, lambda current: _body(current, chains), services, record=False)


def _body(current: Pass, names: Sequence[str]) -> dict[str, Any]:
    conn = current.conn
    chosen = resolve_chains(conn, names) if names else all_chains(conn)
    pairs = [(chain, endpoint) for chain in chosen for endpoint in configured(conn, chain)]
    known = {chain.name: progress(conn, chain).head_height or 0 for chain in chosen}
    states = {circuit.name: circuit.state for circuit in circuits.listed(conn)}

    def one(pair: tuple[Chain, Configured]) -> Checked:
        checked = _ask(current, *pair)
        return replace(checked, circuit=states.get(circuit_of(pair[0], pair[1].name), "closed"))

    with ThreadPoolExecutor(8, thread_name_prefix="endpoint") as pool:
        found = list(pool.map(one, pairs))
    for checked in found:
        known[checked.chain] = max(known[checked.chain], checked.head or 0)
    found = [_behind(checked, known[checked.chain]) for checked in found]
    bare = [
        Checked(
            chain.name,
            "-",
            error=f"chain {chain.name} has no endpoint; add one: maven chains add FILE",
            code=78,
        )
        for chain in chosen
        if not any(chain is with_one for with_one, _ in pairs)
    ]
    return {"as_of": current.as_of, "endpoints": sorted(found + bare, key=lambda one: one.chain)}


def _ask(current: Pass, chain: Chain, endpoint: Configured) -> Checked:
    checked = Checked(chain.name, endpoint.name)
    node: Node | None = None
    try:
        url = resolve(endpoint.name, endpoint.secret)
        rpc = Rpc(
            Endpoint(endpoint.name, url, endpoint.rate, endpoint.concurrency),
            current.settings.node_timeout,
            current.stop.check,
        )
        node = open_node(chain.family, rpc)
        started = time.monotonic()
        checked = replace(checked, identity=node.identity())
        checked = replace(checked, latency=timedelta(seconds=round(time.monotonic() - started, 3)))
        verify_chain(chain, node)
        head = node.head()
        height = head.block.height
        checked = replace(
            checked, head=height, head_at=head.block.at, safe=head.safe, finalized=head.finalized
        )
        node.blocks([one for one in range(height, height - 3, -1) if one >= 0])
        checked = replace(checked, batches=rpc.batches)
        watch = Watched(current.conn, chain)
        node.scan(height, height, watch, final=False)
        old = _final(chain, head)
        if old is not None:
            node.scan(old, old, watch, final=True)
        checked = replace(checked, reads=True)
        if old is None:
            raise ConfigurationError(
                f"endpoint {endpoint.name} tells no {chain.finality} block, which the finality of {chain.name} needs"
            )
    except (StoppedError, DatabaseDownError):
        raise
    except MavenError as error:
        if checked.head is not None and checked.reads is None:
            checked = replace(checked, reads=False)
        checked = replace(checked, error=str(error), code=error.exit_code)
    finally:
        if node is not None:
            checked = replace(checked, requests=node.requests)
            node.close()
    return checked


def _final(chain: Chain, head: Head) -> int | None:
    """A height that is final by the chain's rule; None where the node doesn't tell."""
    if chain.finality == "confirmations":
        return max(head.block.height - chain.confirmations, 0)
    return head.safe if chain.finality == "safe" else head.finalized


def _behind(checked: Checked, newest: int) -> Checked:
    if checked.head is None:
        return checked
    lag = newest - checked.head
    if lag > LAG and checked.error is None:
        error = NodeBehindError(f"node {checked.endpoint} is {lag} blocks behind")
        return replace(checked, lag=lag, error=str(error), code=error.exit_code)
    return replace(checked, lag=lag)
