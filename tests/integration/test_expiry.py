"""Order expiry without an engine: the database is the book. Cases X01–X04, X10–X18, X20–X24."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import redis
from freezegun import freeze_time

from maven_cli.db import locks
from maven_cli.errors import ClockError, UsageError
from maven_cli.passes.expiry import expire
from tests.conftest import TestServices
from tests.exchange import Exchange
from tests.support import Cli

HOUR = timedelta(hours=1)


@pytest.fixture
def exchange(conn: psycopg.Connection) -> Exchange:
    """User 1 has 100 BTC and 10,000 USDT, user 2 too."""
    made = Exchange(conn)
    for user in (1, 2):
        made.fund(user, "BTC", 100)
        made.fund(user, "USDT", 10_000)
    return made


def run(services: TestServices, **options: Any) -> dict[str, Any]:
    outcome = expire(services, **options)
    assert outcome.data is not None
    return {**outcome.data, "errors": {error.item: error.message for error in outcome.errors}}


def test_x01_an_order_that_ends_now_is_expired(services: TestServices, exchange: Exchange) -> None:
    """X01: expires_at = as_of is over; one microsecond later isn't, yet."""
    moment = exchange.conn.execute("SELECT date_trunc('second', now()) - interval '1 minute'").fetchone()
    assert moment is not None
    at, later = (
        exchange.place(expires=moment[0]),
        exchange.place(expires=moment[0] + timedelta(microseconds=1)),
    )
    assert run(services, as_of=moment[0])["expired"] == 1
    assert (exchange.status(at), exchange.status(later)) == ("EXPIRED", "OPEN")
    assert exchange.wallet(1, "BTC") == (90, 10)


def test_an_expired_order_is_told(
    cli: Cli, exchange: Exchange, cache: redis.Redis, conn: psycopg.Connection
) -> None:
    order = exchange.place(side="buy", quantity="0.5", price="100")
    done = cli("orders", "expire", env={"LOG_LEVEL": "debug"})
    assert done.code == 0, done.err
    lines = [line.split(" ", 1)[1] for line in done.err.splitlines()]
    assert lines[0] == "debug [OrderExpirationWorker] Checking for expired orders..."
    assert lines[1] == f"debug [OrderExpirationWorker] Expired order {order} (BTC/USDT)"
    assert lines[-1].startswith("info  [OrderExpirationWorker] Expired 1 orders, 0 errors (")
    assert exchange.wallet(1, "USDT") == (10_000, 0)
    entries: Any = cache.xrange("maven:events")
    events = [json.loads(fields["event"]) for _, fields in entries]
    assert [event["id"] for event in events] == exchange.events()
    assert [event["type"] for event in events] == ["OrderExpiredEvent", "BalanceUnlockedEvent"]
    assert events[0]["data"]["released"] == "50"
    assert (events[1]["data"]["amount"], events[1]["data"]["asset"]) == ("50", "USDT")
    assert conn.execute("SELECT count(*) FROM outbox WHERE delivered_at IS NULL").fetchone() == (0,)


def test_x02_filled_during_the_pass(services: TestServices, exchange: Exchange, database_url: str) -> None:
    """X02: a fill that commits while the pass waits wins; nothing is unlocked twice."""
    sell = exchange.place(quantity="10", price="100")
    buy = exchange.place(2, "buy", quantity="10", price="100", expires=HOUR)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT 1")  # so that settlement's block is a savepoint of an open transaction
        exchange.settle(1, "100", "10", buy=buy, sell=sell, conn=other)
        found = run(services)
        assert (found["expired"], found["busy"]) == (0, 1)
        other.commit()
    assert run(services)["expired"] == 0
    assert exchange.status(sell) == "FILLED"
    assert exchange.wallet(1, "BTC") == (90, 0)
    assert exchange.events() == []
    exchange.books_balance()


