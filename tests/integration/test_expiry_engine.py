"""Order expiry with a real matching engine in a process of its own, over both protocols. Cases X05–X09, and its faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from pydantic import SecretStr

from maven_cli.operations import incidents
from maven_cli.orders import removals
from maven_cli.passes.expiry import expire
from tests.conftest import TestServices
from tests.exchange import Exchange
from tests.matching_engine import TOKEN, Fill, MatchingEngine
from tests.support import Cli

HOUR = timedelta(hours=1)


class Market:
    """The exchange and its engine: orders are in both, fills come from the engine."""

    def __init__(self, exchange: Exchange, engine: MatchingEngine) -> None:
        self.exchange, self.engine = exchange, engine

    def place(self, quantity: str = "10", **options: Any) -> int:
        """A sell order of user 1 that is due, in the database and in the book."""
        number = self.exchange.place(1, "sell", quantity, "100", **options)
        self.engine.place(number, "BTC/USDT", "sell", "100", quantity)
        return number

    def settle(self, fill: Fill, conn: psycopg.Connection | None = None) -> None:
        """Settlement writes what the engine matched; user 2 bought."""
        buy = self.exchange.place(2, "buy", fill.quantity, fill.price, expires=HOUR, conn=conn)
        self.exchange.settle(fill.sequence, fill.price, fill.quantity, buy=buy, sell=fill.resting, conn=conn)


@pytest.fixture
def exchange(conn: psycopg.Connection) -> Exchange:
    made = Exchange(conn)
    made.fund(1, "BTC", 1000)
    made.fund(2, "USDT", 1_000_000)
    return made


@pytest.fixture(params=["http", "redis"])
def services(
    request: pytest.FixtureRequest, database_url: str, redis_url: str, tmp_path: Path
) -> Iterator[TestServices]:
    with MatchingEngine(tmp_path / "journal", redis_url, token=TOKEN) as engine:
        found = TestServices(database_url, redis_url)
        found.engine = engine  # type: ignore[attr-defined]
        found.settings = found.settings.model_copy(
            update={
                "engine": request.param,
                "engine_url": SecretStr(engine.url),
                "engine_token": SecretStr(TOKEN),
                "engine_timeout": timedelta(seconds=1),
                "engine_settle": timedelta(0),
            }
        )
        yield found


@pytest.fixture
def market(services: TestServices, exchange: Exchange) -> Market:
    return Market(exchange, services.engine)  # type: ignore[attr-defined]


def change(services: TestServices, **settings: Any) -> None:
    services.settings = services.settings.model_copy(update=settings)


def run(services: TestServices, **options: Any) -> dict[str, Any]:
    outcome = expire(services, **options)
    assert outcome.data is not None
    return {**outcome.data, "code": outcome.exit_code, "errors": {e.item: e.message for e in outcome.errors}}


def removal(market: Market, order: int) -> dict[str, Any]:
    cursor = market.exchange.conn.execute("SELECT * FROM engine_removals WHERE order_id = %s", [order])
    row = cursor.fetchone()
    assert row is not None
    return dict(zip([column.name for column in cursor.description or ()], row, strict=True))


def test_out_of_the_book_and_expired(services: TestServices, market: Market) -> None:
    orders = [market.place(str(quantity)) for quantity in range(1, 21)]
    rests = market.exchange.place(1, "sell", "5", "100", expires=HOUR)
    market.engine.place(rests, "BTC/USDT", "sell", "100", "5")
    found = run(services)
    assert (found["expired"], found["waiting"], found["errors"]) == (20, 0, {})
    assert market.engine.book() == {rests: 5}
    assert {market.exchange.status(order) for order in orders} == {"EXPIRED"}
    assert removal(market, orders[4])["engine_remaining"] == 5
    open_ones = market.exchange.conn.execute(
        "SELECT count(*) FROM engine_removals WHERE settled_at IS NULL"
    ).fetchone()
    assert open_ones == (0,)
    market.exchange.books_balance()


def test_x05_the_recorded_answer_decides(services: TestServices, market: Market) -> None:
    """X05: the pass died after the engine's removal; the engine forgets, and says not_found to the next call."""
    order = market.place("10")
    (fill,) = market.engine.fill(order, "4")
    market.settle(fill)
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("maven_cli.orders.due.expire", dies)
        with pytest.raises(SystemExit):
            run(services)
    assert removal(market, order)["engine_remaining"] == 6
    assert market.exchange.status(order) == "PARTIALLY_FILLED"
    market.engine.forget()
    assert run(services)["expired"] == 1
    assert market.exchange.entries() == [(f"lock:{market.exchange.order(order)['lock_id']}", 6)]
    assert removal(market, order)["engine_remaining"] == 6
    market.exchange.books_balance()


