"""A shorter answer is never taken for a whole one: what nodes leave out, by accident or by design."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from maven_cli.chains import NodeBehindError, NodeDownError
from maven_cli.chains.solana import SolanaNode
from tests.chains.solana.conftest import NOTATION, watch
from tests.nodes_solana import SolanaChain

FULL = {"transactionDetails": "full", "rewards": False, "maxSupportedTransactionVersion": 1}


@pytest.fixture
def alice(chain: SolanaChain) -> str:
    """Blocks in the slots 1, 2, 3 (with a payment to her), 6 and 7; none in 4 and 5."""
    address = chain.wallet()
    chain.mine(2)
    chain.pay_sol(address, 10**9)
    chain.skip(2)
    chain.mine(2)
    return address


def test_the_range_is_whole(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """What the tests below break."""
    scan = node.scan(1, 7, watch(alice), final=True)
    assert [block.height for block in scan.blocks] == [1, 2, 3, 6, 7]
    assert len(scan.transfers) == 1


def test_beyond_the_head(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """D20"""
    chain.mine()
    chain.finalize_later(1)
    with pytest.raises(NodeBehindError, match="node sol-1 has no finalized block at slot 8 or above"):
        node.scan(1, 8, watch(alice), final=True)
    assert node.scan(1, 7, watch(alice), final=True).transfers


def test_pruned(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """getBlocks says nothing of what is gone."""
    chain.prune(3)
    assert chain.ask("getBlocks", 1, 7)["result"] == [3, 6, 7]
    with pytest.raises(NodeBehindError, match="node sol-1 keeps blocks from slot 3 on, but slot 1 is needed"):
        node.scan(1, 7, watch(alice), final=True)
    with pytest.raises(NodeBehindError, match="Block 1 cleaned up"):
        node.blocks([1, 7])


def test_the_oldest_block_of_a_node_knows_no_parent(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """Its parent's hash comes back as zeros, which would look like another chain."""
    chain.prune(3)
    for read in (lambda: node.blocks([3]), lambda: node.scan(3, 7, watch(alice), final=True)):
        with pytest.raises(NodeBehindError, match="node sol-1 has cleaned up the block before slot 3"):
            read()
    assert [block.height for block in node.scan(4, 7, watch(alice), final=True).blocks] == [6, 7]


@pytest.mark.parametrize(
    ("listed", "slot"), [([1, 2, 6, 7], 6), ([2, 3, 6, 7], 2), ([6, 7], 6), ([1, 2, 3, 7], 7)]
)
def test_a_list_without_a_block_of_the_range(
    chain: SolanaChain, node: SolanaNode, alice: str, listed: list[int], slot: int
) -> None:
    chain.lie("getBlocks", 1, result=listed)
    with pytest.raises(NodeBehindError, match=f"node sol-1 lacks blocks: the one at slot {slot} comes after"):
        node.scan(1, 7, watch(alice), final=True)


def test_a_list_without_the_end_of_the_range(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """The next block after the range gives it away."""
    chain.lie("getBlocks", 1, result=[1, 2])
    with pytest.raises(
        NodeBehindError, match="node sol-1 lacks blocks: the one at slot 6 comes after slot 3"
    ):
        node.scan(1, 4, watch(alice), final=True)
    chain.lie("getBlocks", 1, result=[])
    with pytest.raises(NodeBehindError, match="the one at slot 6 comes after slot 3"):
        node.scan(1, 4, watch(alice), final=True)
    with pytest.raises(NodeBehindError, match="node sol-1 contradicts itself about a block at slot 7"):
        node.scan(1, 7, watch(alice), final=True)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (-32004, "Block not available for slot 3"),
        (-32007, "Slot 3 was skipped, or missing due to ledger jump to recent snapshot"),
        (-32009, "Slot 3 was skipped, or missing in long-term storage"),
        (-32014, "Block status not yet available for slot 3"),
        (-32005, "Node is behind by 42 slots"),
    ],
)
def test_a_listed_block_is_never_skipped(
    chain: SolanaChain, node: SolanaNode, alice: str, code: int, message: str
) -> None:
    """D28, D21"""
    chain.lie("getBlock", 3, error=(code, message))
    with pytest.raises(NodeBehindError, match="node sol-1 lacks"):
        node.scan(1, 7, watch(alice), final=True)
    with pytest.raises(NodeBehindError, match="node sol-1 lacks"):
        node.blocks([3])