def test_x03_the_remaining_part_of_the_lock(services: TestServices, exchange: Exchange) -> None:
    """X03: 40 % filled, exactly the other 60 % released."""
    sell = exchange.place(quantity="10", price="100", expires=timedelta(0))
    buy = exchange.place(2, "buy", quantity="4", price="100", expires=HOUR)
    exchange.settle(1, "100", "4", buy=buy, sell=sell)
    assert run(services)["expired"] == 1
    assert exchange.wallet(1, "BTC") == (96, 0)
    assert exchange.entries() == [(f"lock:{exchange.order(sell)['lock_id']}", 6)]
    exchange.books_balance()


def test_x04_twice_is_once(services: TestServices, exchange: Exchange) -> None:
    """X04: the second pass finds nothing to do."""
    exchange.place()
    assert run(services)["expired"] == 1
    before = (exchange.entries(), exchange.events(), exchange.wallet(1, "BTC"))
    assert run(services)["expired"] == 0
    assert (exchange.entries(), exchange.events(), exchange.wallet(1, "BTC")) == before
    assert len(before[1]) == 2


def test_x10_a_better_price(services: TestServices, exchange: Exchange) -> None:
    """X10: the buy's lock was for 100; it was filled at 90, and all that is left of the lock comes back."""
    buy = exchange.place(1, "buy", quantity="10", price="100", expires=timedelta(0))
    sell = exchange.place(2, "sell", quantity="4", price="90", expires=HOUR)
    exchange.settle(1, "90", "4", buy=buy, sell=sell)
    found = run(services)
    assert (found["expired"], found["mismatched"]) == (1, 1)
    assert exchange.entries() == [(f"lock:{exchange.order(buy)['lock_id']}", 640)]
    assert exchange.wallet(1, "USDT") == (9640, 0)


def test_x11_the_stored_lock_counts(cli: Cli, services: TestServices, exchange: Exchange) -> None:
    """X11: with a fee reserve of 5 at placing; whatever the fee is now, 1005 were locked and 1005 come back."""
    order = exchange.place(1, "buy", quantity="10", price="100", fee_reserve=Decimal(3), lock=1005)
    done = cli("orders", "expire")
    assert done.code == 0
    assert f"Order {order} released 1005 USDT, as its lock says; the rule says 1003" in done.err
    assert exchange.wallet(1, "USDT") == (10_000, 0)


def observed(exchange: Exchange, available: str, locked: str, asset: str) -> None:
    """The platform moves balances itself."""
    exchange.conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    exchange.conn.execute(
        "UPDATE wallets SET available = %s, locked = %s WHERE user_id = 1 AND asset_id = %s",
        [Decimal(available), Decimal(locked), exchange.assets[asset]],
    )


@pytest.mark.parametrize(
    ("side", "columns", "asset", "released"),
    [
        (
            "buy",
            {"fee_reserve": Decimal(5), "fee_paid": Decimal(2), "filled_quantity": Decimal(4)},
            "USDT",
            "603",
        ),
        ("sell", {"filled_quantity": Decimal(4)}, "BTC", "6"),
    ],
)
def test_x12_without_a_lock_the_rule(
    services: TestServices, exchange: Exchange, side: str, columns: dict[str, Any], asset: str, released: str
) -> None:
    """X12: remaining × price + the unspent fee reserve; or the remaining quantity. Refused where that is asked for."""
    observed(exchange, "50", "700", asset)
    order = exchange.place(1, side, "10", "100", lock=False, **columns)
    services.settings = services.settings.model_copy(update={"expiry_formula": "refuse"})
    found = run(services)
    assert found["errors"] == {
        f"order:{order}": f"order {order}: it has no lock, and MAVEN_EXPIRY_FORMULA=refuse"
    }
    assert exchange.wallet(1, asset) == (50, 700)
    exchange.conn.execute("UPDATE dead_letters SET next_attempt_at = now()")
    services.settings = services.settings.model_copy(update={"expiry_formula": "apply"})
    assert run(services)["expired"] == 1
    assert exchange.wallet(1, asset) == (50 + Decimal(released), 700 - Decimal(released))
    assert exchange.entries() == [(f"order:{order}", Decimal(released))]
    assert exchange.conn.execute("SELECT state FROM dead_letters").fetchall() == [("RESOLVED",)]