def dies(*_: Any, **__: Any) -> None:
    raise SystemExit(1)


def test_x05_died_before_the_answer_was_written_down(services: TestServices, market: Market) -> None:
    """The engine removed it, and nobody recorded that: asked under the same key it says the same."""
    order = market.place("10")
    (fill,) = market.engine.fill(order, "4")
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("maven_cli.orders.removals.record", dies)
        with pytest.raises(SystemExit):
            run(services)
    key = removal(market, order)["request_key"]
    assert (market.engine.book(), removal(market, order)["answered_at"]) == ({}, None)
    found = run(services)
    assert (found["expired"], found["waiting"]) == (0, 1)  # 6 there, 10 here
    market.settle(fill)
    assert run(services)["expired"] == 1
    assert removal(market, order)["engine_remaining"] == 6
    assert market.engine.removals() == {key: 1}
    assert market.exchange.entries()[-1][1] == 6


def test_x06_the_engine_is_gone(services: TestServices, market: Market) -> None:
    """X06: within the grace the order stays locked; then it ends without the engine, the removal stays owed and is worked
    off later, and a trade on it is refused by the database."""
    order = market.place("10")
    (fill,) = market.engine.fill(order, "3")  # in flight, and settlement is late
    market.engine.kill()
    found = run(services)
    assert (found["expired"], found["waiting"], found["code"]) == (0, 1, 0)
    assert market.exchange.wallet(1, "BTC") == (990, 10)
    change(services, engine_grace=timedelta(0))
    found = run(services)
    assert (found["expired"], found["owed"], found["code"]) == (1, 1, 0)
    assert market.exchange.wallet(1, "BTC") == (1000, 0)
    assert removal(market, order)["settled_at"] is None
    market.engine.start()
    with pytest.raises(psycopg.Error) as refused:
        market.settle(fill)
    assert refused.value.sqlstate == "MVF01"
    assert run(services)["expired"] == 0
    assert market.engine.book() == {}
    assert removal(market, order)["settled_at"] is not None
    kinds = market.exchange.conn.execute("SELECT kind, item FROM incidents").fetchall()
    assert kinds == [("late_fill", f"order:{order}")]
    market.exchange.books_balance()


@pytest.mark.parametrize("settings", [{"expiry_require_engine": True}, {"settlement_fence": "absent"}])
def test_x07_without_the_engine_never(
    services: TestServices, market: Market, settings: dict[str, Any]
) -> None:
    """X07: where the engine's word is required, or no fence stands, it stays locked, and somebody is told."""
    order = market.place("10")
    market.engine.kill()
    change(services, engine_grace=timedelta(0), **settings)
    found = run(services)
    assert (found["expired"], found["code"]) == (0, 1)
    assert "stays locked: the engine can't be asked" in found["errors"][f"order:{order}"]
    assert market.exchange.wallet(1, "BTC") == (990, 10)
    told = "SELECT kind, item, resolved_at IS NULL FROM incidents"
    assert market.exchange.conn.execute(told).fetchall() == [("engine_gone", f"order:{order}", True)]
    market.engine.start()
    assert run(services)["expired"] == 1
    assert market.exchange.conn.execute(told).fetchall() == [("engine_gone", f"order:{order}", False)]


