"""Ranges of events, in all the words in which nodes refuse them. D23."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from maven_cli.chains import NodeBehindError, NodeDownError
from maven_cli.chains.evm.node import EvmNode
from maven_cli.chains.rpc import Endpoint, Rpc
from tests.chains.evm.conftest import PATIENT
from tests.chains.evm.test_scan import ALICE, WATCH
from tests.node_proxy import Answer, Call, NodeProxy, Reply, limited_logs, refusal, refused
from tests.nodes_evm import Anvil

HEIGHT = 200
PAYING = (3, 40, 41, 77, 120, 121, 122, 199)  # blocks with a transfer

Spoil = Callable[[Call, int, int], Answer | Reply]


@pytest.fixture(scope="session")
def paying() -> Iterator[Anvil]:
    """A chain of 200 blocks that nobody changes, with a few transfers to ALICE."""
    with Anvil() as chain:
        token = chain.deploy("erc20", "TUSD", 6, 10**12)
        for height in PAYING:
            if height - 1 > chain.height:
                chain.mine(height - 1 - chain.height)
            chain.send(token, "transfer(address,uint256)", ALICE, height)
        chain.mine(HEIGHT - chain.height)
        yield chain


@pytest.fixture
def proxy(paying: Anvil) -> Iterator[NodeProxy]:
    with NodeProxy(paying.url) as opened:
        yield opened


def says(code: int, message: str) -> Spoil:
    """A refusal. {first}, {last}: the range that would work, in hexadecimal; {limit}: its blocks; {over}: those asked for."""

    def spoil(call: Call, first: int, limit: int) -> Answer:
        asked = int(call["params"][0]["toBlock"], 16) - first + 1
        words = {"first": hex(first), "last": hex(first + limit - 1), "limit": limit, "over": asked}
        return refusal(call, code, message.format(**words))

    return spoil


WORKS = "this block range should work: [{first}, {last}]"

# In the words of providers and nodes as they were seen.
PROPOSING = {
    "infura": says(
        -32005, "query returned more than 10000 results. Try with this block range [{first}, {last}]."
    ),
    "alchemy": says(
        -32602,
        "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the "
        "response size, or you can request any block range with a cap of 10K logs in the response. Based on your "
        f"parameters and the response size limit, {WORKS}",
    ),
    "alchemy, free": says(
        -32600,
        "Under the Free tier plan, you can make eth_getLogs requests with up to a {limit} block range. Based on your "
        f"parameters, {WORKS}. Upgrade to PAYG for expanded block range.",
    ),
}
STATING = {
    "bsc": says(-32000, "exceed maximum block range: {limit}"),
    "quicknode": says(-32614, "eth_getLogs is limited to a {limit} range"),
    "cloudflare": says(
        -32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: {limit}"
    ),
    "llama": says(-32600, "query exceeds max block range {limit}"),
    "drpc": says(35, "ranges over {limit} blocks are not supported on freetier"),
    "moralis": says(-32000, "exceeds the range allowed for your plan ({over} > {limit})"),
    "onfinality": says(-32000, "eth_getLogs block range too large, range: {over}, max: {limit}"),
}
SILENT = {
    "ankr": says(-32600, "block range is too wide"),
    "bsc, public": says(-32005, "limit exceeded"),
    "chainstack": says(
        -32000, "Block range limit exceeded. See more details at https://docs.chainstack.com/docs/limits#evm"
    ),
    "besu": says(-32005, "Requested range exceeds maximum RPC range limit"),
    "geth": says(-32000, "query timeout exceeded"),
    "erigon": says(-32000, "query returned more than 10000 results"),
    "polygon": says(-32602, "eth_getLogs and eth_newFilter are limited to 10,000 results"),
    "nethermind": says(-32005, "Too many logs requested. Max logs per response is 20000."),
    "413": lambda *_: Reply(b"Request Entity Too Large", 413),
    "413 with JSON": lambda call, *_: Reply(
        b'{"jsonrpc":"2.0","id":null,"error":{"code":0,"message":"too big"}}', 413
    ),
    "504": lambda *_: Reply(b"<html>Gateway Time-out</html>", 504),
    "524": lambda *_: Reply(b"<html>A timeout occurred</html>", 524),
    "whole batch": lambda *_: Reply(
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"block range exceeds limit"}}', 400
    ),
}
EVERY = {**PROPOSING, **STATING, **SILENT}
LIMIT = 50


@pytest.fixture
def node(proxy: NodeProxy) -> Iterator[EvmNode]:
    opened = EvmNode(Rpc(Endpoint("primary", proxy.url), PATIENT))
    yield opened
    opened.close()


def found(node: EvmNode, first: int = 0, last: int = HEIGHT) -> list[int]:
    return [item.amount for item in node.scan(first, last, WATCH, final=True).transfers]


def ranges(proxy: NodeProxy) -> list[int]:
    """How many blocks each eth_getLogs asked for."""
    return [
        int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
        for params in proxy.calls("eth_getLogs")
    ]


@pytest.mark.parametrize("spoil", EVERY.values(), ids=EVERY.keys())
@pytest.mark.parametrize(("limit", "first", "last"), [(1, 38, 43), (LIMIT, 0, 130)])
def test_d23_a_range_that_is_refused_becomes_shorter_and_nothing_is_lost(
    node: EvmNode, proxy: NodeProxy, spoil: Spoil, limit: int, first: int, last: int
) -> None:
    proxy.fault(limited_logs(limit, spoil))
    assert found(node, first, last) == [height for height in PAYING if first <= height <= last]


def test_d23_a_range_that_takes_too_long_becomes_shorter(proxy: NodeProxy) -> None:
    proxy.fault(limited_logs(30, lambda *_: Reply(wait=3600)))
    node = EvmNode(Rpc(Endpoint("primary", proxy.url), timedelta(seconds=1)))
    assert found(node, 0, 100) == [height for height in PAYING if height <= 100]
    node.close()


@pytest.mark.parametrize("spoil", PROPOSING.values(), ids=PROPOSING.keys())
def test_d23_what_a_refusal_proposes_is_asked_for_next(node: EvmNode, proxy: NodeProxy, spoil: Spoil) -> None:
    proxy.fault(limited_logs(LIMIT, spoil))
    found(node)
    assert ranges(proxy)[:2] == [HEIGHT + 1, LIMIT]


@pytest.mark.parametrize("spoil", STATING.values(), ids=STATING.keys())
def test_d23_a_bound_that_a_refusal_states_is_kept(node: EvmNode, proxy: NodeProxy, spoil: Spoil) -> None:
    proxy.fault(limited_logs(LIMIT, spoil))
    assert found(node) == list(PAYING)
    # The whole, refused; then ranges of the bound, up to the rest.
    assert ranges(proxy) == [HEIGHT + 1, LIMIT, LIMIT, LIMIT, LIMIT, 1]
    proxy.clear()
    assert found(node) == list(PAYING)
    assert max(ranges(proxy)) == LIMIT


def test_d23_a_range_grows_again_but_not_at_once(node: EvmNode, proxy: NodeProxy) -> None:
    """A bound by results holds for some blocks, not for all."""
    proxy.fault(limited_logs(10, SILENT["erigon"]), times=5, method="eth_getLogs")
    assert found(node) == list(PAYING)
    asked = ranges(proxy)
    assert asked[:14] == [201, 100, 50, 25, 12, 6, 6, 6, 6, 7, 7, 7, 7, 8]
    assert asked[14:-1] == sorted(asked[14:-1])
    assert asked[-2] > 10


def test_a_filter_that_is_not_refused_is_one_request_with_its_header(node: EvmNode, proxy: NodeProxy) -> None:
    assert found(node) == list(PAYING)
    assert ranges(proxy) == [HEIGHT + 1]


@pytest.mark.parametrize("final", [True, False], ids=["final", "tail"])
def test_a_block_whose_events_are_refused_is_read_by_its_receipts(
    node: EvmNode, proxy: NodeProxy, final: bool
) -> None:
    """More events than a provider gives at once can be in a single block, and anybody can put them there."""
    proxy.fault(refused("eth_getLogs", -32005, "query returned more than 10000 results"))
    amounts = [item.amount for item in node.scan(38, 45, WATCH, final=final).transfers]
    assert amounts == [40, 41]
    assert proxy.calls("eth_getBlockReceipts")


def test_a_block_whose_events_cannot_be_had_at_all_is_an_error(node: EvmNode, proxy: NodeProxy) -> None:
    def neither(question: Any, forward: Any) -> Reply:
        spoil = refused("eth_getLogs", -32005, "query returned more than 10000 results")
        if question.calls[0]["method"] == "eth_getBlockReceipts":
            spoil = refused("eth_getBlockReceipts", -32601, "the method is not available")
        return spoil(question, forward)

    proxy.fault(neither)
    with pytest.raises(
        NodeDownError, match="node primary refuses eth_getBlockReceipts: the method is not available"
    ):
        found(node)


@pytest.mark.parametrize(
    "words",
    [
        "BlockOutOfRangeError: block height is 199 but requested was 200",
        "missing trie node",
        "header not found",
    ],
)
def test_d20_a_node_that_says_it_is_behind(node: EvmNode, proxy: NodeProxy, words: str) -> None:
    proxy.fault(refused("eth_getLogs", -32000, words))
    with pytest.raises(
        NodeBehindError, match=f"node primary doesn't have what eth_getLogs asks for: {words}"
    ):
        found(node)


def test_history_that_was_pruned(node: EvmNode, proxy: NodeProxy) -> None:
    proxy.fault(refused("eth_getTransactionReceipt", 4444, "pruned history unavailable"))
    with pytest.raises(NodeBehindError, match="pruned history unavailable"):
        found(node)