def test_x13_a_market_buy(services: TestServices, exchange: Exchange) -> None:
    """X13: no price, no quantity; what is left of the quote amount is released."""
    order = exchange.place(
        1,
        "buy",
        None,
        None,
        type="market",
        quote_quantity=Decimal(500),
        filled_quote_quantity=Decimal(120),
        lock=380,
    )
    assert run(services)["expired"] == 1
    assert exchange.entries() == [(f"lock:{exchange.order(order)['lock_id']}", 380)]


def test_x14_no_end_and_a_later_end(services: TestServices, exchange: Exchange) -> None:
    """X14: expires_at null stays; one that was given a later end stays, too."""
    endless, amended = exchange.place(expires=None), exchange.place()
    exchange.conn.execute("UPDATE orders SET expires_at = now() + interval '1 hour' WHERE id = %s", [amended])
    assert run(services)["expired"] == 0
    assert {exchange.status(endless), exchange.status(amended)} == {"OPEN"}


def bad_orders(exchange: Exchange) -> dict[int, str]:
    """Orders that can't be expired as they stand, and what each is told."""
    conn = exchange.conn
    conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    made: dict[int, str] = {}
    order = exchange.place(3, lock=False)
    made[order] = "user 3 has no BTC wallet"
    order = exchange.place(1, quantity="10", filled_quantity=Decimal(11))
    made[order] = "its remaining quantity is negative, -1"
    order = exchange.place(1, fee_asset_id=exchange.assets["USDT"], fee_reserve=Decimal("0.5"))
    made[order] = "0.5 of its fee reserve are in USDT, which its lock in BTC doesn't hold"
    order = exchange.place(2, quantity="7")
    conn.execute(
        "UPDATE wallets SET locked = 3 WHERE user_id = 2 AND asset_id = %s", [exchange.assets["BTC"]]
    )
    made[order] = f"its lock {exchange.order(order)['lock_id']} holds 7, more than the 3 locked in wallet 3"
    conn.execute("ALTER TABLE orders DROP CONSTRAINT fk_orders_trading_pair_id")
    order = exchange.place(1)
    conn.execute("UPDATE orders SET trading_pair_id = 99 WHERE id = %s", [order])
    made[order] = "its pair 99 doesn't exist"
    order = exchange.place(1, "buy", "10", None, type="market", lock=False)
    made[order] = "it has no lock, and without a price no rule says what to release"
    order = exchange.place(1, "buy", "0.000000001", "0.0000000001", lock=False)
    made[order] = "the rule releases 0.0000000000000000001 USDT, finer than a balance can be"
    other = exchange.place(2, "buy", "1", "10")
    order = exchange.place(1, lock_id=exchange.order(other)["lock_id"], expires=timedelta(seconds=-2))
    conn.execute("UPDATE orders SET expires_at = NULL WHERE id = %s", [other])
    made[order] = f"its lock {exchange.order(other)['lock_id']} belongs to user 2, the order to user 1"
    return made


def test_x15_bad_orders_become_dead_letters_and_the_others_go_on(
    services: TestServices, exchange: Exchange
) -> None:
    """X15, and every kind of order that can't be: each is told in its own words, and none is touched."""
    good = [exchange.place(1, quantity="1") for _ in range(5)]
    bad = bad_orders(exchange)
    good += [exchange.place(1, quantity="1") for _ in range(5)]
    before = exchange.conn.execute("SELECT * FROM orders WHERE id = ANY (%s)", [list(bad)]).fetchall()
    found = run(services)
    assert found["errors"] == {f"order:{order}": f"order {order}: {why}" for order, why in bad.items()}
    assert found["expired"] == 10
    assert {exchange.status(order) for order in good} == {"EXPIRED"}
    assert exchange.conn.execute("SELECT * FROM orders WHERE id = ANY (%s)", [list(bad)]).fetchall() == before
    letters = exchange.conn.execute(
        "SELECT item, error, attempts, state FROM dead_letters WHERE worker = 'orders-expire' ORDER BY id"
    ).fetchall()
    assert sorted(letters) == sorted((f"order:{o}", f"order {o}: {why}", 1, "OPEN") for o, why in bad.items())
    # They aren't due again yet: the next pass doesn't look at them.
    assert run(services)["errors"] == {}