def test_x07_the_fence_is_looked_for(services: TestServices, market: Market) -> None:
    """A setting that says enforced isn't believed when the trigger isn't there."""
    market.place("10")
    market.engine.kill()
    market.exchange.conn.execute("ALTER TABLE trades DISABLE TRIGGER maven_trades_fence")
    change(services, engine_grace=timedelta(0))
    assert (run(services)["expired"], run(services)["code"]) == (0, 1)


def test_x08_an_order_that_the_engine_never_had(services: TestServices, market: Market) -> None:
    """X08: not_found counts once nothing has changed for MAVEN_ENGINE_SETTLE."""
    order = market.exchange.place(1, "sell", "10", "100")
    change(services, engine_settle=timedelta(seconds=2))
    assert (run(services)["waiting"], market.exchange.status(order)) == (1, "OPEN")
    time.sleep(2.1)
    market.exchange.conn.execute("UPDATE orders SET price = 100 WHERE id = %s", [order])
    assert run(services)["waiting"] == 1
    time.sleep(2.1)
    assert run(services)["expired"] == 1
    market.exchange.books_balance()


def test_an_untriggered_stop_is_in_no_book(services: TestServices, market: Market) -> None:
    change(services, engine_settle=HOUR)
    stop = market.exchange.place(1, type="stop_limit", stop_price=Decimal(90))
    triggered = market.exchange.place(1, type="stop_limit", stop_price=Decimal(90))
    market.exchange.conn.execute("UPDATE orders SET triggered_at = now() WHERE id = %s", [triggered])
    found = run(services)
    assert (found["expired"], found["waiting"]) == (1, 1)
    assert (market.exchange.status(stop), market.exchange.status(triggered)) == ("EXPIRED", "OPEN")


def test_x09_a_fill_in_flight(services: TestServices, market: Market) -> None:
    """X09: the engine has 6 left, the database 10; after settlement of the 4 exactly 6 are released."""
    order = market.place("10")
    (fill,) = market.engine.fill(order, "4")
    found = run(services)
    assert (found["expired"], found["waiting"], found["errors"]) == (0, 1, {})
    market.settle(fill)
    assert run(services)["expired"] == 1
    assert market.exchange.entries()[-1] == (f"lock:{market.exchange.order(order)['lock_id']}", 6)
    assert market.exchange.wallet(1, "BTC") == (996, 0)
    market.exchange.books_balance()


def test_x09_never_equal(services: TestServices, market: Market) -> None:
    """X09: the fill never comes: an incident, nothing unlocked, whatever the engine says later."""
    order = market.place("10")
    market.engine.fill(order, "4")
    run(services)
    change(services, engine_grace=timedelta(0))
    found = run(services)
    assert found["code"] == 1
    assert found["errors"][f"order:{order}"] == (
        f"the engine removed order {order} with 6 left, the database has 10; a fill was never settled"
    )
    market.engine.forget()
    assert run(services)["expired"] == 0
    assert market.exchange.wallet(1, "BTC") == (990, 10)
    rows = market.exchange.conn.execute("SELECT kind, item, resolved_at FROM incidents").fetchall()
    assert rows == [("books_differ", f"order:{order}", None)]


def test_x14_a_later_end_after_the_removal(services: TestServices, market: Market) -> None:
    """The engine took it out of its book, then the user got a later end: it stays, and somebody is told."""
    order = market.place("10")
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("maven_cli.orders.due.expire", dies)
        with pytest.raises(SystemExit):
            run(services)
    market.exchange.conn.execute(
        "UPDATE orders SET expires_at = now() + interval '1 hour' WHERE id = %s", [order]
    )
    assert run(services)["expired"] == 0
    assert market.exchange.conn.execute("SELECT kind, item FROM incidents").fetchall() == [
        ("revived_order", f"order:{order}")
    ]
    # Placed again, and due again: what the engine said about its earlier life doesn't count.
    market.engine.place(order, "BTC/USDT", "sell", "100", "10")
    before = removal(market, order)["request_key"]
    market.exchange.conn.execute("UPDATE orders SET expires_at = clock_timestamp() WHERE id = %s", [order])
    assert run(services)["expired"] == 1
    assert market.engine.book() == {}
    assert removal(market, order)["request_key"] != before
    market.exchange.books_balance()


