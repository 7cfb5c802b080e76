"""What the adapter of the Bitcoin family asks of a real node, and what it makes of answers that are short, late or wrong."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from maven_cli.chains import NodeBehindError, NodeDownError, Reference, Scan, Transfer
from maven_cli.chains.bitcoin import BitcoinNode
from maven_cli.chains.rpc import Endpoint, Rpc
from tests.nodes_bitcoin import CUSTOMERS, GENESIS, Between, Change, Litecoin


class Watching:
    """Watches these scripts."""

    few = None

    def __init__(self, *scripts: str) -> None:
        self._scripts = {bytes.fromhex(script) for script in scripts}

    def owned(self, keys: Collection[bytes]) -> set[bytes]:
        return self._scripts.intersection(keys)


@pytest.fixture(scope="module")
def litecoin() -> Iterator[Litecoin]:
    with Litecoin() as node:
        yield node


@contextmanager
def connected(url: str, timeout: timedelta = timedelta(seconds=10)) -> Iterator[BitcoinNode]:
    node = BitcoinNode(Rpc(Endpoint("one", url), timeout))
    yield node
    node.close()


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maven_cli.chains.rpc._FIRST_PAUSE", 0.01)


@pytest.fixture
def node(litecoin: Litecoin) -> Iterator[BitcoinNode]:
    with connected(litecoin.url) as node:
        yield node


@contextmanager
def edited(litecoin: Litecoin, change: Change) -> Iterator[BitcoinNode]:
    with Between(litecoin, change) as proxy, connected(proxy.url) as node:
        yield node


def paid(litecoin: Litecoin, coins: Decimal | int = 1) -> tuple[str, str]:
    """A new customer's scriptPubKey, and the transaction in the newest block that pays it."""
    address = litecoin.new_address(wallet=CUSTOMERS)
    tx = litecoin.pay(address, coins)
    litecoin.mine()
    return litecoin.script(address), tx


def newest(litecoin: Litecoin, node: BitcoinNode, script: str) -> Scan:
    return node.scan(litecoin.head, litecoin.head, Watching(script), final=False)


def reference(transfer: Transfer) -> Reference:
    return Reference(transfer.tx_hash, transfer.block.height, transfer.block.hash)


# -------------------------------------------------------------------------------------------------------------------- blocks


def test_head_and_blocks(litecoin: Litecoin, node: BitcoinNode) -> None:
    assert node.identity() == GENESIS
    before = node.requests
    head = node.head()
    assert node.requests == before + 2
    assert (head.block.height, head.safe, head.finalized) == (litecoin.head, None, None)
    first, tip, beyond, before_tip = node.blocks([0, litecoin.head, litecoin.head + 1, litecoin.head - 1])
    assert beyond is None
    assert (first and (first.hash.hex(), first.parent)) == (GENESIS, bytes(32))
    assert tip == head.block
    assert before_tip is not None
    assert before_tip.hash == tip.parent
    assert node.blocks([]) == []


def test_a_range_is_linked_and_whole(litecoin: Litecoin, node: BitcoinNode) -> None:
    script, tx = paid(litecoin, Decimal("0.3"))
    litecoin.mine(2)
    found = node.scan(0, litecoin.head, Watching(script), final=True)
    assert [block.height for block in found.blocks] == list(range(litecoin.head + 1))
    assert all(a.hash == b.parent for a, b in zip(found.blocks, found.blocks[1:], strict=False))
    ((one),) = found.transfers
    assert (one.tx_hash.hex(), one.kind, one.to.hex(), one.token, one.amount, one.immature) == (
        tx, "native", script, None, 30_000_000, False,
    )  # fmt: skip
    assert one.block == found.blocks[-3]
    with pytest.raises(
        NodeBehindError, match=f"node one has no block {litecoin.head + 1}: Block height out of"
    ):
        node.scan(litecoin.head, litecoin.head + 1, Watching(script), final=False)


