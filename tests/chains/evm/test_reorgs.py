"""A chain that is reorganised before, between and while its blocks are read: one fork or the other, never both."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from maven_cli.chains import NodeBehindError, Scan
from maven_cli.chains.evm.node import EvmNode
from maven_cli.chains.rpc import Endpoint, Rpc
from tests.chains.evm.conftest import PATIENT
from tests.chains.evm.test_scan import ALICE, BOB, WATCH, every_way, paid
from tests.node_proxy import Forward, NodeProxy, Question, Reply, untouched
from tests.nodes_evm import Anvil


def canonical(chain: Anvil) -> list[bytes]:
    return [chain.block_hash(height) for height in range(chain.height + 1)]


def hashes(found: Scan) -> list[bytes]:
    return [block.hash for block in found.blocks]


@every_way
def test_d05_mined_again_in_another_block_with_another_index(
    chain: Anvil, node: EvmNode, final: bool
) -> None:
    """The same identity at another place."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "transfer(address,uint256)", chain.accounts[1], 100)
    sent = chain.send(token, "annotated(address,uint256,uint256)", ALICE, 5, 2, sender=1)
    chain.mine(5)
    (before,) = node.scan(0, chain.height, WATCH, final=final).transfers
    chain.reorg(6, {sent: 4})
    (after,) = node.scan(0, chain.height, WATCH, final=final).transfers
    assert (
        (before.tx_hash, before.kind, before.ordinal)
        == (after.tx_hash, after.kind, after.ordinal)
        == (sent, "token", 2)
    )
    assert (before.block.height, after.block.height) == (3, 7)
    assert after.block.hash == chain.block_hash(7)


@every_way
def test_d06_what_the_chain_took_back_is_not_found(chain: Anvil, node: EvmNode, final: bool) -> None:
    chain.pay(ALICE, 5)
    chain.mine(3)
    chain.reorg(4)
    found = node.scan(0, chain.height, WATCH, final=final)
    assert found.transfers == ()
    assert hashes(found) == canonical(chain)


@pytest.fixture
def one_by_one(proxy: NodeProxy) -> Iterator[EvmNode]:
    """One request at a time, so that a test can say between which two the chain changes."""
    opened = EvmNode(Rpc(Endpoint("anvil", proxy.url, concurrency=1), PATIENT))
    yield opened
    opened.close()


@every_way
@pytest.mark.parametrize("moment", range(12))
def test_a_reorganisation_before_any_request_of_a_scan(
    chain: Anvil, one_by_one: EvmNode, proxy: NodeProxy, final: bool, moment: int
) -> None:
    """What is found is the chain before or the chain after, whole; `final` blocks that change all the same are noticed
    too. 31 blocks make 4 requests, events 1 or 2, receipts 1."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "transfer(address,uint256)", chain.accounts[1], 100)
    chain.mine(13)
    coin = chain.pay(ALICE, 5, sender=2)
    sent = chain.send(token, "transfer(address,uint256)", BOB, 6, sender=1)
    chain.mine(30 - chain.height)
    before, paid_before = canonical(chain), [("native", 0, ALICE, None, 5), ("token", 0, BOB, token, 6)]
    passed = 0

    def reorganise(question: Question, forward: Forward) -> Reply:
        nonlocal passed
        if passed == moment:
            # Into one block, and in the other order.
            chain.reorg(20, {sent: 9, coin: 10})
        passed += 1
        return untouched(question, forward)

    proxy.fault(reorganise)
    found = one_by_one.scan(0, 30, WATCH, final=final)
    requests = passed
    after = canonical(chain)
    if hashes(found) == before:
        assert paid(found) == paid_before
        # Only when nothing was read any more that the change could have touched.
        assert after == before or moment >= requests - 1
    else:
        assert hashes(found) == after
        assert paid(found) == [("token", 0, BOB, token, 6), ("native", 0, ALICE, None, 5)]
    known = {block.height: block for block in found.blocks}
    assert all(known[item.block.height] == item.block for item in found.transfers)


@every_way
def test_a_chain_that_never_rests_is_an_error(
    chain: Anvil, one_by_one: EvmNode, proxy: NodeProxy, final: bool
) -> None:
    chain.mine(30)

    def reorganise(question: Question, forward: Forward) -> Reply:
        answer = untouched(question, forward)
        chain.reorg(29)
        return answer

    proxy.fault(reorganise)
    with pytest.raises(NodeBehindError, match="anvil gave a block 10 that doesn't follow the one before"):
        one_by_one.scan(0, 30, WATCH, final=final)


@every_way
def test_reorganisations_at_any_moment(chain: Anvil, node: EvmNode, final: bool) -> None:
    """Several requests at once, and a chain that changes meanwhile: whatever comes back is linked, and every transfer is
    of one of its blocks."""
    payments = [chain.pay(ALICE, number + 1, sender=1 + number % 9) for number in range(9)]
    chain.mine(60 - chain.height)
    done = threading.Event()

    def reorganise() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            chain.reorg(60, {payment: (number * turn) % 50 for number, payment in enumerate(payments)})

    thread = threading.Thread(target=reorganise)
    thread.start()
    try:
        for _ in range(15):
            try:
                found = node.scan(0, 60, WATCH, final=final)
            except NodeBehindError:
                continue
            pairs = zip(found.blocks, found.blocks[1:], strict=False)
            assert all(block.hash == child.parent for block, child in pairs)
            assert all(item.block in found.blocks for item in found.transfers)
            assert sorted(item.amount for item in found.transfers) == list(range(1, 10))
    finally:
        done.set()
        thread.join()
    found = node.scan(0, 60, WATCH, final=final)
    assert hashes(found) == canonical(chain)
    assert sorted(item.amount for item in found.transfers) == list(range(1, 10))