def test_x16_many_orders_and_little_time(services: TestServices, exchange: Exchange) -> None:
    """X16: a backlog is worked off in bounded transactions, and what is left is counted."""
    exchange.conn.execute(
        "WITH o AS (SELECT n, maven_ledger_lock(%s, 'order', 'many:' || n, 0.001) AS lock FROM generate_series(1, 3000) n)"
        " INSERT INTO orders (user_id, trading_pair_id, side, price, quantity, lock_id, expires_at)"
        " SELECT 1, %s, 'sell', 100, 0.001, lock, now() - n * interval '1 second' FROM o",
        [1, exchange.pair().id],
    )
    services.settings = services.settings.model_copy(update={"expiry_budget": timedelta(0)})
    assert run(services)["backlog"] == 3000
    services.settings = services.settings.model_copy(update={"expiry_budget": timedelta(minutes=1)})
    found = run(services, limit=700)
    assert (found["expired"], found["backlog"]) == (700, 2300)
    newest = exchange.conn.execute(
        "SELECT min(expires_at) FILTER (WHERE status = 'EXPIRED') IS NULL OR"
        " max(expires_at) FILTER (WHERE status = 'EXPIRED') < min(expires_at) FILTER (WHERE status = 'OPEN') FROM orders"
    ).fetchone()
    assert newest == (True,), "the oldest first"
    assert run(services)["expired"] == 2300
    sizes = exchange.conn.execute(
        "SELECT count(*) FROM ledger_entries WHERE kind = 'unlock' GROUP BY created_at"
    ).fetchall()
    assert max(sizes)[0] <= 500
    assert exchange.wallet(1, "BTC") == (100, 0)
    exchange.books_balance()


def test_x18_the_user_cancels_at_the_same_moment(
    services: TestServices, exchange: Exchange, database_url: str
) -> None:
    """X18: whoever comes second finds it ended; one terminal state, one unlock."""
    orders = [exchange.place(quantity="0.1") for _ in range(60)]
    canceled: list[int] = []

    def cancel() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            canceled.extend(order for order in reversed(orders) if exchange.cancel(order, conn=other))

    thread = threading.Thread(target=cancel)
    thread.start()
    expired = 0
    while thread.is_alive():
        expired += run(services, limit=5)["expired"]
    thread.join()
    expired += run(services)["expired"]
    assert expired + len(canceled) == 60
    assert len(exchange.entries()) == 60
    assert exchange.wallet(1, "BTC") == (100, 0)
    exchange.books_balance()


def test_x20_two_legs_one_lock(services: TestServices, exchange: Exchange) -> None:
    """X20: the lock of 10 is released once, when its last leg ends; in one batch or in two."""
    first = exchange.place(quantity="10")
    lock = exchange.order(first)["lock_id"]
    second = exchange.place(quantity="10", price="80", type="stop_limit", lock_id=lock, expires=timedelta(0))
    assert run(services, limit=1)["expired"] == 1
    assert (exchange.status(first), exchange.entries()) == ("EXPIRED", [])
    assert run(services)["expired"] == 1
    assert (exchange.status(second), exchange.entries()) == ("EXPIRED", [(f"lock:{lock}", 10)])
    third = exchange.place(quantity="10")
    exchange.place(quantity="10", price="80", lock_id=exchange.order(third)["lock_id"])
    assert run(services)["expired"] == 2
    assert len(exchange.entries()) == 2
    exchange.books_balance()


