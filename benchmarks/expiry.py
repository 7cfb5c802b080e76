"""P6, P7 and midnight: ending orders in batches, against one transaction per order; beside a load; and when nothing is due."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from statistics import median, quantiles

import psycopg
from psycopg.types.json import Json

from benchmarks import books
from benchmarks.bench import Bench, Services
from benchmarks.report import PLATFORM, Finding
from benchmarks.timing import in_turns
from maven_cli.db.connection import connect, database_now
from maven_cli.db.locks import work_lock
from maven_cli.events.publish import anything_waits
from maven_cli.ledger import audit
from maven_cli.operations import dead_letters
from maven_cli.orders import due
from maven_cli.passes.expiry import WORKER, expire
from maven_cli.runner import _MONEY, limit_statements

USERS = 5_000
BATCHES = 4  # of 500 orders, per measured step
MIDNIGHT = 50_000
LOOKS = 200  # per measured step
WINDOW = 2.0  # seconds
HOUR = timedelta(hours=1)

# The usual design has the same tables and indexes, without our triggers and digests: they aren't its cost.
_USUAL = """
CREATE SCHEMA usual;
CREATE TABLE usual.orders (LIKE orders INCLUDING ALL);
CREATE TABLE usual.wallets (LIKE wallets INCLUDING ALL);
CREATE TABLE usual.ledger_entries (LIKE ledger_entries INCLUDING ALL);
CREATE TABLE usual.outbox (LIKE outbox INCLUDING ALL);
ALTER TABLE usual.ledger_entries ALTER COLUMN digest DROP NOT NULL;
ALTER TABLE usual.outbox ALTER COLUMN digest DROP NOT NULL;
"""
_SELECT = """
SELECT id FROM usual.orders WHERE status IN ('OPEN', 'PARTIALLY_FILLED') AND expires_at <= %s ORDER BY expires_at, id LIMIT %s
"""
_LOCK_ORDER = """
SELECT user_id, side, price, quantity, filled_quantity, remaining_quantity, lock_id, expires_at FROM usual.orders
 WHERE id = %s AND status IN ('OPEN', 'PARTIALLY_FILLED') FOR UPDATE
"""
_END_ORDER = "UPDATE usual.orders SET status = 'EXPIRED', updated_at = now() WHERE id = %s"
_UNLOCK = """
UPDATE usual.wallets SET available = available + %s, locked = locked - %s, seq = seq + 1
 WHERE user_id = %s AND asset_id = %s RETURNING id, seq, available, locked
"""
_ENTRY = """
INSERT INTO usual.ledger_entries (wallet_id, seq, kind, reference, available_delta, locked_delta, available_after, locked_after,
                                  lock_id)
