"""An expiry pass that dies, freezes or loses what it needs, at every boundary in turn: no boundary leaves a difference.

Each round: a fresh copy of the same database, the real command, disturbed at its n-th boundary (tests/faults.py), passes
until nothing is due, a relay. Then the books are those of an undisturbed run. The quick run takes samples where it says
so, the same ones every time; MAVEN_TEST_FULL=1 takes every boundary.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql

from maven_cli.embedded.binaries import valkey_bin
from maven_cli.errors import DatabaseDownError
from maven_cli.runner import Pass, Worker, run
from tests.conftest import FULL, Servers, TestServices, named_database
from tests.exchange import Exchange
from tests.faults import Ended, Passes
from tests.matching_engine import TOKEN, MatchingEngine
from tests.support import Cli

HOUR = timedelta(hours=1)
# What a round changes, referenced tables first.
TABLES = (
    "wallets",
    "locks",
    "ledger_entries",
    "orders",
    "engine_removals",
    "trades",
    "rejected_trades",
    "outbox",
    "dead_letters",
    "circuits",
    "incidents",
    "worker_runs",
)
ENGINES = ("none", "http", "redis")
pytestmark = pytest.mark.timeout(3600 if FULL else 180)
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
                conn.execute("CREATE SCHEMA scene")
                for table in TABLES:
                    conn.execute(f"CREATE TABLE scene.{table} AS SELECT * FROM {table}")
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


def reset(conn: psycopg.Connection) -> None:
    """The scene's rows again: a tenth of what a new copy of the database costs."""
    with conn.transaction():
        conn.execute("ALTER TABLE ledger_entries DISABLE TRIGGER maven_ledger_no_change")
        for table in reversed(TABLES):
            conn.execute(f"DELETE FROM {table}")
        for table in TABLES:
            row = conn.execute(
                "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute"
                " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
                [table],
            ).fetchone()
            assert row is not None
            conn.execute(
                f"INSERT INTO {table} ({row[0]}) OVERRIDING SYSTEM VALUE SELECT {row[0]} FROM scene.{table}"
            )
        conn.execute("SET CONSTRAINTS ALL IMMEDIATE")
        conn.execute("ALTER TABLE ledger_entries ENABLE TRIGGER maven_ledger_no_change")


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

    def freeze(self, at: int) -> tuple[int, Ended]:
        """Starts a pass that stands still at a boundary. It may have ended, where it had fewer than another one."""
        pid = self.passes.start("orders", "expire", env=self.env, at=at, act="freeze")
        frozen = self.passes.wait(pid)
        assert frozen.code is None or (self.venue is not None and frozen.boundaries < at), frozen
        return pid, frozen

    def terminate(self, *names: str) -> None:
        """Ends sessions of a pass, by their application name, as the server does it."""
        self.conn.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = ANY (%s)",
            [list(names)],
        )

    def advisory_locks(self) -> list[Any]:
        return self.conn.execute(
            "SELECT classid, objid FROM pg_locks WHERE locktype = 'advisory'"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).fetchall()

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
        if self.conn.execute("SELECT FROM outbox WHERE delivered_at IS NULL").fetchone() is not None:
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


Rounds = Callable[..., AbstractContextManager[Stage]]