def test_x21_expiry_and_a_trade_at_the_same_instant(
    services: TestServices, exchange: Exchange, database_url: str
) -> None:
    """X21: either the trade or the expiry. A FILLED order's own last trade is never refused."""
    buy = exchange.place(2, "buy", quantity="90", price="100", expires=HOUR)
    orders = [exchange.place(quantity="1", expires=timedelta(seconds=0)) for _ in range(60)]
    settled: list[int] = []
    refusals: list[tuple[int, str | None]] = []

    def settle() -> None:
        with psycopg.connect(database_url, autocommit=True) as other:
            for order in reversed(orders):
                try:
                    exchange.settle(order, "100", "1", buy=buy, sell=order, conn=other)
                    settled.append(order)
                except psycopg.Error as error:
                    refusals.append((order, error.sqlstate))

    thread = threading.Thread(target=settle)
    thread.start()
    while thread.is_alive():
        run(services, limit=5)
    thread.join()
    run(services)
    states = {order: exchange.status(order) for order in orders}
    assert {order for order in orders if states[order] == "FILLED"} == set(settled)
    assert {(order, "MVF01") for order in orders if states[order] == "EXPIRED"} == set(refusals)
    traded = exchange.conn.execute("SELECT id FROM trades").fetchall()
    assert sorted(number for (number,) in traded) == sorted(settled)
    exchange.books_balance()


def test_x22_what_the_fence_refused_is_kept_and_told(services: TestServices, exchange: Exchange) -> None:
    """X22: settlement rolls back and says so; asking twice changes nothing."""
    sell = exchange.place(quantity="10")
    buy = exchange.place(2, "buy", quantity="10", price="100", expires=HOUR)
    run(services)
    with pytest.raises(psycopg.Error, match=f"order {sell} is EXPIRED") as refused:
        exchange.settle(7, "100", "10", buy=buy, sell=sell)
    assert refused.value.sqlstate == "MVF01"
    reject = "SELECT maven_reject_trade(%s, 7, now(), 100, 10, %s, %s, 'order ended')"
    pair = exchange.pair().id
    assert exchange.conn.execute(reject, [pair, buy, sell]).fetchone() == (True,)
    assert exchange.conn.execute(reject, [pair, buy, sell]).fetchone() == (False,)
    assert exchange.events()[-1] == f"TradeRejectedEvent:{pair}:7"
    assert exchange.conn.execute("SELECT count(*) FROM trades").fetchone() == (0,)
    exchange.books_balance()


def test_x23_dead_letters_never_stand_before_the_others(services: TestServices, exchange: Exchange) -> None:
    """X23: 600 that failed lie before 10 good ones; the 10 expire in the same pass."""
    exchange.conn.execute(
        "INSERT INTO orders (user_id, trading_pair_id, side, price, quantity, expires_at)"
        " SELECT 1, %s, 'buy', NULL, 1, now() - interval '2 hours' FROM generate_series(1, 600)",
        [exchange.pair().id],
    )
    exchange.conn.execute(
        "INSERT INTO dead_letters (worker, item, error, next_attempt_at)"
        " SELECT 'orders-expire', 'order:' || id, 'x', now() + interval '1 hour' FROM orders"
    )
    good = [exchange.place(quantity="1") for _ in range(10)]
    found = run(services)
    assert (found["expired"], found["errors"]) == (10, {})
    assert {exchange.status(order) for order in good} == {"EXPIRED"}


def test_600_bad_orders_at_once_are_isolated_in_one_pass(services: TestServices, exchange: Exchange) -> None:
    exchange.conn.execute(
        "INSERT INTO orders (user_id, trading_pair_id, side, price, quantity, expires_at)"
        " SELECT 1, %s, 'buy', NULL, 1, now() - interval '2 hours' FROM generate_series(1, 600)",
        [exchange.pair().id],
    )
    exchange.place(quantity="1")
    services.settings = services.settings.model_copy(update={"expiry_budget": timedelta(minutes=2)})
    found = run(services)
    assert (found["expired"], len(found["errors"])) == (1, 600)


def test_x24_clocks_apart(services: TestServices, exchange: Exchange) -> None:
    """X24: host and database five seconds apart: 69, nothing expired."""
    order = exchange.place()
    row = exchange.conn.execute("SELECT now() - interval '5 s'").fetchone()
    assert row is not None
    with freeze_time(row[0], tick=True), pytest.raises(ClockError, match="apart") as refused:
        expire(services)
    assert refused.value.exit_code == 69
    assert exchange.status(order) == "OPEN"


