"""Deposits on a real EVM node, from the block to the balance: found, followed, taken back, found again, credited once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from maven_cli.deposits.chains import Chain, Progress, progress, resolve_chains
from maven_cli.deposits.config import read_file, write
from maven_cli.passes.deposits_confirm import confirm
from maven_cli.passes.deposits_credit import credit
from maven_cli.passes.deposits_scan import scan
from maven_cli.runner import Outcome
from tests.conftest import TestServices
from tests.evm_pool import Pool
from tests.support import Cli

ETHER = 10**18
ALICE, BOB, CAROL = (f"0x{number:040x}" for number in (0xA11CE, 0xB0B, 0xCA401))
NODE = "MAVEN_TEST_NODE_1"


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    with Pool() as anvil:
        monkeypatch.setenv(NODE, anvil.url)
        yield anvil


@dataclass
class Exchange:
    """An exchange that watches the node: three users, ether, and one token."""

    conn: psycopg.Connection
    services: TestServices
    node: Pool
    token: str = ""
    files: list[str] = field(default_factory=list)

    @property
    def chain(self) -> Chain:
        (chain,) = resolve_chains(self.conn, ["anvil"])
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

    def balance(self, user: int, asset: str = "ETH") -> Decimal:
        row = self.conn.execute(
            "SELECT w.available FROM wallets w JOIN assets a ON a.id = w.asset_id WHERE w.user_id = %s AND a.symbol = %s",
            [user, asset],
        ).fetchone()
        return row[0] if row else Decimal(0)


def data_of(outcome: Outcome) -> dict[str, Any]:
    """What a pass found that met no trouble."""
    assert outcome.data is not None
    assert not outcome.errors
    return outcome.data


def file_of(
    token: str, endpoints: str = f'[[chains.endpoints]]\nname = "one"\nsecret = "env:{NODE}"\n', **chain: Any
) -> str:
    settings = {"confirmations": 3, "tail": 12, "backscan": 5, "start": 0} | chain
    lines = "\n".join(
        f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"'
        for key, value in settings.items()
    )
    addresses = "".join(
        f'[[chains.addresses]]\naddress = "{address}"\nuser = {user}\n'
        for user, address in ((1, ALICE), (2, BOB))
    )
    return f"""