@pytest.fixture
def rounds(
    servers: Servers, scene: Scene, passes: Passes, redis_url: str, cache: redis.Redis, tmp_path: Path
) -> Iterator[Rounds]:
    """Makes rounds: `with rounds(kind) as stage`. One database, and one engine of each kind, serve them all."""
    venues: dict[str, MatchingEngine] = {}
    name = f"maven_rounds_{uuid4().hex[:12]}"
    url = named_database(servers.database_url, name)

    def engine(kind: str) -> MatchingEngine | None:
        if kind == "none":
            return None
        if kind not in venues:
            venues[kind] = MatchingEngine(tmp_path / kind, redis_url if kind == "redis" else "", token=TOKEN)
            venues[kind].start()
        venue = venues[kind]
        venue.fault("none")
        venue.forget()
        for number, (side, price, quantity) in scene.in_book.items():
            assert venue.place(number, "BTC/USDT", side, price, quantity) == []
        venue.fill(scene.in_flight, "4")
        return venue

    with psycopg.connect(servers.database_url, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(scene.template)
            )
        )
        try:
            with psycopg.connect(url, autocommit=True) as conn:

                @contextmanager
                def made(kind: str = "none", cache: redis.Redis = cache, **extra: str) -> Iterator[Stage]:
                    venue = engine(kind)
                    reset(conn)
                    # The engine's own streams stay: it is waiting on one of them.
                    cache.delete("maven:events")
                    variables = {
                        "MAVEN_DATABASE_URL": url,
                        "MAVEN_REDIS_URL": redis_url,
                        "MAVEN_HOME": str(tmp_path / "home"),
                        "MAVEN_ENGINE": kind,
                        "MAVEN_ENGINE_SETTLE": "0s",
                        **(
                            {}
                            if venue is None
                            else {"MAVEN_ENGINE_URL": venue.url, "MAVEN_ENGINE_TOKEN": TOKEN}
                        ),
                        **extra,
                    }
                    exchange = replace(scene.exchange, conn=conn)
                    yield Stage(scene, passes, conn, exchange, cache, Cli(variables).environment(), venue)

                yield made
        finally:
            for venue in venues.values():
                venue.stop()
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


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
    numbers = boundaries(total, 0.25 if kind == "none" else 0.07)

    def killed_at(number: int) -> bool:
        with rounds(kind) as stage:
            first = stage.expire(at=number)
            # How often a reply is looked for isn't always the same: this one may have had fewer boundaries.
            assert first.code == -signal.SIGKILL or (first.code == 1 and first.boundaries < number), first
            assert stage.finish() == books, first
            return first.code == -signal.SIGKILL

    assert sum(killed_at(number) for number in numbers) > len(numbers) * 0.9
    # Beyond the last one it isn't killed any more: none was left out.
    last = next(number for number in count(total + 1) if not killed_at(number))
    print(f"{kind}: killed at {len(numbers)} of {last - 1} boundaries")


@pytest.mark.parametrize("whose", ["maven orders-expire", "maven lock orders-expire"])
def test_a_backend_is_terminated_at_every_boundary(whose: str, rounds: Rounds) -> None:
    """E02, E04: the pass's own session, or that of its lock, goes at any statement: 69, and the next pass completes."""
    total, books = undisturbed(rounds, "none")
    codes = set()
    for number in boundaries(total, 0.08, seed=len(whose)):
        with rounds() as stage:
            pid, frozen = stage.freeze(number)
            if frozen.code is not None:
                continue
            stage.terminate(whose)
            os.kill(pid, signal.SIGCONT)
            ended = stage.passes.wait(pid)
            # 1, the code of an undisturbed pass, where it had nothing more to say on that session.
            assert ended.code in (69, 1), ended
            assert "Traceback" not in ended.err, ended
            codes.add(ended.code)
            assert stage.finish() == books, frozen
    assert 69 in codes


@pytest.mark.parametrize("kind", ["none", "http"])
def test_sigterm_at_every_boundary(kind: str, rounds: Rounds) -> None:
    """E03: stopped in good order, its locks are gone at once, and the next pass completes."""
    total, books = undisturbed(rounds, kind)
    codes = []
    for number in boundaries(total, 0.08 if kind == "none" else 0.04, seed=3):
        with rounds(kind) as stage:
            pid, frozen = stage.freeze(number)
            if frozen.code is not None:
                continue
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
            ended = stage.passes.wait(pid)
            assert ended.code in (143, 1), ended
            assert "Traceback" not in ended.err, ended
            assert stage.advisory_locks() == [], ended
            codes.append(ended.code)
            assert stage.finish() == books, frozen
    assert codes.count(143) > len(codes) / 2