def test_x19_redis_down(cli: Cli, exchange: Exchange, conn: psycopg.Connection) -> None:
    """X19: orders expire all the same, and the events wait in the outbox, in order."""
    exchange.place()
    exchange.place(2)
    done = cli("orders", "expire", env={"MAVEN_REDIS_URL": "redis://127.0.0.1:1/0"})
    assert done.code == 0
    assert "4 events wait in the outbox" in done.err
    assert conn.execute("SELECT count(*) FROM outbox WHERE delivered_at IS NULL").fetchone() == (4,)
    assert [name.split(":")[0] for name in exchange.events()] == [
        "OrderExpiredEvent",
        "BalanceUnlockedEvent",
    ] * 2


def test_a_wallet_that_somebody_holds_delays_only_its_own_orders(
    services: TestServices, exchange: Exchange, database_url: str
) -> None:
    """X17: the platform holds a wallet for longer than we wait: we lose, its orders are next time's, the others go on."""
    held, free = [exchange.place(1) for _ in range(3)], [exchange.place(2) for _ in range(3)]
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM wallets WHERE user_id = 1 FOR NO KEY UPDATE")
        found = run(services)
        assert (found["expired"], found["busy"], found["errors"]) == (3, 3, {})
    assert {exchange.status(order) for order in free} == {"EXPIRED"}
    assert {exchange.status(order) for order in held} == {"OPEN"}
    assert run(services)["expired"] == 3
    assert exchange.conn.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)


def test_a_wallet_s_events_are_told_in_the_order_of_its_entries(
    services: TestServices, exchange: Exchange
) -> None:
    """Also when its orders aren't numbered as their locks are."""
    later = exchange.place(1, "buy", "1", "100", expires=HOUR)
    earlier = exchange.place(1, "buy", "1", "100", expires=HOUR)
    locks = [exchange.order(order)["lock_id"] for order in (later, earlier)]
    exchange.conn.execute("UPDATE orders SET lock_id = NULL")
    for order, lock in ((later, locks[1]), (earlier, locks[0])):
        exchange.conn.execute(
            "UPDATE orders SET lock_id = %s, expires_at = now() WHERE id = %s", [lock, order]
        )
    assert run(services)["expired"] == 2
    told = exchange.conn.execute(
        "SELECT (event->'data'->>'sequence')::int FROM outbox WHERE type = 'BalanceUnlockedEvent' ORDER BY id"
    ).fetchall()
    assert len(told) == 2
    assert told == sorted(told)


def test_a_held_wallet_costs_no_more_than_the_budget(
    services: TestServices, exchange: Exchange, database_url: str
) -> None:
    """Forty orders on a wallet that somebody holds don't wait one after the other."""
    orders = [exchange.place(1, quantity="0.1") for _ in range(40)]
    services.settings = services.settings.model_copy(update={"expiry_budget": timedelta(seconds=1)})
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM wallets WHERE user_id = 1 FOR NO KEY UPDATE")
        began = time.monotonic()
        found = run(services)
        assert time.monotonic() - began < 8
    assert (found["expired"], found["busy"], found["backlog"], found["errors"]) == (0, 40, 40, {})
    assert run(services)["expired"] == len(orders)


def test_a_held_wallet_costs_one_long_wait(
    services: TestServices, exchange: Exchange, database_url: str
) -> None:
    """After the first wait in vain the others are short, so that those behind it have their turn."""
    held = [exchange.place(1, quantity="0.1") for _ in range(40)]
    free = [exchange.place(2, quantity="0.1") for _ in range(10)]
    services.settings = services.settings.model_copy(update={"expiry_budget": timedelta(seconds=20)})
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM wallets WHERE user_id = 1 FOR NO KEY UPDATE")
        began = time.monotonic()
        found = run(services)
        assert time.monotonic() - began < 8  # 79 waits of half a second are 40
    assert (found["expired"], found["busy"]) == (len(free), len(held))
    assert run(services)["expired"] == len(held)