def test_a_lost_block_that_its_node_calls_skipped(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """Also getBlocks has forgotten it; the next block has not."""
    chain.lie("getBlock", 3, error=(-32007, "Slot 3 was skipped, or missing due to ledger jump"))
    chain.lie("getBlocksWithLimit", 3, result=[6])
    with pytest.raises(
        NodeBehindError, match="node sol-1 lacks blocks: the one at slot 6 comes after slot 3"
    ):
        node.blocks([3])


def test_a_null_block(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """D21"""
    chain.lie("getBlock", 3, result=None)
    for read in (lambda: node.blocks([3]), lambda: node.scan(1, 7, watch(alice), final=True)):
        with pytest.raises(NodeBehindError, match="node sol-1 has no block at slot 3"):
            read()


def test_a_block_of_another_fork(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    block = chain.ask("getBlock", 2, FULL)["result"]
    chain.lie("getBlock", 2, result={**block, "blockhash": "4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM"})
    with pytest.raises(
        NodeBehindError, match="node sol-1 lacks blocks: the one at slot 3 comes after slot 2"
    ):
        node.scan(1, 7, watch(alice), final=True)


def without(name: str) -> Callable[[Any], None]:
    return lambda item: item["meta"].pop(name)


def changed(name: str, value: Any) -> Callable[[Any], None]:
    return lambda item: item["meta"].update({name: value})


BALANCE = {
    "accountIndex": 1,
    "mint": NOTATION.write_token(bytes(31) + b"\1"),
    "uiTokenAmount": {"amount": "1"},
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda item: item.update(meta=None), "meta is missing"),
        (without("err"), "err is missing"),
        (without("postTokenBalances"), "postTokenBalances is missing"),
        (changed("postTokenBalances", None), "postTokenBalances is missing"),
        (changed("preTokenBalances", None), "preTokenBalances is missing"),
        (changed("postTokenBalances", [BALANCE]), "owner is missing"),
        (
            changed("postTokenBalances", [{**BALANCE, "owner": "x", "accountIndex": 9}]),
            "an entry that can't be",
        ),
        (
            changed("postTokenBalances", [{**BALANCE, "owner": BALANCE["mint"]}] * 2),
            "postTokenBalances has an entry that can't be",
        ),
        (without("postBalances"), "postBalances is missing"),
        (lambda item: item["meta"]["postBalances"].pop(), "3 accounts have 3 and 2 balances"),
        (lambda item: item["meta"]["postBalances"].__setitem__(1, 1.5), "balances are no numbers"),
        (lambda item: item["transaction"]["signatures"].clear(), "signatures or accountKeys"),
        (lambda item: item["transaction"]["message"]["accountKeys"].pop(), "2 accounts have 3 and 3"),
        (lambda item: item["transaction"]["signatures"].__setitem__(0, "x"), "it isn't the base58"),
    ],
)
def test_a_transaction_without_its_evidence(
    chain: SolanaChain, node: SolanaNode, alice: str, change: Callable[[Any], None], reason: str
) -> None:
    """Old nodes tell no token balances, or no owners: that isn't the same as none."""
    block = chain.ask("getBlock", 3, FULL)["result"]
    change(block["transactions"][0])
    chain.lie("getBlock", 3, result=block)
    with pytest.raises(
        NodeDownError, match=f"node sol-1 answered getBlock with what can't be right: .*{reason}"
    ):
        node.scan(1, 7, watch(alice), final=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"blockTime": None}, "blockTime is missing"),
        ({"blockTime": 10**18}, "blockTime is no time"),
        ({"blockhash": "0OIl"}, "'0OIl': it isn't base58"),
        ({"blockhash": None}, "blockhash is missing"),
        ({"parentSlot": True}, "parentSlot is no int"),
        ({"transactions": None}, "transactions is missing"),
    ],
)
def test_a_block_that_is_none(
    chain: SolanaChain, node: SolanaNode, alice: str, change: dict[str, Any], reason: str
) -> None:
    chain.lie("getBlock", 3, result={**chain.ask("getBlock", 3, FULL)["result"], **change})
    with pytest.raises(NodeDownError, match=reason):
        node.scan(1, 7, watch(alice), final=True)