VALUES (%s, %s, 'unlock', %s, %s, %s, %s, %s, %s)
"""
_EVENTS = """
INSERT INTO usual.outbox (event_id, type, aggregate, event)
VALUES (%s, 'OrderExpiredEvent', %s, %s), (%s, 'BalanceUnlockedEvent', %s, %s)
"""


def expiring(bench: Bench) -> None:
    """P6. Both end orders of the same data, and what is measured is their database work, the commits included."""
    services = bench.database("bench_orders")
    rounds = max(3, bench.rounds)
    each = due.BATCH * BATCHES
    with (
        connect(services.database_url, "benchmark") as conn,
        connect(services.database_url, "benchmark") as usual,
    ):
        start = database_now(conn) - 24 * HOUR
        with bench.telling(f"making {USERS:,} users and {each * (rounds + 1):,} orders"):
            books.add_users(conn, USERS)
            books.add_orders(conn, USERS, each * (rounds + 1), start, timedelta(milliseconds=1))
            _copy(conn)
        assets: dict[str, int] = dict(conn.execute("SELECT symbol, id FROM assets").fetchall())
        # Of the usual design a quarter is enough: its time grows with the orders, one by one.
        samples = in_turns(
            {
                "usual": lambda: _one_by_one(usual, assets, due.BATCH),
                "maven": lambda: _expire(services, conn, BATCHES),
            },
            rounds,
            warm_up=1,
        )
        with bench.telling("checking that both ended as many, and that the books balance"):
            _check(conn, each * (rounds + 1), due.BATCH * (rounds + 1))
    ratios = [one * BATCHES for one in samples.ratios("usual", "maven")]
    rate = each / samples.median("maven")
    bench.report.add(
        Finding(
            "P6",
            "a transaction per order / batches of 500, the same orders",
            median(ratios),
            at_least=20,
            rounds=rounds,
            spread=(min(ratios), max(ratios)),
            detail=f"{rate:,.0f} orders/s against {due.BATCH / samples.median('usual'):,.0f}; {PLATFORM['expiry']}",
        )
    )
    _beside_a_load(bench, services, rate)
    bench.drop("bench_orders")


def idle(bench: Bench) -> None:
    """P7. Ten thousand live orders, none of them due: what the pass asks the database beyond what every pass does."""
    services = bench.database("bench_idle")
    with connect(services.database_url, "benchmark") as conn:
        with bench.telling("making 10,000 live orders"):
            books.add_users(conn, USERS)
            books.add_orders(conn, USERS, 10_000, database_now(conn) + HOUR)

        def repeat(work: Callable[[], object]) -> None:
            for _ in range(LOOKS):
                work()

        def look() -> None:
            assert not due.anything_due(conn, as_of)
            assert not anything_waits(conn)

        as_of = database_now(conn)
        samples = in_turns(
            {
                "select 1": lambda: repeat(lambda: conn.execute("SELECT 1").fetchone()),
                "nothing due": lambda: repeat(look),
            },
            max(7, bench.rounds),
        )
        whole = in_turns({"pass": lambda: expire(services)}, bench.rounds)
    bench.drop("bench_idle")
    ratios = samples.ratios("nothing due", "select 1")
    micros = [(name, samples.median(name) / LOOKS * 1000) for name in samples.seconds]
    bench.report.add(
        Finding(
            "P7",
            "nothing is due, 10,000 live orders: orders and events looked for / select 1",
            samples.ratio("nothing due", "select 1"),
            at_most=5,
            rounds=samples.rounds,
            spread=(min(ratios), max(ratios)),
            detail="; ".join(f"{name} {value * 1000:,.0f} µs" for name, value in micros)
            + f"; the whole pass, connections, lock and record included {whole.median('pass') * 1000:,.0f} ms",
        )
    )


def midnight(bench: Bench) -> None:
    """50,000 orders that end in the same instant: the real pass, again and again, as the schedule would run it."""
    services = bench.database("bench_midnight")
    defaults = bench.settings.model_copy(
        update={"statement_timeout": type(bench.settings).model_fields["statement_timeout"].default}
    )
    services = Services(services.database_url, services.redis_url, defaults)
    with connect(services.database_url, "benchmark") as conn:
        with bench.telling(f"making {USERS:,} users and {MIDNIGHT:,} orders that end at once"):
            books.add_users(conn, USERS)
            books.add_orders(conn, USERS, MIDNIGHT, database_now(conn) - timedelta(seconds=1))
        expired: list[int] = []
        began = time.perf_counter()
        while sum(expired) < MIDNIGHT:
            outcome = expire(services)
            assert outcome.data is not None
            assert not outcome.errors
            expired.append(outcome.data["expired"])
        seconds = time.perf_counter() - began
        with bench.telling("checking that the books balance"):
            _check(conn, MIDNIGHT, None)
        row = conn.execute("SELECT count(*), count(delivered_at) FROM outbox").fetchone()
        assert row is not None
    bench.drop("bench_midnight")
    bench.report.add(
        Finding(
            "P6",
            f"{MIDNIGHT:,} orders that end at once, the whole pass with its events into Redis",
            MIDNIGHT / seconds,
            unit="orders/s",
            rounds=len(expired),
            detail=f"{seconds:.1f} s in {len(expired)} passes of at most {defaults.expiry_budget.total_seconds():.0f} s "
            f"({', '.join(f'{count:,}' for count in expired)}); {row[1]:,} of {row[0]:,} events delivered meanwhile",
        )
    )


# ------------------------------------------------------------------------------------------------- what is compared


def _expire(services: Services, conn: psycopg.Connection, batches: int) -> int:
    """The transactions of the expiry pass without an engine; how many orders ended."""
    as_of, after, ended = database_now(conn), due.BEGINNING, 0
    for _ in range(batches):
        orders = due.due_orders(conn, as_of, after)
        if not orders:
            break
        after = (orders[-1].expires_at, orders[-1].id)
        with conn.transaction():
            limit_statements(conn, services.settings)
            conn.execute(_MONEY)
            work_lock(conn, due.WORK_KEY, timeout_ms=0)
            done = due.expire(conn, as_of, [(o.id, o.remaining, o.changed_at) for o in orders], formula=True)
            if done:
                dead_letters.resolve(conn, WORKER.name, [f"order:{one.id}" for one in done])
        ended += len(done)
    return ended


def _copy(conn: psycopg.Connection) -> None:
    """The usual design's tables, with the same rows."""
    conn.execute(_USUAL)
    for table in ("orders", "wallets", "ledger_entries", "outbox"):
        columns = conn.execute(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND attgenerated = '' AND NOT attisdropped",
            [table],
        ).fetchone()
        assert columns is not None
        conn.execute(
            f"INSERT INTO usual.{table} ({columns[0]}) OVERRIDING SYSTEM VALUE SELECT {columns[0]} FROM {table}"
        )
    conn.execute("VACUUM (FREEZE, ANALYZE)")


