"""The ledger's functions and fences, against a real database, from several connections."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.books import Books
from tests.integration.test_audit import wrong


@pytest.fixture
def books(conn: psycopg.Connection) -> Books:
    return Books(conn)


@contextmanager
def refuses(state: str, words: str = "") -> Iterator[None]:
    """The block ends with a PostgreSQL error of that SQLSTATE whose text has those words."""
    with pytest.raises(psycopg.Error, match=words or None) as caught:
        yield
    assert caught.value.sqlstate == state, caught.value


def balances(books: Books, wallet: int) -> tuple[str, str, int]:
    row = books.conn.execute(
        "SELECT trim_scale(available)::text, trim_scale(locked)::text, seq FROM wallets WHERE id = %s",
        [wallet],
    ).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


# ------------------------------------------------------------------------------------------------------------- amounts


@pytest.mark.parametrize("amount", ["1e-19", "0.1234567890123456789", "1e18", "NaN", "Infinity", "-Infinity"])
def test_an_amount_that_does_not_fit_is_refused_never_rounded(books: Books, amount: str) -> None:
    wallet = books.deposit(1, "BTC", "1")
    with refuses("MVL04"):
        books.post((wallet, "gift", "1", Decimal(amount), 0, None))
    with refuses("MVL04"):
        books.deposit(1, "BTC", amount)
    with refuses("MVL04"):
        books.value("SELECT maven_ledger_lock(%s, 'order', '1', %s)", wallet, Decimal(amount))
    with refuses("MVL04"):
        books.value("SELECT maven_ledger_propose(%s, %s, 'r', 'alice')", wallet, Decimal(amount))
    with refuses("MVL04"):
        books.value(
            "SELECT maven_reject_trade(%s, 1, now(), %s, 1, NULL, NULL, 'r')", books.pair, Decimal(amount)
        )
    assert balances(books, wallet) == ("1", "0", 1)


@pytest.mark.parametrize("amount", ["0", "-1", None])
def test_what_is_credited_or_locked_is_positive(books: Books, amount: str | None) -> None:
    wallet = books.deposit(1, "BTC", "1")
    with refuses("MVL04"):
        books.value(
            "SELECT count(*) FROM maven_ledger_credit(%s, %s, %s, %s::numeric[])", [1], [1], ["x"], [amount]
        )
    with refuses("MVL04"):
        books.value("SELECT maven_ledger_lock(%s, 'order', '1', %s::numeric)", wallet, amount)


def test_no_balance_goes_below_zero_on_the_way_either(books: Books) -> None:
    wallet = books.deposit(1, "BTC", "1")
    with refuses("MVL03", "has 1 available and 0 locked: not enough for gift 1"):
        books.post((wallet, "gift", "1", Decimal("-1.000000000000000001"), 0, None))
    # At the end it would be 3, but not after the first one.
    with refuses("MVL03"):
        books.post((wallet, "gift", "1", Decimal(-2), 0, None), (wallet, "gift", "2", Decimal(4), 0, None))
    books.post((wallet, "gift", "2", Decimal(4), 0, None), (wallet, "gift", "1", Decimal(-2), 0, None))
    assert balances(books, wallet) == ("3", "0", 3)
    with refuses("MVL03"):
        books.value("SELECT maven_ledger_lock(%s, 'order', '1', 3.1)", wallet)
    assert wrong(books.conn) == []


def test_a_batch_is_posted_whole_or_not_at_all(books: Books) -> None:
    one, two = books.deposit(1, "BTC", "1"), books.deposit(2, "BTC", "1")
    for bad in (
        (two, "gift", "b", Decimal(-9), 0, None), (999, "gift", "b", Decimal(1), 0, None),
        (None, "gift", "b", Decimal(1), 0, None), (two, None, "b", Decimal(1), 0, None),
        (two, "gift", None, Decimal(1), 0, None), (two, "gift", "b", None, 0, None), (two, "gift", "a", Decimal(1), 0, None),
        (two, "gift", "b", Decimal(0), Decimal(0), None), (two, "gift", "b", Decimal(0), Decimal(1), 999),
    ):  # fmt: skip
        with pytest.raises(psycopg.Error):
            books.post((one, "gift", "a", Decimal(1), 0, None), bad)
    assert (balances(books, one), balances(books, two)) == (("1", "0", 1), ("1", "0", 1))
    assert books.value("SELECT maven_ledger_post(NULL)") == 0
    assert books.value("SELECT maven_ledger_post(ARRAY[]::maven_posting[])") == 0


def test_a_reference_is_posted_once(books: Books) -> None:
    wallet = books.deposit(1, "BTC", "1")
    books.post((wallet, "gift", "a", Decimal(1), 0, None))
    with refuses("23505", "uq_ledger_entries_kind_reference"):
        books.post((wallet, "gift", "a", Decimal(1), 0, None))
    books.post((wallet, "prize", "a", Decimal(1), 0, None))  # another kind
    with refuses("23505"):
        books.value(
            "SELECT count(*) FROM maven_ledger_credit(%s, %s, %s, %s)",
            [1, 2],
            [1, 1],
            ["new", "tx-1"],
            [1, 1],
        )
    assert balances(books, wallet) == ("3", "0", 3)
    assert books.value("SELECT count(*) FROM wallets WHERE user_id = 2") == 0


def test_a_credit_makes_wallets_and_wants_columns_of_one_length(books: Books) -> None:
    rows = books.conn.execute(
        "SELECT reference, seq FROM maven_ledger_credit(%s, %s, %s, %s) ORDER BY 1",
        [[7, 7, 8], [1, 2, 1], ["a", "b", "c"], [1, 2, 3]],
    ).fetchall()
    assert rows == [("a", 1), ("b", 1), ("c", 1)]
    for columns in (
        ([7], [1, 1], ["d"], [1]),
        ([7], [1], [], [1]),
        ([7, 7], [1, 1], ["d", "e"], [1]),
        (None, [1], ["d"], [1]),
    ):
        with refuses("MVL04"):
            books.conn.execute("SELECT count(*) FROM maven_ledger_credit(%s, %s, %s, %s)", list(columns))
    assert wrong(books.conn) == []


# -------------------------------------------------------------------------------------------------------- kinds, locks


def test_reserved_kinds_say_what_they_say(books: Books) -> None:
    wallet = books.deposit(1, "BTC", "10")
    lock = books.value("SELECT maven_ledger_lock(%s, 'order', '1', 4)", wallet)
    one = Decimal(1)
    for posting in (
        (wallet, "opening", "1:9", one, 0, None), (wallet, "adjustment", str(uuid4()), one, 0, None),
        (wallet, "unlock", "lock:77", one, -one, lock), (wallet, "unlock", f"lock:{lock}", one, Decimal(-2), lock),
        (wallet, "lock", "order:2", -one, one, lock), (wallet, "gift", "g", 0, one, None),
    ):  # fmt: skip
        with refuses("MVL04"):
            books.post(posting)
    proposed = books.value("SELECT maven_ledger_propose(%s, 5, 'r', 'alice')", wallet)
    with refuses("MVL04", "posted by maven_ledger_adjust"):
        books.post((wallet, "adjustment", str(proposed), Decimal(5), 0, None))
    for kind in ("lock", "unlock", "adjustment", "opening"):
        with refuses("MVL04"):
            books.value("SELECT count(*) FROM maven_ledger_credit('{1}', '{1}', '{x}', '{1}', %s)", kind)
    with refuses("MVL04"):
        books.value("SELECT maven_ledger_lock(%s, 'opening', '1:9', 1)", wallet)
    assert balances(books, wallet) == ("6", "4", 2)


def test_the_same_lock_again_is_the_same_lock_while_it_is_open(books: Books) -> None:
    wallet, other = books.deposit(1, "BTC", "10"), books.deposit(2, "BTC", "10")
    lock = books.value("SELECT maven_ledger_lock(%s, 'order', '1', 4)", wallet)
    assert books.value("SELECT maven_ledger_lock(%s, 'order', '1', 4.0)", wallet) == lock
    for number, amount in ((wallet, 5), (other, 4)):
        with refuses("MVL04", "is lock"):
            books.value("SELECT maven_ledger_lock(%s, 'order', '1', %s)", number, amount)
    assert balances(books, wallet) == ("6", "4", 2)
    released = "SELECT lock_id, trim_scale(released)::text FROM maven_ledger_release(%s)"
    assert books.conn.execute(released, [[lock, lock, 999, None]]).fetchall() == [(lock, "4")]
    assert books.conn.execute(released, [[lock]]).fetchall() == []
    assert books.conn.execute(released, [None]).fetchall() == []
    assert balances(books, wallet) == ("10", "0", 3)
    with refuses("MVL04", "has ended"):
        books.value("SELECT maven_ledger_lock(%s, 'order', '1', 4)", wallet)
    with refuses("MVL04", "has ended"):
        books.post((wallet, "gift", "1", 0, Decimal(-1), lock))
    assert wrong(books.conn) == []


def test_no_more_is_taken_from_a_lock_than_it_holds(books: Books) -> None:
    wallet, other = books.deposit(1, "BTC", "10"), books.deposit(2, "BTC", "10")
    lock = books.value("SELECT maven_ledger_lock(%s, 'order', '1', 4)", wallet)
    books.value(
        "SELECT maven_ledger_lock(%s, 'order', '2', 4)", wallet
    )  # so that the wallet has enough locked
    with refuses("MVL03", f"lock {lock} holds 4, less than the 4.5 to take"):
        books.post((wallet, "t", "1", 0, Decimal(-4), lock), (wallet, "t", "2", 0, Decimal("-0.5"), lock))
    with refuses("MVL04", "is another wallet's"):
        books.post((other, "t", "1", 0, Decimal(-1), lock))
    with refuses("23514"):
        books.post((wallet, "t", "1", Decimal(-1), Decimal(1), lock))  # more than it was made of
    books.post((wallet, "t", "1", 0, Decimal("-3.999999999999999999"), lock))
    assert books.value("SELECT remaining FROM locks WHERE id = %s", lock) == Decimal("1e-18")
    books.conn.execute("SELECT maven_ledger_release(%s)", [[lock]])
    assert wrong(books.conn) == []


def test_a_lock_ends_when_no_order_needs_it(books: Books) -> None:
    books.deposit(1, "BTC", "10")
    first = books.place(1, "sell", "4", "100")
    second = books.place(1, "sell", "4", "90", lock=books.lock_of(first))
    books.cancel(first)
    assert balances(books, books.wallet(1, "BTC")) == ("6", "4", 2)
    books.cancel(second)
    assert balances(books, books.wallet(1, "BTC")) == ("10", "0", 3)
    assert wrong(books.conn) == []


def test_whoever_adds_an_order_to_a_lock_holds_it(books: Books, database_url: str) -> None:
    """A second order comes to a lock while the first is canceled: the lock stays, or the second order is refused."""
    books.deposit(1, "BTC", "10")
    first = books.place(1, "sell", "4", "100")
    lock = books.lock_of(first)
    wallet = books.wallet(1, "BTC")
    with psycopg.connect(database_url) as adding:
        row = adding.execute("SELECT maven_ledger_lock(%s, 'order', %s, 4)", [wallet, str(first)]).fetchone()
        assert row == (lock,)
        adding.execute(
            "INSERT INTO orders (user_id, trading_pair_id, side, quantity, price, lock_id) VALUES (1, %s, 'sell', 4, 90, %s)",
            [books.pair, lock],
        )
        done = in_thread(lambda: books.cancel(first))
        waits_for_a_lock(adding)
        adding.commit()
        done()
    assert books.value("SELECT ended_at IS NULL FROM locks WHERE id = %s", lock)
    assert wrong(books.conn) == []


def in_thread(work: Callable[[], Any]) -> Callable[[], None]:
    """Starts it; the result waits for its end and raises what it raised."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  it is raised in the test
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def finish() -> None:
        thread.join(60)
        assert not thread.is_alive()
        if failed:
            raise failed[0]

    return finish


