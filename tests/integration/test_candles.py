"""The candle passes, case by case (C01 to C21 of the test matrix), against real PostgreSQL and Redis."""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import redis

from maven_cli.db.locks import pass_lock, work_lock
from maven_cli.errors import RedisDownError, TryLaterError
from maven_cli.intervals import INTERVALS
from maven_cli.market import candles
from maven_cli.passes import candles as candle_pass
from maven_cli.passes.backfill import backfill
from maven_cli.runner import Outcome, Pass
from tests import candle_oracle as oracle
from tests.conftest import TestServices
from tests.support import Cli, Market, utc

DAY = utc("2024-05-14T00:00:00")  # a Tuesday
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
FULL = os.environ.get("MAVEN_TEST_FULL") == "1"


def gen(
    services: TestServices, interval: str = "1m", as_of: datetime | None = None, **options: Any
) -> Outcome:
    return candle_pass.generate(services, INTERVALS[interval], as_of=as_of, **options)


def changes(outcome: Outcome) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    assert outcome.data is not None
    return outcome.data["inserted"], outcome.data["changed"], outcome.data["removed"]


def right(market: Market) -> None:
    assert oracle.wrong(market.conn) == []


def cached(cache: redis.Redis, market: Market, interval: str, pair: str = "BTC/USDT") -> list[dict[str, Any]]:
    text = cache.get(f"candles:{interval}:{market.pair(pair).id}")
    found: list[dict[str, Any]] = json.loads(str(text))["candles"] if text else []
    return found


def until(condition: Callable[[], object], what: str) -> None:
    """Waits until it holds; a loaded machine has time."""
    for _ in range(1500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"waited in vain for: {what}")


def waiting(conn: psycopg.Connection, kind: str = "%") -> int:
    """How many sessions of this database wait for a lock."""
    row = conn.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        " AND wait_event ILIKE %s",
        [kind],
    ).fetchone()
    assert row is not None
    return int(row[0])


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    """Exit code and messages of a process that is about to end."""
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


def starts(market: Market, interval: str, pair: str = "BTC/USDT") -> list[datetime]:
    return [row["start_at"] for row in market.candles(interval, pair)]


# --- windows ------------------------------------------------------------------------------------------------------


def test_C01_a_window_starts_with_its_first_microsecond(market: Market, services: TestServices) -> None:
    market.trade(DAY - timedelta(microseconds=1), "10")
    market.trade(DAY, "20")
    gen(services, as_of=DAY + timedelta(days=1))
    assert [(row["start_at"], row["open"]) for row in market.candles("1d")] == [
        (DAY - timedelta(days=1), 10),
        (DAY, 20),
    ]
    assert starts(market, "1m") == [DAY - MINUTE, DAY]
    right(market)


def test_C02_a_week_starts_on_monday(market: Market, services: TestServices) -> None:
    monday = DAY - timedelta(days=1)
    market.trade(monday - timedelta(seconds=1), "1")
    market.trade(monday, "2")
    gen(services, "1w", as_of=monday + timedelta(days=7))
    assert [(row["start_at"], row["close"]) for row in market.candles("1w")] == [
        (monday - timedelta(days=7), 1),
        (monday, 2),
    ]


def test_C03_months_end_when_the_calendar_says(market: Market, services: TestServices) -> None:
    moments = [
        "2024-01-31T23:59:59.999999",
        "2024-02-01T00:00:00",
        "2024-02-29T12:00:00",
        "2024-03-01T00:00:00",
    ]
    for moment in moments:
        market.trade(utc(moment))
    gen(services, as_of=utc("2024-04-01T00:00:00"))
    assert [(row["start_at"], row["trade_count"]) for row in market.candles("1M")] == [
        (utc("2024-01-01T00:00:00"), 1),
        (utc("2024-02-01T00:00:00"), 2),
        (utc("2024-03-01T00:00:00"), 1),
    ]
    # 31 January and 1 February are one week, as are 29 February and 1 March.
    assert [(row["start_at"], row["trade_count"]) for row in market.candles("1w")] == [
        (utc("2024-01-29T00:00:00"), 2),
        (utc("2024-02-26T00:00:00"), 2),
    ]
    right(market)


def test_C08_nothing_before_the_first_trade(
    market: Market, services: TestServices, cache: redis.Redis
) -> None:
    market.pair("NEW/USDT")
    market.trade(DAY + HOUR)
    gen(services, as_of=DAY + HOUR)
    assert oracle.stored(market.conn) == {}
    gen(services, as_of=DAY + HOUR + MINUTE)
    assert starts(market, "1m") == [DAY + HOUR]
    # The window before the first trade isn't made up in Redis either.
    assert [item["openTime"] for item in cached(cache, market, "1h")] == ["2024-05-14T01:00:00Z"]
    assert cached(cache, market, "1m", "NEW/USDT") == []


def test_C09_volumes_add_up_to_the_last_digit(market: Market, services: TestServices) -> None:
    total = quote = Decimal(0)
    with oracle_precision():
        for number in range(200):
            price, quantity = (
                Decimal("1e-18") * (number + 1),
                Decimal("999999999999999999.999999999999999999"),
            )
            total, quote = total + quantity, quote + price * quantity
            market.trade(DAY + number * timedelta(minutes=7), price, quantity)
        gen(services, as_of=DAY + timedelta(days=1))
        for interval in ("1m", "5m", "1h", "1d"):
            rows = market.candles(interval)
            assert sum(row["base_volume"] for row in rows) == total
            assert sum(row["quote_volume"] for row in rows) == quote
            assert sum(row["trade_count"] for row in rows) == 200
    right(market)


def oracle_precision() -> Any:
    from decimal import localcontext

    return localcontext(prec=200)


