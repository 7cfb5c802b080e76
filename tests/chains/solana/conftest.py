"""Chains for these tests: the real SVM in a process of its own (tests/nodes_solana.py)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from maven_cli.chains.rpc import Endpoint, Rpc
from maven_cli.chains.solana import SolanaNode, SolanaNotation
from tests.nodes_solana import SolanaChain

NOTATION = SolanaNotation()


@dataclass(frozen=True)
class Watched:
    """Watches these keys; `few` as for very many of them."""

    keys: frozenset[bytes]
    few: frozenset[bytes] | None = None

    def owned(self, keys: Collection[bytes]) -> set[bytes]:
        return {key for key in keys if key in self.keys}


def watch(*addresses: str) -> Watched:
    return Watched(frozenset(map(NOTATION.address, addresses)))


@pytest.fixture(scope="session")
def shared() -> Iterator[SolanaChain]:
    """For tests that only add to it, in wallets of their own."""
    with SolanaChain() as chain:
        yield chain


@pytest.fixture
def chain() -> Iterator[SolanaChain]:
    """This test's own."""
    with SolanaChain() as chain:
        yield chain


@pytest.fixture
def open_node() -> Iterator[Callable[[SolanaChain], SolanaNode]]:
    opened: list[SolanaNode] = []

    def open_(chain: SolanaChain) -> SolanaNode:
        node = SolanaNode(Rpc(Endpoint("sol-1", chain.url), timedelta(seconds=20)))
        opened.append(node)
        return node

    yield open_
    for node in opened:
        node.close()


@pytest.fixture
def node(chain: SolanaChain, open_node: Callable[[SolanaChain], SolanaNode]) -> SolanaNode:
    """Asks this test's own chain."""
    return open_node(chain)
