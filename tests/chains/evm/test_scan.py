"""Scanning a real EVM chain: what is found, what is not, and what is an error instead of a shorter answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pytest

from maven_cli.chains import NodeBehindError, NodeDownError, Scan, Transfer
from maven_cli.chains.evm.node import EvmNode
from tests.node_proxy import (
    Call,
    Forward,
    NodeProxy,
    Question,
    Reply,
    another_node,
    changed,
    document,
    no_logs,
    null_results,
    stale_head,
)
from tests.nodes_evm import Anvil

ALICE, BOB, CAROL, STRANGER = (bytes([number]) * 20 for number in (0xA1, 0xB0, 0xCA, 0x57))
LARGEST = 2**256 - 1


@dataclass(frozen=True)
class Watching:
    """Watches some keys. told: as so few that a node may filter by them."""

    keys: frozenset[bytes]
    told: bool

    @property
    def few(self) -> frozenset[bytes] | None:
        return self.keys if self.told else None

    def owned(self, keys: Collection[bytes]) -> set[bytes]:
        assert keys, "asked for nothing"
        return set(keys) & self.keys


OURS = frozenset({ALICE, BOB, CAROL})
WATCH = Watching(OURS, True)

# Each way to read must find the same: filtered by the node or by us, by ranges of heights or block by block.
every_way = pytest.mark.parametrize("final", [True, False], ids=["final", "tail"])
few_or_many = pytest.mark.parametrize("watch", [WATCH, Watching(OURS, False)], ids=["few", "many"])


def paid(found: Scan | tuple[Transfer, ...]) -> list[tuple[str, int, bytes, bytes | None, int]]:
    transfers = found.transfers if isinstance(found, Scan) else found
    return [(item.kind, item.ordinal, item.to, item.token, item.amount) for item in transfers]


@every_way
@few_or_many
def test_finds_coin_and_tokens_in_the_order_of_the_chain(
    chain: Anvil, node: EvmNode, watch: Watching, final: bool
) -> None:
    token = chain.deploy("erc20", "TUSD", 6, LARGEST)
    other = chain.deploy("erc20", "TUSD", 18, 10**30)
    first = chain.pay(ALICE, 10**18, sender=1)
    chain.mine(25)
    with chain.one_block():
        second = chain.send(token, "transfer(address,uint256)", BOB, 5)
        chain.pay(STRANGER, 3)
        third = chain.pay(CAROL, 7, sender=2)
        chain.send(token, "transfer(address,uint256)", STRANGER, 9)
        fourth = chain.send(other, "transfer(address,uint256)", ALICE, 10**29 + 1)
    height = chain.height
    found = node.scan(0, height, watch, final=final)

    assert [block.height for block in found.blocks] == list(range(height + 1))
    assert [block.hash for block in found.blocks[-2:]] == [
        chain.block_hash(height - 1),
        chain.block_hash(height),
    ]
    assert paid(found) == [
        ("native", 0, ALICE, None, 10**18),
        ("token", 0, BOB, token, 5),
        ("native", 0, CAROL, None, 7),
        ("token", 0, ALICE, other, 10**29 + 1),
    ]
    assert [item.tx_hash for item in found.transfers] == [first, second, third, fourth]
    assert [item.block.height for item in found.transfers] == [3, height, height, height]
    assert [item.senders for item in found.transfers] == [
        (chain.accounts[sender],) for sender in (1, 0, 2, 0)
    ]


def scan_all(chain: Anvil, node: EvmNode, *, final: bool, watch: Watching = WATCH) -> Scan:
    return node.scan(0, chain.height, watch, final=final)


# ------------------------------------------------------------------------------------------------ what is a transfer


@every_way
def test_d04_equal_transfers_of_one_transaction_are_as_many(chain: Anvil, node: EvmNode, final: bool) -> None:
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "repeat(address,uint256,uint256)", ALICE, 5, 3)
    assert paid(scan_all(chain, node, final=final)) == [
        ("token", 0, ALICE, token, 5),
        ("token", 1, ALICE, token, 5),
        ("token", 2, ALICE, token, 5),
    ]


@every_way
def test_d05_the_ordinal_counts_within_the_receipt(chain: Anvil, node: EvmNode, final: bool) -> None:
    """Wherever the transaction is mined, and whatever was mined before it in its block."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    with chain.one_block():
        chain.send(token, "repeat(address,uint256,uint256)", STRANGER, 1, 7)
        sent = chain.send(token, "annotated(address,uint256,uint256)", ALICE, 5, 2)
    log = chain.call("eth_getTransactionReceipt", f"0x{sent.hex()}")["logs"][2]
    assert log["logIndex"] == "0x9"
    assert paid(scan_all(chain, node, final=final)) == [("token", 2, ALICE, token, 5)]