def _one_by_one(conn: psycopg.Connection, assets: dict[str, int], count: int) -> None:
    """The usual design: look for what is due, then a transaction for each, its statements prepared once."""
    as_of = database_now(conn)
    found = conn.execute(_SELECT, [as_of, count], prepare=True).fetchall()
    assert len(found) == count
    for (order,) in found:
        with conn.transaction():
            row = conn.execute(_LOCK_ORDER, [order], prepare=True).fetchone()
            if row is None:
                continue
            user, side, price, quantity, filled, remaining, lock, expires_at = row
            amount = remaining if side == "sell" else remaining * price
            asset = "BTC" if side == "sell" else "USDT"
            conn.execute(_END_ORDER, [order], prepare=True)
            wallet = conn.execute(_UNLOCK, [amount, amount, user, assets[asset]], prepare=True).fetchone()
            assert wallet is not None
            reference = f"lock:{lock}"
            conn.execute(
                _ENTRY,
                [wallet[0], wallet[1], reference, amount, -amount, wallet[2], wallet[3], lock],
                prepare=True,
            )
            names = [f"OrderExpiredEvent:{order}", f"order:{order}", f"BalanceUnlockedEvent:{reference}"]
            expired = {
                "orderId": str(order), "userId": str(user), "pair": books.PAIR, "side": side, "type": "limit",
                "price": str(price), "quantity": str(quantity), "remainingQuantity": str(remaining),
                "filledQuantity": str(filled), "expiresAt": expires_at.isoformat(), "expiredAt": as_of.isoformat(),
                "lockId": str(lock), "asset": asset, "released": str(amount),
            }  # fmt: skip
            unlocked = {
                "walletId": str(wallet[0]), "userId": str(user), "asset": asset, "amount": str(amount),
                "available": str(wallet[2]), "locked": str(wallet[3]), "sequence": str(wallet[1]), "lockId": str(lock),
                "orderIds": [str(order)], "reason": "ORDER_EXPIRED",
            }  # fmt: skip
            conn.execute(
                _EVENTS,
                [
                    *names[:2],
                    Json(books.cloud_event(names[0], names[1], as_of, expired)),
                    names[2],
                    f"wallet:{wallet[0]}",
                    Json(books.cloud_event(names[2], f"wallet:{wallet[0]}", as_of, unlocked)),
                ],
                prepare=True,
            )


