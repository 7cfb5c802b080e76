"""EVM nodes for the tests of this room, and the proxy that spoils what they say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from maven_cli.chains.evm.node import EvmNode
from maven_cli.chains.rpc import Endpoint, Rpc
from tests.node_proxy import NodeProxy
from tests.nodes_evm import Anvil

# Longer than a busy machine takes; faults that have to run into it use their own.
PATIENT = timedelta(seconds=20)


@pytest.fixture
def chain() -> Iterator[Anvil]:
    """An EVM chain of this test's own; it starts in a tenth of a second."""
    with Anvil() as anvil:
        yield anvil


@pytest.fixture
def node(chain: Anvil) -> Iterator[EvmNode]:
    """The adapter, pointed at the chain."""
    opened = EvmNode(Rpc(Endpoint("anvil", chain.url), PATIENT))
    yield opened
    opened.close()


@pytest.fixture
def proxy(chain: Anvil) -> Iterator[NodeProxy]:
    """In front of the chain."""
    with NodeProxy(chain.url) as opened:
        yield opened


@pytest.fixture
def spoilt(proxy: NodeProxy) -> Iterator[EvmNode]:
    """The adapter, pointed at the proxy."""
    opened = EvmNode(Rpc(Endpoint("anvil", proxy.url), PATIENT))
    yield opened
    opened.close()
