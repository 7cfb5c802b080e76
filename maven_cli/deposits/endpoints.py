"""The endpoints of a chain: one is pinned for a pass, the first in their order that is up, on the right chain and not behind.

Each has a circuit, ``node:<chain>/<endpoint>``: one that failed again and again isn't asked for a while, and the pass goes
on with the next. What an endpoint said of itself is believed for one pass only: behind the same address another node may
answer next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg

from maven_cli.chains import Head, Node, NodeBehindError, NodeDownError, WrongChainError
from maven_cli.chains.families import open_node
from maven_cli.chains.rpc import Endpoint, Rpc
from maven_cli.chains.secrets import resolve
from maven_cli.deposits.chains import Chain, progress, record_head
from maven_cli.errors import ConfigurationError, DependencyDownError
from maven_cli.logs import WorkerLog
from maven_cli.operations import circuits
from maven_cli.settings import Settings

# A node so many blocks behind the newest head that was ever told lags; the next one is asked.
LAG = 8


@dataclass(frozen=True)
class Pinned:
    """The endpoint of a pass, and where it stood when it was chosen."""

    node: Node
    head: Head


@dataclass(frozen=True)
class Configured:
    """One row of ``chain_endpoints``."""

    name: str
    secret: str
    rate: float | None
    concurrency: int


def configured(conn: psycopg.Connection, chain: Chain) -> list[Configured]:
    """The chain's endpoints in the order in which they are tried."""
    rows = conn.execute(
        "SELECT name, secret, rate::float8, concurrency FROM chain_endpoints WHERE chain_id = %s ORDER BY priority, name",
        [chain.id],
    )
    return [Configured(*row) for row in rows]


def circuit_of(chain: Chain, endpoint: str) -> str:
    return f"node:{chain.name}/{endpoint}"


def connect(chain: Chain, endpoint: Configured, settings: Settings, check: Callable[[], None]) -> Node:
    """A node that wasn't asked anything yet. Raises ConfigurationError for a secret that isn't there."""
    url = resolve(endpoint.name, endpoint.secret)
    rpc = Rpc(Endpoint(endpoint.name, url, endpoint.rate, endpoint.concurrency), settings.node_timeout, check)
    return open_node(chain.family, rpc)


def verify_chain(chain: Chain, node: Node) -> None:
    """Raises WrongChainError unless the node is on the chain: its identity, and the checkpoint where there is one, because
    chains that split share their genesis."""
    identity = node.identity()
    if identity != chain.identity:
        raise WrongChainError(
            f"endpoint {node.name} is on chain {identity}, not on {chain.name} ({chain.identity}); nothing was read from it"
        )
    if chain.checkpoint_height is not None:
        (block,) = node.blocks([chain.checkpoint_height])
        if block is None:
            raise NodeBehindError(
                f"node {node.name} doesn't have the checkpoint, block {chain.checkpoint_height}"
            )
        if block.hash != chain.checkpoint_hash:
            raise WrongChainError(
                f"endpoint {node.name} has another block {chain.checkpoint_height} than {chain.name}'s checkpoint; it is on a "
                "chain that split off"
            )


@contextmanager
def pinned(
    conn: psycopg.Connection,
    chain: Chain,
    settings: Settings,
    log: WorkerLog,
    check: Callable[[], None],
    *,
    avoid: str | None = None,
) -> Iterator[Pinned]:
    """The chain's endpoint for the length of the block; what fails in it counts for its circuit.

    avoid: an endpoint that is chosen only where no other can be. conn: in autocommit. Raises WrongChainError when the only
    ones that answer are on another chain, else DependencyDownError when none can be used.
    """
    endpoints = configured(conn, chain)
    if not endpoints:
        raise ConfigurationError(f"chain {chain.name} has no endpoint; add one: maven chains add FILE")
    endpoints.sort(key=lambda endpoint: endpoint.name == avoid)
    known = progress(conn, chain).head_height or 0
    failures: list[Exception] = []
    behind: list[tuple[int, Pinned]] = []
    chosen: Pinned | None = None
    opened: list[Node] = []
    try:
        for endpoint in endpoints:
            if not circuits.admit(conn, circuit_of(chain, endpoint.name)):
                failures.append(NodeDownError(f"node {endpoint.name} is left alone, its circuit is open"))
                continue
            try:
                node = connect(chain, endpoint, settings, check)
                opened.append(node)
                verify_chain(chain, node)
                found = Pinned(node, node.head())
            except (DependencyDownError, ConfigurationError) as error:
                failures.append(error)
                _failed(conn, chain, endpoint.name, settings, error)
                log.warning(
                    "chain.endpoint", f"Endpoint {endpoint.name} of {chain.name} can't be used: {error}"
                )
                continue
            except BaseException:
                with suppress(psycopg.Error):
                    circuits.abandoned(conn, circuit_of(chain, endpoint.name))
                raise
            if found.head.block.height + LAG < known:
                # Answers, so its circuit closes; but what it doesn't know yet isn't what isn't there.
                circuits.succeeded(conn, circuit_of(chain, endpoint.name))
                behind.append((found.head.block.height, found))
                log.warning(
                    "chain.endpoint",
                    f"Endpoint {endpoint.name} of {chain.name} is {known - found.head.block.height} blocks behind",
                )
                continue
            chosen = found
            break
        if chosen is None and behind:
            # All that answer are: then perhaps the one that was ahead was wrong.
            chosen = max(behind, key=lambda pair: pair[0])[1]
        if chosen is None:
            wrong = [error for error in failures if isinstance(error, ConfigurationError)]
            raise (
                wrong[0]
                if len(wrong) == len(failures)
                else NodeDownError(f"no endpoint of {chain.name} can be used: {failures[-1]}")
            )
        record_head(conn, chain, chosen.head, chosen.node.name)
        try:
            yield chosen
        except NodeDownError as error:
            _failed(conn, chain, chosen.node.name, settings, error)
            raise
        circuits.succeeded(conn, circuit_of(chain, chosen.node.name))
    finally:
        for node in opened:
            node.close()


def _failed(
    conn: psycopg.Connection, chain: Chain, endpoint: str, settings: Settings, error: Exception
) -> None:
    circuits.failed(
        conn,
        circuit_of(chain, endpoint),
        str(error),
        threshold=settings.circuit_failures,
        cool_down=settings.circuit_cool_down,
        longest=settings.circuit_longest,
    )