def _check(conn: psycopg.Connection, ended: int, usual: int | None) -> None:
    """Both sides ended what they were to end; ours has its entries and events, and its books balance."""
    count = "SELECT count(*) FROM {} WHERE status = 'EXPIRED'"
    assert conn.execute(count.format("orders")).fetchone() == (ended,)
    if usual is not None:
        assert conn.execute(count.format("usual.orders")).fetchone() == (usual,)
        assert conn.execute("SELECT count(*) FROM usual.outbox").fetchone() == (2 * usual,)
    assert conn.execute("SELECT count(*) FROM outbox").fetchone() == (2 * ended,)
    with conn.transaction():
        wrong = [(check.name, check.rows) for check in audit.checks(conn, full=True, listed=3) if check.wrong]
    assert not wrong, wrong


# --------------------------------------------------------------------------------------------------------- the load


@dataclass(frozen=True)
class Latencies:
    """Of one window of the load, in milliseconds."""

    median: float
    percentile: float
    largest: float
    count: int

    @classmethod
    def of(cls, milliseconds: Sequence[float]) -> Latencies:
        return cls(
            median(milliseconds), quantiles(milliseconds, n=100)[98], max(milliseconds), len(milliseconds)
        )


class Load:
    """The load's process, which goes on until it is closed."""

    def __init__(self, services: Services) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.load", services.database_url, str(USERS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def window(self, work: Callable[[], object]) -> Latencies:
        """How long the transfers took that ended while `work` ran."""
        self._ask()
        work()
        return Latencies.of(self._ask())

    def close(self) -> None:
        self._process.terminate()
        self._process.communicate()

    def _ask(self) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        taken: list[float] = json.loads(self._process.stdout.readline())
        return taken


def _beside_a_load(bench: Bench, services: Services, rate: float) -> None:
    """P6's second half: windows with and without the expiry running, in turns; the load never stops in between."""
    rounds = max(5, bench.rounds)
    calm: list[Latencies] = []
    busy: list[Latencies] = []
    with connect(services.database_url, "benchmark") as conn:
        row = conn.execute("SELECT count(*) FROM orders").fetchone()
        assert row is not None
        # A machine that is quieter by now expires faster.
        more = round(2 * rate * WINDOW * (rounds + 1)) + due.BATCH
        with bench.telling(f"making {more:,} more orders"):
            begin = database_now(conn) - 24 * HOUR
            books.add_orders(conn, USERS, more, begin, timedelta(milliseconds=1), start=row[0])
        ended = 0

        def expire_on() -> None:
            nonlocal ended
            until = time.monotonic() + WINDOW
            while time.monotonic() < until:
                done = _expire(services, conn, 1)
                assert done, "more orders are needed"
                ended += done

        with closing(Load(services)) as load:
            load.window(lambda: time.sleep(1))
            for number in range(rounds + 1):
                without, beside = load.window(lambda: time.sleep(WINDOW)), load.window(expire_on)
                if number:  # the first round only warms up
                    calm.append(without)
                    busy.append(beside)
    ratios = [beside.largest / without.largest for beside, without in zip(busy, calm, strict=True)]
    for_scale = "; ".join(
        f"{name} {median(one.median for one in windows):.1f} / {median(one.percentile for one in windows):.1f} / "
        f"{median(one.largest for one in windows):.1f} ms, of all {max(one.largest for one in windows):.1f}"
        for name, windows in (("without", calm), ("with", busy))
    )
    bench.report.add(
        Finding(
            "P6",
            "longest transfer on the same wallets, while orders expire / while they don't",
            median(ratios),
            at_most=1.5,
            rounds=rounds,
            spread=(min(ratios), max(ratios)),
            detail=f"median / 99 % / longest {for_scale}; {ended / (rounds + 1) / WINDOW:,.0f} orders/s meanwhile",
        )
    )
