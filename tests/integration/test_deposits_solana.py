"""Deposits on Solana, from the block to the balance: the real SVM behind a validator's JSON-RPC, and the real passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from maven_cli.deposits.config import read_file, write
from maven_cli.passes.deposits_confirm import confirm
from maven_cli.passes.deposits_credit import credit
from maven_cli.passes.deposits_scan import scan
from tests.conftest import TestServices
from tests.integration.test_deposits_evm import data_of
from tests.nodes_solana import SolanaChain
from tests.support import Cli

NODE = "MAVEN_TEST_NODE_3"
SOL = 10**9


@dataclass
class Exchange:
    """An exchange that watches the chain: alice is user 1, bob user 2; SOL and one token of six decimals."""

    conn: psycopg.Connection
    services: TestServices
    node: SolanaChain
    mint: str
    alice: str
    bob: str

    def scan(self) -> dict[str, Any]:
        return data_of(scan(self.services))

    def confirm(self) -> dict[str, Any]:
        return data_of(confirm(self.services))

    def credit(self) -> dict[str, Any]:
        return data_of(credit(self.services))

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        return self.conn.execute(f"SELECT {', '.join(columns)} FROM deposits ORDER BY id").fetchall()

    def balance(self, user: int, asset: str) -> Decimal:
        row = self.conn.execute(
            "SELECT w.available FROM wallets w JOIN assets a ON a.id = w.asset_id WHERE w.user_id = %s AND a.symbol = %s",
            [user, asset],
        ).fetchone()
        return row[0] if row else Decimal(0)


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[SolanaChain]:
    with SolanaChain() as chain:
        monkeypatch.setenv(NODE, chain.url)
        yield chain


@pytest.fixture
def exchange(conn: psycopg.Connection, services: TestServices, node: SolanaChain, tmp_path: Path) -> Exchange:
    mint, alice, bob = node.create_token(6), node.wallet(), node.wallet()
    genesis = node.ask("getGenesisHash")["result"]
    path = tmp_path / "chains.toml"
    path.write_text(
        f"""
[[chains]]
name = "solana"
family = "solana"
identity = "{genesis}"
confirmations = 3
tail = 64
[[chains.endpoints]]
name = "sol"
secret = "env:{NODE}"
[[chains.tokens]]
asset = "SOL"
decimals = 9
[[chains.tokens]]
asset = "USDC"
contract = "{mint}"
decimals = 6
[[chains.addresses]]
address = "{alice}"
user = 1
[[chains.addresses]]
address = "{bob}"
user = 2
"""
    )
    write(conn, read_file(path))
    made = Exchange(conn, services, node, mint, alice, bob)
    made.scan()
    return made


def test_from_the_block_to_the_balance(exchange: Exchange) -> None:
    """D28: slots without a block, a token account made in the same transaction, and a transaction that failed."""
    node = exchange.node
    signature = node.pay_sol(exchange.alice, 2 * SOL)
    node.skip(4)
    node.pay_token(exchange.mint, exchange.bob, 1_500_001)
    node.fail(exchange.alice, SOL)
    node.pay_token(exchange.mint, exchange.bob, 7, fail=True)
    node.skip(2)
    assert exchange.scan()["detected"] == 2
    assert exchange.scan()["detected"] == 0
    assert exchange.credit()["credited"] == 0
    node.mine(4)
    node.skip(3)
    node.mine(1)
    exchange.scan()
    assert exchange.confirm()["confirmed"] == 2
    assert exchange.credit()["credited"] == 2
    assert exchange.credit()["credited"] == 0
    assert (exchange.balance(1, "SOL"), exchange.balance(2, "USDC")) == (Decimal(2), Decimal("1.500001"))
    told = exchange.conn.execute(
        "SELECT event->'data'->>'txHash' FROM outbox WHERE type = 'DepositCreditedEvent' ORDER BY id"
    ).fetchall()
    assert told[0] == (signature,)


def test_many_slots_without_a_block(exchange: Exchange) -> None:
    """More of them than a scan reads at once: the cursor moves over what is really empty, and links across it."""
    exchange.node.skip(180)
    exchange.node.pay_sol(exchange.alice, SOL)
    assert exchange.scan()["detected"] == 1
    exchange.node.skip(70)
    exchange.node.pay_sol(exchange.bob, SOL)
    found = exchange.scan()
    assert (found["detected"], found["orphaned"]) == (1, 0)
    assert exchange.conn.execute("SELECT reorg_epoch FROM chains").fetchone() == (0,)


def test_d16_other_decimals(exchange: Exchange) -> None:
    exchange.conn.execute("UPDATE tokens SET decimals = 9, checked_at = NULL WHERE contract IS NOT NULL")
    exchange.node.pay_token(exchange.mint, exchange.bob, 5)
    outcome = scan(exchange.services)
    assert outcome.exit_code == 1
    assert "it has 6 decimals on the chain, 9 are configured" in outcome.errors[0].message
    assert exchange.rows("status") == [("HELD",)]


def test_a_pruned_node(exchange: Exchange) -> None:
    """What it doesn't have any more isn't what wasn't there: the cursor stays."""
    exchange.node.pay_sol(exchange.alice, SOL)
    exchange.node.mine(10)
    slot = exchange.node.mine(1)
    before = exchange.conn.execute("SELECT cursor FROM chain_progress").fetchone()
    exchange.node.prune(slot)
    with pytest.raises(Exception, match="sol"):
        scan(exchange.services)
    assert exchange.conn.execute("SELECT cursor FROM chain_progress").fetchone() == before


def test_another_cluster(exchange: Exchange, cli: Cli) -> None:
    with SolanaChain() as other:
        done = cli("deposits", "scan", env={NODE: other.url})
    assert done.code == 78
    assert "nothing was read from it" in done.err
