"""Deposits beside everything that goes wrong at once: seeded runs of payments, blocks, reorganisations one to twenty deep,
passes that die at any statement or request, endpoints that are away, and two passes at a time. (D35)

In the end the books are what the chain says: every payment that is in it was credited once; none that isn't, unless it was
credited before the chain took it back, and then an incident says so.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from maven_cli.db.connection import connect
from maven_cli.deposits.config import read_file, write
from maven_cli.errors import MavenError
from maven_cli.ledger import audit
from maven_cli.passes.deposits_confirm import confirm
from maven_cli.passes.deposits_credit import credit
from maven_cli.passes.deposits_scan import scan
from tests.conftest import FULL, TestServices
from tests.evm_pool import Pool
from tests.faults import Killed, crashing
from tests.integration.test_deposits_evm import ALICE, BOB, NODE, file_of

# The long version has two servers, and other seeds on each.
SEEDS = 100 if FULL else 20
PASSES: tuple[Callable[[TestServices], Any], ...] = (scan, confirm, credit)
USERS = {ALICE: 1, BOB: 2}


@dataclass
class Payment:
    """A transaction that was sent: to whom, how much, and what brings it back under the same hash."""

    tx: str
    user: int
    asset: str
    amount: Decimal
    raw: str


@dataclass
class Run:
    """One seeded run under way."""

    seed: int
    node: Pool
    services: TestServices
    conn: psycopg.Connection
    token: str
    payments: list[Payment] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def step(self) -> None:
        """Something happens."""
        kinds = (
            self._pay,
            self._mine,
            self._pass,
            self._pass,
            self._dying,
            self._dying,
            self._reorganise,
            self._together,
            self._away,
        )
        what = self.random.choice(kinds)
        self.steps.append(what.__name__)
        what()

    def _pay(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            address = self.random.choice(list(USERS))
            amount = self.random.randint(10**16, 10**19)
            if self.random.random() < 0.5:
                tx = self.node.pay(address, amount)
                asset, value = "ETH", Decimal(amount).scaleb(-18)
            else:
                tx = self.node.call(self.token, "transfer(address,uint256)", address, amount // 10**10)
                asset, value = "USDT", Decimal(amount // 10**10).scaleb(-6)
            raw = self.node.rpc("eth_getRawTransactionByHash", tx)
            self.payments.append(Payment(tx, USERS[address], asset, value, raw))

    def _mine(self) -> None:
        self.node.mine(self.random.randint(1, 4))

    def _pass(self) -> None:
        self.random.choice(PASSES)(self.services)

    def _dying(self) -> None:
        """Most passes have some forty boundaries."""
        work, at = self.random.choice(PASSES), self.random.randint(1, 60)
        with suppress(Killed), crashing(at):
            work(self.services)

    def _reorganise(self) -> None:
        """Some of what is lost comes back at once, some later, and some never."""
        depth = min(self.random.randint(1, 20), self.node.head - self.start)
        if depth > 0:
            self.node.reorganise(depth)
            if self.random.random() < 0.8:
                self.bring_back()
            self.node.mine(self.random.randint(1, 2))

    def bring_back(self) -> None:
        """In their order: each continues the numbers of the sender's transactions."""
        for payment in self.payments:
            if self.node.rpc("eth_getTransactionReceipt", payment.tx) is None:
                with suppress(AssertionError):
                    self.node.rpc("eth_sendRawTransaction", payment.raw)

    def _together(self) -> None:
        """Two of the same pass at once: the second is turned away, or finds what the first left."""
        work = self.random.choice(PASSES)
        other = threading.Thread(target=work, args=(self.services,))
        other.start()
        work(self.services)
        other.join()

    def _away(self) -> None:
        """Nobody listens at the endpoint's address."""
        with pytest.MonkeyPatch.context() as patch, suppress(MavenError):
            patch.setenv(NODE, "http://127.0.0.1:1")
            patch.setattr("maven_cli.chains.rpc._FIRST_PAUSE", 0.001)
            self.random.choice(PASSES)(self.services)

    @property
    def start(self) -> int:
        row = self.conn.execute("SELECT start_height FROM chains").fetchone()
        assert row is not None
        return int(row[0])

    def settle(self) -> None:
        """Everything comes to rest."""
        self.node.mine(4)
        for _ in range(12):
            before = self.state()
            for work in PASSES:
                outcome = work(self.services)
                assert outcome.exit_code == 0, (outcome, self.steps)
            if self.state() == before:
                return
        raise AssertionError("passes find no end")

    def state(self) -> list[Any]:
        return [
            self.conn.execute(
                "SELECT id, status, block_hash, confirmations FROM deposits ORDER BY id"
            ).fetchall(),
            self.conn.execute("SELECT cursor, final_cursor FROM chain_progress").fetchall(),
        ]

    def check(self) -> None:
        """Whatever happened: the books are what the chain says."""
        rows = self.conn.execute(
            "SELECT '0x' || encode(d.tx_hash, 'hex'), d.status, d.user_id, a.symbol, d.amount, d.id FROM deposits d"
            " JOIN tokens t ON t.id = d.token_id JOIN assets a ON a.id = t.asset_id"
        ).fetchall()
        by_tx = {row[0]: row for row in rows}
        assert len(by_tx) == len(rows), "twice"
        alarms = {
            item
            for (item,) in self.conn.execute(
                "SELECT item FROM incidents WHERE kind = 'credited_orphan' AND resolved_at IS NULL"
            )
        }
        expected: dict[tuple[int, str], Decimal] = {}
        for payment in self.payments:
            receipt = self.node.rpc("eth_getTransactionReceipt", payment.tx)
            row = by_tx.pop(payment.tx, None)
            in_chain = receipt is not None and receipt["status"] == "0x1"
            where = (self.seed, payment, row, self.steps)
            if in_chain:
                assert row is not None, where
                assert row[1:5] == ("CREDITED", payment.user, payment.asset, payment.amount), where
                assert f"deposit:{row[5]}" not in alarms, where
            elif row is not None:
                assert row[1] == "ORPHANED" or f"deposit:{row[5]}" in alarms, where
            if row is not None and row[1] == "CREDITED":
                key = (payment.user, payment.asset)
                expected[key] = expected.get(key, Decimal(0)) + payment.amount
        assert not by_tx
        held = self.conn.execute(
            "SELECT w.user_id, a.symbol, w.available FROM wallets w JOIN assets a ON a.id = w.asset_id"
        ).fetchall()
        assert {(user, asset): amount for user, asset, amount in held if amount} == expected, (
            self.seed,
            self.steps,
        )
        with self.conn.transaction():
            wrong = [
                (one.name, one.rows) for one in audit.checks(self.conn, full=True, listed=3) if one.wrong
            ]
        assert not wrong, wrong