def logged(done: Any) -> dict[str, dict[str, Any]]:
    return {line["action"]: line for line in map(json.loads, done.err.splitlines())}


def test_an_order_that_is_held_for_long_is_told(cli: Cli, exchange: Exchange, database_url: str) -> None:
    """And the summary counts what was held."""
    exchange.place(1, expires=timedelta(seconds=-5))
    late = exchange.place(1, expires=timedelta(minutes=-2))
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM orders FOR NO KEY UPDATE")
        lines = logged(cli("orders", "expire", env={"MAVEN_LOG_FORMAT": "json"}))
    assert lines["orders.done"]["busy"] == 2
    assert lines["orders.held"]["level"] == "warn"
    assert lines["orders.held"]["message"].endswith(
        f"1 orders are past their end for more than 1min and held by another transaction, the oldest is order {late}"
    )
    again = logged(cli("orders", "expire", env={"MAVEN_LOG_FORMAT": "json"}))
    assert again["orders.done"]["expired"] == 2
    assert "orders.held" not in again


def test_a_dead_letter_is_over_when_somebody_else_ends_its_order(
    services: TestServices, exchange: Exchange
) -> None:
    canceled, deleted = (exchange.place(1, quantity="10", filled_quantity=Decimal(11)) for _ in range(2))
    assert set(run(services)["errors"]) == {f"order:{canceled}", f"order:{deleted}"}
    exchange.cancel(canceled)
    exchange.conn.execute("DELETE FROM orders WHERE id = %s", [deleted])
    assert run(services)["errors"] == {}
    letters = exchange.conn.execute("SELECT item, state, closed_by, reason FROM dead_letters").fetchall()
    assert sorted(letters) == [
        (
            f"order:{canceled}",
            "RESOLVED",
            "orders-expire",
            "the platform has ended the order itself: it is CANCELED",
        ),
        (f"order:{deleted}", "RESOLVED", "orders-expire", "the order doesn't exist any more"),
    ]


def test_two_ends_of_one_lock_under_repeatable_read(
    services: TestServices, exchange: Exchange, database_url: str
) -> None:
    """The platform cancels a leg with an old snapshot while the other expires: one of them releases, or starts again."""
    first = exchange.place(quantity="10", expires=HOUR)
    lock = exchange.order(first)["lock_id"]
    exchange.place(quantity="10", price="80", lock_id=lock)
    with psycopg.connect(database_url) as other:
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("UPDATE orders SET status = 'CANCELED' WHERE id = %s", [first])
        assert run(services)["expired"] == 1
        with pytest.raises(psycopg.errors.SerializationFailure):
            other.execute("SELECT maven_ledger_release(%s)", [[lock]])
        other.rollback()
    assert exchange.cancel(first)
    assert exchange.wallet(1, "BTC") == (100, 0)
    exchange.books_balance()


def test_only_one_pair(services: TestServices, exchange: Exchange) -> None:
    exchange.pair("ETH/USDT")
    exchange.fund(1, "ETH", 10)
    ether, bitcoin = exchange.place(pair="ETH/USDT"), exchange.place()
    assert run(services, pairs=["ETH/USDT"])["expired"] == 1
    assert (exchange.status(ether), exchange.status(bitcoin)) == ("EXPIRED", "OPEN")
    services.settings = services.settings.model_copy(update={"expiry_budget": timedelta(0)})
    assert run(services, pairs=["ETH/USDT"])["backlog"] == 0
    assert run(services)["backlog"] == 1
    with pytest.raises(UsageError, match="no pair 'X/Y'"):
        expire(services, pairs=["X/Y"])