[[chains]]
name = "anvil"
family = "evm"
identity = "31337"
{lines}
{endpoints}
[[chains.tokens]]
asset = "ETH"
decimals = 18
minimum = "0.01"
[[chains.tokens]]
asset = "USDT"
contract = "{token}"
decimals = 6
{addresses}"""


@pytest.fixture
def exchange(conn: psycopg.Connection, services: TestServices, node: Pool, tmp_path: Any) -> Exchange:
    token = node.deploy()
    path = tmp_path / "chains.toml"
    path.write_text(file_of(token))
    write(conn, read_file(path))
    return Exchange(conn, services, node, token)


def test_from_the_block_to_the_balance(exchange: Exchange) -> None:
    node = exchange.node
    ether = node.pay(ALICE, 3 * ETHER // 2)
    token = node.call(exchange.token, "transfer(address,uint256)", BOB, 5_000_001)
    node.pay(CAROL, ETHER)
    node.mine()
    assert exchange.scan()["detected"] == 2
    assert exchange.scan()["detected"] == 0
    assert {"0x" + tx.hex() for (tx,) in exchange.rows("tx_hash")} == {ether, token}
    assert exchange.rows("status", "confirmations") == [("PENDING", 0)] * 2
    assert exchange.confirm()["updated"] == 2
    assert exchange.credit()["credited"] == 0
    node.mine(1)
    assert exchange.confirm()["confirmed"] == 0
    node.mine(1)
    assert exchange.confirm()["confirmed"] == 2
    assert exchange.credit()["credited"] == 2
    assert exchange.credit()["credited"] == 0
    assert exchange.balance(1) == Decimal("1.5")
    assert exchange.balance(2, "USDT") == Decimal("5.000001")
    (evidence,) = [evidence for evidence, user in exchange.rows("evidence", "user_id") if user == 1]
    assert evidence["endpoint"] == "one"
    assert evidence["block"] == node.block_hash(evidence["height"])


def test_d04_d12_d14_d30(exchange: Exchange) -> None:
    node, token = exchange.node, exchange.token
    node.call(token, "transfer_twice(address,uint256)", ALICE, 7)
    node.call(token, "transfer_not(address,uint256)", ALICE, 9)
    node.call(token, "transfer(address,uint256)", ALICE, 0)
    node.pay(ALICE, ETHER, data="0xdeadbeef")
    node.mine()
    exchange.scan()
    assert sorted(exchange.rows("kind", "units")) == [("native", ETHER), ("token", 7), ("token", 7)]


def test_d11_reverted(exchange: Exchange) -> None:
    # Nobody has that much: the call reverts, and so does what it would have logged.
    broke = exchange.node.rpc("eth_accounts")[1]
    exchange.node.call(exchange.token, "transfer(address,uint256)", ALICE, 7, **{"from": broke})
    exchange.node.call(exchange.token, "transfer(address,uint256)", ALICE, 7, wei=5)
    exchange.node.mine()
    assert exchange.scan()["detected"] == 0


def test_d05_d06_a_reorganisation_before_the_credit(exchange: Exchange) -> None:
    node = exchange.node
    node.mine(2)
    tx = node.pay(ALICE, ETHER)
    node.mine(3)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 1
    node.reorganise(4)
    found = exchange.scan()
    assert (found["orphaned"], exchange.chain.reorg_epoch) == (1, 1)
    assert exchange.rows("status") == [("ORPHANED",)]
    assert exchange.credit()["credited"] == 0
    # Mined again, later, in another block.
    again = node.pay(ALICE, ETHER, nonce=node.rpc("eth_getTransactionCount", node.bank, "latest"))
    node.mine(3)
    found = exchange.scan()
    assert found["detected"] == 1
    assert exchange.confirm()["confirmed"] == 1
    assert exchange.credit()["credited"] == 1
    assert exchange.balance(1) == 1
    if again == tx:
        assert exchange.rows("status") == [("CREDITED",)]


def test_d07_a_reorganisation_after_the_credit(exchange: Exchange) -> None:
    node = exchange.node
    node.mine(2)
    node.pay(ALICE, ETHER)
    node.mine(3)
    exchange.scan()
    exchange.confirm()
    assert exchange.credit()["credited"] == 1
    node.reorganise(4)
    exchange.scan()
    assert exchange.rows("status") == [("CREDITED",)]
    assert exchange.balance(1) == 1
    assert exchange.conn.execute("SELECT kind, details->>'exposure' FROM incidents").fetchall() == [
        ("credited_orphan", "1")
    ]


def test_d09_deeper_than_the_tail(exchange: Exchange) -> None:
    node = exchange.node
    node.mine(20)
    exchange.scan()
    node.reorganise(15)
    outcome_chain = scan(exchange.services)
    assert outcome_chain.exit_code == 1
    assert exchange.chain.state == "HALTED"
    assert exchange.conn.execute("SELECT kind FROM incidents").fetchall() == [("chain_halted",)]
    before = exchange.progress
    assert scan(exchange.services).exit_code == 0
    assert exchange.progress == before


def test_d16_other_decimals(exchange: Exchange) -> None:
    node = exchange.node
    node.call(exchange.token, "set_decimals(uint8)", 8)
    node.call(exchange.token, "transfer(address,uint256)", ALICE, 7)
    node.pay(ALICE, ETHER)
    node.mine()
    outcome = scan(exchange.services)
    assert outcome.exit_code == 1
    assert "8 decimals on the chain, 6 are configured" in outcome.errors[0].message
    assert sorted(exchange.rows("kind", "status")) == [("native", "PENDING"), ("token", "HELD")]


def test_d19_a_lagging_node(exchange: Exchange) -> None:
    node = exchange.node
    node.pay(ALICE, ETHER)
    node.mine(2)
    exchange.scan()
    exchange.confirm()
    assert exchange.rows("confirmations") == [(2,)]
    exchange.conn.execute("UPDATE deposits SET confirmations = 5, required = 100")
    exchange.confirm()
    assert exchange.rows("confirmations") == [(5,)]


def test_d22_a_bound_of_blocks(exchange: Exchange) -> None:
    exchange.node.mine(300)
    exchange.services.settings = exchange.services.settings.model_copy(update={"scan_blocks": 100})
    exchange.scan()
    assert exchange.progress.cursor == 100
    data = exchange.scan()
    assert (data["blocks"], exchange.progress.cursor) == (100, 200)
    assert data["chains"][0].lag == 101


def test_d24_another_chain(exchange: Exchange, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    with Pool(chain_id=1) as other:
        done = cli("deposits", "scan", env={NODE: other.url})
        assert done.code == 78
        assert "is on chain 1, not on anvil (31337)" in done.err
        assert other.url not in done.err
    assert exchange.progress.cursor is None


def test_d33_d34_endpoints(exchange: Exchange, cli: Cli, tmp_path: Any) -> None:
    both = "".join(
        f'[[chains.endpoints]]\nname = "{name}"\nsecret = "env:{variable}"\npriority = {priority}\n'
        for name, variable, priority in (("first", "NODE_DOWN", 0), ("one", NODE, 5))
    )
    path = tmp_path / "two.toml"
    path.write_text(file_of(exchange.token, both))
    write(exchange.conn, read_file(path))
    exchange.node.pay(ALICE, ETHER)
    exchange.node.mine()
    environment = {NODE: exchange.node.url, "NODE_DOWN": "http://user:secret-of-mine@127.0.0.1:9"}
    done = cli("deposits", "scan", "--json", env=environment)
    assert done.code == 0
    assert done.document["data"]["detected"] == 1
    assert "secret-of-mine" not in done.err + done.out
    failures = exchange.conn.execute("SELECT name, failures FROM circuits").fetchall()
    assert failures == [("node:anvil/first", 2)]
    exchange.node.stop()
    done = cli("deposits", "scan", env=environment)
    assert done.code == 69
    assert "[DepositMonitoringWorker] Blockchain monitoring is not active!" in done.err


def test_d40_an_address_that_came_later(exchange: Exchange) -> None:
    exchange.node.pay(CAROL, ETHER)
    exchange.node.mine(3)
    assert exchange.scan()["detected"] == 0
    exchange.conn.execute(
        "INSERT INTO deposit_addresses (chain_id, key, address, user_id) VALUES (%s, %s, %s, 3)",
        [exchange.chain.id, bytes.fromhex(CAROL[2:]), CAROL],
    )
    assert exchange.scan()["detected"] == 1
    assert exchange.rows("user_id", "units") == [(3, ETHER)]
    assert exchange.conn.execute(
        "SELECT count(*) FROM deposit_addresses WHERE scanned_from IS NULL"
    ).fetchone() == (0,)


def test_more_addresses_than_a_filter_takes(exchange: Exchange) -> None:
    exchange.conn.execute(
        "INSERT INTO deposit_addresses (chain_id, key, address, user_id)"
        " SELECT %s, decode(lpad(to_hex(n), 40, '0'), 'hex'), n::text, n FROM generate_series(1000000, 1000500) n",
        [exchange.chain.id],
    )
    exchange.node.call(exchange.token, "transfer(address,uint256)", ALICE, 5)
    exchange.node.pay(f"0x{1000400:040x}", ETHER)
    exchange.node.mine(80)
    assert exchange.scan()["detected"] == 2


def test_internal_transfers_are_not_seen(exchange: Exchange) -> None:
    """What no block and no log shows; the solvency audit reveals it."""
    exchange.node.call(exchange.token, "forward(address)", ALICE, wei=ETHER)
    exchange.node.mine()
    assert exchange.scan()["detected"] == 0
    assert int(exchange.node.rpc("eth_getBalance", ALICE, "latest"), 16) == ETHER


def test_finality(exchange: Exchange, tmp_path: Any) -> None:
    """anvil: finalized is latest − 64."""
    path = tmp_path / "final.toml"
    path.write_text(file_of(exchange.token, finality="finalized"))
    write(exchange.conn, read_file(path))
    exchange.node.pay(ALICE, ETHER)
    exchange.node.mine(10)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 0
    assert exchange.rows("status", "confirmations") == [("CONFIRMING", 10)]
    exchange.node.mine(60)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 1


def test_p12_requests(exchange: Exchange) -> None:
    """Two for the endpoint's chain and head; one for a hundred candidates; none below the threshold."""
    for _ in range(150):
        exchange.node.pay(ALICE, ETHER)
    exchange.node.mine(2)
    exchange.scan()
    assert exchange.confirm()["chains"][0].requests == 2
    exchange.node.mine(1)
    data = exchange.confirm()
    assert (data["confirmed"], data["chains"][0].requests) == (150, 4)