def waits_for_a_lock(conn: psycopg.Connection) -> None:
    """Until somebody waits for what `conn` holds."""
    for _ in range(2000):
        row = conn.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
        ).fetchone()
        if row != (0,):
            return
        time.sleep(0.005)
    raise AssertionError("nobody waits")


# -------------------------------------------------------------------------------------------------------------- fences


def test_entries_are_append_only(books: Books, conn: psycopg.Connection) -> None:
    books.deposit(1, "BTC", "10")
    for statement in (
        "UPDATE ledger_entries SET reference = 'x'", "DELETE FROM ledger_entries", "TRUNCATE ledger_entries",
        "TRUNCATE wallets CASCADE",
    ):  # fmt: skip
        with refuses("MVL01"):
            conn.execute(statement)
    made = books.adjust(1, "1")
    for statement in (
        "UPDATE ledger_adjustments SET reason = 'x'", "UPDATE ledger_adjustments SET state = 'PROPOSED', decided_by = NULL, decided_at = NULL",
        "DELETE FROM ledger_adjustments", "TRUNCATE ledger_adjustments",
        ("INSERT INTO ledger_adjustments (wallet_id, amount, reason, proposed_by, state, decided_by, decided_at)"
        " VALUES (1, 1, 'r', 'a', 'APPROVED', 'b', now())"),
    ):  # fmt: skip
        with refuses("MVL01"):
            conn.execute(statement)
    assert (
        books.value("SELECT reason FROM ledger_adjustments WHERE id = %s", made)
        == "a deposit was booked twice"
    )
    open_one = books.value("SELECT maven_ledger_propose(1, 1, 'r', 'alice')")
    with refuses("MVL01"):
        conn.execute("UPDATE ledger_adjustments SET amount = 1000 WHERE id = %s", [open_one])


