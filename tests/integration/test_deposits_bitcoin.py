"""Deposits on a real node of the Bitcoin family, from the block to the balance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from maven_cli.chains import Reference
from maven_cli.chains.bitcoin import BitcoinNode, BitcoinNotation
from maven_cli.chains.rpc import Endpoint, Rpc
from maven_cli.deposits.config import read_file, write
from maven_cli.passes.deposits_confirm import confirm
from maven_cli.passes.deposits_credit import credit
from maven_cli.passes.deposits_scan import scan
from tests.conftest import TestServices
from tests.integration.test_deposits_evm import data_of
from tests.nodes_bitcoin import PASSWORD, Litecoind
from tests.support import Cli

NODE = "MAVEN_TEST_NODE_2"
KINDS = ("legacy", "p2sh-segwit", "bech32")


@pytest.fixture(scope="module")
def running() -> Iterator[Litecoind]:
    with Litecoind() as litecoind:
        yield litecoind


@dataclass
class Exchange:
    """An exchange that watches the node from its head on; a user for each kind of address."""

    conn: psycopg.Connection
    services: TestServices
    node: Litecoind
    addresses: list[str]

    def scan(self) -> dict[str, Any]:
        return data_of(scan(self.services))

    def confirm(self) -> dict[str, Any]:
        return data_of(confirm(self.services))

    def credit(self) -> dict[str, Any]:
        return data_of(credit(self.services))

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(f"SELECT {', '.join(columns)} FROM deposits ORDER BY id").fetchall()

    def balance(self, user: int) -> Decimal:
        row = self.conn.execute("SELECT available FROM wallets WHERE user_id = %s", [user]).fetchone()
        return row[0] if row else Decimal(0)


@pytest.fixture
def exchange(
    conn: psycopg.Connection,
    services: TestServices,
    running: Litecoind,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> Iterator[Exchange]:
    if running.rpc("getrawmempool"):
        running.mine()
    monkeypatch.setenv(NODE, running.url)
    addresses = [running.new_address(kind) for kind in KINDS]
    path = tmp_path / "chains.toml"
    path.write_text(
        f"""
[[chains]]
name = "litecoin"
family = "bitcoin"
identity = "{running.genesis}"
network = "litecoin-regtest"
confirmations = 3
tail = 12
backscan = 2
start = {running.head + 1}
[[chains.endpoints]]
name = "ltc"
secret = "env:{NODE}"
[[chains.tokens]]
asset = "LTC"
decimals = 8
"""
        + "".join(
            f'[[chains.addresses]]\naddress = "{address}"\nuser = {user}\n'
            for user, address in enumerate(addresses, 1)
        )
    )
    write(conn, read_file(path))
    yield Exchange(conn, services, running, addresses)
    # What a test left in the pool is not the next one's.
    running.mine()


def node_of(running: Litecoind) -> closing[BitcoinNode]:
    return closing(BitcoinNode(Rpc(Endpoint("ltc", running.url), timedelta(seconds=20))))


def test_from_the_block_to_the_balance(exchange: Exchange) -> None:
    """Every standard kind of address; several outputs of one transaction are several deposits. (D03)"""
    node = exchange.node
    node.pay_many(dict.fromkeys(exchange.addresses, "0.1"))
    node.pay(exchange.addresses[0], "0.2")
    assert exchange.scan()["detected"] == 0
    node.mine()
    assert exchange.scan()["detected"] == 4
    assert exchange.scan()["detected"] == 0
    assert sorted(amount for (amount,) in exchange.rows("amount")) == [Decimal(n) / 10 for n in (1, 1, 1, 2)]
    exchange.confirm()
    assert exchange.credit()["credited"] == 0
    node.mine(2)
    assert exchange.confirm()["confirmed"] == 4
    assert exchange.credit()["credited"] == 4
    assert exchange.credit()["credited"] == 0
    assert [exchange.balance(user) for user in (1, 2, 3)] == [Decimal("0.3"), Decimal("0.1"), Decimal("0.1")]


def test_d39_amounts_are_exact(exchange: Exchange) -> None:
    """0.1 + 0.2 is what a float gets wrong."""
    for amount in ("0.10000001", "0.20000002", "0.00012345"):
        exchange.node.pay(exchange.addresses[2], amount)
    exchange.node.mine(3)
    exchange.scan()
    exchange.confirm()
    assert exchange.credit()["credited"] == 3
    assert exchange.balance(3) == Decimal("0.30012348")


def test_d25_unconfirmed_and_replaced(exchange: Exchange) -> None:
    running = exchange.node
    first = running.pay(exchange.addresses[0], "0.5")
    assert exchange.scan()["detected"] == 0
    with node_of(running) as node:
        reference = Reference(bytes.fromhex(first))
        assert node.look([reference])[0].state == "pending"
        second = running.rpc("bumpfee", first)["txid"]
        assert node.look([reference])[0].state == "missing"
    running.mine()
    exchange.scan()
    assert [tx.hex() for (tx,) in exchange.rows("tx_hash")] == [second]


def test_d26_a_coinbase_output(exchange: Exchange) -> None:
    exchange.node.mine(1, to=exchange.addresses[0])
    exchange.scan()
    exchange.confirm()
    assert exchange.rows("status", "reason", "immature") == [("HELD", "immature", True)]


def test_d29_the_exchange_s_own_sweep(exchange: Exchange) -> None:
    """A user's coins, swept: the change that comes back to a deposit address is no deposit."""
    node = exchange.node
    node.pay(exchange.addresses[2], "1")
    node.mine()
    exchange.scan()
    (unspent,) = node.rpc("listunspent", 1, 999, [exchange.addresses[2]])
    raw = node.rpc(
        "createrawtransaction",
        [{"txid": unspent["txid"], "vout": unspent["vout"]}],
        [{node.new_address(): 0.6}, {exchange.addresses[0]: 0.39}],
    )
    signed = node.rpc("signrawtransactionwithwallet", raw)["hex"]
    sweep = node.rpc("sendrawtransaction", signed)
    node.mine()
    found = exchange.scan()
    # Without an index of transactions the node can't say who paid, and an operator decides.
    if found["unmatched"]:
        assert len(exchange.rows("id")) == 1
    else:
        assert sweep in [tx.hex() for (tx,) in exchange.rows("tx_hash")]