def test_a_stale_not_found_is_no_word_of_the_engine(services: TestServices, market: Market) -> None:
    """It said so before the order changed, and can't be asked any more: that is no answer."""
    change(services, engine_settle=HOUR, expiry_require_engine=True, engine_grace=HOUR)
    order = market.exchange.place(1, type="stop_limit", stop_price=Decimal(90))
    market.exchange.conn.execute("UPDATE orders SET triggered_at = now() WHERE id = %s", [order])
    assert run(services)["waiting"] == 1
    market.exchange.conn.execute("UPDATE orders SET price = 99 WHERE id = %s", [order])
    market.engine.kill()
    change(services, engine_settle=timedelta(0))
    assert (run(services)["waiting"], market.exchange.status(order)) == (1, "OPEN")


@pytest.mark.parametrize(
    ("fault", "details"),
    [
        ("mute", {}),
        ("late", {"seconds": 1.5}),
        ("twice", {}),
        ("raw", {"fields": {"what": "ever"}, "status": 200, "content_type": "text/html", "body": "<html>"}),
        (
            "removed_raw",
            {"fields": {"what": "ever"}, "status": 200, "content_type": "text/html", "body": "<html>"},
        ),
        ("deaf", {}),
    ],
)
def test_an_engine_that_misbehaves_costs_time_only(
    services: TestServices, market: Market, fault: str, details: dict[str, Any]
) -> None:
    orders = [market.place(str(quantity)) for quantity in (3, 5)]
    market.engine.fault(fault, times=2, **details)
    run(services)
    market.engine.fault("none")
    market.exchange.conn.execute("DELETE FROM circuits")
    for _ in range(3):
        if {market.exchange.status(order) for order in orders} == {"EXPIRED"}:
            break
        run(services)
    assert {market.exchange.status(order) for order in orders} == {"EXPIRED"}
    assert [amount for _, amount in market.exchange.entries()] == [3, 5]
    assert market.engine.book() == {}
    assert set(market.engine.removals().values()) <= {1}
    market.exchange.books_balance()


def test_the_circuit_of_a_dead_engine_opens_and_closes(services: TestServices, market: Market) -> None:
    order = market.place("10")
    market.engine.kill()
    change(
        services,
        circuit_failures=2,
        circuit_cool_down=timedelta(seconds=1),
        circuit_longest=timedelta(seconds=1),
    )
    run(services)
    run(services)
    state = "SELECT state FROM circuits WHERE name LIKE 'engine:%'"
    assert market.exchange.conn.execute(state).fetchall() == [("open",)]
    market.engine.start()
    assert run(services)["waiting"] == 1
    # Only the call is skipped, and that is no attempt.
    found = removal(market, order)
    assert found["attempts"] == 2
    assert "circuit" not in found["last_error"]
    time.sleep(1.1)
    assert run(services)["expired"] == 1
    assert market.exchange.conn.execute(state).fetchall() == [("closed",)]


def test_who_was_not_asked_has_not_failed(services: TestServices, market: Market) -> None:
    """The call gives up after a few: the others keep their first attempt, and get it before those have a second one."""
    orders = [market.place("1") for _ in range(120)]
    market.engine.kill()
    assert run(services)["waiting"] == 120
    asked = {order for order in orders if removal(market, order)["attempts"]}
    assert 0 < len(asked) < 120
    for order in set(orders) - asked:
        found = removal(market, order)
        assert (found["failed_at"], found["last_error"], found["not_found_at"]) == (None, None, None)
    run(services)
    again = [order for order in orders if removal(market, order)["attempts"] == 2]
    first = [order for order in orders if removal(market, order)["attempts"]]
    assert (len(first) > len(asked), len(again) < len(asked)) == (True, True)
    market.engine.start()
    assert run(services)["expired"] == 120
    assert market.engine.book() == {}
    market.exchange.books_balance()