def test_C14_a_quiet_window_repeats_the_last_close(
    market: Market, services: TestServices, cache: redis.Redis
) -> None:
    services.settings = services.settings.model_copy(update={"candle_keep": 4})
    market.trade(DAY, "7", "2")
    market.trade(DAY + 2 * MINUTE, "9")
    gen(services, as_of=DAY + 3 * MINUTE)
    first, quiet, second, running = cached(cache, market, "1m")
    assert (first["close"], second["close"]) == ("7", "9")
    assert quiet == {
        "openTime": "2024-05-14T00:01:00Z", "open": "7", "high": "7", "low": "7", "close": "7", "volume": "0",
        "quoteVolume": "0", "tradeCount": 0, "firstTradeId": None, "lastTradeId": None, "revision": 0,
        "closed": True, "empty": True,
    }  # fmt: skip
    assert (running["open"], running["closed"], running["empty"]) == ("9", False, True)
    assert starts(market, "1m") == [DAY, DAY + 2 * MINUTE]  # no row for it


def test_C16_wrong_usage_names_what_is_right(market: Market, cli: Cli) -> None:
    market.pair("BTC/USDT")
    unknown = cli("candles", "gen", "-i", "2h")
    assert unknown.code == 2
    assert "1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w, 1M" in unknown.err
    pair = cli("candles", "gen", "-i", "1m", "--pair", "BTC/USD")
    assert pair.code == 2
    assert "BTC/USDT" in pair.err
    negative = cli("candles", "show", "BTC/USDT", "-i", "1m", "--limit", "-3")
    assert negative.code == 2
    assert "greater than or equal to 1" in negative.err
    future = cli("candles", "gen", "-i", "1m", "--as-of", "2199-01-01")
    assert future.code == 2
    assert "future" in future.err


# --- catching up, reruns, kills ----------------------------------------------------------------------------------


