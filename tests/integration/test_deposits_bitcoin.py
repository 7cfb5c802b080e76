"""Deposits on a real node of the Bitcoin family, from the block to the balance: found, followed, taken back, found again,
credited once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from maven_cli.chains import NodeDownError
from maven_cli.chains.bitcoin import BitcoinNotation
from maven_cli.deposits.chains import Chain, Progress, progress, resolve_chains
from maven_cli.deposits.config import read_file, write
from maven_cli.passes.deposits_confirm import confirm
from maven_cli.passes.deposits_credit import credit
from maven_cli.passes.deposits_scan import scan
from maven_cli.runner import Outcome
from tests.conftest import TestServices
from tests.nodes_bitcoin import CUSTOMERS, GENESIS, Between, Change, Litecoin
from tests.support import Cli

NODE = "MAVEN_TEST_NODE_1"
NOTATION = BitcoinNotation("litecoin-regtest")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Litecoin]:
    with Litecoin() as litecoin:
        monkeypatch.setenv(NODE, litecoin.url)
        yield litecoin


@dataclass
class Exchange:
    """An exchange that watches the node: users 1 and 2 have an address each, and there is one coin."""

    conn: psycopg.Connection
    services: TestServices
    node: Litecoin
    path: Path
    monkeypatch: pytest.MonkeyPatch
    alice: str = ""
    bob: str = ""

    def configure(self, addresses: list[str], **chain: Any) -> None:
        """Writes the chain down, with an address for each of the users 1, 2, ….  internal: addresses of the exchange's."""
        internal = chain.pop("internal", [])
        settings = {"identity": GENESIS, "confirmations": 3, "tail": 12, "start": 102} | chain
        lines = [
            f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"'
            for key, value in settings.items()
        ]
        lines += ["[[chains.endpoints]]", 'name = "one"', f'secret = "env:{NODE}"']
        lines += ["[[chains.tokens]]", 'asset = "LTC"', "decimals = 8"]
        for user, address in enumerate(addresses, 1):
            lines += ["[[chains.addresses]]", f'address = "{address}"', f"user = {user}"]
        for address in internal:
            lines += ["[[chains.internal]]", f'address = "{address}"', 'label = "hot wallet"']
        head = '[[chains]]\nname = "regtest"\nfamily = "bitcoin"\nnetwork = "litecoin-regtest"\n'
        self.path.write_text(head + "\n".join(lines))
        write(self.conn, read_file(self.path))

    @contextmanager
    def between(self, change: Change) -> Iterator[None]:
        """What the exchange's node says is edited meanwhile."""
        with Between(self.node, change) as proxy:
            self.monkeypatch.setenv(NODE, proxy.url)
            yield
        self.monkeypatch.setenv(NODE, self.node.url)

    @property
    def chain(self) -> Chain:
        (chain,) = resolve_chains(self.conn, ["regtest"])
        return chain

    @property
    def progress(self) -> Progress:
        return progress(self.conn, self.chain)

    def scan(self) -> dict[str, Any]:
        return data_of(scan(self.services))

    def confirm(self) -> dict[str, Any]:
        return data_of(confirm(self.services))

    def credit(self) -> dict[str, Any]:
        return data_of(credit(self.services))

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(f"SELECT {', '.join(columns)} FROM deposits ORDER BY id").fetchall()

    def unmatched(self) -> list[tuple[Any, ...]]:
        return self.conn.execute("SELECT units, reason FROM unmatched_transfers ORDER BY units").fetchall()

    def balance(self, user: int) -> Decimal:
        row = self.conn.execute("SELECT available FROM wallets WHERE user_id = %s", [user]).fetchone()
        return row[0] if row else Decimal(0)


def data_of(outcome: Outcome) -> dict[str, Any]:
    """What a pass found that met no trouble."""
    assert not outcome.errors
    assert outcome.data is not None
    return outcome.data


