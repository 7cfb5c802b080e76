"""The platform at work on the same orders and wallets as the expiry: in the published lock order nobody ever deadlocks.

Four of the platform's sessions place, fill, cancel, amend and withdraw, while real passes run one after the other: 1,500
transactions in the quick run, 10,000 with MAVEN_TEST_FULL=1.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from tests.conftest import FULL
from tests.exchange import Exchange
from tests.faults import Passes
from tests.support import Cli

TRANSACTIONS = 10_000 if FULL else 1_500
SESSIONS = 4
USERS = (1, 2, 3)
LIVE = ("OPEN", "PARTIALLY_FILLED")


@pytest.fixture
def passes() -> Iterator[Passes]:
    with Passes() as made:
        yield made


@dataclass
class Platform:
    """One of the platform's sessions, with its own connection and its own dice. done: what it did, and what was refused."""

    number: int
    url: str
    exchange: Exchange
    orders: list[int]
    transactions: int
    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def run(self) -> None:
        dice = random.Random(self.number)
        with psycopg.connect(self.url, autocommit=True, application_name="platform") as conn:
            self.exchange.conn = conn
            steps: list[Callable[[random.Random, psycopg.Connection], str]] = [
                self.place,
                self.place,
                self.two_legs,
                self.fill,
                self.fill,
                self.cancel,
                self.amend,
                self.withdraw,
            ]
            for _ in range(self.transactions):
                step = dice.choice(steps)
                try:
                    self.done[step(dice, conn)] += 1
                except psycopg.Error as error:
                    # MVF01: the fence. MVL03: not enough left. Nothing else may happen to the platform.
                    if error.sqlstate not in ("MVF01", "MVL03"):
                        self.failures.append(f"{step.__name__}: {error.sqlstate} {error}")
                    self.done[f"{step.__name__} {error.sqlstate}"] += 1
            self.done["transactions"] = self.transactions

    def ends(self, dice: random.Random) -> timedelta:
        return timedelta(milliseconds=dice.choice((-1, 20, 100, 300, 3_600_000)))

    def place(self, dice: random.Random, _: psycopg.Connection) -> str:
        side = dice.choice(("buy", "sell"))
        self.orders.append(
            self.exchange.place(dice.choice(USERS), side, "0.2", "100", expires=self.ends(dice))
        )
        return "place"

    def two_legs(self, dice: random.Random, conn: psycopg.Connection) -> str:
        user = dice.choice(USERS)
        with conn.transaction():
            first = self.exchange.place(user, quantity="0.2", expires=self.ends(dice))
            lock = self.exchange.order(first)["lock_id"]
            second = self.exchange.place(
                user, quantity="0.2", price="80", type="stop_limit", lock_id=lock, expires=self.ends(dice)
            )
        self.orders += [first, second]
        return "two legs"

    def fill(self, dice: random.Random, conn: psycopg.Connection) -> str:
        """Any live buy against any live sell; settlement looks at both once it holds them."""
        rows = conn.execute(
            "(SELECT id FROM orders WHERE side = 'buy' AND status IN ('OPEN', 'PARTIALLY_FILLED') ORDER BY random() LIMIT 1)"
            " UNION ALL (SELECT id FROM orders WHERE side = 'sell' AND type = 'limit' AND status IN ('OPEN', 'PARTIALLY_FILLED')"
            " ORDER BY random() LIMIT 1)"
        ).fetchall()
        if len(rows) < 2:
            return "nothing to fill"
        buy, sell = rows[0][0], rows[1][0]
        quantity = Decimal(dice.choice(("0.1", "0.2")))
        with conn.transaction():
            held = conn.execute(
                "SELECT id, remaining_quantity FROM orders WHERE id IN (%s, %s) ORDER BY id FOR NO KEY UPDATE",
                [buy, sell],
            ).fetchall()
            # What has ended meanwhile is the fence's business; what is filled by more than it has is the engine's.
            if any(0 < remaining < quantity or remaining == 0 for _, remaining in held):
                return "filled already"
            self.exchange.settle(
                self.number * 1_000_000 + self.done.total(), "100", quantity, buy=buy, sell=sell
            )
        return "fill"

    def cancel(self, dice: random.Random, _: psycopg.Connection) -> str:
        if not self.orders:
            return "nothing to cancel"
        return "cancel" if self.exchange.cancel(dice.choice(self.orders[-50:])) else "cancel: ended"

    def amend(self, dice: random.Random, conn: psycopg.Connection) -> str:
        if not self.orders:
            return "nothing to amend"
        done = conn.execute(
            "UPDATE orders SET expires_at = now() + %s WHERE id = %s AND status IN ('OPEN', 'PARTIALLY_FILLED')",
            [self.ends(dice), dice.choice(self.orders[-50:])],
        )
        return "amend" if done.rowcount else "amend: ended"

    def withdraw(self, dice: random.Random, conn: psycopg.Connection) -> str:
        """Two wallets of one user in one transaction, given in any order."""
        ids = conn.execute(
            "SELECT id FROM wallets WHERE user_id = %s ORDER BY random()", [dice.choice(USERS)]
        )
        rows = [
            (number, f"{self.number}:{self.done.total()}:{number}", Decimal("-0.001"))
            for (number,) in ids.fetchall()
        ]
        numbers, references, amounts = (list(column) for column in zip(*rows, strict=True))
        conn.execute(
            "SELECT maven_ledger_post(array_agg((w, 'withdrawal', r, a, 0, NULL)::maven_posting))"
            " FROM unnest(%s::bigint[], %s::text[], %s::numeric[]) AS p (w, r, a)",
            [numbers, references, amounts],
        )
        return "withdraw"