def circuit(market: Market, retry: str) -> None:
    """Moves the time of the next probe."""
    market.exchange.conn.execute(
        "UPDATE circuits SET retry_at = clock_timestamp() + %s::interval WHERE name LIKE 'engine:%%'", [retry]
    )


def test_an_open_circuit_ends_no_order_that_was_never_asked_about(
    services: TestServices, market: Market
) -> None:
    """The engine may be back, and the order in its book: only a failed call says that it is gone."""
    first = market.place("10")
    market.engine.kill()
    change(services, circuit_failures=1, circuit_cool_down=HOUR, circuit_longest=HOUR)
    run(services)
    waits = market.exchange.conn.execute("SELECT retry_at - opened_at FROM circuits").fetchone()
    assert waits is not None
    assert waits[0] <= services.settings.engine_grace / 2 + timedelta(seconds=1), "no probe within the grace"
    circuit(market, "1 hour")
    market.engine.start()
    second = market.place("5")
    change(services, engine_grace=timedelta(0))
    found = run(services)
    assert (found["expired"], found["owed"], found["waiting"]) == (1, 1, 1)
    assert (market.exchange.status(first), market.exchange.status(second)) == ("EXPIRED", "OPEN")
    circuit(market, "0")
    found = run(services)
    assert (found["expired"], found["owed"]) == (1, 0)
    assert removal(market, second)["engine_remaining"] == 5


def test_what_was_never_asked_about_ends_when_the_engine_is_really_gone(
    services: TestServices, market: Market
) -> None:
    """More orders than calls fit into: each ends after the grace, once a call of that pass has failed."""
    orders = [market.place("1") for _ in range(230)]
    market.engine.kill()
    grace = timedelta(seconds=2)
    change(
        services,
        circuit_failures=1,
        circuit_cool_down=timedelta(seconds=1),
        engine_grace=grace,
        engine_timeout=timedelta(milliseconds=300),
    )
    assert run(services)["waiting"] == 230
    circuit(market, "1 hour")
    time.sleep(grace.total_seconds())
    asked = [order for order in orders if removal(market, order)["attempts"]]
    assert run(services)["owed"] == len(asked)  # no call was made: the others wait
    circuit(market, "0")
    assert run(services)["owed"] == 230 - len(asked)
    assert {market.exchange.status(order) for order in orders} == {"EXPIRED"}
    assert any(removal(market, order)["attempts"] == 0 for order in orders)
    market.engine.start()
    circuit(market, "0")
    change(services, engine_timeout=timedelta(seconds=10), retry_after=timedelta(0))
    run(services)
    assert market.engine.book() == {}
    market.exchange.books_balance()


def pass_time(market: Market, order: int, seconds: int) -> None:
    """As if the last failure, and the order's end before it, were so much longer ago."""
    market.exchange.conn.execute(
        "UPDATE engine_removals SET failed_at = failed_at - make_interval(secs => %s) WHERE order_id = %s",
        [seconds, order],
    )
    market.exchange.conn.execute(
        "UPDATE orders SET updated_at = updated_at - make_interval(secs => %s) WHERE id = %s",
        [seconds, order],
    )


def end_unheard(services: TestServices, market: Market) -> int:
    """An order that has ended without the engine's word; the engine is dead, and will find no command of before."""
    order = market.place("10")
    market.engine.kill()
    grace = services.settings.engine_grace
    change(services, engine_grace=timedelta(0))
    assert run(services)["owed"] == 1
    change(services, engine_grace=grace)
    with redis.Redis.from_url(services.redis_url) as client:
        client.xtrim(services.settings.engine_stream, maxlen=0, approximate=False)
    return order


def test_what_is_owed_is_asked_later_and_later(services: TestServices, market: Market) -> None:
    """And its failures open no circuit for the orders that are due."""
    order = end_unheard(services, market)
    failures = "SELECT failures, state FROM circuits"
    before = market.exchange.conn.execute(failures).fetchall()
    attempts = []
    for wait in (0, 0, 31, 31, 31, 0, 119, 2):
        if wait:
            pass_time(market, order, wait)
        run(services)
        attempts.append(removal(market, order)["attempts"])
    # At once after its end; then after 30 s, 60 s, 120 s.
    assert attempts == [1, 1, 2, 2, 3, 3, 3, 4]
    assert market.exchange.conn.execute(failures).fetchall() == before
    market.engine.start()
    pass_time(market, order, 3600)
    run(services)
    assert removal(market, order)["settled_at"] is not None
    assert market.engine.book() == {}
    assert market.exchange.conn.execute(failures).fetchall() == [(0, "closed")]