@pytest.mark.parametrize("kind", ["none", "redis"])
@pytest.mark.parametrize("lock", ["lost", "broken"])
def test_a_frozen_pass_wakes_up_after_another_one(
    kind: str, lock: str, rounds: Rounds, servers: Servers
) -> None:
    """E09: SIGSTOP at any boundary, another pass runs to its end, SIGCONT: no double effect.

    lost: the server has ended the lock's session meanwhile. broken: the lock excludes nobody; both hold one.
    """
    total, books = undisturbed(rounds, kind)
    for number in boundaries(total, 0.06 if kind == "none" else 0.03, seed=9):
        with rounds(kind) as stage:
            pid, frozen = stage.freeze(number)
            if frozen.code is not None:
                continue
            if lock == "lost":
                stage.terminate("maven lock orders-expire")
                other = stage.expire()
            else:
                # Advisory locks are a database's own: in another one this pass excludes nobody.
                elsewhere = {**stage.env, "MAVEN_LOCK_DATABASE_URL": servers.database_url}
                other = stage.passes.run("orders", "expire", env=elsewhere)
            # 75: the frozen one stands in the middle of a work transaction.
            assert other.code in (0, 1, 75), other
            os.kill(pid, signal.SIGCONT)
            ended = stage.passes.wait(pid)
            assert ended.code in (0, 1, 69, 75), ended
            for done in (other, ended):
                assert "Traceback" not in done.err, done
            assert loosely(stage.finish()) == loosely(books), frozen


def loosely(books: dict[str, Any]) -> dict[str, Any]:
    """Without what two passes at once, or an engine that is late for one leg of two, may turn out: how often the bad order
    was tried, and which leg was the last to end, and so is told to have released the lock."""
    letters = [(item, error, state) for item, error, state, _ in books["letters"]]
    events = [(event_id, aggregate, amount) for event_id, aggregate, _, amount, _ in books["events"]]
    return {**books, "letters": letters, "events": events}


@every_engine
def test_two_passes_at_once_under_a_broken_lock(kind: str, rounds: Rounds, servers: Servers) -> None:
    _, books = undisturbed(rounds, kind)
    for _ in range(30 if FULL else 3):
        with rounds(kind) as stage:
            elsewhere = {**stage.env, "MAVEN_LOCK_DATABASE_URL": servers.database_url}
            both = [stage.passes.start("orders", "expire", env=env) for env in (stage.env, elsewhere)]
            for pid in both:
                ended = stage.passes.wait(pid)
                assert ended.code in (0, 1, 75), ended
                assert "Traceback" not in ended.err, ended
            assert loosely(stage.finish()) == loosely(books)


HTML = "<!DOCTYPE html><html><body>It works!</body></html>"
OTHER = {"status": "removed", "remaining": "0.5"}
FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("late", {"seconds": 0.7}),
    ("mute", {"seconds": 2}),
    ("deaf", {"seconds": 2}),
    ("twice", {}),
    ("raw", {"status": 200, "content_type": "text/html", "body": HTML, "fields": {"status": "fine"}}),
    (
        "removed_raw",
        {"status": 502, "content_type": "text/html", "body": HTML, "fields": {"status": "removed"}},
    ),
    ("die", {}),
    ("unacked", {}),
]