HAND = (
    "UPDATE wallets SET available = available + 1",
    "UPDATE wallets SET locked = locked + 1",
    "UPDATE wallets SET seq = seq + 1",
    "UPDATE wallets SET user_id = 9 WHERE id = 1",
    "INSERT INTO wallets (user_id, asset_id, available) SELECT 50, id, 1 FROM assets LIMIT 1",
    (
        "INSERT INTO ledger_entries SELECT wallet_id, seq + 1, 'gift', 'g', 1, 0, available_after + 1, locked_after, NULL, now(), digest"
        " FROM ledger_entries"
    ),
)


@pytest.mark.parametrize("statement", HAND)
def test_enforced_a_wallet_changed_by_hand_is_refused_at_the_commit(
    books: Books, conn: psycopg.Connection, statement: str
) -> None:
    wallet = books.deposit(1, "BTC", "10")
    with refuses("MVL02"):
        conn.execute(statement)
    # Not before: within a transaction it may be made good.
    with refuses("MVL02"), conn.transaction():
        conn.execute(statement)
        conn.execute("SELECT 1")
    assert balances(books, wallet) == ("10", "0", 1)
    conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    conn.execute(statement)


def test_enforced_a_change_that_is_taken_back_is_none(books: Books, conn: psycopg.Connection) -> None:
    books.deposit(1, "BTC", "10")
    with conn.transaction():
        conn.execute("UPDATE wallets SET available = available + 1")
        conn.execute("UPDATE wallets SET available = available - 1")