def test_what_is_due_is_asked_before_what_is_owed(services: TestServices, market: Market) -> None:
    owed = end_unheard(services, market)
    market.engine.start()
    due = market.place("1")
    assert run(services)["expired"] == 1
    arrived = list(market.engine.commands())
    assert arrived == [removal(market, order)["request_key"] for order in (due, owed)]


def test_lasting_nonsense_about_what_is_owed_is_told(services: TestServices, market: Market) -> None:
    order = end_unheard(services, market)
    market.engine.start()
    market.engine.fault(
        "raw", fields={"what": "ever"}, status=200, content_type="text/html", body="<html>{oh}</html>"
    )
    change(services, retry_after=timedelta(0))
    told = "SELECT kind, resolved_at IS NULL, summary, reason FROM incidents"
    for _ in range(4):
        assert run(services)["code"] == 1
    assert market.exchange.conn.execute(told).fetchall() == []
    run(services)
    ((kind, still_open, summary, _),) = market.exchange.conn.execute(told).fetchall()
    assert (kind, still_open) == ("owed_removal", True)
    assert summary.startswith(f"order {order} is EXPIRED, and after 5 attempts the engine doesn't say")
    market.engine.fault("none")
    assert run(services)["code"] == 0
    ((_, still_open, _, reason),) = market.exchange.conn.execute(told).fetchall()
    assert (still_open, reason) == (False, "the engine has answered: the order is in its book no more")


@pytest.mark.parametrize("later", ["now() + interval '1 hour'", "NULL"])
def test_a_later_end_after_a_lost_answer(services: TestServices, market: Market, later: str) -> None:
    """The engine carried it out, and nobody wrote that down: the order is in no book, and somebody is told."""
    order = market.place("10")
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("maven_cli.orders.removals.record", dies)
        with pytest.raises(SystemExit):
            run(services)
    assert market.engine.book() == {}
    market.exchange.conn.execute(f"UPDATE orders SET expires_at = {later} WHERE id = %s", [order])
    told = "SELECT kind, item, resolved_at IS NULL, reason FROM incidents"
    for _ in range(2):
        run(services)
        assert market.exchange.conn.execute(told).fetchall() == [
            ("doubtful_removal", f"order:{order}", True, None)
        ]
    assert market.engine.commands() == {removal(market, order)["request_key"]: 1}, "asked once, before"
    market.engine.place(order, "BTC/USDT", "sell", "100", "10")
    market.exchange.conn.execute("UPDATE orders SET expires_at = clock_timestamp() WHERE id = %s", [order])
    assert run(services)["expired"] == 1
    assert market.engine.book() == {}
    assert market.exchange.conn.execute(told).fetchall() == [
        ("doubtful_removal", f"order:{order}", False, "the order has ended: both books agreed in the end")
    ]
    market.exchange.books_balance()


def test_an_order_that_was_placed_again_and_canceled(services: TestServices, market: Market) -> None:
    """What the engine had left in the order's earlier life says nothing about what it ended with."""
    order = market.place("10")
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("maven_cli.orders.due.expire", dies)
        with pytest.raises(SystemExit):
            run(services)
    market.exchange.conn.execute("UPDATE orders SET expires_at = NULL WHERE id = %s", [order])
    run(services)
    market.engine.place(order, "BTC/USDT", "sell", "100", "10")
    (fill,) = market.engine.fill(order, "4")
    market.settle(fill)
    assert market.exchange.cancel(order)
    run(services)
    assert removal(market, order)["settled_at"] is not None
    assert [(one.kind, one.reason) for one in incidents.listed(market.exchange.conn, everything=True)] == [
        ("revived_order", "the platform has ended the order itself: it is CANCELED")
    ]