def test_d16_mended(exchange: Exchange, tmp_path: Any) -> None:
    """Deposits of a halted token wait, and are worth what the mended configuration says."""
    node = exchange.node
    node.call(exchange.token, "transfer(address,uint256)", BOB, 700_000_000)
    node.mine()
    exchange.scan()
    node.call(exchange.token, "set_decimals(uint8)", 8)
    node.mine()
    exchange.conn.execute("UPDATE tokens SET checked_at = NULL")
    assert scan(exchange.services).exit_code == 1
    node.call(exchange.token, "transfer(address,uint256)", BOB, 100_000_000)
    node.mine(4)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 0
    assert exchange.rows("status") == [("CONFIRMING",), ("HELD",)]
    path = tmp_path / "mended.toml"
    path.write_text(file_of(exchange.token).replace("decimals = 6", "decimals = 8"))
    write(exchange.conn, read_file(path))
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 2
    assert exchange.credit()["credited"] == 2
    assert exchange.balance(2, "USDT") == 8


def test_a_node_that_lags_a_little(exchange: Exchange) -> None:
    """It answers and is no trouble; it only has nothing new."""
    exchange.node.mine(5)
    exchange.scan()
    where = exchange.progress
    exchange.conn.execute(
        "UPDATE chain_progress SET cursor = cursor + 3, head_height = head_height + 3, cursor_hash = '\\x01'"
    )
    assert exchange.scan()["blocks"] == 0
    assert exchange.progress.cursor == (where.cursor or 0) + 3