@pytest.fixture
def exchange(
    conn: psycopg.Connection,
    services: TestServices,
    node: Litecoin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Exchange:
    alice, bob = (node.new_address(wallet=CUSTOMERS) for _ in range(2))
    exchange = Exchange(conn, services, node, tmp_path / "chains.toml", monkeypatch, alice, bob)
    exchange.configure([alice, bob])
    return exchange


def test_from_the_block_to_the_balance(exchange: Exchange) -> None:
    node = exchange.node
    first = node.pay(exchange.alice, Decimal("1.5"))
    second = node.pay(exchange.bob, Decimal("0.00012345"))
    node.pay(node.new_address(wallet=CUSTOMERS), 1)
    node.mine()
    assert exchange.scan()["detected"] == 2
    assert exchange.scan()["detected"] == 0
    assert {tx.hex() for (tx,) in exchange.rows("tx_hash")} == {first, second}
    assert exchange.rows("status", "confirmations") == [("PENDING", 0)] * 2
    node.mine(1)
    assert exchange.confirm()["confirmed"] == 0
    assert exchange.credit()["credited"] == 0
    node.mine(1)
    assert exchange.confirm()["confirmed"] == 2
    assert exchange.credit()["credited"] == 2
    assert exchange.credit()["credited"] == 0
    assert (exchange.balance(1), exchange.balance(2)) == (Decimal("1.5"), Decimal("0.00012345"))
    (evidence,) = [evidence for evidence, user in exchange.rows("evidence", "user_id") if user == 1]
    assert evidence["endpoint"] == "one"
    assert evidence["block"] == node.block_hash(evidence["height"])


def test_every_kind_of_address(exchange: Exchange) -> None:
    """All that this node makes, and taproot, which it only pays."""
    node = exchange.node
    addresses = [node.new_address(kind, CUSTOMERS) for kind in ("legacy", "p2sh-segwit", "bech32")]
    keys = [node.rpc("getaddressinfo", node.new_address(), wallet="bank")["pubkey"] for _ in range(2)]
    addresses += [
        node.rpc("createmultisig", 2, keys, kind)["address"] for kind in ("legacy", "p2sh-segwit", "bech32")
    ]
    addresses.append(NOTATION.write_address(b"\x51\x20" + bytes(range(32))))
    addresses.append(NOTATION.write_address(b"\x60\x02\xab\xcd"))
    exchange.configure([exchange.alice, exchange.bob, *addresses])
    for number, address in enumerate(addresses, 1):
        assert NOTATION.address(address).hex() == node.script(address)
        assert NOTATION.write_address(NOTATION.address(address)) == address
        node.pay(address, number)
    node.mine(3)
    assert exchange.scan()["detected"] == len(addresses)
    assert exchange.confirm()["confirmed"] == len(addresses)
    assert exchange.credit()["credited"] == len(addresses)
    assert [exchange.balance(user) for user in range(3, 3 + len(addresses))] == list(
        range(1, 1 + len(addresses))
    )


def test_d03_two_outputs_to_the_same_address(exchange: Exchange) -> None:
    node = exchange.node
    script = node.script(exchange.alice)
    node.pay_many([(script, 700_000), (node.script(exchange.bob), 5), (script, 700_000), (script, 0)])
    node.mine(3)
    exchange.scan()
    assert sorted(exchange.rows("ordinal", "user_id", "units")) == [
        (0, 1, 700_000),
        (1, 2, 5),
        (2, 1, 700_000),
    ]
    exchange.confirm()
    assert exchange.credit()["credited"] == 3
    assert exchange.balance(1) == Decimal("0.014")


def test_d25_unconfirmed_and_replaced(exchange: Exchange) -> None:
    node = exchange.node
    first = node.pay(exchange.alice, 1)
    assert exchange.scan()["detected"] == 0
    second = node.replace(first)
    node.mine(3)
    assert exchange.scan()["detected"] == 1
    assert [tx.hex() for (tx,) in exchange.rows("tx_hash")] == [second]
    exchange.confirm()
    assert exchange.credit()["credited"] == 1
    assert exchange.balance(1) == 1


def test_d26_a_coinbase_output_ripens(exchange: Exchange) -> None:
    node = exchange.node
    node.mine(1, exchange.alice)
    node.mine(5)
    exchange.scan()
    assert exchange.rows("status", "reason", "units") == [("HELD", "immature", 50 * 10**8)]
    assert exchange.confirm()["confirmed"] == 0
    node.mine(94)
    exchange.scan()
    exchange.confirm()
    assert exchange.rows("status") == [("HELD",)]
    node.mine()
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 1
    assert exchange.credit()["credited"] == 1
    assert exchange.balance(1) == 50


@pytest.mark.parametrize("shape", ["addresses", "address", "neither"])
def test_d27_scripts_are_matched_not_what_is_written_beside_them(exchange: Exchange, shape: str) -> None:
    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] in ("getblock", "getrawtransaction") and answer["result"]:
            for transaction in answer["result"].get("tx", [answer["result"]]):
                for output in transaction["vout"]:
                    script = output["scriptPubKey"]
                    addresses = script.pop("addresses", [])
                    if addresses and shape != "neither":
                        script[shape] = addresses[0] if shape == "address" else addresses

    exchange.node.pay(exchange.alice, 1)
    exchange.node.mine(3)
    with exchange.between(change):
        assert exchange.scan()["detected"] == 1
        assert exchange.confirm()["confirmed"] == 1
    assert exchange.credit()["credited"] == 1