def test_coinbase_outputs_are_immature(litecoin: Litecoin, node: BitcoinNode) -> None:
    address = litecoin.new_address(wallet=CUSTOMERS)
    litecoin.mine(1, address)
    (transfer,) = newest(litecoin, node, litecoin.script(address)).transfers
    assert (transfer.immature, transfer.senders) == (True, ())
    (sighting,) = node.look([reference(transfer)])
    assert [(one.ordinal, one.immature) for one in sighting.transfers] == [(0, True)]


def test_scripts_without_an_address(litecoin: Litecoin, node: BitcoinNode) -> None:
    """Bare public keys and bare multisignature: nodes name an address that isn't the script's, several, or none."""
    key, other = (
        litecoin.rpc("getaddressinfo", litecoin.new_address(wallet=CUSTOMERS), wallet=CUSTOMERS)["pubkey"]
        for _ in range(2)
    )
    scripts = [f"21{key}ac", f"5121{key}21{other}52ae", "51"]
    tx = litecoin.pay_many([(script, 1000 + place) for place, script in enumerate(scripts)])
    litecoin.mine()
    found = node.scan(litecoin.head, litecoin.head, Watching(*scripts), final=False).transfers
    assert [(one.tx_hash.hex(), one.ordinal, one.to.hex(), one.amount) for one in found] == [
        (tx, place, script, 1000 + place) for place, script in enumerate(scripts)
    ]
    # The key's other scripts are others' as far as a scan knows.
    hashed = litecoin.rpc("decodescript", f"21{key}ac")["segwit"]["hex"]
    assert newest(litecoin, node, hashed).transfers == ()


# ------------------------------------------------------------------------------------------------------------------- senders