def test_a_dry_run_changes_nothing_and_holds_nothing(
    cli: Cli, services: TestServices, exchange: Exchange, cache: redis.Redis
) -> None:
    order = exchange.place(quantity="10")
    done = cli("orders", "expire", "--dry-run", "--json")
    assert done.code == 0
    assert done.document["data"]["expired"] == 1
    (one,) = done.document["data"]["orders"]
    assert (one["id"], one["released"], one["asset"]) == (order, "10", "BTC")
    assert exchange.status(order) == "OPEN"
    assert (exchange.entries(), exchange.events(), cache.keys()) == ([], [], [])
    assert exchange.conn.execute("SELECT count(*) FROM worker_runs").fetchone() == (0,)
    # Nor does it need a lock that a real pass holds.
    with exchange.conn.transaction():
        locks.work_lock(exchange.conn, "orders:expire")
        text = cli("orders", "expire", "--dry-run")
    assert text.out.splitlines()[1].split() == [
        str(order),
        "10",
        "BTC",
        str(exchange.order(order)["lock_id"]),
    ]


def test_what_is_expiring(cli: Cli, exchange: Exchange) -> None:
    soon = exchange.place(expires=timedelta(minutes=30))
    exchange.place(expires=timedelta(hours=2))
    late = exchange.place(2, "buy", "2", "100")
    done = cli("orders", "expiring", "--json")
    rows = {row["id"]: row for row in done.document["data"]}
    assert list(rows) == [late, soon]
    assert (rows[soon]["releases"], rows[soon]["asset"], rows[soon]["state"]) == ("10", "BTC", "live")
    assert (rows[late]["releases"], rows[late]["asset"], rows[late]["state"]) == ("200", "USDT", "due")
    text = cli("orders", "expiring", "--within", "3h")
    assert text.out.splitlines()[-1] == "3 orders, releasing 20 BTC, 200 USDT"
    assert cli("orders", "expiring", "--within", "soon").code == 2


def test_the_story_of_an_order(cli: Cli, exchange: Exchange) -> None:
    sell = exchange.place(quantity="10", expires=timedelta(0))
    buy = exchange.place(2, "buy", quantity="4", price="100", expires=HOUR)
    exchange.settle(1, "100", "4", buy=buy, sell=sell)
    assert cli("orders", "expire").code == 0
    done = cli("orders", "show", str(sell), "--json")
    story = [(row["what"], row["detail"]) for row in done.document["data"]["story"]]
    assert [what for what, _ in story] == [
        "placed",
        "ledger",
        "ledger",
        "ledger",
        "event",
        "event",
        "expired",
    ]
    assert "available 6, locked -6" in story[3][1]
    assert done.document["data"]["status"] == "EXPIRED"
    assert "6 left" in cli("orders", "show", str(sell)).out
    missing = cli("orders", "show", "999")
    assert (missing.code, missing.err) == (2, "maven: there is no order 999\n")
    assert cli("orders", "show", "abc").code == 2


def test_a_future_as_of_is_refused(cli: Cli) -> None:
    done = cli("orders", "expire", "--as-of", "2190-01-01")
    assert (done.code, done.err.count("\n")) == (2, 1)


@pytest.mark.parametrize("broken_too", ["", "the work lock"])
def test_two_passes_at_once(services: TestServices, exchange: Exchange, broken_too: str) -> None:
    """Under a broken pass lock the work lock still lets one alone write; without that, the rows decide."""
    orders = [exchange.place(quantity="0.1") for _ in range(40)]
    results: list[int] = []

    def one() -> None:
        for _ in range(10):
            outcome = expire(services, limit=3)
            # Skipped: the other one was writing.
            results.append(outcome.data["expired"] if outcome.data is not None else 0)

    threads = [threading.Thread(target=one) for _ in range(2)]
    with pytest.MonkeyPatch.context() as broken:
        broken.setattr(
            "maven_cli.runner.pass_lock",
            lambda url, scope: locks.pass_lock(url, f"{scope}{threading.get_ident()}"),
        )
        if broken_too:
            broken.setattr("maven_cli.runner.work_lock", lambda *_, **__: None)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(results) <= 40
    run(services)
    assert {exchange.status(order) for order in orders} == {"EXPIRED"}
    assert len(exchange.entries()) == 40
    exchange.books_balance()