def test_an_order_that_only_looks_early_is_not_doubtful(services: TestServices, market: Market) -> None:
    """Its end lies behind `--as-of`, but nobody has moved it."""
    orders = [market.place("10", expires=timedelta(minutes=-30)) for _ in range(2)]
    market.engine.fault("mute", times=1)
    change(services, engine_timeout=timedelta(milliseconds=300))
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr("maven_cli.orders.due.expire", dies)
        with pytest.raises(SystemExit):
            run(services)
    assert len({removal(market, order)["answered_at"] is None for order in orders}) == 2
    moment = market.exchange.conn.execute("SELECT now() - interval '1 hour'").fetchone()
    assert moment is not None
    run(services, as_of=moment[0])
    assert market.exchange.conn.execute("SELECT kind FROM incidents").fetchall() == []


@pytest.mark.parametrize("how", ["revived_order", "books_differ"])
def test_an_incident_that_somebody_resolved_stays_resolved(
    services: TestServices, market: Market, how: str
) -> None:
    """As long as nothing about the order changes; what is new about it is told again."""
    order = market.place("10")
    market.engine.fill(order, "4")
    change(services, engine_grace=timedelta(0))
    run(services)
    if how == "revived_order":
        market.exchange.conn.execute(
            "UPDATE orders SET expires_at = now() + interval '1 hour' WHERE id = %s", [order]
        )
    run(services)
    conn = market.exchange.conn
    for one in incidents.listed(conn):
        assert incidents.resolve(conn, one.id, by="ada", reason="placed again by hand")
    for _ in range(2):
        run(services)
        assert incidents.listed(conn) == []
    assert how in {one.kind for one in incidents.listed(conn, everything=True)}
    if how == "books_differ":
        (fill,) = market.engine.fills()
        market.exchange.settle(
            fill.sequence,
            fill.price,
            "1",
            buy=market.exchange.place(2, "buy", "1", fill.price, expires=HOUR),
            sell=order,
        )
        run(services)
        assert [one.kind for one in incidents.listed(conn)] == ["books_differ"]


def test_an_incident_is_over_when_the_platform_ends_the_order(services: TestServices, market: Market) -> None:
    order = market.place("10")
    market.engine.fill(order, "4")
    change(services, engine_grace=timedelta(0))
    run(services)
    assert [one.kind for one in incidents.listed(market.exchange.conn)] == ["books_differ"]
    assert market.exchange.cancel(order)
    run(services)
    found = {one.kind: one for one in incidents.listed(market.exchange.conn, everything=True)}
    assert found["books_differ"].reason == "the platform has ended the order itself: it is CANCELED"
    assert [one.kind for one in incidents.listed(market.exchange.conn)] == ["late_fill"]


def test_an_incident_says_that_the_order_ended_without_the_engine(
    services: TestServices, market: Market
) -> None:
    market.place("10")
    market.engine.kill()
    change(services, engine_grace=timedelta(0), expiry_require_engine=True)
    assert run(services)["code"] == 1
    change(services, expiry_require_engine=False)
    assert run(services)["owed"] == 1
    (closed,) = incidents.listed(market.exchange.conn, everything=True)
    assert closed.kind == "engine_gone"
    assert (
        closed.reason
        == "the order has ended without the engine's word, after the grace; its removal is still owed"
    )


def test_owed_counts_what_has_ended(services: TestServices, market: Market, database_url: str) -> None:
    """Not what somebody held at that moment."""
    order = market.place("10")
    market.engine.kill()
    change(services, engine_grace=timedelta(0))
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM orders WHERE id = %s FOR NO KEY UPDATE", [order])
        found = run(services)
        assert (found["expired"], found["owed"], found["busy"]) == (0, 0, 1)
    assert run(services)["owed"] == 1