def test_senders_as_far_as_the_node_knows(litecoin: Litecoin, node: BitcoinNode) -> None:
    script, tx = paid(litecoin)
    (transfer,) = newest(litecoin, node, script).transfers
    (spent,) = litecoin.rpc("getrawtransaction", tx, True)["vin"]
    source = litecoin.rpc("getrawtransaction", spent["txid"], True)["vout"][spent["vout"]]["scriptPubKey"]
    assert [sender.hex() for sender in transfer.senders] == [source["hex"]]

    def no_index(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getrawtransaction" and len(question["params"]) == 2:
            message = "No such mempool transaction. Use -txindex or provide a block hash"
            answer |= {"result": None, "error": {"code": -5, "message": message}}

    def core_25(question: dict[str, Any], answer: dict[str, Any]) -> None:
        no_index(question, answer)
        if question["params"][1:2] == [2] and question["method"] == "getrawtransaction":
            answer["result"]["vin"][0]["prevout"] = {
                "generated": True,
                "height": 1,
                "value": 50,
                "scriptPubKey": source,
            }

    with edited(litecoin, no_index) as without:
        assert newest(litecoin, without, script).transfers[0].senders == ()
        assert without.look([reference(transfer)]) == node.look([reference(transfer)])
    with edited(litecoin, core_25) as newer:
        assert newest(litecoin, newer, script).transfers == (transfer,)


def test_senders_that_no_answer_can_hold(
    litecoin: Litecoin, node: BitcoinNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may spend scripts so long that a node's words for them fill any answer: that stops no chain."""
    second = litecoin.new_address(wallet=CUSTOMERS)
    heavy = litecoin.pay(second, 1)
    other = litecoin.new_address(wallet=CUSTOMERS)
    light = litecoin.pay(other, 1)
    litecoin.mine()
    scripts = [litecoin.script(address) for address in (second, other)]
    watching = Watching(*scripts)
    expected = node.scan(litecoin.head, litecoin.head, watching, final=False).transfers
    assert all(one.senders for one in expected)
    monkeypatch.setattr("maven_cli.chains.rpc.BODY_LIMIT", 2**17)
    sources: list[str] = []

    def beside(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getrawtransaction" and question["params"][:2] == [heavy, 2]:
            answer["result"]["padding"] = "0" * 2**18

    def everywhere(question: dict[str, Any], answer: dict[str, Any]) -> None:
        beside(question, answer)
        if question["method"] == "getrawtransaction" and question["params"][0] in sources:
            answer["result"]["padding"] = "0" * 2**18

    with edited(litecoin, beside) as older:
        assert older.scan(litecoin.head, litecoin.head, watching, final=False).transfers == expected
    sources += [one["txid"] for one in litecoin.rpc("getrawtransaction", heavy, True)["vin"]]
    others = [one["txid"] for one in litecoin.rpc("getrawtransaction", light, True)["vin"]]
    with edited(litecoin, everywhere) as older:
        found = older.scan(litecoin.head, litecoin.head, watching, final=False).transfers
    assert {one.tx_hash.hex(): bool(one.senders) for one in found} == {
        heavy: False,
        light: not set(others) & set(sources),
    }


def test_an_index_that_is_being_built_knows_nothing_yet(litecoin: Litecoin) -> None:
    script, _ = paid(litecoin)
    message = "No such mempool transaction. Blockchain transactions are still in the process of being indexed"

    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getrawtransaction" and len(question["params"]) == 2:
            answer |= {"result": None, "error": {"code": -5, "message": message}}

    with edited(litecoin, change) as node:
        with pytest.raises(NodeBehindError, match="in the process of being indexed"):
            newest(litecoin, node, script)
        with pytest.raises(NodeBehindError, match="in the process of being indexed"):
            node.look([Reference(bytes(32))])


def test_a_node_without_the_parameter_of_a_block(litecoin: Litecoin, node: BitcoinNode) -> None:
    """Dogecoin Core 1.14: what is in a block is found with -txindex alone."""
    script, _ = paid(litecoin)

    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getrawtransaction" and len(question["params"]) == 3:
            message = 'getrawtransaction "txid" ( verbose )\n\nNOTE: By default this function only works for'
            answer |= {"result": None, "error": {"code": -1, "message": message}}

    with edited(litecoin, change) as older:
        found = newest(litecoin, older, script)
        assert found == newest(litecoin, node, script)
        references = [reference(one) for one in found.transfers]
        assert older.look(references) == node.look(references)


# ---------------------------------------------------------------------------------------------------------------------- look


def test_look(litecoin: Litecoin, node: BitcoinNode) -> None:
    script, tx = paid(litecoin)
    (transfer,) = newest(litecoin, node, script).transfers
    pending = litecoin.pay(litecoin.new_address(wallet=CUSTOMERS), 1)
    before = node.requests
    mined, known, unknown, other = node.look(
        [
            reference(transfer),
            Reference(bytes.fromhex(pending)),
            Reference(b"\7" * 32),
            Reference(bytes.fromhex(tx)),
        ]
    )
    assert [one.state for one in (mined, known, unknown, other)] == ["mined", "pending", "missing", "mined"]
    assert node.requests == before + 1 + 2  # the last one was found without its block: where is that now?
    assert mined == other
    assert mined.block == transfer.block
    assert len(mined.transfers) == 2
    assert (transfer.to, transfer.amount, transfer.ordinal) in {
        (one.to, one.amount, one.ordinal) for one in mined.transfers
    }
    assert mined.digest is not None
    assert len(mined.digest) == 32
    assert node.look([]) == []
    # A hundred of them are one request.
    before = node.requests
    assert node.look([reference(transfer)] * 100) == [mined] * 100
    assert node.requests == before + 1
    litecoin.mine()


def test_look_after_a_reorganisation(litecoin: Litecoin, node: BitcoinNode) -> None:
    script, _ = paid(litecoin)
    (transfer,) = newest(litecoin, node, script).transfers
    (before,) = node.look([reference(transfer)])
    litecoin.reorganise(1)
    assert [one.state for one in node.look([reference(transfer)])] == ["pending"]
    litecoin.mine()
    (again,) = node.look([reference(transfer)])
    assert again.state == "mined"
    assert again.block is not None
    assert again.block.hash.hex() == litecoin.block_hash(litecoin.head)
    assert again.block.height == transfer.block.height + 1
    assert again.digest != before.digest


def test_look_for_what_was_replaced(litecoin: Litecoin, node: BitcoinNode) -> None:
    first = litecoin.pay(litecoin.new_address(wallet=CUSTOMERS), 1)
    second = litecoin.replace(first)
    references = [Reference(bytes.fromhex(tx)) for tx in (first, second)]
    assert [one.state for one in node.look(references)] == ["missing", "pending"]
    litecoin.mine()
    assert [one.state for one in node.look(references)] == ["missing", "mined"]


def test_look_at_a_block_that_the_node_never_saw(litecoin: Litecoin, node: BitcoinNode) -> None:
    script, _ = paid(litecoin)
    (transfer,) = newest(litecoin, node, script).transfers
    for height in (transfer.block.height, litecoin.head + 100):
        (sighting,) = node.look([Reference(transfer.tx_hash, height, b"\7" * 32)])
        assert (sighting.state, sighting.block) == ("mined", transfer.block)
    (sighting,) = node.look([Reference(b"\7" * 32, transfer.block.height, transfer.block.hash)])
    assert sighting.state == "missing"


def test_many_that_moved_cost_no_request_each(litecoin: Litecoin, node: BitcoinNode) -> None:
    addresses = [litecoin.new_address(wallet=CUSTOMERS) for _ in range(5)]
    for address in addresses:
        litecoin.pay(address, Decimal("0.01"))
    litecoin.mine()
    watching = Watching(*map(litecoin.script, addresses))
    found = node.scan(litecoin.head, litecoin.head, watching, final=False).transfers
    litecoin.reorganise(1)
    litecoin.mine()
    before = node.requests
    sightings = node.look([reference(one) for one in found])
    assert node.requests == before + 4
    (head,) = node.blocks([litecoin.head])
    assert [(one.state, one.block) for one in sightings] == [("mined", head)] * 5


def test_a_node_that_lags_says_nothing_of_what_it_does_not_know(
    litecoin: Litecoin, node: BitcoinNode
) -> None:
    """D19: it is at the block before the transaction's."""
    script, tx = paid(litecoin)
    (transfer,) = newest(litecoin, node, script).transfers
    height, block_hash = litecoin.head, litecoin.block_hash(litecoin.head)
    litecoin.rpc("invalidateblock", block_hash)
    unknown = Reference(b"\7" * 32, height, b"\7" * 32)
    for asked in (reference(transfer), unknown):
        with pytest.raises(NodeBehindError, match=f"^node one has no block {height}, in which"):
            node.look([asked])
    (sighting,) = node.look([Reference(bytes.fromhex(tx))])
    assert sighting.state == "pending"
    litecoin.rpc("reconsiderblock", block_hash)
    (sighting,) = node.look([reference(transfer)])
    assert sighting.block == transfer.block


def test_without_an_index_only_a_scan_finds_what_moved() -> None:
    with Litecoin("-txindex=0") as litecoin, connected(litecoin.url) as node:
        script, tx = paid(litecoin)
        (transfer,) = newest(litecoin, node, script).transfers
        assert transfer.senders == ()
        (sighting,) = node.look([reference(transfer)])
        assert (sighting.state, sighting.block) == ("mined", transfer.block)
        assert [one.state for one in node.look([Reference(bytes.fromhex(tx))])] == ["missing"]
        litecoin.reorganise(1)
        assert [one.state for one in node.look([reference(transfer)])] == ["pending"]
        litecoin.mine()
        assert [one.state for one in node.look([reference(transfer)])] == ["missing"]
        (again,) = newest(litecoin, node, script).transfers
        assert (again.tx_hash, again.block.height) == (transfer.tx_hash, transfer.block.height + 1)


def test_balances_and_tokens(litecoin: Litecoin, node: BitcoinNode) -> None:
    (first, _), (second, _) = paid(litecoin, Decimal("0.1")), paid(litecoin, Decimal("0.2"))
    keys = [bytes.fromhex(script) for script in (first, second, "5120" + "07" * 32, first)]
    assert node.balances(keys, None) == [10_000_000, 20_000_000, 0, 10_000_000]
    assert node.balances([], None) == []
    assert node.token(b"\7" * 20) is None


def test_balances_of_many_are_several_searches(
    litecoin: Litecoin, node: BitcoinNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [bytes.fromhex(paid(litecoin, coins)[0]) for coins in (1, 2, 3)]
    monkeypatch.setattr("maven_cli.chains.bitcoin.node.SEARCHED_AT_ONCE", 2)
    before = node.requests
    assert node.balances(keys, None) == [10**8, 2 * 10**8, 3 * 10**8]
    assert node.requests == before + 2


def test_a_search_that_finds_too_much_is_divided(
    litecoin: Litecoin, node: BitcoinNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [bytes.fromhex(paid(litecoin)[0]) for _ in range(2)]
    searched: list[int] = []

    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "scantxoutset":
            searched.append(len(question["params"][1]))
            answer["result"]["padding"] = "0" * (2**16 * searched[-1])

    monkeypatch.setattr("maven_cli.chains.rpc.BODY_LIMIT", 2**17)
    with edited(litecoin, change) as much:
        assert much.balances(keys, None) == [10**8, 10**8]
    assert searched == [2, 1, 1]


def test_a_search_that_takes_too_long_is_ended(litecoin: Litecoin) -> None:
    asked: list[list[Any]] = []

    def change(question: dict[str, Any], _answer: dict[str, Any]) -> None:
        if question["method"] == "scantxoutset":
            asked.append(question["params"])
            if question["params"][0] == "start":
                time.sleep(1.5)

    with Between(litecoin, change) as proxy, connected(proxy.url, timedelta(seconds=1)) as node:
        message = "no answer within 1s to a search of all unspent outputs; raise MAVEN_NODE_TIMEOUT"
        with pytest.raises(NodeDownError, match=message):
            node.balances([b"\x51"], None)
    assert asked == [["start", ["raw(51)"]], ["abort"]]


def test_a_search_that_somebody_else_began(litecoin: Litecoin) -> None:
    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "scantxoutset":
            message = 'Scan already in progress, use action "abort" or "status"'
            answer |= {"result": None, "error": {"code": -8, "message": message}}

    with (
        edited(litecoin, change) as node,
        pytest.raises(NodeDownError, match="refuses a search of all unspent outputs: Scan already in"),
    ):
        node.balances([b"\x51"], None)


# ---------------------------------------------------------------------------------------------------------- wrong and missing


def block_edits() -> dict[str, tuple[Any, type[Exception], str]]:
    """What may be wrong with a block: the edit, and what is raised."""

    def without_a_transaction(block: dict[str, Any]) -> None:
        del block["tx"][-1]

    def without_an_output(block: dict[str, Any]) -> None:
        del block["tx"][-1]["vout"][0]

    def without_a_script(block: dict[str, Any]) -> None:
        del block["tx"][-1]["vout"][0]["scriptPubKey"]

    return {
        "a transaction short": (without_a_transaction, NodeDownError, "that lacks transactions"),
        "an output short": (without_an_output, NodeDownError, "of which some are missing"),
        "no script": (without_a_script, NodeDownError, "what is no scriptPubKey"),
        "no transactions": (lambda block: block.pop("tx"), NodeDownError, "no transactions of a block"),
        "another block": (lambda block: block.update(hash="07" * 32), NodeDownError, "another block"),
        "another parent": (
            lambda block: block.update(previousblockhash="07" * 32),
            NodeBehindError,
            "changed its chain",
        ),
        "another height": (lambda block: block.update(height=7), NodeBehindError, "changed its chain"),
        "not in the chain": (
            lambda block: block.update(confirmations=-1),
            NodeBehindError,
            "changed its chain",
        ),
        "nothing": (lambda block: block.clear(), NodeDownError, "what is not a height"),
    }


@pytest.mark.parametrize("what", block_edits())
def test_blocks_that_are_not_whole(litecoin: Litecoin, what: str) -> None:
    edit, error, message = block_edits()[what]
    script, _ = paid(litecoin)

    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getblock" and answer["result"]["height"] == litecoin.head:
            edit(answer["result"])

    with edited(litecoin, change) as node, pytest.raises(error, match=message):
        node.scan(litecoin.head - 3, litecoin.head, Watching(script), final=False)


@pytest.mark.parametrize(
    ("method", "code", "message", "error", "told"),
    [
        ("getblock", -1, "Block not available (pruned data)", NodeBehindError, "any more: it is pruned"),
        ("getblock", -5, "Block not found", NodeBehindError, "has no block"),
        ("getblock", -1, "Can't read block from disk", NodeDownError, "refuses block"),
        ("getblock", None, None, NodeBehindError, "has no block"),
        ("getblockhash", -28, "Loading block index…", NodeDownError, "still starting: Loading block index"),
        ("getrawtransaction", -5, "Block hash not found", NodeBehindError, "Block hash not found"),
        ("getrawtransaction", -1, "Block not available", NodeBehindError, "any more: it is pruned"),
    ],
)
def test_what_a_node_refuses(
    litecoin: Litecoin, method: str, code: int | None, message: str, error: type[Exception], told: str
) -> None:
    script, _ = paid(litecoin)

    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == method:
            refusal = None if code is None else {"code": code, "message": message}
            answer |= {"result": None, "error": refusal}

    with edited(litecoin, change) as node, pytest.raises(error, match=f"^node one .*{told}"):
        newest(litecoin, node, script)


def test_a_node_that_has_just_started_is_waited_for(litecoin: Litecoin) -> None:
    left = 2

    def change(_question: dict[str, Any], answer: dict[str, Any]) -> None:
        nonlocal left
        if left:
            left -= 1
            answer |= {"result": None, "error": {"code": -28, "message": "Loading block index…"}}

    with edited(litecoin, change) as node:
        assert node.identity() == GENESIS
        assert node.requests == 3


@pytest.mark.parametrize(
    ("state", "behind"),
    [
        ({"headers": 10_000}, True),
        ({"initialblockdownload": True, "chain": "main"}, True),
        ({"initialblockdownload": True, "chain": "regtest"}, False),
        ({"headers": 1}, False),
    ],
)
def test_a_node_that_is_still_loading(litecoin: Litecoin, state: dict[str, Any], behind: bool) -> None:
    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getblockchaininfo":
            answer["result"] |= state

    with edited(litecoin, change) as node:
        if behind:
            with pytest.raises(
                NodeBehindError, match=f"still loading its chain: it has {litecoin.head} of at least"
            ):
                node.head()
        else:
            assert node.head().block.height == litecoin.head


def test_pruned_blocks_are_no_missing_transactions(litecoin: Litecoin, node: BitcoinNode) -> None:
    script, _ = paid(litecoin)
    (transfer,) = newest(litecoin, node, script).transfers

    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getrawtransaction":
            answer |= {"result": None, "error": {"code": -1, "message": "Block not available"}}

    with edited(litecoin, change) as pruned, pytest.raises(NodeBehindError, match="it is pruned"):
        pruned.look([reference(transfer)])


def test_outputs_of_an_extension_block(litecoin: Litecoin, node: BitcoinNode) -> None:
    """Litecoin writes MimbleWimble's outputs and inputs among the others: without amount, script or index."""
    script, _ = paid(litecoin)

    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getblock":
            answer["result"]["tx"][-1]["vout"].append({"ismweb": True, "output_id": "07" * 32})
            answer["result"]["tx"][-1]["vin"].append({"ismweb": True, "output_id": "08" * 32})

    with edited(litecoin, change) as newer:
        assert newest(litecoin, newer, script) == newest(litecoin, node, script)