@every_way
def test_the_ordinal_of_nodes_that_count_events_by_transaction(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, final: bool
) -> None:
    """Some nodes gave two events of a block the same index."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    with chain.one_block():
        chain.send(token, "annotated(address,uint256,uint256)", STRANGER, 1, 2)
        chain.send(token, "annotated(address,uint256,uint256)", ALICE, 5, 2)

    def zero(call: Call, result: Any) -> Any:
        for log in _logs_of(call, result):
            log["logIndex"] = "0x0"
        return result

    proxy.fault(changed(zero))
    assert paid(scan_all(chain, spoilt, final=final)) == [("token", 2, ALICE, token, 5)]


@every_way
def test_d10_an_event_that_the_node_calls_removed_is_none(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, final: bool
) -> None:
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "transfer(address,uint256)", ALICE, 5)

    def removed(call: Call, result: Any) -> Any:
        return [{**log, "removed": True} for log in result] if call["method"] == "eth_getLogs" else result

    proxy.fault(changed(removed))
    assert paid(scan_all(chain, spoilt, final=final)) == []


@every_way
def test_d11_what_failed_paid_nothing(chain: Anvil, node: EvmNode, final: bool) -> None:
    """A transaction with value to us that is reverted, and one that runs out of gas."""
    token = chain.deploy("erc20", "TUSD", 6, 10)
    with chain.one_block():
        chain.send(token, "transfer(address,uint256)", ALICE, 11)
        chain.pay(token, 5, sender=1)
        chain.pay(ALICE, 7, sender=2)
    ours = Watching(OURS | {token}, True)
    assert paid(scan_all(chain, node, final=final, watch=ours)) == [("native", 0, ALICE, None, 7)]


@every_way
def test_d12_d14_tokens_that_lie_or_move_nothing(chain: Anvil, node: EvmNode, final: bool) -> None:
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    declined = chain.send(token, "declined(address,uint256)", ALICE, 5)
    nothing = chain.send(token, "nothing(address)", ALICE)
    assert all(chain.height_of(tx_hash) for tx_hash in (declined, nothing))
    assert paid(scan_all(chain, node, final=final)) == []


@every_way
def test_d13_a_token_that_nobody_knows_is_told_of_with_its_contract(
    chain: Anvil, node: EvmNode, final: bool
) -> None:
    fake = chain.deploy("erc20", "USDT", 6, 1)
    chain.send(fake, "claim(address,address,uint256)", BOB, ALICE, LARGEST)
    (found,) = scan_all(chain, node, final=final).transfers
    assert (found.token, found.to, found.amount, found.senders) == (fake, ALICE, LARGEST, (BOB,))


@every_way
def test_events_that_only_look_like_erc20(chain: Anvil, node: EvmNode, final: bool) -> None:
    """ERC-721 has the same name for it, with the number as a fourth topic."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "collectible(address,uint256)", ALICE, 5)
    chain.send(token, "verbose(address,uint256)", ALICE, 5)
    assert chain.height == 3
    assert paid(scan_all(chain, node, final=final)) == []


@every_way
def test_d30_coin_with_calldata_is_coin(chain: Anvil, node: EvmNode, final: bool) -> None:
    chain.pay(ALICE, 5, b"invoice 4711")
    chain.pay(ALICE, 0, b"only words")
    assert paid(scan_all(chain, node, final=final)) == [("native", 0, ALICE, None, 5)]


