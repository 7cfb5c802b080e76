"""Random histories of orders against plain books in Python: after each step balances, statuses, locks and events are equal.

Hypothesis plays a platform (orders of every kind, fills, cancels, amendments, withdrawals), passes with limits, and passes
that die at any boundary (tests/faults.py: an exception that no handler sees, and all connections gone). A few hundred steps
in the quick run, thousands with MAVEN_TEST_FULL=1.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from uuid import uuid4

import psycopg
import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from psycopg import sql

from maven_cli.passes.events import relay
from maven_cli.passes.expiry import expire
from tests.conftest import FULL, Servers, TestServices, named_database
from tests.exchange import Exchange
from tests.faults import Killed, crashing

HISTORIES, STEPS = (120, 60) if FULL else (15, 40)
USERS = (1, 2)
PRICE = Decimal(100)
LIVE = ("OPEN", "PARTIALLY_FILLED")
FUTURE = datetime(2100, 1, 1, tzinfo=UTC)

users = st.sampled_from(USERS)
quantities = st.decimals("0.000000000000000001", "3", places=18)
shares = st.sampled_from([Decimal("0.25"), Decimal("0.5"), Decimal(1)])
ends = st.sampled_from(["past", "past", "future", "never"])
picks = st.integers(0, 10**6)


@dataclass
class Order:
    """What the books know of one order. remaining: of base; of quote for a market buy by amount."""

    id: int
    user: int
    side: str
    remaining: Decimal
    filled: Decimal
    status: str
    lock: int
    expires: datetime | None
    by_amount: bool = False
    bad: bool = False

    @property
    def asset(self) -> str:
        return "BTC" if self.side == "sell" else "USDT"


class Books(RuleBasedStateMachine):
    """The plain books: wallets (available, locked) and locks (what is left; None when ended) beside the real ones."""

    servers: ClassVar[Servers]
    template: ClassVar[str]
    redis_url: ClassVar[str]
    steps: ClassVar[int] = 0
    crashes: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.name = f"maven_model_{uuid4().hex[:12]}"
        self.admin = psycopg.connect(self.servers.database_url, autocommit=True)
        self.admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(self.name), sql.Identifier(self.template)
            )
        )
        url = named_database(self.servers.database_url, self.name)
        self.conn = psycopg.connect(url, autocommit=True)
        self.services = TestServices(url, self.redis_url)
        self.exchange = Exchange(self.conn)
        self.wallets: dict[tuple[int, str], list[Decimal]] = {}
        self.locks: dict[int, Decimal | None] = {}
        self.orders: dict[int, Order] = {}
        self.letters: set[int] = set()
        self.events: set[str] = set()
        self.numbers = 0
        self.moment = datetime.now(UTC) - timedelta(hours=2)

    def teardown(self) -> None:
        self.conn.close()
        self.admin.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(self.name))
        )
        self.admin.close()

    @initialize()
    def fund(self) -> None:
        with redis.Redis.from_url(self.redis_url) as client:
            client.flushdb()
        for user in USERS:
            for asset, amount in (("BTC", 20), ("USDT", 2000)):
                self.exchange.fund(user, asset, amount)
                self.wallets[user, asset] = [Decimal(amount), Decimal(0)]

    # ------------------------------------------------------------------------------------------------ the platform

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def end(self, kind: str) -> datetime | None:
        """Ends that are over differ, and come in another order than the orders."""
        match kind:
            case "past":
                return self.moment + timedelta(seconds=self.number() * 7919 % 3600, microseconds=self.numbers)
            case "future":
                return FUTURE
        return None

    def live(self, *, side: str | None = None) -> list[Order]:
        return [o for o in self.orders.values() if o.status in LIVE and side in (None, o.side)]

    def put(self, order: Order, amount: Decimal | None) -> None:
        """Into the books; amount: what its new lock holds."""
        self.orders[order.id] = order
        if amount is not None:
            self.locks[order.lock] = amount
            self.wallets[order.user, order.asset][0] -= amount
            self.wallets[order.user, order.asset][1] += amount

    def place(self, amount: Decimal, user: int, side: str, expires: str, **columns: Any) -> None:
        asset, end = ("BTC" if side == "sell" else "USDT"), self.end(expires)
        options: dict[str, Any] = {"quantity": None, "price": None, **columns}
        if amount > self.wallets[user, asset][0]:
            with pytest.raises(psycopg.Error) as refused:
                self.exchange.place(user, side, expires=end, lock=amount, **options)
            assert refused.value.sqlstate == "MVL03"
            return
        number = self.exchange.place(user, side, expires=end, lock=amount, **options)
        lock = self.exchange.order(number)["lock_id"]
        by_amount = options["quantity"] is None
        remaining = options["quote_quantity"] if by_amount else options["quantity"]
        bad = "fee_asset_id" in options
        self.put(Order(number, user, side, remaining, Decimal(0), "OPEN", lock, end, by_amount, bad), amount)

    @rule(user=users, quantity=quantities, expires=ends)
    def sell(self, user: int, quantity: Decimal, expires: str) -> None:
        self.place(quantity, user, "sell", expires, quantity=quantity, price=PRICE)

    @rule(
        user=users,
        quantity=st.decimals("0.01", "3", places=16),
        fee=st.decimals(0, 2, places=18),
        expires=ends,
    )
    def buy(self, user: int, quantity: Decimal, fee: Decimal, expires: str) -> None:
        amount = quantity * PRICE + fee
        self.place(amount, user, "buy", expires, quantity=quantity, price=PRICE, fee_reserve=fee)

    @rule(user=users, amount=st.decimals("0.01", "100", places=18), expires=ends)
    def buy_by_amount(self, user: int, amount: Decimal, expires: str) -> None:
        self.place(amount, user, "buy", expires, type="market", quote_quantity=amount)

    @rule(user=users, quantity=st.decimals("0.1", "1", places=2))
    def bad(self, user: int, quantity: Decimal) -> None:
        """Its fee is in an asset that its lock doesn't hold: it can't be expired."""
        self.place(
            quantity,
            user,
            "sell",
            "past",
            quantity=quantity,
            price=PRICE,
            fee_asset_id=self.exchange.assets["USDT"],
            fee_reserve=Decimal("0.1"),
        )

    @precondition(lambda self: any(not o.bad for o in self.live(side="sell")))
    @rule(pick=picks, expires=ends)
    def second_leg(self, pick: int, expires: str) -> None:
        found = [o for o in self.live(side="sell") if not o.bad]
        first, end = found[pick % len(found)], self.end(expires)
        left = self.locks[first.lock]
        assert left is not None
        number = self.exchange.place(
            first.user, "sell", left, "80", type="stop_limit", lock_id=first.lock, expires=end
        )
        self.put(Order(number, first.user, "sell", left, Decimal(0), "OPEN", first.lock, end), None)

    @precondition(lambda self: any(not o.by_amount for o in self.live(side="buy")) and self.live(side="sell"))
    @rule(pick=picks, other=picks, share=shares, better=st.sampled_from([Decimal(0), Decimal(10)]))
    def fill(self, pick: int, other: int, share: Decimal, better: Decimal) -> None:
        buys = [o for o in self.live(side="buy") if not o.by_amount]
        buy, sell = buys[pick % len(buys)], (sells := self.live(side="sell"))[other % len(sells)]
        held = [self.locks[buy.lock], self.locks[sell.lock]]
        price = PRICE - better
        assert held[0] is not None
        assert held[1] is not None
        most = min(buy.remaining, sell.remaining, held[1])
        quantity = (most * share).quantize(Decimal("1e-16"), rounding="ROUND_DOWN") if share < 1 else most
        if not quantity or price * quantity != (price * quantity).quantize(Decimal("1e-18")):
            return
        self.exchange.settle(self.number(), price, quantity, buy=buy.id, sell=sell.id)
        for order, gets, gives in (
            (buy, ("BTC", quantity), ("USDT", price * quantity)),
            (sell, ("USDT", price * quantity), ("BTC", quantity)),
        ):
            self.wallets[order.user, gets[0]][0] += gets[1]
            self.take(order, gives[1])
            order.remaining -= quantity
            order.filled += quantity
            order.status = "PARTIALLY_FILLED" if order.remaining else "FILLED"
        for order in (buy, sell):
            if order.status == "FILLED":
                self.release(order)

    def take(self, order: Order, amount: Decimal) -> None:
        """From its lock, for good."""
        left = self.locks[order.lock]
        assert left is not None
        self.locks[order.lock] = left - amount
        self.wallets[order.user, order.asset][1] -= amount

    @precondition(lambda self: any(o.by_amount for o in self.live()))
    @rule(pick=picks, share=shares)
    def fill_by_amount(self, pick: int, share: Decimal) -> None:
        """A market buy spends a part of its amount, against nobody of ours."""
        found = [o for o in self.live() if o.by_amount]
        order = found[pick % len(found)]
        amount = (order.remaining * share).quantize(Decimal("1e-18"), rounding="ROUND_DOWN")
        if not amount:
            return
        self.spend(order, amount, "filled_quote_quantity")
        order.remaining -= amount
        order.filled += amount
        order.status = "PARTIALLY_FILLED" if order.remaining else "FILLED"
        if order.status == "FILLED":
            self.release(order)

    @precondition(lambda self: any(not o.by_amount for o in self.live(side="buy")))
    @rule(pick=picks, share=shares)
    def fee(self, pick: int, share: Decimal) -> None:
        """A fee is paid out of the reserve."""
        found = [o for o in self.live(side="buy") if not o.by_amount]
        order = found[pick % len(found)]
        row = self.exchange.order(order.id)
        amount = ((row["fee_reserve"] - row["fee_paid"]) * share).quantize(
            Decimal("1e-18"), rounding="ROUND_DOWN"
        )
        if amount:
            self.spend(order, amount, "fee_paid")

    def spend(self, order: Order, amount: Decimal, column: str) -> None:
        """As settlement does it: order, lock and wallet in one transaction."""
        with self.conn.transaction():
            status = "CASE WHEN quote_quantity = filled_quote_quantity + %s THEN 'FILLED' ELSE 'PARTIALLY_FILLED' END"
            changed = f"{column} = {column} + %s"
            if column == "fee_paid":
                self.conn.execute(f"UPDATE orders SET {changed} WHERE id = %s", [amount, order.id])
            else:
                self.conn.execute(
                    f"UPDATE orders SET {changed}, status = {status} WHERE id = %s",
                    [amount, amount, order.id],
                )
            self.conn.execute(
                "SELECT maven_ledger_post(ARRAY[(wallet_id, 'trade', %s, 0, %s, id)::maven_posting]) FROM locks WHERE id = %s",
                [f"spent:{self.number()}", -amount, order.lock],
            )
            self.conn.execute(
                "SELECT maven_ledger_release(array_agg(lock_id)) FROM orders WHERE id = %s AND status = 'FILLED'",
                [order.id],
            )
        self.take(order, amount)

    @precondition(lambda self: self.orders)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        order = list(self.orders.values())[pick % len(self.orders)]
        assert self.exchange.cancel(order.id) == (order.status in LIVE)
        if order.status in LIVE:
            order.status = "CANCELED"
            self.release(order)

    @precondition(lambda self: self.live())
    @rule(pick=picks, expires=ends)
    def amend(self, pick: int, expires: str) -> None:
        found = self.live()
        order = found[pick % len(found)]
        order.expires = self.end(expires)
        self.conn.execute("UPDATE orders SET expires_at = %s WHERE id = %s", [order.expires, order.id])

    @rule(user=users, asset=st.sampled_from(["BTC", "USDT"]), share=shares)
    def withdraw(self, user: int, asset: str, share: Decimal) -> None:
        wallet = self.wallets[user, asset]
        amount = (wallet[0] * share / 4).quantize(Decimal("1e-18"), rounding="ROUND_DOWN")
        if not amount:
            return
        self.conn.execute(
            "SELECT maven_ledger_post(ARRAY[(id, 'withdrawal', %s, %s, 0, NULL)::maven_posting]) FROM wallets"
            " WHERE user_id = %s AND asset_id = %s",
            [str(self.number()), -amount, user, self.exchange.assets[asset]],
        )
        wallet[0] -= amount

    # ------------------------------------------------------------------------------------------------- the expiry

    def release(self, order: Order) -> Decimal:
        """Gives back what its lock still holds, unless another live order needs it. Returns how much."""
        left = self.locks[order.lock]
        if left is None or any(o.lock == order.lock for o in self.live()):
            return Decimal(0)
        self.wallets[order.user, order.asset][0] += left
        self.wallets[order.user, order.asset][1] -= left
        self.locks[order.lock] = None
        return left

    def due(self) -> list[Order]:
        """In the order in which a pass meets them."""
        found = [o for o in self.live() if o.expires and o.expires < FUTURE and o.id not in self.letters]
        return sorted(found, key=lambda o: (o.expires, o.id))

    def ended(self, orders: list[Order]) -> None:
        for order in orders:
            order.status = "EXPIRED"
            self.events.add(f"OrderExpiredEvent:{order.id}")
        for order in orders:
            if self.release(order):
                self.events.add(f"BalanceUnlockedEvent:lock:{order.lock}")

    @rule(limit=st.sampled_from([None, None, 1, 2, 3]))
    def expire(self, limit: int | None) -> None:
        walk, good, bad = self.due(), list[Order](), set[int]()
        while walk and (limit is None or len(good) < limit):
            size = len(walk) if limit is None else limit - len(good)
            batch, walk = walk[:size], walk[size:]
            good += [o for o in batch if not o.bad]
            bad |= {o.id for o in batch if o.bad}
        outcome = expire(self.services, limit=limit)
        assert outcome.data is not None
        assert outcome.data["expired"] == len(good)
        assert {error.item for error in outcome.errors} == {f"order:{number}" for number in bad}
        assert outcome.data["busy"] == 0
        self.letters |= bad
        self.ended(good)

    @rule(at=st.integers(1, 60))
    def crash(self, at: int) -> None:
        self.die(at, None)

    @precondition(lambda self: len(self.due()) > 1)
    @rule(at=st.integers(20, 120), limit=st.sampled_from([None, None, 2]))
    def crash_with_work_to_do(self, at: int, limit: int | None) -> None:
        self.die(at, limit)

    def die(self, at: int, limit: int | None) -> None:
        """Killed at a boundary: some orders have ended, each of them wholly; which ones is the only question."""
        with suppress(Killed), crashing(at) as boundaries:
            expire(self.services, limit=limit)
        type(self).crashes += boundaries.count == at
        self.gone()
        due = self.due()
        ended = {
            row[0]
            for row in self.conn.execute(
                "SELECT id FROM orders WHERE status = 'EXPIRED' AND id = ANY (%s)", [[o.id for o in due]]
            )
        }
        assert not any(o.bad for o in due if o.id in ended)
        letters = {row[0] for row in self.conn.execute("SELECT item FROM dead_letters WHERE state = 'OPEN'")}
        found = {o.id for o in due if f"order:{o.id}" in letters}
        assert all(self.orders[number].bad for number in found)
        self.letters |= found
        self.ended([o for o in due if o.id in ended])

    def gone(self) -> None:
        """Waits until the server has noticed that the killed pass is no more."""
        deadline = time.monotonic() + 10
        query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'maven %'"
        while self.conn.execute(query).fetchone() is not None:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    @rule()
    def relay(self) -> None:
        """Every event is in the stream, and who drops repetitions has each aggregate's in the outbox's order."""
        relay(self.services)
        assert self.conn.execute("SELECT count(*) FROM outbox WHERE delivered_at IS NULL").fetchone() == (0,)
        written: dict[str, list[str]] = {}
        for event_id, aggregate in self.conn.execute("SELECT event_id, aggregate FROM outbox ORDER BY id"):
            written.setdefault(aggregate, []).append(event_id)
        heard: dict[str, list[str]] = {}
        with redis.Redis.from_url(self.redis_url) as client:
            entries: Any = client.xrange("maven:events")
        for _, fields in entries:
            event = json.loads(fields[b"event"])
            ids = heard.setdefault(event["subject"], [])
            if event["id"] not in ids:
                ids.append(event["id"])
        assert heard == written

    # --------------------------------------------------------------------------------------------- after each step

    @invariant()
    def equal(self) -> None:
        type(self).steps += 1
        if not self.wallets:
            return
        rows = self.conn.execute(
            "SELECT w.user_id, a.symbol, w.available, w.locked FROM wallets w JOIN assets a ON a.id = w.asset_id"
        )
        assert {(user, asset): [available, locked] for user, asset, available, locked in rows} == self.wallets
        rows = self.conn.execute("SELECT id, CASE WHEN ended_at IS NULL THEN remaining END FROM locks")
        assert dict(rows.fetchall()) == self.locks
        found = self.conn.execute(
            "SELECT id, status, remaining_quantity, coalesce(nullif(filled_quantity, 0), filled_quote_quantity) FROM orders ORDER BY id"
        ).fetchall()
        assert found == [(o.id, o.status, o.remaining, o.filled) for _, o in sorted(self.orders.items())]
        events = self.exchange.events()
        assert (set(events), len(events)) == (self.events, len(self.events))
        letters = self.conn.execute("SELECT item, attempts FROM dead_letters").fetchall()
        assert sorted(letters) == sorted((f"order:{number}", 1) for number in self.letters)
        self.exchange.books_balance()


@pytest.fixture
def books(servers: Servers, template: str, redis_url: str) -> type[Books]:
    Books.servers, Books.template, Books.redis_url = servers, template, redis_url
    Books.steps = Books.crashes = 0
    return Books


@pytest.mark.timeout(3600 if FULL else 180)
def test_the_books_are_what_the_plain_ones_say(books: type[Books]) -> None:
    run_state_machine_as_test(
        books,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=not FULL,
            print_blob=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"{books.steps} steps, {books.crashes} of them crashes")
    assert books.steps > HISTORIES * STEPS / 3
    assert books.crashes > HISTORIES / 3
