"""An expiry pass that dies, freezes or loses what it needs, at every boundary in turn: no boundary leaves a difference.

Each round: a fresh copy of the same database, the real command, disturbed at its n-th boundary (tests/faults.py), passes
until nothing is due, a relay. Then the books are those of an undisturbed run. The quick run takes samples where it says
so, the same ones every time; MAVEN_TEST_FULL=1 takes every boundary.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql

from tests.conftest import FULL, Servers, named_database
from tests.exchange import Exchange
from tests.faults import Ended, Passes
from tests.matching_engine import TOKEN, MatchingEngine
from tests.support import Cli

HOUR = timedelta(hours=1)
ENGINES = ("none", "http", "redis")
every_engine = pytest.mark.parametrize("kind", ENGINES)


@dataclass
class Scene:
    """The prepared database, by name, and its orders. in_book: what the engine has of each due order."""

    template: str
    exchange: Exchange
    due: list[int]
    bad: int
    buyer: int
    in_book: dict[int, tuple[str, str, str]]
    in_flight: int


@pytest.fixture(scope="module")
def passes() -> Iterator[Passes]:
    with Passes() as made:
        yield made


@pytest.fixture(scope="module")
def scene(servers: Servers, template: str) -> Iterator[Scene]:
    """Due: a plain sell, a buy filled in part at a better price, both legs of an OCO, a bad one, a market buy by amount, one
    without a lock. Not due: their counterparts. The engine has matched 4 of the first, which settlement hasn't written."""
    name = f"maven_scene_{uuid4().hex[:12]}"
    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        )
        try:
            with psycopg.connect(named_database(servers.database_url, name), autocommit=True) as conn:
                made = _scene(name, conn)
            yield made
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _scene(name: str, conn: psycopg.Connection) -> Scene:
    exchange = Exchange(conn)
    for user in (1, 2, 3):
        exchange.fund(user, "BTC", 100)
        exchange.fund(user, "USDT", 10_000)
    # What an exchange has locked before it knew locks: an order without one, and an opening entry for its wallet.
    exchange.fund(4, "BTC", 10)
    conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    conn.execute("UPDATE wallets SET available = available - 3, locked = locked + 3 WHERE user_id = 4")
    conn.execute("SELECT maven_ledger_mode('enforced', 'test')")

    def ago(seconds: int) -> timedelta:
        return timedelta(seconds=-seconds)

    plain = exchange.place(1, quantity="10", expires=ago(70))
    part = exchange.place(2, "buy", "10", "100", expires=ago(60), fee_reserve=Decimal("1.5"))
    leg = exchange.place(1, quantity="5", expires=ago(50))
    other_leg = exchange.place(
        1,
        quantity="5",
        price="80",
        type="stop_limit",
        lock_id=exchange.order(leg)["lock_id"],
        expires=ago(40),
    )
    bad = exchange.place(3, fee_asset_id=exchange.assets["USDT"], fee_reserve=Decimal("0.5"), expires=ago(30))
    market = exchange.place(3, "buy", None, None, type="market", quote_quantity=Decimal(500), expires=ago(20))
    lockless = exchange.place(4, quantity="3", lock=False, expires=ago(10))
    seller = exchange.place(3, quantity="4", price="90", expires=HOUR)
    exchange.settle(1, "90", "4", buy=part, sell=seller)
    buyer = exchange.place(2, "buy", "9", "100", expires=HOUR)
    exchange.place(1, quantity="1", expires=None)
    in_book = {
        plain: ("sell", "101", "10"),
        part: ("buy", "90", "6"),
        leg: ("sell", "102", "5"),
        bad: ("sell", "103", "10"),
        lockless: ("sell", "104", "3"),
    }
    due = [plain, part, leg, other_leg, bad, market, lockless]
    return Scene(name, exchange, due, bad, buyer, in_book, plain)


