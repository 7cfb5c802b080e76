"""What became of a transaction, on a chain that is reorganised."""

from __future__ import annotations

from typing import Any

import pytest

from maven_cli.chains import NodeBehindError, NodeDownError, Reference
from maven_cli.chains.evm.node import EvmNode
from tests.node_proxy import Call, NodeProxy, changed, null_results
from tests.nodes_evm import Anvil

ALICE, BOB = b"\xa1" * 20, b"\xb0" * 20


def seen(chain: Anvil, tx_hash: bytes) -> Reference:
    """A reference to where it is now."""
    height = chain.height_of(tx_hash)
    assert height is not None
    return Reference(tx_hash, height, chain.block_hash(height))


def test_every_state_in_one_request(chain: Anvil, node: EvmNode) -> None:
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    mined = chain.pay(ALICE, 7, sender=1)
    with_token = chain.send(token, "transfer(address,uint256)", BOB, 5)
    failed = chain.send(token, "transfer(address,uint256)", BOB, 10**13)
    references = [seen(chain, tx_hash) for tx_hash in (mined, with_token, failed)]
    with chain.one_block():
        pending = chain.pay(ALICE, 1, sender=2)
        sightings = node.look([*references, Reference(pending), Reference(b"\x01" * 32)])
    assert node.requests == 1

    assert [item.state for item in sightings] == ["mined", "mined", "failed", "pending", "missing"]
    coin, tokens, reverted, waiting, missing = sightings
    assert coin.block is not None
    assert (coin.block.height, coin.block.hash) == (references[0].height, references[0].block_hash)
    assert [(item.kind, item.ordinal, item.to, item.amount) for item in coin.transfers] == [
        ("native", 0, ALICE, 7)
    ]
    assert [(item.kind, item.to, item.token, item.amount) for item in tokens.transfers] == [
        ("token", BOB, token, 5)
    ]
    assert reverted.block is not None
    assert (reverted.transfers, waiting.transfers, missing.transfers) == ((), (), ())
    assert (waiting.block, missing.block) == (None, None)
    # Evidence: the same whenever it's asked for, another for each transaction.
    assert [item.digest for item in node.look(references)] == [item.digest for item in sightings[:3]]
    assert len({item.digest for item in sightings[:3]}) == 3
    assert all(item.digest is not None and len(item.digest) == 32 for item in sightings[:3])


def test_a_hundred_references_make_one_request(chain: Anvil, node: EvmNode) -> None:
    with chain.one_block():
        sent = [chain.pay(ALICE, number + 1) for number in range(101)]
    height = chain.height
    references = [Reference(tx_hash, height, chain.block_hash(height)) for tx_hash in sent]
    sightings = node.look(references[:100])
    assert node.requests == 1
    assert [item.transfers[0].amount for item in sightings] == list(range(1, 101))
    node.look(references)
    assert node.requests == 3


def test_without_a_height_a_second_request_reads_the_block(chain: Anvil, node: EvmNode) -> None:
    paid = chain.pay(ALICE, 7)
    (sighting,) = node.look([Reference(paid)])
    assert sighting.state == "mined"
    assert sighting.block is not None
    assert sighting.block.hash == chain.block_hash(1)
    assert node.requests == 2


def test_d05_mined_again_elsewhere(chain: Anvil, node: EvmNode) -> None:
    paid = chain.pay(ALICE, 7, sender=1)
    chain.mine(5)
    before = seen(chain, paid)
    chain.reorg(6, {paid: 3})
    (sighting,) = node.look([before])
    assert sighting.state == "mined"
    assert sighting.block is not None
    assert (sighting.block.height, sighting.block.hash) == (4, chain.block_hash(4))
    # At the same height in another block, too.
    before = seen(chain, paid)
    chain.reorg(3, {paid: 0})
    (sighting,) = node.look([before])
    assert sighting.block is not None
    assert sighting.block.height == before.height
    assert sighting.block.hash == chain.block_hash(4) != before.block_hash


def test_d06_gone_with_its_block(chain: Anvil, node: EvmNode) -> None:
    paid = chain.pay(ALICE, 7)
    chain.mine(5)
    before = seen(chain, paid)
    chain.reorg(6)
    (sighting,) = node.look([before])
    assert sighting.state == "missing"


def test_a_node_that_lacks_the_block_calls_nothing_missing(chain: Anvil, node: EvmNode) -> None:
    """A lagging node knows neither the transaction nor its block: that says nothing of the transaction."""
    chain.mine(3)
    with pytest.raises(NodeBehindError, match="anvil has no block 9, in which 0x0101"):
        node.look([Reference(b"\x01" * 32, 9, b"\x02" * 32)])


def test_a_node_that_has_the_block_but_not_its_transaction_calls_nothing_missing(
    chain: Anvil, node: EvmNode
) -> None:
    """Nodes may forget old transactions while they keep the blocks."""
    chain.mine(3)
    with pytest.raises(NodeBehindError, match="anvil has block 2, but not its transaction 0x0101"):
        node.look([Reference(b"\x01" * 32, 2, chain.block_hash(2))])


@pytest.mark.parametrize("method", ["eth_getTransactionReceipt", "eth_getTransactionByHash"])
def test_half_an_answer_is_asked_for_again_and_in_the_end_an_error(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, method: str
) -> None:
    """A balancer sends the receipt's question to one node and the transaction's to another one, which lags."""
    chain.pay(ALICE, 6)
    reference = seen(chain, chain.pay(ALICE, 7))
    proxy.fault(null_results(method), times=1)
    (sighting,) = spoilt.look([reference])
    assert sighting.state == "mined"
    assert len(proxy.seen) == 2
    proxy.fault(null_results(method))
    with pytest.raises(NodeBehindError, match=f"0x{reference.tx_hash.hex()}"):
        spoilt.look([reference])


def test_only_what_is_open_is_asked_for_again(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    references = [seen(chain, chain.pay(ALICE, number + 1)) for number in range(3)]
    lost = f"0x{references[1].tx_hash.hex()}"
    proxy.fault(changed(lambda call, result: None if call["params"][0] == lost else result), times=1)
    sightings = spoilt.look(references)
    assert [item.transfers[0].amount for item in sightings] == [1, 2, 3]
    assert [len(question.calls) for question in proxy.seen] == [9, 3]


def test_a_receipt_of_a_block_that_is_not_canonical_any_more(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy
) -> None:
    """Some nodes keep it. Once may be a reorganisation between two answers; again, it is gone."""
    reference = seen(chain, chain.pay(ALICE, 7))

    def replaced(call: Call, result: Any) -> Any:
        other = call["method"] == "eth_getBlockByNumber"
        return {**result, "hash": "0x" + "11" * 32} if other else result

    proxy.fault(changed(replaced), times=1)
    assert [item.state for item in spoilt.look([reference])] == ["mined"]
    proxy.fault(changed(replaced))
    assert [item.state for item in spoilt.look([reference])] == ["missing"]


def test_another_transaction_than_asked_for_is_an_error(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy
) -> None:
    reference = seen(chain, chain.pay(ALICE, 7))

    def other(call: Call, result: Any) -> Any:
        receipt = call["method"] == "eth_getTransactionReceipt"
        return {**result, "transactionHash": "0x" + "11" * 32} if receipt else result

    proxy.fault(changed(other))
    with pytest.raises(NodeDownError, match="anvil answers a look with what is none: transactionHash"):
        spoilt.look([reference])


def test_no_references_no_request(node: EvmNode) -> None:
    assert node.look([]) == []
    assert node.requests == 0