def deadlocks(conn: psycopg.Connection) -> int:
    """How many this database has had, everybody's."""
    row = conn.execute("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


def funded(conn: psycopg.Connection) -> Exchange:
    exchange = Exchange(conn)
    for user in USERS:
        exchange.fund(user, "BTC", 10_000)
        exchange.fund(user, "USDT", 1_000_000)
    return exchange


def finish(passes: Passes, env: dict[str, str], conn: psycopg.Connection) -> None:
    """Ends every order that is still live."""
    conn.execute("UPDATE orders SET expires_at = now() WHERE status IN ('OPEN', 'PARTIALLY_FILLED')")
    deadline = time.monotonic() + 60
    while (
        conn.execute("SELECT FROM orders WHERE status IN ('OPEN', 'PARTIALLY_FILLED')").fetchone() is not None
    ):
        done = passes.run("orders", "expire", env=env)
        assert done.code in (0, 75), done
        assert time.monotonic() < deadline, "orders stay live"


def check(exchange: Exchange) -> None:
    """One terminal state each, one unlock for each lock that had something left, one event for each order that expired."""
    exchange.books_balance()
    conn = exchange.conn
    rows: list[tuple[Any, ...]] = conn.execute(
        "SELECT l.id FROM locks l WHERE l.remaining <> 0 OR l.ended_at IS NULL OR (SELECT count(*) FROM ledger_entries e"
        " WHERE e.lock_id = l.id AND e.kind = 'unlock') > 1"
    ).fetchall()
    assert rows == []
    assert conn.execute("SELECT count(*) FROM wallets WHERE locked <> 0").fetchone() == (0,)
    expired = {
        row[0]
        for row in conn.execute("SELECT 'OrderExpiredEvent:' || id FROM orders WHERE status = 'EXPIRED'")
    }
    told = [name for name in exchange.events() if name.startswith("OrderExpiredEvent:")]
    assert (set(told), len(told)) == (expired, len(expired))
    # A trade of an order that had ended would be there only past the fence.
    assert conn.execute(
        "SELECT sum(filled_quantity) FILTER (WHERE side = 'buy') IS NOT DISTINCT FROM (SELECT sum(quantity) FROM trades),"
        " sum(filled_quantity) FILTER (WHERE side = 'sell') IS NOT DISTINCT FROM (SELECT sum(quantity) FROM trades) FROM orders"
        " WHERE filled_quantity > 0"
    ).fetchone() == (True, True)


def test_x17_nobody_deadlocks(passes: Passes, cli: Cli, conn: psycopg.Connection, database_url: str) -> None:
    """X17, X18: one terminal state each, no deadlock at all, the books balance."""
    exchange = funded(conn)
    orders: list[int] = []
    sessions = [
        Platform(
            number,
            database_url,
            Exchange(conn, exchange.assets, exchange.pairs),
            orders,
            TRANSACTIONS // SESSIONS,
        )
        for number in range(1, SESSIONS + 1)
    ]
    threads = [threading.Thread(target=session.run) for session in sessions]
    env = cli.environment(MAVEN_LOG_FORMAT="json")
    for thread in threads:
        thread.start()
    codes: Counter[int | None] = Counter()
    while any(thread.is_alive() for thread in threads):
        done = passes.run("orders", "expire", env=env)
        codes[done.code] += 1
        assert done.code in (0, 75), done
    for thread in threads:
        thread.join()
    assert [failure for session in sessions for failure in session.failures] == []
    done_so_far = sum((session.done for session in sessions), Counter[str]())
    print(dict(sorted(done_so_far.items())), dict(codes))
    assert done_so_far["transactions"] == TRANSACTIONS // SESSIONS * SESSIONS
    expired = conn.execute("SELECT count(*) FROM orders WHERE status = 'EXPIRED'").fetchone()
    assert expired is not None
    assert expired[0] > TRANSACTIONS / 50, "the expiry had hardly anything to do with it"
    assert min(done_so_far[what] for what in ("place", "two legs", "fill", "cancel", "amend", "withdraw")) > 0
    finish(passes, env, conn)
    check(exchange)
    time.sleep(1.1)  # sessions report what they counted within a second
    assert deadlocks(conn) == 0


def test_against_a_platform_with_the_other_lock_order_we_lose(
    passes: Passes, cli: Cli, conn: psycopg.Connection, database_url: str
) -> None:
    """One that takes the wallet first and then the order: whenever both wait for each other, it is the pass that gives up."""
    exchange = funded(conn)
    orders = [
        exchange.place(quantity="0.2", expires=timedelta(milliseconds=40 * n))
        for n in range(60 if FULL else 15)
    ]
    failures: list[str] = []

    def cancel_them() -> None:
        with psycopg.connect(database_url, autocommit=True, application_name="platform") as other:
            for order in orders:
                try:
                    with other.transaction():
                        other.execute("SELECT FROM wallets WHERE user_id = 1 ORDER BY id FOR NO KEY UPDATE")
                        time.sleep(0.1)  # the pass takes the order meanwhile
                        row = other.execute(
                            "UPDATE orders SET status = 'CANCELED' WHERE id = %s AND status = 'OPEN' RETURNING lock_id",
                            [order],
                        ).fetchone()
                        if row is not None:
                            other.execute("SELECT maven_ledger_release(%s)", [[row[0]]])
                except psycopg.Error as error:
                    failures.append(f"{error.sqlstate} {error}")

    thread = threading.Thread(target=cancel_them)
    thread.start()
    env = cli.environment(LOG_LEVEL="debug")
    codes: Counter[int | None] = Counter()
    while thread.is_alive():
        codes[passes.run("orders", "expire", env=env).code] += 1
    thread.join()
    assert failures == []
    assert set(codes) <= {0, 75}, codes
    finish(passes, env, conn)
    check(exchange)
    states = Counter(exchange.status(order) for order in orders)
    assert states["EXPIRED"] + states["CANCELED"] == len(orders)
    time.sleep(1.1)
    assert deadlocks(conn) == 0