def test_d05_d06_a_reorganisation_before_the_credit(exchange: Exchange) -> None:
    node = exchange.node
    tx = node.pay(exchange.addresses[1], "0.7")
    node.mine(2)
    exchange.scan()
    exchange.confirm()
    assert exchange.rows("status", "confirmations") == [("CONFIRMING", 2)]
    (before,) = exchange.rows("block_hash")
    node.reorganise(2)
    found = exchange.scan()
    assert (found["orphaned"], found["detected"]) == (1, 0)
    assert exchange.rows("status", "confirmations") == [("ORPHANED", 0)]
    # The node has put it back into its pool.
    node.mine(3)
    assert exchange.scan()["detected"] == 1
    assert [tx.hex() for (tx,) in exchange.rows("tx_hash")] == [tx]
    assert exchange.rows("block_hash") != [before]
    assert exchange.confirm()["confirmed"] == 1
    assert exchange.credit()["credited"] == 1
    assert exchange.balance(2) == Decimal("0.7")


def test_d07_a_reorganisation_after_the_credit(exchange: Exchange) -> None:
    node = exchange.node
    node.pay(exchange.addresses[1], "0.7")
    node.mine(3)
    exchange.scan()
    exchange.confirm()
    assert exchange.credit()["credited"] == 1
    node.reorganise(3)
    exchange.scan()
    open_incidents = "SELECT count(*) FROM incidents WHERE kind = 'credited_orphan' AND resolved_at IS NULL"
    assert exchange.conn.execute(open_incidents).fetchone() == (1,)
    assert exchange.balance(2) == Decimal("0.7")
    node.mine(1)
    exchange.scan()
    assert exchange.conn.execute(open_incidents).fetchone() == (0,)
    assert exchange.credit()["credited"] == 0


def test_d27_scripts_not_addresses(running: Litecoind) -> None:
    """Litecoin Core 0.21 writes `addresses`, later ones `address`: neither is read."""
    address = running.new_address("bech32")
    running.pay(address, "0.3")
    (block,) = running.mine()
    (output,) = [
        output
        for transaction in running.rpc("getblock", block, 2)["tx"]
        for output in transaction["vout"]
        if address in output["scriptPubKey"].get("addresses", [])
    ]
    assert output["scriptPubKey"]["hex"] == BitcoinNotation("litecoin-regtest").address(address).hex()


def test_another_chain_and_a_wrong_password(exchange: Exchange, cli: Cli) -> None:
    exchange.conn.execute("UPDATE chains SET identity = repeat('ab', 32)")
    done = cli("deposits", "scan", env={NODE: exchange.node.url})
    assert done.code == 78
    exchange.conn.execute("UPDATE chains SET identity = %s", [exchange.node.genesis])
    done = cli("deposits", "scan", env={NODE: exchange.node.url.replace(PASSWORD, "guessed-wrong")})
    assert done.code == 69
    assert "HTTP 401" in done.err
    assert "guessed-wrong" not in done.err


def test_look_with_an_index() -> None:
    with Litecoind("-txindex=1") as running, node_of(running) as node:
        address = running.new_address()
        tx = running.pay(address, "0.4")
        (block,) = running.mine()
        height = running.head
        (seen,) = node.look([Reference(bytes.fromhex(tx))])
        assert seen.state == "mined"
        assert seen.block is not None
        assert (seen.block.height, seen.block.hash.hex()) == (height, block)
        assert 40_000_000 in [transfer.amount for transfer in seen.transfers]
        reference = Reference(bytes.fromhex(tx), height, bytes.fromhex(block))
        assert node.look([reference])[0].digest == seen.digest
        running.reorganise(1)
        assert node.look([reference])[0].state == "pending"
        running.mine()
        (again,) = node.look([reference])
        assert again.block is not None
        assert again.block.height == height + 2
        assert node.balances([BitcoinNotation("litecoin-regtest").address(address)], None) == [40_000_000]