def test_the_settlement_fence_waits_and_refuses(books: Books, database_url: str) -> None:
    books.deposit(1, "BTC", "10")
    order = books.place(1, "sell", "4", "100")
    with psycopg.connect(database_url) as ending:
        ending.execute("UPDATE orders SET status = 'CANCELED' WHERE id = %s", [order])
        insert = "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, sell_order_id) VALUES (%s, 1, now(), 1, 1, %s)"
        done = in_thread(lambda: books.conn.execute(insert, [books.pair, order]))
        waits_for_a_lock(ending)
        ending.commit()
    with refuses("MVF01", f"order {order} is CANCELED"):
        done()
    assert books.value("SELECT count(*) FROM trades") == 0
    # Neither does a trade come to it later.
    books.conn.execute(
        "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity) VALUES (%s, 1, now(), 1, 1)",
        [books.pair],
    )
    with refuses("MVF01"):
        books.conn.execute("UPDATE trades SET buy_order_id = %s", [order])
    for _ in range(2):
        books.value("SELECT maven_reject_trade(%s, 1, now(), 1, 1, NULL, %s, 'late')", books.pair, order)
    assert books.value("SELECT count(*) FROM outbox WHERE type = 'TradeRejectedEvent'") == 1


# --------------------------------------------------------------------------------------------------------------- modes