def test_d29_the_exchanges_own_payments(exchange: Exchange) -> None:
    node = exchange.node
    hot = node.mining
    exchange.configure([exchange.alice, exchange.bob], internal=[hot])
    # A top-up from the hot wallet, and a sweep: its change comes back to the address that is swept.
    node.pay(exchange.alice, 1)
    node.mine()
    assert exchange.scan()["unmatched"] == 1
    assert exchange.unmatched() == [(10**8, "sent by the exchange")]
    (coin,) = node.rpc("listunspent", 1, 99, [exchange.alice], wallet=CUSTOMERS)
    raw = node.rpc(
        "createrawtransaction",
        [{"txid": coin["txid"], "vout": coin["vout"]}],
        {node.new_address(): Decimal("0.7"), exchange.alice: Decimal("0.2")},
    )
    signed = node.rpc("signrawtransactionwithwallet", raw, wallet=CUSTOMERS)
    node.rpc("sendrawtransaction", signed["hex"], 0)
    node.mine()
    assert exchange.scan()["unmatched"] == 1
    assert exchange.unmatched() == [(2 * 10**7, "sent by the exchange"), (10**8, "sent by the exchange")]
    assert exchange.rows("id") == []


def test_d39_amounts_are_exact(exchange: Exchange) -> None:
    node = exchange.node
    units = [10_000_000, 20_000_000, 1, 4_199_999_999, 29]
    node.pay_many([(node.script(exchange.alice), amount) for amount in units])
    node.mine(3)
    exchange.scan()
    assert [amount for (amount,) in exchange.rows("units")] == units
    exchange.confirm()
    exchange.credit()
    assert exchange.balance(1) == Decimal("42.30000029")


def test_d39_more_decimals_than_there_are(exchange: Exchange) -> None:
    def change(question: dict[str, Any], answer: dict[str, Any]) -> None:
        if question["method"] == "getblock":
            answer["result"]["tx"][-1]["vout"][0]["value"] = "number:0.100000001"

    exchange.node.pay(exchange.alice, 1)
    exchange.node.mine()
    exchange.scan()
    exchange.node.mine()
    before = exchange.progress
    with exchange.between(change), pytest.raises(NodeDownError, match="an amount with more than 8 decimals"):
        scan(exchange.services)
    assert exchange.progress.cursor == before.cursor


def test_d05_d06_a_reorganisation_before_the_credit(exchange: Exchange) -> None:
    node = exchange.node
    node.mine(2)
    tx = node.pay(exchange.alice, 1)
    node.mine(3)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 1
    node.reorganise(4)
    assert (exchange.scan()["orphaned"], exchange.chain.reorg_epoch) == (1, 1)
    assert exchange.rows("status", "confirmations") == [("ORPHANED", 0)]
    assert exchange.credit()["credited"] == 0
    node.mine(1)
    assert exchange.scan()["detected"] == 1
    assert exchange.confirm()["confirmed"] == 0
    node.mine(2)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 1
    assert exchange.credit()["credited"] == 1
    assert [(one.hex(), status) for one, status in exchange.rows("tx_hash", "status")] == [(tx, "CREDITED")]
    assert exchange.balance(1) == 1