@dataclass
class Stage:
    """A copy of the scene's database, an engine and Redis, for one round."""

    scene: Scene
    passes: Passes
    conn: psycopg.Connection
    exchange: Exchange
    cache: redis.Redis
    env: dict[str, str]
    venue: MatchingEngine | None

    def expire(self, at: int = 0, act: str = "kill") -> Ended:
        return self.passes.run("orders", "expire", env=self.env, at=at, act=act)

    def start(self, at: int = 0, act: str = "freeze") -> int:
        return self.passes.start("orders", "expire", env=self.env, at=at, act=act)

    def again(self, *command: str) -> Ended:
        """Runs a command until nothing of a killed pass is in its way any more."""
        deadline = time.monotonic() + 20
        while (done := self.passes.run(*command, env=self.env)).code == 75:
            assert time.monotonic() < deadline, done
        assert done.code in (0, 1), done
        return done

    def finish(self) -> dict[str, Any]:
        """Passes until nothing is due, settlement's late fill between them, a relay. Returns the books, checked."""
        self.again("orders", "expire")
        if self.venue is not None:
            self.settle()
        for _ in range(10):
            if not self.left():
                break
            self.again("orders", "expire")
        assert not self.left(), "orders stay due"
        self.again("events", "relay")
        return self.books()

    def settle(self) -> None:
        """What the engine had matched before it was asked: 4 of the first order."""
        order = self.scene.in_flight
        assert self.exchange.status(order) == "OPEN", "it ended although the books differed"
        self.exchange.settle(2, "100", "4", buy=self.scene.buyer, sell=order)

    def left(self) -> list[int]:
        rows = self.conn.execute(
            "SELECT id FROM orders WHERE status IN ('OPEN', 'PARTIALLY_FILLED') AND expires_at <= now() AND id <> %s",
            [self.scene.bad],
        )
        return [row[0] for row in rows]

    def books(self) -> dict[str, Any]:
        """Everything that must be the same whatever happened; asserts what must hold by itself."""
        self.exchange.books_balance()
        expired = [number for number in self.scene.due if self.exchange.status(number) == "EXPIRED"]
        assert expired == [number for number in self.scene.due if number != self.scene.bad]
        held = {number: self.exchange.order(number)["lock_id"] for number in expired}
        unlocked = sorted(
            {f"order:{number}" if lock is None else f"lock:{lock}" for number, lock in held.items()}
        )
        assert sorted(reference for reference, _ in self.exchange.entries()) == unlocked, (
            "each lock ends once"
        )
        outbox = self.conn.execute(
            "SELECT event_id, aggregate, delivered_at IS NOT NULL FROM outbox ORDER BY id"
        ).fetchall()
        assert sorted(row[0] for row in outbox) == sorted(
            [f"OrderExpiredEvent:{number}" for number in expired]
            + [f"BalanceUnlockedEvent:{reference}" for reference in unlocked]
        )
        assert all(row[2] for row in outbox), "events wait"
        self.check_stream(outbox)
        if self.venue is not None:
            self.check_engine()
        return {
            name: self.conn.execute(query).fetchall()
            for name, query in {
                "orders": "SELECT id, status, filled_quantity, remaining_quantity FROM orders ORDER BY id",
                "wallets": "SELECT id, available, locked, seq FROM wallets ORDER BY id",
                "locks": "SELECT id, remaining, ended_at IS NULL FROM locks ORDER BY id",
                "entries": "SELECT wallet_id, kind, reference, available_delta, locked_delta, lock_id"
                " FROM ledger_entries ORDER BY kind, reference",
                "events": "SELECT event_id, aggregate, event -> 'data' ->> 'released', event -> 'data' ->> 'amount',"
                " event -> 'data' -> 'orderIds' FROM outbox ORDER BY event_id",
                "removals": "SELECT order_id, engine_remaining, not_found_at IS NOT NULL, settled_at IS NOT NULL"
                " FROM engine_removals ORDER BY order_id",
                "letters": "SELECT item, error, state, attempts FROM dead_letters ORDER BY item",
                "incidents": "SELECT kind, item, resolved_at IS NULL FROM incidents ORDER BY kind, item",
                "circuits": "SELECT name FROM circuits WHERE state <> 'closed' OR failures > 0",
            }.items()
        }

    def check_stream(self, outbox: list[Any]) -> None:
        """Every event at least once; who drops ids that he has seen has them in the outbox's order, per aggregate."""
        entries: Any = self.cache.xrange("maven:events")
        events = [json.loads(fields["event"]) for _, fields in entries]
        heard: dict[str, list[str]] = {}
        for event in events:
            ids = heard.setdefault(event["subject"], [])
            if event["id"] not in ids:
                ids.append(event["id"])
        written: dict[str, list[str]] = {}
        for event_id, aggregate, _ in outbox:
            written.setdefault(aggregate, []).append(event_id)
        assert heard == written

    def check_engine(self) -> None:
        """Each order left the engine's book once, under the key that we keep, with the remainder that we know."""
        assert self.venue is not None
        keys = self.conn.execute(
            "SELECT request_key, order_id, engine_remaining FROM engine_removals WHERE answered_at IS NOT NULL"
        ).fetchall()
        assert self.venue.removals() == {key: 1 for key, _, _ in keys}
        assert {order: remaining for _, order, remaining in keys} == {
            order: Decimal(6) if order == self.scene.in_flight else Decimal(quantity)
            for order, (_, _, quantity) in self.scene.in_book.items()
        }
        assert not set(self.venue.book()) & set(self.scene.due)