def test_observed_openings_take_in_what_was_moved_before_each_of_our_entries(
    books: Books, conn: psycopg.Connection
) -> None:
    conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    conn.execute(
        "INSERT INTO wallets (user_id, asset_id, available, locked) SELECT 1, id, 100, 30 FROM assets WHERE symbol = 'BTC'"
    )
    order = books.value(
        "INSERT INTO orders (user_id, trading_pair_id, side, quantity, price, expires_at) VALUES (1, %s, 'sell', 10, 5, now()) RETURNING id",
        books.pair,
    )
    assert books.expire(order) == 1
    entries = conn.execute(
        "SELECT seq, kind, trim_scale(available_delta)::text, trim_scale(locked_delta)::text, trim_scale(locked_after)::text"
        "  FROM ledger_entries ORDER BY seq"
    ).fetchall()
    assert entries == [(1, "opening", "100", "30", "30"), (2, "unlock", "10", "-10", "20")]
    assert wrong(conn) == []
    # What is still locked gets a lock, though the ledger knows the amount: an expiry took from it in between.
    assert books.value("SELECT maven_ledger_mode('enforced', 'test')") == 2
    assert conn.execute("SELECT kind, reference, trim_scale(remaining)::text FROM locks").fetchall() == [
        ("opening", "1:4", "20")
    ]
    assert balances(books, 1) == ("110", "20", 4)
    assert wrong(conn) == []
    # And an order without a lock of its own is released from it, to its end.
    for quantity in (15, 5):
        order = books.value(
            "INSERT INTO orders (user_id, trading_pair_id, side, quantity, price, expires_at) VALUES (1, %s, 'sell', %s, 5, now()) RETURNING id",
            books.pair, quantity,
        )  # fmt: skip
        assert books.expire(order) == 1
    assert balances(books, 1) == ("130", "0", 6)
    assert books.value("SELECT ended_at IS NOT NULL FROM locks")
    assert wrong(conn) == []


def test_openings_of_a_database_with_balances(books: Books, conn: psycopg.Connection) -> None:
    conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    conn.execute(
        "INSERT INTO wallets (user_id, asset_id, available, locked) SELECT u, 1, u * 10, u % 3 FROM generate_series(0, 49) u"
    )
    opened = books.value("SELECT maven_ledger_mode('enforced', 'test')")
    assert opened == 49  # an empty wallet needs none
    assert books.value("SELECT count(*) FROM locks") == books.value(
        "SELECT count(*) FROM wallets WHERE locked > 0"
    )
    assert wrong(conn) == []
    assert books.value("SELECT maven_ledger_mode('enforced', 'again')") == 0
    assert books.value("SELECT changed_by FROM ledger_state") == "test"


def test_openings_refuse_a_wallet_whose_locks_hold_more(books: Books, conn: psycopg.Connection) -> None:
    wallet = books.deposit(1, "BTC", "10")
    books.place(1, "sell", "4", "100")
    conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    conn.execute("UPDATE wallets SET locked = 3")
    with refuses("MVL04", f"wallet {wallet} has 3 locked, less than the 4"):
        conn.execute("SELECT maven_ledger_mode('enforced', 'test')")
    assert books.value("SELECT mode FROM ledger_state") == "observed"
    with refuses("23514"):
        conn.execute("SELECT maven_ledger_mode('lenient', 'test')")


def test_entering_the_enforced_mode_waits_for_whoever_moves_a_wallet(books: Books, database_url: str) -> None:
    """The platform holds a wallet, then writes it: no deadlock, and the opening has its write."""
    books.conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    wallet = books.deposit(1, "BTC", "10")
    with psycopg.connect(database_url) as platform:
        platform.execute("SELECT FROM wallets FOR UPDATE")
        done = in_thread(lambda: books.conn.execute("SELECT maven_ledger_mode('enforced', 'test')"))
        waits_for_a_lock(platform)
        platform.execute("UPDATE wallets SET available = available + 5")
        platform.commit()
        done()
        assert balances(books, wallet) == ("15", "0", 2)
        with refuses("MVL02"):
            platform.execute("UPDATE wallets SET available = available + 5")
            platform.commit()
    assert wrong(books.conn) == []


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_older_snapshot_does_not_slip_past_the_new_mode(
    books: Books, database_url: str, level: str
) -> None:
    books.conn.execute("SELECT maven_ledger_mode('observed', 'test')")
    wallet = books.deposit(1, "BTC", "10")
    with psycopg.connect(database_url) as platform:
        platform.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        platform.execute("SELECT 1")
        books.conn.execute("SELECT maven_ledger_mode('enforced', 'test')")
        with refuses("40001"):
            platform.execute("UPDATE wallets SET available = available + 5")
            platform.commit()
        platform.rollback()
        platform.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
        platform.execute("SELECT 1")
        with refuses("MVL04", "READ COMMITTED"):
            books.conn.execute("SELECT maven_ledger_mode('observed', 'test')")
            platform.execute("SELECT maven_ledger_mode('enforced', 'test')")
            platform.rollback()
            platform.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
            platform.execute("SELECT maven_ledger_mode('enforced', 'test')")
    assert balances(books, wallet) == ("10", "0", 1)