@every_way
def test_coin_that_contracts_send_is_not_seen_but_on_the_balance(
    chain: Anvil, node: EvmNode, final: bool
) -> None:
    """What the audit of solvency is for. Nor is what creates a contract a payment to it."""
    forwarder = chain.deploy("forwarder", amount=0)
    chain.send(forwarder, "forward(address)", ALICE, amount=9)
    ours = Watching(OURS | {forwarder}, True)
    assert paid(scan_all(chain, node, final=final, watch=ours)) == [("native", 0, forwarder, None, 9)]
    assert node.balances([ALICE], None) == [9]


def test_one_transaction_may_pay_coin_and_tokens(chain: Anvil, node: EvmNode) -> None:
    """A contract of ours that takes coin and whose token moves in the same transaction; D29: senders say whose it was."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "transfer(address,uint256)", ALICE, 10)
    found = scan_all(chain, node, final=True).transfers
    assert [item.senders for item in found] == [(chain.accounts[0],)]


# ------------------------------------------------------------------------------------------------------ completeness


def test_d20_beyond_the_head_is_an_error_not_an_empty_answer(chain: Anvil, node: EvmNode) -> None:
    chain.mine(5)
    for final in (True, False):
        with pytest.raises(NodeBehindError, match="anvil has no block 6"):
            node.scan(3, 6, WATCH, final=final)


@every_way
def test_d20_a_node_whose_head_stands_still(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, final: bool
) -> None:
    chain.mine(10)
    proxy.fault(stale_head(7))
    assert spoilt.head().block.height == 7
    with pytest.raises(NodeBehindError, match="anvil has no block 8"):
        spoilt.scan(0, 8, WATCH, final=final)
    assert len(spoilt.scan(0, 7, WATCH, final=final).blocks) == 8


@every_way
@pytest.mark.parametrize("height", [0, 4, 9])
def test_d21_a_null_block_is_an_error(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, final: bool, height: int
) -> None:
    chain.mine(9)

    def lost(call: Call, result: Any) -> Any:
        return None if call["params"][0] == hex(height) else result

    proxy.fault(changed(lost))
    with pytest.raises(NodeBehindError, match=f"anvil has no block {height}"):
        spoilt.scan(0, 9, WATCH, final=final)


def test_d21_a_missing_receipt_is_an_error(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    chain.pay(ALICE, 5)
    proxy.fault(null_results("eth_getTransactionReceipt"))
    with pytest.raises(NodeBehindError, match="anvil has no receipt of 0x"):
        scan_all(chain, spoilt, final=True)
    proxy.clear()
    proxy.fault(null_results("eth_getTransactionReceipt"), times=1, method="eth_getTransactionReceipt")
    assert paid(scan_all(chain, spoilt, final=True)) == [("native", 0, ALICE, None, 5)]


@pytest.mark.parametrize("field", ["number", "hash", "parentHash", "timestamp", "transactions"])
@pytest.mark.parametrize("value", [None, "0x", "0xzz", 7, "0x" + "f" * 65], ids=str)
def test_blocks_of_another_shape_are_an_error(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, field: str, value: Any
) -> None:
    chain.mine(3)
    proxy.fault(changed(lambda _, result: {**result, field: value}), method="eth_getBlockByNumber")
    with pytest.raises(NodeDownError, match=f"anvil answers a scan with what is none: {field}"):
        scan_all(chain, spoilt, final=True)


def test_d42_events_that_a_lagging_node_lacks_are_an_error_where_that_shows(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy
) -> None:
    """The events and the header of the last block come from the same node: one that lags has neither."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.mine(5)
    chain.send(token, "transfer(address,uint256)", ALICE, 5)
    proxy.fault(stale_head(5), method="eth_getLogs")
    with pytest.raises(NodeBehindError, match=f"anvil has no block {chain.height}"):
        scan_all(chain, spoilt, final=True)


def test_d42_and_found_when_the_range_is_read_again(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "transfer(address,uint256)", ALICE, 5)
    proxy.fault(no_logs)
    assert paid(scan_all(chain, spoilt, final=False)) == []
    proxy.clear()
    assert paid(scan_all(chain, spoilt, final=True)) == [("token", 0, ALICE, token, 5)]