@pytest.mark.parametrize(
    "change_of_mind",
    [
        "DELETE FROM orders WHERE id = %s",
        "UPDATE orders SET expires_at = now() + interval '1 hour' WHERE id = %s",
        "SELECT FROM orders WHERE id = %s FOR UPDATE",
    ],
)
def test_an_order_that_goes_before_it_is_asked_about(
    services: TestServices, market: Market, database_url: str, change_of_mind: str
) -> None:
    """Deleted, given a later end or about to be deleted since the pass has seen it: the engine isn't asked, others are."""
    gone, stays = market.place("10"), market.place("5")
    ask = removals.ask
    with psycopg.connect(database_url) as other:

        def meanwhile(*arguments: Any) -> Any:
            other.execute(change_of_mind, [gone])
            if not change_of_mind.startswith("SELECT"):
                other.commit()
            return ask(*arguments)

        with pytest.MonkeyPatch.context() as raced:
            raced.setattr("maven_cli.orders.removals.ask", meanwhile)
            began = time.monotonic()
            found = run(services)
        assert time.monotonic() - began < 5
    assert (found["expired"], found["busy"], found["code"]) == (1, 1, 0)
    assert market.exchange.status(stays) == "EXPIRED"
    assert market.engine.book() == {gone: 10}


def test_real_fills_race_the_expiry(services: TestServices, market: Market, database_url: str) -> None:
    """The engine matches orders while they expire, and settlement writes the fills down a moment later: what was matched is
    settled, the rest is released, to the last unit."""
    change(services, engine_settle=HOUR)  # longer than settlement takes, however busy this machine is
    orders = [market.place("10", expires=timedelta(seconds=0.02 * at)) for at in range(60)]
    stop = threading.Event()
    problems: list[BaseException] = []

    def trade() -> None:
        for order in (*orders, *reversed(orders)):
            market.engine.fill(order, "3")

    def settle() -> None:
        done = 0
        try:
            with psycopg.connect(database_url, autocommit=True) as conn:
                while not (stop.is_set() and not market.engine.fills(done)):
                    for fill in market.engine.fills(done):
                        time.sleep(0.01)
                        market.settle(fill, conn)
                        done = fill.sequence
        except BaseException as error:  # noqa: BLE001 the test's own thread reports it
            problems.append(error)

    threads = [threading.Thread(target=trade), threading.Thread(target=settle)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = run(services)
        if not threads[0].is_alive():
            stop.set()
        if stop.is_set() and not threads[1].is_alive() and not found["waiting"] and not found["expired"]:
            break
    for thread in threads:
        thread.join(60)
    assert problems == []
    filled = sum((fill.quantity for fill in market.engine.fills()), Decimal(0))
    assert market.exchange.wallet(1, "BTC") == (1000 - filled, 0)
    assert {market.exchange.status(order) for order in orders} <= {"EXPIRED", "FILLED"}
    refused = market.exchange.conn.execute("SELECT count(*) FROM rejected_trades").fetchone()
    assert refused == (0,)
    market.exchange.books_balance()


def test_wrong_engine_settings(cli: Cli, exchange: Exchange) -> None:
    order = exchange.place(1, "sell", "1", "100")
    for variables, code, words in (
        ({"MAVEN_ENGINE": "http"}, 78, "MAVEN_ENGINE_URL"),
        ({"MAVEN_ENGINE": "smtp"}, 78, "MAVEN_ENGINE accepts"),
        ({"MAVEN_ENGINE": "http", "MAVEN_ENGINE_URL": "ftp://user:hunter2@x"}, 78, "MAVEN_ENGINE_URL"),
        ({"MAVEN_EXPIRY_REQUIRE_ENGINE": "true"}, 78, "MAVEN_EXPIRY_REQUIRE_ENGINE needs an engine"),
        ({"MAVEN_EXPIRY_REQUIRE_ENGINE": "perhaps"}, 78, "MAVEN_EXPIRY_REQUIRE_ENGINE accepts true or false"),
    ):
        done = cli("orders", "expire", env=variables)
        assert (done.code, done.err.count("\n")) == (code, 1), done.err
        assert words in done.err
        assert "hunter2" not in done.err
    assert exchange.status(order) == "OPEN"