@pytest.mark.parametrize("listed", ["none", [3, 2], [1, 1], [1, "2"], [0, 1], [7, 8], [1, True]])
def test_a_list_that_is_none(chain: SolanaChain, node: SolanaNode, alice: str, listed: Any) -> None:
    chain.lie("getBlocks", 1, result=listed)
    with pytest.raises(
        NodeDownError, match="node sol-1 answered getBlocks with what can't be right: slots are"
    ):
        node.scan(1, 7, watch(alice), final=True)


def test_what_failed_moved_nothing_whatever_its_balances_say(
    chain: SolanaChain, node: SolanaNode, alice: str
) -> None:
    """D28"""
    block = chain.ask("getBlock", 3, FULL)["result"]
    block["transactions"][0]["meta"]["err"] = {"InstructionError": [0, {"Custom": 1}]}
    chain.lie("getBlock", 3, result=block)
    assert node.scan(1, 7, watch(alice), final=True).transfers == ()


def test_a_newer_version_of_transactions(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    message = "Transaction version (2) is not supported by the requesting client."
    chain.lie("getBlock", 3, error=(-32015, message))
    with pytest.raises(NodeDownError, match="transactions of a version above 1, which this maven can't read"):
        node.scan(1, 7, watch(alice), final=True)


@pytest.mark.parametrize("code", [-32004, -32007, -32009, -32014])
def test_a_head_without_a_block(chain: SolanaChain, node: SolanaNode, alice: str, code: int) -> None:
    """Behind a balancer, the slot and its block can come from two nodes: then the head is the block before."""
    chain.lie("getSlot", {"commitment": "finalized"}, result=8)
    chain.lie("getBlock", 8, error=(code, "no such block"))
    head = node.head()
    assert (head.block.height, head.finalized) == (7, 7)


def test_a_head_that_is_not_written_down_yet(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    """Nodes tell a slot some moments before they can show its block."""
    chain.lie("getBlock", 7, error=(-32004, "Block not available for slot 7"))
    assert node.head().block.height == 6
    chain.lie("getBlock", 6, error=(-32014, "Block status not yet available for slot 6"))
    assert node.head().block.height == 3
    for slot in range(4):
        chain.lie("getBlock", slot, error=(-32004, f"Block not available for slot {slot}"))
    with pytest.raises(NodeBehindError, match="Block status not yet available for slot 6"):
        node.head()
    chain.lie("getBlocks", 0, result=[])
    with pytest.raises(NodeBehindError, match="node sol-1 has no block up to its finalized slot 7"):
        node.head()


def test_a_head_is_looked_for_in_few_blocks(chain: SolanaChain, node: SolanaNode) -> None:
    chain.mine(150)
    chain.lie("getBlock", 150, error=(-32004, "Block not available for slot 150"))
    before = node.requests
    assert node.head().block.height == 149
    assert node.requests == before + 4


def test_nothing_but_nonsense(chain: SolanaChain, node: SolanaNode, alice: str) -> None:
    for answer in (-1, "8", None, True):
        chain.lie("getSlot", {"commitment": "finalized"}, result=answer)
        with pytest.raises(NodeDownError, match="node sol-1 answered getSlot with what can't be right"):
            node.head()
        with pytest.raises(NodeDownError, match="getSlot"):
            node.blocks([3])
    chain.lie("getGenesisHash", result="mainnet")
    with pytest.raises(NodeDownError, match="getGenesisHash"):
        node.identity()