@pytest.mark.parametrize("kind", ["http", "redis"])
@pytest.mark.parametrize(("fault", "details"), FAULTS, ids=[name for name, _ in FAULTS])
def test_an_engine_at_fault(kind: str, fault: str, details: dict[str, Any], rounds: Rounds) -> None:
    """X05, X06: late, twice, never, with nonsense, dead before its answer; for some orders or all; killed on top of it."""
    total, books = undisturbed(rounds, kind)
    for times, number in ((2, 0), (None, 0), (2, random.Random(fault).randint(total // 4, total // 2))):
        with rounds(kind, MAVEN_ENGINE_TIMEOUT="300ms") as stage:
            assert stage.venue is not None
            venue = stage.venue
            venue.fault(fault, times=times, **details)
            first = stage.expire(at=number)
            assert first.code in (0, 1, -signal.SIGKILL), first
            assert "Traceback" not in first.err, first
            if fault in ("die", "unacked") and not alive(venue):
                venue.wait_dead()
                venue.start()
            venue.fault("none")
            assert loosely(stage.finish()) == loosely(books), first


def alive(venue: MatchingEngine) -> bool:
    with suppress(OSError):
        venue.book()
        return True
    return False


@contextmanager
def own_valkey(directory: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A Redis that a test may kill, and that keeps what it has said yes to. Call it to start it (again)."""
    running: list[subprocess.Popen[bytes]] = []
    socket = directory / "s"

    def start() -> subprocess.Popen[bytes]:
        socket.unlink(missing_ok=True)
        options = {
            "--port": "0",
            "--unixsocket": str(socket),
            "--dir": str(directory),
            "--save": "",
            "--appendonly": "yes",
            "--appendfsync": "always",
        }
        words = [word for pair in options.items() for word in pair]
        running.append(subprocess.Popen([valkey_bin(), *words], stdout=subprocess.DEVNULL))
        with redis.Redis(unix_socket_path=str(socket)) as client:
            deadline = time.monotonic() + 20
            while True:
                with suppress(redis.ConnectionError, redis.BusyLoadingError):
                    client.ping()
                    return running[-1]
                assert time.monotonic() < deadline
                time.sleep(0.01)

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.parametrize("how", ["stopped", "closed"])
def test_redis_goes_in_mid_pass(how: str, rounds: Rounds, tmp_path: Path) -> None:
    """X19: Redis is killed, or closes the connection, at each boundary of the delivery: every event arrives in the end."""
    url = f"unix://{tmp_path}/s?db=0"
    with own_valkey(tmp_path) as start, redis.Redis.from_url(url, decode_responses=True) as client:
        server = start()
        with rounds(cache=client, MAVEN_REDIS_URL=url) as stage:
            total = stage.expire().boundaries
            books = stage.finish()
        delivery = list(range(total - 45, total + 1))
        for number in delivery if FULL else random.Random(how).sample(delivery, 6):
            with rounds(cache=client, MAVEN_REDIS_URL=url) as stage:
                pid, frozen = stage.freeze(number)
                if frozen.code is not None:
                    continue
                if how == "stopped":
                    server.kill()
                    server.wait()
                else:
                    client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                os.kill(pid, signal.SIGCONT)
                ended = stage.passes.wait(pid)
                assert ended.code == 1, ended
                assert "Traceback" not in ended.err, ended
                if how == "stopped":
                    server = start()
                assert stage.finish() == books, frozen


def test_a_frozen_pass_doesn_t_hold_wallets_for_ever(
    services: TestServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E10: a host that vanishes within a work transaction keeps no rows from the platform, nor the work from the next pass."""
    monkeypatch.setattr("maven_cli.runner.IDLE_TIMEOUT", "300ms")
    with psycopg.connect(services.database_url, autocommit=True) as platform:
        Exchange(platform).fund(1, "BTC", 1)

        def body(current: Pass) -> dict[str, Any]:
            with current.transaction("faults", money=True) as conn:
                conn.execute("SELECT FROM wallets FOR NO KEY UPDATE")
                began = time.monotonic()
                platform.execute(
                    "UPDATE wallets SET available = available"
                )  # waits until the server has seen to it
                assert time.monotonic() - began < 20
                conn.execute("SELECT 1")
            return {}

        with pytest.raises(DatabaseDownError, match="idle-in-transaction"):
            run(Worker("faults", "Faults", "faults"), body, services)