def test_C04_three_hours_down_are_caught_up_in_bounded_steps(
    market: Market, services: TestServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.trade(DAY)
    gen(services, as_of=DAY + MINUTE)
    for minutes in range(1, 180, 4):
        market.trade(DAY + minutes * MINUTE, Decimal(minutes))
    services.settings = services.settings.model_copy(update={"candle_chunk": timedelta(minutes=30)})
    ends: list[datetime] = []
    real = candles.close

    def close(conn: psycopg.Connection, *args: Any) -> candles.Changes:
        found = real(conn, *args)
        (end,) = oracle.closed_until(conn).values()
        ends.append(end)
        return found

    monkeypatch.setattr(candles, "close", close)
    with monkeypatch.context() as patch:
        # The budget is spent after two transactions.
        patch.setattr(Pass, "elapsed", lambda _: timedelta(days=len(ends) >= 2))
        gen(services, as_of=DAY + 3 * HOUR)
    assert len(ends) == 2
    right(market)
    gen(services, as_of=DAY + 3 * HOUR)
    assert ends == sorted(set(ends))  # oldest first, none twice
    assert ends[-1] == DAY + 3 * HOUR
    assert all(b - a <= timedelta(minutes=34) for a, b in itertools.pairwise(ends))
    right(market)
    assert len(starts(market, "1h")) == 3


def test_C05_killed_between_commit_and_cache_write(
    market: Market, services: TestServices, cache: redis.Redis, cli: Cli
) -> None:
    """A real process, SIGKILLed while it waits for a Redis that accepts and never answers."""
    market.trade(DAY, "5")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        process = cli.start(
            "candles", "gen", "-i", "1m", "--as-of", "2024-05-14T00:01", env={"MAVEN_REDIS_URL": url}
        )
        until(lambda: starts(market, "1m"), "the candle")
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    assert cached(cache, market, "1m") == []
    assert changes(gen(services, as_of=DAY + MINUTE)) == ({}, {}, {})
    assert [item["close"] for item in cached(cache, market, "1m")] == ["5", "5"]
    assert {name for name in oracle.NAMES if cached(cache, market, name)} == set(oracle.NAMES)


def test_C05_redis_down_ends_with_69_after_the_commit(market: Market, services: TestServices) -> None:
    market.trade(DAY)
    with pytest.raises(RedisDownError):
        gen(replace(services, redis_url="redis://127.0.0.1:1/0"), as_of=DAY + MINUTE)
    assert starts(market, "1m") == [DAY]


def test_a_process_killed_in_the_middle_of_its_work_leaves_nothing_half_done(
    market: Market, services: TestServices, cli: Cli
) -> None:
    """C04, C05: SIGKILL while the hour's statement waits for a row; the minutes written before it are undone."""
    for minutes in range(0, 90, 3):
        market.trade(DAY + minutes * MINUTE)
    with psycopg.connect(services.database_url) as blocker:
        _candle(blocker, market.pair().id, "1h", DAY)
        process = cli.start("candles", "gen", "-i", "1m", "--as-of", "2024-05-14T02:00")
        until(lambda: waiting(market.conn), "the pass to wait for the row")
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
        blocker.rollback()
    until(lambda: not waiting(market.conn), "the server to notice")
    assert oracle.stored(market.conn) == {}
    gen(services, as_of=DAY + 2 * HOUR)
    assert len(starts(market, "1h")) == 2
    right(market)


def _candle(conn: psycopg.Connection, pair: int, interval: str, start: datetime) -> None:
    conn.execute(
        "INSERT INTO candles (trading_pair_id, interval, start_at, open, high, low, close, base_volume, quote_volume,"
        " trade_count, first_trade_id, last_trade_id) VALUES (%s, %s, %s, 1, 1, 1, 1, 1, 1, 1, 1, 1)",
        [pair, interval, start],
    )


def test_C06_a_rerun_changes_no_row(market: Market, services: TestServices) -> None:
    for hours in range(0, 800, 5):
        market.trade(DAY + hours * HOUR)
    end = DAY + timedelta(days=40)
    gen(services, as_of=end)
    before = oracle.stored(market.conn)
    for interval in oracle.NAMES:
        assert changes(gen(services, interval, as_of=end)) == ({}, {}, {})
    # Not even when all of it is recomputed: a late trade that is gone again, everything marked, the same range again.
    with market.conn.transaction():
        number = market.trade(DAY)
        market.conn.execute("DELETE FROM trades WHERE id = %s", [number])
    candles.add_mark(market.conn, market.pair().id, DAY, end)
    assert changes(gen(services, as_of=end)) == ({}, {}, {})
    assert oracle.stored(market.conn) == before
    assert {row.revision for row in before.values()} == {0}


def test_C07_a_late_trade_corrects_all_nine_intervals(
    market: Market, services: TestServices, cache: redis.Redis
) -> None:
    market.trade(utc("2024-04-30T23:58:10"), "10")
    end = utc("2024-05-06T00:00:30")  # both its month and its week are over
    gen(services, as_of=end)
    market.trade(utc("2024-04-30T23:58:50"), "99", "3")
    inserted, changed, removed = changes(gen(services, as_of=end))
    assert (inserted, changed, removed) == ({}, dict.fromkeys(oracle.NAMES, 1), {})
    for interval in oracle.NAMES:
        (row,) = market.candles(interval)
        assert (row["high"], row["close"], row["trade_count"], row["revision"]) == (99, 99, 2, 1)
    assert [item["close"] for item in cached(cache, market, "1w")] == ["99", "99"]
    assert [(item["revision"], item["high"]) for item in cached(cache, market, "1M")] == [
        (1, "99"),
        (0, "99"),
    ]
    right(market)


def test_C11_what_a_deleted_trade_leaves(market: Market, services: TestServices) -> None:
    market.trade(DAY, "5")
    only = market.trade(DAY + 10 * MINUTE, "8")
    gen(services, as_of=DAY + timedelta(days=1))
    market.conn.execute("DELETE FROM trades WHERE id = %s", [only])
    inserted, changed, removed = changes(gen(services, as_of=DAY + timedelta(days=1)))
    assert (inserted, removed) == ({}, {"1m": 1, "5m": 1})
    assert changed == dict.fromkeys(("15m", "30m", "1h", "4h", "1d"), 1)
    assert starts(market, "1m") == [DAY]
    assert market.candles("1d")[0]["high"] == 5
    right(market)
    market.conn.execute("DELETE FROM trades")
    gen(services, as_of=DAY + timedelta(days=1))
    assert oracle.stored(market.conn) == {}


@pytest.mark.parametrize("column", ["price", "quantity", "executed_at", "trading_pair_id"])
def test_C11_a_changed_trade_is_followed(market: Market, services: TestServices, column: str) -> None:
    market.trade(DAY, "5")
    other = market.trade(DAY + 10 * MINUTE, "8")
    end = DAY + timedelta(days=1)
    gen(services, as_of=end)
    value: Any = {"executed_at": DAY + 3 * HOUR, "trading_pair_id": market.pair("ETH/USDT").id}.get(
        column, 77
    )
    market.conn.execute(f"UPDATE trades SET {column} = %s WHERE id = %s", [value, other])
    gen(services, as_of=end)
    right(market)
    # A pair that never traded before has candles from its moved trade on.
    assert starts(market, "1h", "ETH/USDT") == ([DAY] if column == "trading_pair_id" else [])
    assert market.conn.execute("SELECT count(*) FROM candle_marks").fetchone() == (0,)


def test_C11_truncated_trades_leave_no_candles(
    market: Market, services: TestServices, cache: redis.Redis
) -> None:
    market.trade(DAY)
    gen(services, as_of=DAY + 3 * HOUR)
    assert cached(cache, market, "1h")
    market.conn.execute("TRUNCATE trades")
    gen(services, as_of=DAY + 3 * HOUR)
    assert oracle.stored(market.conn) == {}
    assert {name for name in oracle.NAMES if cached(cache, market, name)} == set()


def test_C12_an_earlier_as_of_reopens_nothing(
    market: Market, services: TestServices, cache: redis.Redis
) -> None:
    for minutes in range(0, 60, 5):
        market.trade(DAY + minutes * MINUTE, Decimal(minutes + 1))
    gen(services, as_of=DAY + HOUR)
    before, shown = oracle.stored(market.conn), cached(cache, market, "1m")
    for interval in ("1m", "1h"):
        assert changes(gen(services, interval, as_of=DAY + 20 * MINUTE)) == ({}, {}, {})
    assert oracle.stored(market.conn) == before
    assert oracle.closed_until(market.conn) == {market.pair().id: DAY + HOUR}
    assert cached(cache, market, "1m") == shown


# --- passes beside each other -------------------------------------------------------------------------------------


def test_C10_a_held_hour_lock_stops_nobody_else(market: Market, services: TestServices, cli: Cli) -> None:
    market.trade(DAY)
    with pass_lock(services.lock_url, "candles:1h"):
        held = cli("candles", "gen", "-i", "1h", "--as-of", "2024-05-14T02:00")
        assert held.code == 75
        assert "Previous run still running, skipping..." in held.err
        assert gen(services, "5m", as_of=DAY + 5 * MINUTE).status == "success"
        assert starts(market, "5m") == [DAY]
        assert gen(services, "1m", as_of=DAY + 2 * HOUR).status == "success"
        assert starts(market, "1h") == [DAY]
    right(market)


def test_C15_1m_and_1h_start_in_the_same_second(market: Market, services: TestServices, cli: Cli) -> None:
    """Two real processes, both held at the work lock until both are there."""
    for minutes in range(60):
        market.trade(DAY + minutes * MINUTE, Decimal(minutes + 1))
    with psycopg.connect(services.database_url) as gate:
        work_lock(gate, candles.WRITE_KEY)
        both = [
            cli.start("candles", "gen", "-i", name, "--as-of", "2024-05-14T01:00") for name in ("1m", "1h")
        ]
        until(lambda: waiting(market.conn, "advisory") == 2, "both passes to wait")
        gate.rollback()
        assert [ended(process)[0] for process in both] == [0, 0]
    (hour,) = market.candles("1h")
    assert (hour["open"], hour["close"], hour["trade_count"], hour["revision"]) == (1, 60, 60, 0)
    right(market)


def test_C15_a_database_whose_default_is_repeatable_read(market: Market, services: TestServices) -> None:
    """A pass that waited for the lock sees what was committed meanwhile, whatever the database's default isolation."""
    market.trade(DAY)
    gen(services, as_of=DAY + MINUTE)
    market.conn.execute(
        f"ALTER DATABASE {market.conn.info.dbname} SET default_transaction_isolation = 'repeatable read'"
    )
    found: list[Outcome] = []
    with psycopg.connect(services.database_url) as gate:
        gate.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        work_lock(gate, candles.WRITE_KEY)
        thread = threading.Thread(target=lambda: found.append(gen(services, as_of=DAY + HOUR)))
        thread.start()
        until(lambda: waiting(market.conn, "advisory"), "the pass to wait")
        market.trade(DAY + 10 * MINUTE)
        candles.ingest(gate, DAY + HOUR)
        gate.commit()
    thread.join()
    assert [outcome.status for outcome in found] == ["success"]
    right(market)


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read"])
def test_C17_a_transaction_commits_after_its_window_was_closed(
    market: Market, services: TestServices, cache: redis.Redis, isolation: str
) -> None:
    market.trade(DAY + timedelta(seconds=1), "10")
    with psycopg.connect(services.database_url, autocommit=True) as late:
        late.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        market.trade(DAY, "3", conn=late)
        market.trade(DAY + timedelta(seconds=2), "30", conn=late)
        for minutes in (1, 30, 90):
            market.trade(DAY + minutes * MINUTE, "11")
            gen(services, as_of=DAY + 2 * HOUR + minutes * MINUTE)
        right(market)
        assert market.candles("1h")[0]["trade_count"] == 3
        late.execute("COMMIT")
    gen(services, as_of=DAY + 4 * HOUR)
    right(market)
    # The trade of minute 30 was late for its window, too.
    assert [row["revision"] for row in market.candles("1h")] == [2, 0]
    assert market.candles("1m")[0]["open"] == 3
    assert market.candles("4h")[0]["trade_count"] == 6


def test_C17_prepared_long_before_its_pair_is_known(market: Market, services: TestServices) -> None:
    """The pair's first trade commits last: its candles reach back to it."""
    with psycopg.connect(services.database_url) as late:
        market.trade(DAY - timedelta(days=40), "3", pair="LATE/USDT", conn=late)
        market.trade(DAY, "4", pair="LATE/USDT")
        gen(services, as_of=DAY + HOUR)
        assert starts(market, "1d", "LATE/USDT") == []
        late.commit()
    gen(services, as_of=DAY + HOUR)
    assert starts(market, "1d", "LATE/USDT") == [DAY - timedelta(days=40)]
    assert starts(market, "1M", "LATE/USDT") == [utc("2024-04-01T00:00:00")]
    right(market)


def test_C20_marks_and_new_trades_race_on_the_same_buckets(
    market: Market, services: TestServices, database_url: str
) -> None:
    pair = market.pair().id
    market.trade(DAY)
    done = threading.Event()
    problems: list[BaseException] = []

    def write() -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as conn:
                for number in range(100, 400):
                    at = DAY + (number * 7 % 25) * 30 * timedelta(seconds=1)
                    with conn.transaction():
                        conn.execute(
                            "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity)"
                            " VALUES (%s, %s, %s, %s, 1)",
                            [pair, number, at, number],
                        )
                    if number % 3 == 0:
                        conn.execute("DELETE FROM trades WHERE id = %s", [number - 2])
                    if number % 5 == 0:
                        conn.execute("UPDATE trades SET price = price + 1 WHERE id = %s", [number - 1])
        except BaseException as error:  # noqa: BLE001 the main thread raises it
            problems.append(error)
        finally:
            done.set()

    def backfills() -> None:
        try:
            while not done.is_set():
                backfill(services, start=DAY, jobs=2)
        except BaseException as error:  # noqa: BLE001
            problems.append(error)

    threads = [threading.Thread(target=write), threading.Thread(target=backfills)]
    for thread in threads:
        thread.start()
    while not done.is_set():
        gen(services)
    for thread in threads:
        thread.join()
    assert problems == []
    gen(services)
    right(market)
    assert market.conn.execute("SELECT count(*) FROM candle_marks").fetchone() == (0,)


def test_C21_the_month_is_closed_by_the_next_1m_pass(
    market: Market, services: TestServices, cli: Cli
) -> None:
    market.trade(DAY)
    gen(services, as_of=utc("2024-05-31T23:59:00"))
    assert starts(market, "1M") == []
    first = "2024-06-01T00:00"
    failed = cli(
        "candles",
        "gen",
        "-i",
        "1M",
        "--as-of",
        first,
        env={"MAVEN_DATABASE_URL": "postgresql://127.0.0.1:1/x"},
    )
    assert failed.code == 69
    assert starts(market, "1M") == []
    gen(services, as_of=utc("2024-06-01T00:01:00"))
    assert starts(market, "1M") == [utc("2024-05-01T00:00:00")]
    right(market)


def test_a_longer_pass_does_the_work_of_the_1m_pass_that_is_not_there(
    market: Market, services: TestServices, cache: redis.Redis
) -> None:
    for minutes in range(0, 200, 7):
        market.trade(DAY + minutes * MINUTE)
    gen(services, "1h", as_of=DAY + 3 * HOUR + 20 * MINUTE)
    assert oracle.closed_until(market.conn) == {market.pair().id: DAY + 3 * HOUR}
    right(market)
    assert len(cached(cache, market, "1h")) == 2
    assert cached(cache, market, "1m") == []  # the 1m pass writes those


# --- long histories -----------------------------------------------------------------------------------------------


def _daily(market: Market, pairs: int, days: int) -> None:
    """One trade a day and pair, the last one yesterday."""
    market.conn.execute("TRUNCATE trades, candles, candle_progress, candle_marks, ingest_state")
    first = market.now().replace(hour=13, minute=7, second=5) - timedelta(days=days)
    ids = [market.pair(f"P{number}/USDT").id for number in range(pairs)]
    market.conn.execute(
        "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity)"
        " SELECT p, d, %s + d * interval '24 hours' + p * interval '61 seconds', 1 + (d * 7919 %% 1000), 0.5"
        "  FROM unnest(%s::bigint[]) p, generate_series(0, %s - 1) d",
        [first, ids, days],
    )


def _peak(cli: Cli, *args: str) -> int:
    """Runs a command and returns its peak memory in KiB."""
    process = cli.start(*args)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.communicate()[1] is not None
    assert process.returncode == 0
    return usage.ru_maxrss


def test_C13_memory_does_not_grow_with_the_history(market: Market, cli: Cli) -> None:
    pairs = 100 if FULL else 5
    _daily(market, pairs, 182)
    short = _peak(cli, "candles", "backfill", "--jobs", "1")
    _daily(market, pairs, 5 * 365)
    long = _peak(cli, "candles", "backfill", "--jobs", "1")
    assert long <= 1.2 * short, f"{long} KiB for five years, {short} for half a year"
    assert market.conn.execute("SELECT count(*) FROM candles WHERE interval = '1d'").fetchone() == (
        pairs * 5 * 365,
    )
    if not FULL:
        right(market)


def test_C13_backfill_goes_on_after_ctrl_c(market: Market, services: TestServices, cli: Cli) -> None:
    _daily(market, 3, 400)
    pair, at = market.pair("P1/USDT").id, market.now() - timedelta(days=30)
    with psycopg.connect(services.database_url) as blocker:
        trade = blocker.execute(
            "SELECT date_trunc('minute', min(executed_at)) FROM trades WHERE trading_pair_id = %s AND executed_at > %s",
            [pair, at],
        ).fetchone()
        assert trade is not None
        _candle(blocker, pair, "1m", trade[0])
        process = cli.start("candles", "backfill", "--jobs", "1")
        until(lambda: waiting(market.conn), "the backfill to reach the last month")
        process.send_signal(signal.SIGINT)
        code, err = ended(process)
        blocker.rollback()
    assert code == 130, err
    assert "goes on from here" in err
    reached = oracle.closed_until(market.conn)
    assert min(reached.values()) > market.now() - timedelta(days=300)
    assert max(reached.values()) < market.now() - timedelta(days=10)
    right(market)
    kept = oracle.stored(market.conn)
    assert cli("candles", "backfill").code == 0
    right(market)
    after = oracle.stored(market.conn)
    assert {key: after[key] for key in kept} == kept  # nothing is done twice
    assert min(oracle.closed_until(market.conn).values()) > market.now() - timedelta(minutes=10)


# --- restore, retention -------------------------------------------------------------------------------------------


def _marks_made(market: Market) -> int:
    row = market.conn.execute("SELECT last_value, is_called FROM candle_marks_id_seq").fetchone()
    assert row is not None
    return int(row[0]) if row[1] else 0


@pytest.mark.parametrize(
    "moved",
    [
        "UPDATE ingest_state SET system_identifier = system_identifier - 1",
        "UPDATE ingest_state SET snapshot = '99999999990:99999999999:99999999995'",
    ],
)
def test_C18_in_another_cluster_everything_is_marked_once(
    market: Market, services: TestServices, moved: str
) -> None:
    end = DAY + timedelta(days=40)
    for days in range(0, 39, 3):
        market.trade(DAY + days * timedelta(days=1), Decimal(days + 1))
    market.trade(DAY, pair="ETH/USDT")
    gen(services, as_of=end)
    # As after a restore: rows with foreign ids, and trades that no trigger and no id tells of.
    market.conn.execute("ALTER TABLE trades DISABLE TRIGGER USER")
    market.conn.execute("UPDATE trades SET xid = '77777777777' WHERE id % 2 = 0")
    market.conn.execute("UPDATE trades SET price = price * 2 WHERE id % 3 = 0")
    market.conn.execute("DELETE FROM trades WHERE id % 4 = 0")
    market.trade(DAY + timedelta(days=4), "1000", pair="BTC/USDT")
    market.trade(DAY + timedelta(days=5), "1000", pair="SOL/USDT")
    market.conn.execute("UPDATE trades SET xid = '66666666666' WHERE price = 1000")
    market.conn.execute("ALTER TABLE trades ENABLE TRIGGER USER")
    market.conn.execute(moved)
    gen(services, as_of=end)
    right(market)
    assert starts(market, "1d", "SOL/USDT") == [DAY + timedelta(days=5)]
    made = _marks_made(market)
    for minutes in range(3):
        assert changes(gen(services, as_of=end + minutes * MINUTE)) == ({}, {}, {})
    assert _marks_made(market) == made
    # New trades are found as ever.
    market.trade(DAY + timedelta(days=1), "500")
    gen(services, as_of=end + HOUR)
    right(market)
    assert _marks_made(market) == made + 1


def test_C18_ids_of_another_cluster_are_reached_one_day(market: Market, services: TestServices) -> None:
    """Foreign ids just above this cluster's: when it gets there, they are marked once, and not at every pass."""
    market.trade(DAY)
    gen(services, as_of=DAY + HOUR)
    market.conn.execute("UPDATE trades SET xid = (pg_current_xact_id()::text::bigint + 20)::text::xid8")
    made = _marks_made(market)
    for minutes in range(40):
        market.conn.execute("SELECT pg_current_xact_id()")
        if minutes % 8 == 0:
            gen(services, as_of=DAY + HOUR + minutes * MINUTE)
    assert _marks_made(market) - made == 1
    right(market)


def test_C19_dropping_old_trades_changes_no_candle(market: Market, services: TestServices, cli: Cli) -> None:
    end = DAY + timedelta(days=20)
    for hours in range(0, 20 * 24, 7):
        market.trade(DAY + hours * HOUR + 13 * MINUTE, Decimal(hours + 1))
    gen(services, as_of=end)
    before = oracle.stored(market.conn)
    line = DAY + timedelta(days=10, hours=5, minutes=13, seconds=20)
    market.conn.execute("UPDATE trading_pairs SET trades_retained_from = %s", [line])
    market.conn.execute("DELETE FROM trades WHERE executed_at < %s", [line])
    assert market.conn.execute("SELECT count(*) FROM candle_marks").fetchone() == (0,)
    assert changes(gen(services, as_of=end)) == ({}, {}, {})
    verified = cli("candles", "verify", "--repair", "--json")
    assert (verified.code, verified.document["data"]["count"]) == (0, 0)
    assert changes(gen(services, as_of=end)) == ({}, {}, {})
    # Neither does recomputing everything, nor a restore.
    market.conn.execute("UPDATE ingest_state SET system_identifier = system_identifier - 1")
    candles.add_mark(market.conn, market.pair().id, DAY, end)
    assert changes(gen(services, as_of=end)) == ({}, {}, {})
    assert oracle.stored(market.conn) == before
    # Above the line corrections go on, up to the windows that reach below it.
    market.trade(line + timedelta(days=1), "5000")
    gen(services, as_of=end)
    assert max(row["high"] for row in market.candles("1w")) == 5000
    day = [row for row in market.candles("1w") if row["start_at"] == utc("2024-05-20T00:00:00")]
    assert day[0]["trade_count"] == before[market.pair().id, "1w", day[0]["start_at"]].values[6] + 1
    # What arrives below the line has no candle to go to.
    market.trade(line - timedelta(days=1), "9000")
    assert changes(gen(services, as_of=end)) == ({}, {}, {})


def test_C19_truncate_leaves_candles_below_the_line(market: Market, services: TestServices) -> None:
    market.trade(DAY)
    market.trade(DAY + 2 * HOUR)
    gen(services, as_of=DAY + 3 * HOUR)
    market.conn.execute("UPDATE trading_pairs SET trades_retained_from = %s", [DAY + HOUR])
    market.conn.execute("TRUNCATE trades")
    gen(services, as_of=DAY + 3 * HOUR)
    assert starts(market, "1h") == [DAY]
    assert starts(market, "1m") == [DAY]


def archive(services: TestServices, line: datetime, *, at_once: bool) -> None:
    """Somebody archives on a connection of their own: the line and the deletion in one transaction, or in two."""
    with psycopg.connect(services.database_url, autocommit=not at_once) as clerk:
        clerk.execute("UPDATE trading_pairs SET trades_retained_from = %s", [line])
        clerk.execute("DELETE FROM trades WHERE executed_at < %s", [line])


AT_ONCE = pytest.mark.parametrize("at_once", [True, False], ids=["one transaction", "two transactions"])


@AT_ONCE
def test_C19_archiving_during_a_backfill_deletes_no_candle(
    market: Market, services: TestServices, at_once: bool
) -> None:
    end = DAY + timedelta(days=100)
    for days in range(100):
        market.trade(DAY + timedelta(days=days, minutes=7, seconds=10), Decimal(days + 1))
        market.trade(DAY + timedelta(days=days, minutes=7, seconds=50), Decimal(days + 2))
    backfill(services)
    before = oracle.stored(market.conn)
    pieces = 0

    def between(_done: timedelta, _total: timedelta) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 1:
            archive(services, end - timedelta(days=10) + timedelta(minutes=7, seconds=30), at_once=at_once)

    backfill(services, end=end, interval=INTERVALS["1m"], progress=between)
    assert pieces > 2
    assert market.conn.execute("SELECT count(*) FROM trades").fetchone() == (19,)
    assert oracle.stored(market.conn) == before


@AT_ONCE
def test_C19_archiving_between_two_statements_of_a_correction(
    market: Market, services: TestServices, at_once: bool
) -> None:
    for minutes in range(10):
        market.trade(DAY + minutes * MINUTE + timedelta(seconds=10), Decimal(minutes + 1))
        market.trade(DAY + minutes * MINUTE + timedelta(seconds=50), Decimal(minutes + 2))
    gen(services, as_of=DAY + HOUR)
    before = oracle.stored(market.conn)
    candles.add_mark(market.conn, market.pair().id, DAY, DAY + HOUR)
    with market.conn.transaction():
        found = candles.marks(market.conn, 10)
        archive(services, DAY + 5 * MINUTE + timedelta(seconds=30), at_once=at_once)
        assert candles.correct(market.conn, found, timedelta(days=1)).total == 0
    assert oracle.stored(market.conn) == before


@AT_ONCE
def test_C19_archiving_between_two_statements_that_close_windows(
    market: Market, services: TestServices, at_once: bool
) -> None:
    """A minute that the line cuts has lost trades: it gets no candle, rather than half of one."""
    for minutes in range(10):
        market.trade(DAY + minutes * MINUTE + timedelta(seconds=10), Decimal(minutes + 1))
        market.trade(DAY + minutes * MINUTE + timedelta(seconds=50), Decimal(minutes + 2))
    gen(services, as_of=DAY + MINUTE)
    until = DAY + 10 * MINUTE
    with market.conn.transaction():
        frontiers = candles.behind(market.conn, until)
        archive(services, DAY + 5 * MINUTE + timedelta(seconds=30), at_once=at_once)
        candles.close(market.conn, frontiers, until, timedelta(days=1))
    assert starts(market, "1m") == [DAY] + [DAY + minutes * MINUTE for minutes in range(6, 10)]
    assert all(row["trade_count"] == 2 for row in market.candles("1m"))


# --- failing pairs, budgets, dry runs -----------------------------------------------------------------------------


@pytest.fixture
def three_pairs(market: Market) -> Market:
    for symbol in ("AAA/USDT", "BAD/USDT", "CCC/USDT"):
        market.trade(DAY, pair=symbol)
    return market


def refuse(market: Market, *, interval: str = "1h") -> None:
    """From now on PostgreSQL refuses this pair's candles of one interval."""
    market.conn.execute(
        f"ALTER TABLE candles ADD CONSTRAINT refused CHECK (interval <> '{interval}'"
        f" OR trading_pair_id <> {market.pair('BAD/USDT').id}) NOT VALID"
    )


def test_one_bad_pair_does_not_hold_up_the_others(
    three_pairs: Market, services: TestServices, cache: redis.Redis, cli: Cli
) -> None:
    market = three_pairs
    refuse(market)
    done = cli("candles", "gen", "-i", "1m", "--as-of", "2024-05-14T01:00", "--json")
    assert (done.code, done.document["status"]) == (1, "partial")
    assert [error["item"] for error in done.document["errors"]] == ["BAD/USDT"]
    assert (done.document["data"]["success"], done.document["data"]["failed"]) == (2, 1)
    assert "Generated 1m candles: 2 success, 1 failed" in done.err
    assert [len(starts(market, "1h", symbol)) for symbol in market.pairs] == [1, 0, 1]
    assert [bool(cached(cache, market, "1h", symbol)) for symbol in market.pairs] == [True, False, True]
    right(market)
    # A mark that can't be worked off stays, and doesn't stand before the others'.
    market.conn.execute("ALTER TABLE candles DROP CONSTRAINT refused")
    gen(services, as_of=DAY + HOUR)
    refuse(market)
    for symbol in ("BAD/USDT", "CCC/USDT", "AAA/USDT"):
        market.trade(DAY + 7 * MINUTE, "150", pair=symbol)
    outcome = gen(services, as_of=DAY + 2 * HOUR)
    assert [error.item for error in outcome.errors] == ["BAD/USDT"]
    assert [market.candles("1h", symbol)[0]["high"] for symbol in market.pairs] == [150, 100, 150]
    assert market.conn.execute("SELECT DISTINCT trading_pair_id FROM candle_marks").fetchall() == [
        (market.pair("BAD/USDT").id,)
    ]
    market.conn.execute("ALTER TABLE candles DROP CONSTRAINT refused")
    assert gen(services, as_of=DAY + 2 * HOUR).errors == ()
    right(market)


def test_corrections_do_not_starve_closing(
    market: Market, services: TestServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C04, C18: thousands of marks wait; each pass closes what has ended all the same."""
    services.settings = services.settings.model_copy(update={"candle_chunk": HOUR})
    for hours in range(100):
        market.trade(DAY + hours * HOUR)
    end = DAY + 100 * HOUR
    gen(services, as_of=end)
    candles.add_mark(market.conn, market.pair().id, DAY, end)
    market.trade(end)
    spent = 0
    real = candles.rebuild

    def rebuild(*args: Any) -> candles.Changes:
        nonlocal spent
        spent += 1
        return real(*args)

    monkeypatch.setattr(candles, "rebuild", rebuild)
    monkeypatch.setattr(Pass, "elapsed", lambda _: spent * timedelta(seconds=1))
    gen(services, as_of=end + MINUTE)
    assert spent in range(44, 48)  # the default budget is 45 s
    assert oracle.closed_until(market.conn) == {market.pair().id: end + MINUTE}
    assert market.conn.execute("SELECT count(*) FROM candle_marks").fetchone() == (1,)
    right(market)


def test_a_dry_run_leaves_nothing_and_ends(
    market: Market, services: TestServices, cache: redis.Redis, cli: Cli
) -> None:
    for hours in range(30):
        market.trade(DAY + hours * HOUR)
    tables = ("candles", "candle_progress", "candle_marks", "ingest_state", "worker_runs")

    def state() -> list[Any]:
        return [
            sorted(market.conn.execute(f"SELECT {t}::text, xmin::text FROM {t}").fetchall()) for t in tables
        ]

    assert not any(state())
    first = gen(services, as_of=DAY + HOUR, dry_run=True)
    assert (changes(first)[0]["1h"], first.data and first.data["complete"]) == (1, True)
    assert not any(state())
    assert cache.keys("candles:*") == []
    # Of a backlog it does one step.
    step = gen(services, as_of=DAY + 31 * HOUR, dry_run=True)
    assert changes(step) == changes(first)
    assert step.data is not None
    assert step.data["complete"] is False
    assert changes(gen(services, as_of=DAY + HOUR)) == changes(first)
    everything = gen(services, as_of=DAY + 31 * HOUR)
    assert (changes(everything)[0]["1h"], everything.data and everything.data["complete"]) == (29, True)
    market.trade(DAY, "70")
    before = state()
    done = cli("candles", "gen", "-i", "1h", "--as-of", "2024-05-15T08:00", "--dry-run", "--json")
    assert done.document["data"]["changed"] == dict.fromkeys(("1m", "5m", "15m", "30m", "1h", "4h", "1d"), 1)
    assert done.document["data"]["dry_run"] is True
    market.trade(DAY + 2 * MINUTE)
    market.conn.execute("DELETE FROM trades WHERE executed_at = %s", [DAY + HOUR])
    before = state()
    done = cli("candles", "gen", "-i", "1h", "--as-of", "2024-05-15T08:00", "--dry-run")
    assert done.out == (
        "Would insert 2, change 7, remove 5 candles (1m 3, 5m 2, 15m 2, 30m 2, 1h 2, 4h 2, 1d 1)\n"
    )
    assert state() == before
    done = cli("candles", "gen", "-i", "1h", "--as-of", "2024-05-15T08:00", "--json")
    assert done.document["data"]["dry_run"] is False
    again = cli("candles", "gen", "-i", "1h", "--as-of", "2024-05-15T08:00", "--dry-run")
    assert again.out == "Would insert 0, change 0, remove 0 candles\n"
    # A long mark is corrected for its first hour, and what is left is said.
    market.trade(DAY, "60")
    candles.add_mark(market.conn, market.pair().id, DAY, DAY + 30 * HOUR)
    marked = gen(services, as_of=DAY + 31 * HOUR, dry_run=True)
    assert (changes(marked)[1]["1m"], marked.data and marked.data["complete"]) == (1, False)


def test_a_dry_run_and_live_passes_do_not_wait_for_each_other(
    market: Market, services: TestServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.trade(DAY)
    with psycopg.connect(services.database_url) as holder:
        work_lock(holder, candles.WRITE_KEY)
        assert gen(services, as_of=DAY + HOUR, dry_run=True).exit_code == 0
    real = candles.close
    free: list[bool] = []

    def close(*args: Any) -> candles.Changes:
        changed = real(*args)
        with psycopg.connect(services.database_url) as other:
            work_lock(other, candles.WRITE_KEY)  # refuses at once when it is taken
            free.append(True)
        return changed

    with monkeypatch.context() as patch:
        patch.setattr(candles, "close", close)
        gen(services, as_of=DAY + HOUR, dry_run=True)
    assert free == [True]
    # Of rows that somebody else is writing it lets go.
    gen(services, as_of=DAY + HOUR)
    with psycopg.connect(services.database_url) as holder:
        holder.execute("SELECT FROM ingest_state FOR UPDATE")
        began = time.monotonic()
        with pytest.raises(TryLaterError, match="lock timeout"):
            gen(services, as_of=DAY + 2 * HOUR, dry_run=True)
        assert time.monotonic() - began < 10
    assert gen(services, as_of=DAY + 2 * HOUR, dry_run=True).exit_code == 0


def test_one_pair_alone(market: Market, services: TestServices) -> None:
    for symbol in ("AAA/USDT", "BBB/USDT"):
        market.trade(DAY, pair=symbol)
    gen(services, as_of=DAY + HOUR, pairs=["BBB/USDT"])
    assert [len(starts(market, "1h", symbol)) for symbol in market.pairs] == [0, 1]
    for symbol in market.pairs:
        market.trade(DAY + MINUTE, pair=symbol)
    gen(services, as_of=DAY + 2 * HOUR, pairs=["AAA/USDT"])
    right_now = {symbol: len(starts(market, "1m", symbol)) for symbol in market.pairs}
    assert right_now == {"AAA/USDT": 2, "BBB/USDT": 1}
    gen(services, as_of=DAY + 2 * HOUR)
    right(market)


def test_a_halted_pair_keeps_its_candles_right(
    market: Market, services: TestServices, cache: redis.Redis
) -> None:
    market.pair("OLD/USDT", active=False)
    market.trade(DAY, pair="OLD/USDT")
    gen(services, as_of=DAY + HOUR)
    assert starts(market, "1h", "OLD/USDT") == [DAY]
    assert cached(cache, market, "1h", "OLD/USDT") == []


def test_marks_go_to_the_real_table(market: Market, services: TestServices) -> None:
    """The triggers run as their owner: a temporary table of the same name would be a way to become that owner."""
    market.trade(DAY)
    market.trade(DAY + MINUTE)
    market.trade(DAY + 2 * MINUTE)
    gen(services, as_of=DAY + HOUR)
    with psycopg.connect(services.database_url, autocommit=True) as clerk:
        clerk.execute("CREATE TEMPORARY TABLE candle_marks (LIKE candle_marks)")
        clerk.execute("CREATE TEMPORARY TABLE trading_pairs (LIKE trading_pairs)")
        clerk.execute("DELETE FROM trades WHERE executed_at = %s", [DAY])
        clerk.execute("UPDATE trades SET price = 7 WHERE executed_at = %s", [DAY + MINUTE])
        gen(services, as_of=DAY + HOUR)
        right(market)
        clerk.execute("TRUNCATE trades")
    gen(services, as_of=DAY + HOUR)
    assert oracle.stored(market.conn) == {}


def test_C03_the_calendar_holds_in_any_session_time_zone(market: Market, services: TestServices) -> None:
    market.conn.execute(f"ALTER DATABASE {market.conn.info.dbname} SET timezone = 'America/New_York'")
    for days in range(60):
        market.trade(datetime(2024, 2, 10, 3, 30, tzinfo=UTC) + timedelta(days=days))
    gen(services, as_of=utc("2024-05-01T00:00:00"))
    right(market)
    assert len(market.candles("1M")) == 3