def test_receipts_show_what_events_lacked(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    """A transaction known for one of its transfers is known with all of them."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "repeat(address,uint256,uint256)", ALICE, 5, 3)
    proxy.fault(changed(lambda call, result: result[:1] if call["method"] == "eth_getLogs" else result))
    assert len(scan_all(chain, spoilt, final=False).transfers) == 3


def test_an_event_that_the_receipt_does_not_show_is_an_error(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy
) -> None:
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "transfer(address,uint256)", ALICE, 5)

    def more(call: Call, result: Any) -> Any:
        for log in result if call["method"] == "eth_getLogs" else []:
            log["data"] = "0x" + "0" * 63 + "6"
        return result

    proxy.fault(changed(more))
    with pytest.raises(NodeBehindError, match="that its receipt doesn't show"):
        scan_all(chain, spoilt, final=True)


@every_way
@pytest.mark.parametrize("method", ["eth_getLogs", "eth_getTransactionReceipt"])
def test_answers_about_another_fork_are_an_error(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, final: bool, method: str
) -> None:
    """A balancer whose second node follows another fork: its blocks have the same heights, not the same hashes."""
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    chain.send(token, "transfer(address,uint256)", ALICE, 5)
    chain.pay(ALICE, 5)

    def elsewhere(call: Call, result: Any) -> Any:
        if call["method"] == method:
            for item in result if isinstance(result, list) else [result]:
                item["blockHash"] = "0x" + "11" * 32
        return result

    proxy.fault(changed(elsewhere))
    with pytest.raises(NodeBehindError, match="another block"):
        scan_all(chain, spoilt, final=final)


def test_blocks_that_were_not_asked_for_are_an_error(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    chain.mine(4)

    def shifted(question: Question, forward: Forward) -> Reply:
        calls = [
            {**call, "params": [hex(int(call["params"][0], 16) + 1), *call["params"][1:]]}
            for call in question.calls
        ]
        return document(question, forward(calls))

    proxy.fault(shifted, method="eth_getBlockByNumber")
    with pytest.raises(NodeDownError, match="anvil answers a scan with what is none: number"):
        spoilt.scan(0, 3, WATCH, final=False)
    with pytest.raises(NodeDownError, match="anvil answers eth_getBlockByNumber with what is none: number"):
        spoilt.blocks([0, 1])


def test_d24_blocks_of_another_chain_do_not_link(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    """A balancer that sends one request to another chain."""
    chain.mine(30)
    with Anvil("--chain-id", "56", "--timestamp", "1700000000") as other:
        other.mine(30)
        proxy.fault(another_node(other.url), method="eth_getLogs")
        with pytest.raises(NodeBehindError, match="anvil changed block 30 while its events were read"):
            spoilt.scan(0, 30, WATCH, final=True)
        with pytest.raises(NodeBehindError, match="anvil doesn't know block 0 by its hash any more"):
            spoilt.scan(0, 30, WATCH, final=False)


def test_with_nobody_to_watch_headers_will_do(chain: Anvil, spoilt: EvmNode, proxy: NodeProxy) -> None:
    chain.pay(ALICE, 5)
    found = scan_all(chain, spoilt, final=True, watch=Watching(frozenset(), True))
    assert (len(found.blocks), found.transfers) == (2, ())
    assert proxy.calls("eth_getBlockByNumber") == [["0x0", False], ["0x1", False]]
    assert proxy.calls("eth_getLogs") == []


def test_many_watched_keys_make_several_filters(
    chain: Anvil, spoilt: EvmNode, proxy: NodeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maven_cli.chains.evm.logs.TOPICS", 2)
    token = chain.deploy("erc20", "TUSD", 6, 10**12)
    for key in (ALICE, BOB, CAROL, STRANGER):
        chain.send(token, "transfer(address,uint256)", key, 5)
    for final in (True, False):
        found = scan_all(chain, spoilt, final=final)
        assert [item.to for item in found.transfers] == [ALICE, BOB, CAROL]
        # Two filters for three keys.
        assert {len(params[0]["topics"][2]) for params in proxy.calls("eth_getLogs")} == {1, 2}


def _logs_of(call: Call, result: Any) -> list[dict[str, Any]]:
    if call["method"] == "eth_getLogs":
        return list(result)
    return list(result["logs"]) if call["method"] == "eth_getTransactionReceipt" else []