@pytest.fixture
def node() -> Iterator[Pool]:
    with Pool() as anvil:
        yield anvil


@pytest.mark.parametrize("seed", range(SEEDS))
def test_d35_seeded(
    seed: int,
    request: pytest.FixtureRequest,
    node: Pool,
    services: TestServices,
    conn: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Any,
) -> None:
    token = node.deploy()
    path = tmp_path / "chains.toml"
    # Its circuit never opens: what an open one does is told elsewhere, and here it would only slow the run down.
    path.write_text(file_of(token, start=node.head + 1, tail=64))
    services.settings = services.settings.model_copy(update={"circuit_failures": 1000})
    write(conn, read_file(path))
    monkeypatch.setenv(NODE, node.url)
    node.mine()
    if "postgresql-15" in request.node.name:
        seed += SEEDS
    run = Run(seed, node, services, conn, token)
    for _ in range(run.random.randint(10, 18)):
        run.step()
    if run.random.random() < 0.7:
        run.bring_back()
    run.settle()
    run.check()


def test_the_harness_sees_what_it_is_for(services: TestServices, conn: psycopg.Connection) -> None:
    """A pass that does its work has boundaries to die at, and dies there."""
    with crashing(0) as boundaries:
        credit(services)
    assert boundaries.count > 10
    with pytest.raises(Killed), crashing(boundaries.count // 2):
        credit(services)
    with connect(services.database_url, "test") as other:
        assert other.execute("SELECT 1").fetchone() == (1,)