# --------------------------------------------------------------------------------------------------------- concurrency


def test_opposite_orders_never_deadlock(books: Books, database_url: str) -> None:
    """Two connections post to, lock and release in the same wallets in any order: thousands of times, no deadlock."""
    wallets = [books.deposit(user, "BTC", "1000") for user in range(1, 7)]
    rounds, failures = 1000, []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(database_url, autocommit=True) as conn:
            for turn in range(rounds):
                chosen = chance.sample(wallets, 4)
                try:
                    with conn.transaction():
                        books.post(
                            *(
                                (w, "move", f"{seed}:{turn}:{n}", Decimal(1 if n % 2 else -1), 0, None)
                                for n, w in enumerate(chosen)
                            ),
                            conn=conn,
                        )
                    if turn % 4 == 0:
                        locks = []
                        for n, w in enumerate(chosen):
                            row = conn.execute(
                                "SELECT maven_ledger_lock(%s, 'test', %s, 1)", [w, f"{seed}:{turn}:{n}"]
                            ).fetchone()
                            assert row is not None
                            locks.append(row[0])
                        chance.shuffle(locks)
                        with conn.transaction():
                            books.post(
                                *((w, "take", f"{seed}:{turn}:{n}", Decimal(0), Decimal("-0.5"), lock)
                                  for n, (w, lock) in enumerate(conn.execute(
                                      "SELECT wallet_id, id FROM locks WHERE id = ANY (%s) ORDER BY id DESC", [locks]).fetchall())),
                                conn=conn,
                            )  # fmt: skip
                            conn.execute("SELECT maven_ledger_release(%s)", [locks])
                except psycopg.Error as error:
                    failures.append(error)

    finish = [in_thread(lambda seed=seed: work(seed)) for seed in (1, 2)]  # type: ignore[misc]
    for wait in finish:
        wait()
    assert failures == []
    assert books.value("SELECT count(*) FROM ledger_entries WHERE kind = 'move'") == 2 * rounds * 4
    assert wrong(books.conn) == []


