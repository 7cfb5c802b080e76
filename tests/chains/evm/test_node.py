"""What an EVM node says of itself, of blocks, tokens and balances."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from maven_cli.chains import NodeDownError, Token
from maven_cli.chains.evm.node import EvmNode
from maven_cli.chains.rpc import Endpoint, Rpc
from tests.node_proxy import Fault, Forward, NodeProxy, Question, Reply, document, null_results, refused
from tests.nodes_evm import Anvil

ALICE = b"\xa1" * 20


def test_identity_is_the_chain_id_in_decimal() -> None:
    with Anvil("--chain-id", "137") as chain:
        node = EvmNode(Rpc(Endpoint("polygon", chain.url), timedelta(seconds=20)))
        assert node.identity() == "137"
        node.close()


def test_head_in_one_request_with_what_the_chain_calls_safe_and_final(chain: Anvil, node: EvmNode) -> None:
    chain.mine(100)
    head = node.head()
    assert (head.block.height, head.safe, head.finalized) == (100, 68, 36)
    assert head.block.hash == chain.block_hash(100)
    assert head.block.parent == chain.block_hash(99)
    assert head.block.at.tzinfo is not None
    assert node.requests == 1


def test_blocks_in_the_order_asked_and_none_beyond_the_head(chain: Anvil, node: EvmNode) -> None:
    chain.mine(10)
    found = node.blocks([10, 3, 11, 3])
    assert [block and block.height for block in found] == [10, 3, None, 3]
    assert [block and block.hash for block in found] == [
        chain.block_hash(10),
        chain.block_hash(3),
        None,
        chain.block_hash(3),
    ]
    assert node.requests == 1
    assert node.blocks([]) == []


def test_d15_d16_a_token_says_its_decimals_itself(chain: Anvil, node: EvmNode) -> None:
    token = chain.deploy("erc20", "USDT", 18, 5)
    assert node.token(token) == Token(18, "USDT")


@pytest.mark.parametrize("decimals", [0, 77, 255])
def test_decimals_as_they_are_however_odd(chain: Anvil, node: EvmNode, decimals: int) -> None:
    assert node.token(chain.deploy("odd", decimals)) == Token(decimals, "MKR")


def test_what_is_no_token(chain: Anvil, node: EvmNode) -> None:
    """An account without code, a contract without the function, one with more decimals than the standard knows."""
    assert node.token(ALICE) is None
    assert node.token(chain.deploy("forwarder")) is None
    assert node.token(chain.deploy("odd", 256)) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "execution reverted"), (-32015, "VM execution error."), (-32000, "invalid opcode: INVALID")],
)
def test_a_contract_that_refuses_is_no_token(
    spoilt: EvmNode, proxy: NodeProxy, code: int, words: str
) -> None:
    proxy.fault(refused("eth_call", code, words))
    assert spoilt.token(ALICE) is None


def test_a_node_that_refuses_says_nothing_of_a_token(spoilt: EvmNode, proxy: NodeProxy) -> None:
    proxy.fault(refused("eth_call", -32603, "internal error"))
    with pytest.raises(NodeDownError, match="node anvil refuses eth_call: internal error"):
        spoilt.token(ALICE)


def test_a_balance_that_is_none_is_an_error(chain: Anvil, node: EvmNode) -> None:
    """A contract of which nothing is left would otherwise hold 0 of everything."""
    with pytest.raises(NodeDownError, match="node anvil answers eth_call with what is none: balance"):
        node.balances([ALICE], b"\x99" * 20)


@pytest.mark.parametrize(
    "fault",
    [refused("eth_getBlockByNumber", -32602, "unknown tag"), null_results("eth_getBlockByNumber")],
    ids=["refused", "null"],
)
def test_nodes_without_safe_and_finalized(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, fault: Fault
) -> None:
    def only_latest(question: Question, forward: Forward) -> Reply:
        answers = json.loads(fault(question, forward).body)
        return document(question, [forward(question.calls[:1])[0], *answers[1:]])

    chain.mine(100)
    proxy.fault(only_latest)
    head = spoilt.head()
    assert (head.block.height, head.safe, head.finalized) == (100, None, None)


def test_what_is_final_is_never_above_the_head(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    """A balancer may ask a node that lags for the newest block, and another one for the final one."""
    chain.mine(100)

    def lagging(question: Question, forward: Forward) -> Reply:
        answers = forward([{**question.calls[0], "params": ["0xa", False]}, *question.calls[1:]])
        return document(question, answers)

    proxy.fault(lagging)
    head = spoilt.head()
    assert (head.block.height, head.safe, head.finalized) == (10, 10, 10)


def test_a_symbol_can_be_shown_whatever_it_holds(chain: Anvil, node: EvmNode) -> None:
    assert node.token(chain.deploy("erc20", "A\x1b[31m\nB\x00C", 6, 1)) == Token(6, "A[31mBC")
    assert node.token(chain.deploy("erc20", "", 6, 1)) == Token(6, None)
    assert node.token(chain.deploy("erc20", "ü" * 16, 6, 1)) == Token(6, "ü" * 16)


def test_balances_of_coin_and_token(chain: Anvil, node: EvmNode) -> None:
    token = chain.deploy("erc20", "TUSD", 6, 2**256 - 1)
    bob = b"\xb0" * 20
    chain.pay(ALICE, 12345678900000000001)
    chain.send(token, "transfer(address,uint256)", bob, 2**255)
    assert node.balances([bob, ALICE], None) == [0, 12345678900000000001]
    assert node.balances([bob, ALICE], token) == [2**255, 0]
    assert node.requests == 2
    assert node.balances([], token) == []