def test_d37_the_chain_changed_while_the_scan_was_dead(exchange: Exchange) -> None:
    node = exchange.node
    node.pay(exchange.alice, 1)
    node.mine(2)
    exchange.scan()
    node.reorganise(2)
    node.mine_empty(3)
    exchange.conn.execute("UPDATE deposits SET required = 1")
    assert exchange.confirm()["confirmed"] == 0
    assert exchange.credit()["credited"] == 0
    assert exchange.rows("missing_since IS NULL") == [(False,)]
    node.mine(3)
    # Mined elsewhere, which the scan has to find before it counts.
    assert exchange.confirm()["confirmed"] == 0
    exchange.scan()
    exchange.confirm()
    assert exchange.credit()["credited"] == 1


def test_d07_a_reorganisation_after_the_credit(exchange: Exchange) -> None:
    node = exchange.node
    node.mine(2)
    node.pay(exchange.alice, 1)
    node.mine(3)
    exchange.scan()
    exchange.confirm()
    assert exchange.credit()["credited"] == 1
    node.reorganise(4)
    exchange.scan()
    assert exchange.rows("status") == [("CREDITED",)]
    assert exchange.balance(1) == 1
    incident = "SELECT kind, details->>'exposure', resolved_at IS NULL FROM incidents"
    assert exchange.conn.execute(incident).fetchall() == [("credited_orphan", "1", True)]
    node.mine(3)
    exchange.scan()
    assert exchange.conn.execute(incident).fetchall() == [("credited_orphan", "1", False)]
    assert exchange.credit()["credited"] == 0
    assert exchange.balance(1) == 1


def test_d09_deeper_than_the_tail(exchange: Exchange) -> None:
    exchange.node.mine(20)
    exchange.scan()
    exchange.node.reorganise(15)
    assert scan(exchange.services).exit_code == 1
    assert exchange.chain.state == "HALTED"


def test_d24_another_chain(exchange: Exchange, cli: Cli) -> None:
    exchange.configure([exchange.alice])
    exchange.conn.execute("UPDATE chains SET identity = %s", ["00" * 32])
    done = cli("deposits", "scan", env={NODE: exchange.node.url})
    assert done.code == 78
    assert f"is on chain {GENESIS}, not on regtest" in done.err
    assert exchange.progress.cursor is None


def test_a_node_that_is_down_or_wants_another_password(exchange: Exchange, cli: Cli) -> None:
    url = exchange.node.url.replace("secret-of-the-node", "another-secret")
    done = cli("deposits", "scan", env={NODE: url})
    assert done.code == 69
    assert "HTTP 401; check the secret of this endpoint" in done.err
    assert "another-secret" not in done.err + done.out
    exchange.node.stop()
    done = cli("deposits", "scan", env={NODE: exchange.node.url})
    assert done.code == 69
    assert "[DepositMonitoringWorker] Blockchain monitoring is not active!" in done.err
    exchange.node.start()
    exchange.conn.execute("DELETE FROM circuits")
    assert exchange.scan()["blocks"] == 0


def test_p12_requests(exchange: Exchange) -> None:
    """Three for the endpoint's chain and head, one for a hundred candidates; one for two blocks that are read."""
    node = exchange.node
    script = node.script(exchange.alice)
    node.pay_many([(script, 1000 + number) for number in range(100)])
    for _ in range(5):
        node.pay_many([(script, 1000 + number) for number in range(10)])
    node.mine(3)
    # The first block, and the last one that was read, two each; hashes, two pairs of blocks, two for senders.
    assert exchange.scan()["chains"][0].requests == 3 + 2 + 2 + 1 + 2 + 2
    data = exchange.confirm()
    assert (data["confirmed"], data["chains"][0].requests) == (150, 5)