Rounds = Callable[..., Any]


@pytest.fixture
def rounds(
    servers: Servers, scene: Scene, passes: Passes, redis_url: str, cache: redis.Redis, tmp_path: Path
) -> Iterator[Rounds]:
    """Makes rounds: `with rounds(kind) as stage`. One engine of each kind serves them all."""
    venues: dict[str, MatchingEngine] = {}

    @contextmanager
    def made(kind: str = "none", **extra: str) -> Iterator[Stage]:
        venue = None
        if kind != "none":
            if kind not in venues:
                venues[kind] = MatchingEngine(
                    tmp_path / kind, redis_url if kind == "redis" else "", token=TOKEN
                )
                venues[kind].start()
            venue = venues[kind]
            venue.fault("none")
            venue.forget()
            for number, (side, price, quantity) in scene.in_book.items():
                assert venue.place(number, "BTC/USDT", side, price, quantity) == []
            venue.fill(scene.in_flight, "4")
        name = f"maven_round_{uuid4().hex[:12]}"
        url = named_database(servers.database_url, name)
        variables = {
            "MAVEN_DATABASE_URL": url,
            "MAVEN_REDIS_URL": redis_url,
            "MAVEN_HOME": str(tmp_path / "home"),
            "MAVEN_ENGINE": kind,
            "MAVEN_ENGINE_SETTLE": "0s",
            **({} if venue is None else {"MAVEN_ENGINE_URL": venue.url, "MAVEN_ENGINE_TOKEN": TOKEN}),
            **extra,
        }
        # The engine's own streams stay: it is waiting on one of them.
        cache.delete("maven:events")
        with psycopg.connect(servers.database_url, autocommit=True) as admin:
            admin.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(scene.template)
                )
            )
            try:
                with psycopg.connect(url, autocommit=True) as conn:
                    exchange = replace(scene.exchange, conn=conn)
                    yield Stage(scene, passes, conn, exchange, cache, Cli(variables).environment(), venue)
            finally:
                admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    try:
        yield made
    finally:
        for venue in venues.values():
            venue.stop()


def undisturbed(rounds: Rounds, kind: str) -> tuple[int, dict[str, Any]]:
    """How many boundaries a pass has, and the books after it and its successors."""
    with rounds(kind) as stage:
        first = stage.expire()
        assert first.code == 1, first  # the dead letter
        return first.boundaries, stage.finish()


def boundaries(total: int, share: float, seed: int = 0) -> list[int]:
    """All of them in the long version; else a share of them."""
    numbers = list(range(1, total + 1))
    if FULL or share >= 1:
        return numbers
    return sorted(random.Random(seed).sample(numbers, max(1, round(total * share))))


@every_engine
def test_killed_at_every_boundary(kind: str, rounds: Rounds) -> None:
    """X04, X05: SIGKILL between any two things that a pass does, COMMIT and the engine's calls among them."""
    total, books = undisturbed(rounds, kind)
    assert total > 100
    numbers = boundaries(total, 0.5 if kind == "none" else 0.2)
    for number in numbers:
        with rounds(kind) as stage:
            killed = stage.expire(at=number)
            assert killed.code == -signal.SIGKILL, killed
            found = stage.finish()
            assert found == books, killed
    print(f"{kind}: {len(numbers)} of {total} boundaries")
    # Beyond the last one it isn't killed any more: none was left out.
    with rounds(kind) as stage:
        assert stage.expire(at=total + 1).code == 1
        assert stage.finish() == books