def test_two_credits_of_the_same_new_wallets_in_opposite_order(books: Books, database_url: str) -> None:
    def credit(seed: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            for turn in range(150):
                users = list(range(turn * 3, turn * 3 + 6))
                if seed:
                    users.reverse()
                conn.execute(
                    "SELECT count(*) FROM maven_ledger_credit(%s, %s, %s, %s)",
                    [users, [1] * 6, [f"{seed}:{turn}:{user}" for user in users], [1] * 6],
                )

    finish = [in_thread(lambda seed=seed: credit(seed)) for seed in (0, 1)]  # type: ignore[misc]
    for wait in finish:
        wait()
    assert wrong(books.conn) == []


def test_the_same_lock_from_two_connections_is_one_lock(books: Books, database_url: str) -> None:
    wallet = books.deposit(1, "BTC", "100")
    made: list[set[int]] = [set(), set()]

    def lock(which: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as conn:
            for turn in range(100):
                row = conn.execute(
                    "SELECT maven_ledger_lock(%s, 'order', %s, 1)", [wallet, str(turn)]
                ).fetchone()
                assert row is not None
                made[which].add(row[0])

    finish = [in_thread(lambda which=which: lock(which)) for which in (0, 1)]  # type: ignore[misc]
    for wait in finish:
        wait()
    assert made[0] == made[1]
    assert balances(books, wallet) == ("0", "100", 101)
    assert wrong(books.conn) == []


# --------------------------------------------------------------------------------------------------------------- roles


# A role with no rights in this database. The tests' own login may make none, but may become this one.
ROLE = "pg_monitor"


def test_nobody_may_execute_a_function_who_was_not_granted_it(conn: psycopg.Connection) -> None:
    """The functions are listed by the database, so that a new one can't be forgotten."""
    rows = conn.execute(
        "SELECT p.oid::regprocedure::text, has_function_privilege(%s, p.oid, 'EXECUTE'), prosecdef, proconfig::text, prorettype = 'trigger'::regtype"
        "  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = current_schema() AND proname LIKE 'maven%%'",
        [ROLE],
    ).fetchall()
    assert len(rows) > 15
    ours = [row for row in rows if not row[0].startswith("maven_mark_")]
    assert [row[0] for row in ours if row[1]] == []
    for name, _, definer, config, _ in ours:
        if definer:
            assert config is not None, name
            assert "search_path=public, pg_temp" in config, (name, config)
    assert {name.partition("(")[0] for name, _, definer, _, trigger in ours if not definer and not trigger} <= {
        "maven_entry_digest", "maven_adjustment_digest", "maven_event_digest", "maven_cloud_event", "maven_release_rule",
        "maven_base58", "maven_hash_text", "maven_deposit_reference",
    }  # fmt: skip


def test_a_role_with_execute_alone_moves_balances_but_not_by_hand(
    books: Books, conn: psycopg.Connection, database_url: str
) -> None:
    wallet = books.deposit(1, "BTC", "10")
    conn.execute(
        "GRANT EXECUTE ON FUNCTION maven_ledger_post, maven_ledger_lock, maven_ledger_release TO pg_monitor"
    )
    with psycopg.connect(database_url, autocommit=True) as theirs:
        theirs.execute("SET ROLE pg_monitor")
        # A table of the caller's own must not stand in for ours.
        theirs.execute("CREATE TEMP TABLE wallets (id bigint, available numeric)")
        theirs.execute("CREATE TEMP TABLE ledger_state (mode text)")
        theirs.execute("INSERT INTO ledger_state VALUES ('observed')")
        row = theirs.execute("SELECT maven_ledger_lock(%s, 'order', '1', 4)", [wallet]).fetchone()
        assert row is not None
        books.post((wallet, "gift", "1", Decimal(-1), 0, None), conn=theirs)
        with refuses("MVL04"):
            books.post((wallet, "gift", "2", 0, Decimal(1), None), conn=theirs)
        theirs.execute("SELECT maven_ledger_release(%s)", [[row[0]]])
        for statement in (
            "UPDATE public.wallets SET available = 1", "SELECT FROM public.ledger_entries", "DELETE FROM public.locks",
            "SELECT maven_ledger_mode('observed', 'me')", "SELECT maven_ledger_adjust(gen_random_uuid(), 'me')",
            "SELECT maven_ledger_open(NULL, true)", "SELECT count(*) FROM maven_ledger_credit('{1}', '{1}', '{x}', '{1}')",
        ):  # fmt: skip
            with refuses("42501"):
                theirs.execute(statement)
    assert balances(books, wallet) == ("9", "0", 4)
    assert wrong(conn) == []


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM wallets",
        "DELETE FROM locks",
        "UPDATE wallets SET id = id + 100",
        "UPDATE locks SET id = id + 100",
        "INSERT INTO ledger_entries SELECT 999, seq, kind, 'none', 1, 0, 1, 0, NULL, now(), digest FROM ledger_entries LIMIT 1",
        (
            "WITH moved AS (UPDATE wallets SET seq = seq + 1 RETURNING *) INSERT INTO ledger_entries"
            " SELECT id, seq, 'gift', 'g', 0, 1, available, locked, 999, now(), '' FROM moved LIMIT 1"
        ),
    ],
)
@pytest.mark.parametrize("mode", ["enforced", "observed"])
def test_what_has_entries_stays(conn: psycopg.Connection, change: str, mode: str) -> None:
    """As foreign keys would have it: no entry without its wallet and its lock."""
    books = Books(conn)
    books.deposit(1, "BTC", "5")
    books.place(1, "sell", "2", "10")
    conn.execute("DELETE FROM orders")
    conn.execute("SELECT maven_ledger_mode(%s, 'tests')", [mode])
    with refuses("23503"):
        conn.execute(change)
