"""Tickers: the cases T01 to T18 of the test matrix, and the pass against a brute-force model.

The model knows nothing of candles: it keeps the committed trades and goes through them in Python.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from random import Random
from typing import Any

import psycopg
import pytest
import redis
from psycopg import sql

from maven_cli.cache import open_cache, write_newer
from maven_cli.db.locks import pass_lock
from maven_cli.errors import RedisDownError, UsageError
from maven_cli.intervals import INTERVALS
from maven_cli.market import tickers
from maven_cli.market.pairs import TradingPair, all_pairs, set_status
from maven_cli.market.tickers import Ticker
from maven_cli.numbers import check_fits, plain
from maven_cli.passes.candles import generate
from maven_cli.passes.tickers import update
from maven_cli.runner import Outcome, Pass
from maven_cli.settings import Settings
from maven_cli.times import iso_micros
from tests.conftest import TestServices
from tests.support import Cli, Market

DAY = timedelta(hours=24)
MICRO = timedelta(microseconds=1)
NOON = datetime(2025, 6, 2, 12, tzinfo=UTC)
FULL = os.environ.get("MAVEN_TEST_FULL") == "1"


# --- the model


@dataclass(frozen=True, order=True)
class Trade:
    at: datetime
    id: int
    price: Decimal
    quantity: Decimal


def percent(change: Decimal, opening: Decimal) -> Decimal:
    """change × 100 / open to 8 decimals, the half away from zero, from the exact quotient."""
    exact = abs(Fraction(change) * 100 / Fraction(opening)) * 10**8
    units = (exact.numerator * 2 + exact.denominator) // (exact.denominator * 2)
    with localcontext(prec=200):
        return Decimal(units if change >= 0 else -units).scaleb(-8)


def expected(pair: TradingPair, trades: Iterable[Trade], as_of: datetime) -> Ticker:
    """The ticker, from all trades of a pair, by the definitions of DESIGN section 4."""
    with localcontext(prec=200):
        ordered = sorted(trade for trade in trades if trade.at <= as_of)
        inside = [trade for trade in ordered if trade.at > as_of - DAY]
        before = [trade for trade in ordered if trade.at <= as_of - DAY]
        newest = ordered[-1] if ordered else None
        last = newest.price if newest else None
        if inside:
            opening = inside[0].price
            high, low = max(trade.price for trade in inside), min(trade.price for trade in inside)
            change: Decimal | None = inside[-1].price - opening
            share: Decimal | None = percent(inside[-1].price - opening, opening)
        else:
            change = share = None if last is None else Decimal(0)
        return Ticker(
            pair=pair,
            as_of=as_of,
            last=last,
            open=inside[0].price if inside else last,
            high=high if inside else last,
            low=low if inside else last,
            prev_close=before[-1].price if before else None,
            change=change,
            change_percent=share,
            volume=sum((trade.quantity for trade in inside), Decimal(0)),
            quote_volume=sum((trade.price * trade.quantity for trade in inside), Decimal(0)),
            trade_count=len(inside),
            first_trade_id=inside[0].id if inside else None,
            last_trade_id=inside[-1].id if inside else None,
            last_trade_at=newest.at if newest else None,
            stale=newest is not None and not inside,
        )


def stored(conn: psycopg.Connection) -> dict[int, list[Trade]]:
    """All trades that the connection sees, by pair."""
    found: dict[int, list[Trade]] = {}
    for pair, number, at, price, quantity in conn.execute(
        "SELECT trading_pair_id, id, executed_at, price, quantity FROM trades"
    ):
        found.setdefault(pair, []).append(Trade(at.astimezone(UTC), number, price, quantity))
    return found


# --- helpers


def computed(services: TestServices, as_of: datetime, **options: Any) -> dict[str, Ticker]:
    """What a pass finds at `as_of`, by symbol."""
    outcome = update(services, as_of=as_of, **options)
    assert (outcome.status, outcome.exit_code, outcome.errors) == ("success", 0, ())
    assert outcome.data is not None
    return {ticker.pair.symbol: ticker for ticker in outcome.data["tickers"]}


def agree(services: TestServices, conn: psycopg.Connection, as_of: datetime, note: object = "") -> None:
    """Every active pair's ticker, field by field, is what its raw trades say."""
    trades = stored(conn)
    found = computed(services, as_of)
    for pair in all_pairs(conn):
        assert found[pair.symbol] == expected(pair, trades.get(pair.id, []), as_of), (
            f"{pair.symbol} {as_of} {note}"
        )


def close_candles(
    services: TestServices, as_of: datetime | None = None, interval: str = "1m", **options: Any
) -> Outcome:
    outcome = generate(services, INTERVALS[interval], as_of=as_of, **options)
    assert outcome.exit_code == 0
    return outcome


def payload(cache: redis.Redis, pair: TradingPair) -> dict[str, Any]:
    """The pair's value in Redis. A number that isn't whole would be a defect: floats are refused."""

    def no_float(text: str) -> Any:
        raise AssertionError(f"a float in the payload: {text}")

    text = cache.get(tickers.key(pair.id))
    assert isinstance(text, str)
    found = json.loads(text, parse_float=no_float)
    assert isinstance(found, dict)
    return found


def shown(*values: Decimal | None) -> str:
    """Prices as text, in one line."""
    return " ".join("null" if value is None else plain(value) for value in values)


def with_settings(services: TestServices, **changes: Any) -> TestServices:
    """The services with other settings, also such as the environment couldn't say."""
    return replace(services, settings=services.settings.model_copy(update=changes))


def everything(conn: psycopg.Connection) -> list[object]:
    """All that tickers must leave alone, row by row."""
    tables = ("trades", "trading_pairs", "candles", "candle_progress", "candle_marks", "ingest_state")
    return [
        conn.execute(sql.SQL("SELECT t::text FROM {} t ORDER BY 1").format(sql.Identifier(table))).fetchall()
        for table in tables
    ]


# --- the matrix


@pytest.mark.parametrize("closed", [False, True], ids=["raw", "candles"])
def test_t01_the_window_excludes_its_start_and_includes_its_end(
    services: TestServices, market: Market, closed: bool
) -> None:
    start = NOON - DAY
    market.trade(start, "90")
    market.trade(start + MICRO, "100")
    market.trade(NOON - timedelta(hours=3), "110")
    market.trade(NOON, "120")
    market.trade(NOON + MICRO, "130")
    if closed:
        close_candles(services, NOON + timedelta(hours=1))
    found = computed(services, NOON)["BTC/USDT"]
    assert shown(found.open, found.last, found.prev_close) == "100 120 90"
    assert (found.first_trade_id, found.last_trade_id, found.trade_count) == (2, 4, 3)
    later = computed(services, NOON + MICRO)["BTC/USDT"]
    assert shown(later.open, later.last, later.prev_close) == "110 130 100"


PLANS = {
    "default": {},
    "sequential": {"enable_indexscan": "off", "enable_bitmapscan": "off", "enable_indexonlyscan": "off"},
    "bitmap": {"enable_indexscan": "off", "enable_seqscan": "off", "enable_indexonlyscan": "off"},
    "parallel": {
        "debug_parallel_query": "on",
        "max_parallel_workers_per_gather": "4",
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "min_parallel_index_scan_size": "0",
    },
    "no hash, no sort": {"enable_hashagg": "off", "enable_hashjoin": "off", "enable_sort": "off"},
}


def set_database(conn: psycopg.Connection, **parameters: str) -> None:
    """Changes what new sessions of this test's database start with."""
    if conn.info.server_version < 160000 and "debug_parallel_query" in parameters:
        parameters["force_parallel_mode"] = parameters.pop("debug_parallel_query")
    for name, value in parameters.items():
        conn.execute(
            sql.SQL("ALTER DATABASE {} SET {} TO {}").format(
                sql.Identifier(conn.info.dbname), sql.Identifier(name), sql.Literal(value)
            )
        )


@pytest.mark.parametrize("plan", PLANS)
def test_t02_trades_of_one_instant_are_ordered_by_id_under_any_plan(
    services: TestServices, market: Market, conn: psycopg.Connection, plan: str
) -> None:
    first, last = NOON - DAY + MICRO, NOON - timedelta(minutes=1)
    for number in (7, 3, 9, 5):  # the table's order is not the ids' order
        market.trade(first, str(100 + number), id=number)
    for number in (17, 13, 19, 15):
        market.trade(last, str(100 + number), id=number)
    market.trade(NOON - DAY, "1", id=2)
    market.trade(NOON - DAY, "2", id=1)
    close_candles(services, NOON)
    set_database(conn, **PLANS[plan])
    found = computed(services, NOON)["BTC/USDT"]
    assert (found.first_trade_id, shown(found.open)) == (3, "103")
    assert (found.last_trade_id, shown(found.last)) == (19, "119")
    assert found.prev_close == 1
    agree(services, conn, NOON)


def test_t03_a_pair_whose_only_trade_is_25_hours_old_is_stale(
    services: TestServices, market: Market, cache: redis.Redis
) -> None:
    market.trade(timedelta(hours=-25), "42.5", "3")
    assert update(services).exit_code == 0
    found = payload(cache, market.pair())
    assert found["lastPrice"] == found["openPrice"] == found["highPrice"] == found["lowPrice"] == "42.5"
    assert found["prevClosePrice"] == "42.5"
    assert (found["priceChange"], found["priceChangePercent"]) == ("0", "0")
    assert (found["volume"], found["quoteVolume"], found["tradeCount"]) == ("0", "0", 0)
    assert (found["firstTradeId"], found["lastTradeId"]) == (None, None)
    assert found["stale"] is True
    assert found["lastTradeAt"] is not None


def test_t03_a_pair_whose_trades_were_archived_is_stale_too(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    """Below the retention line the candles know the last price, though not its time."""
    market.trade(timedelta(hours=-60), "41")
    market.trade(timedelta(hours=-50), "42.5", "3")
    market.trade(timedelta(hours=-50), "7", pair="ETH/USDT")
    market.trade(timedelta(hours=-1), "8", pair="ETH/USDT")
    market.trade(timedelta(hours=-50), "9", pair="GONE/USDT")
    generate(services, INTERVALS["1m"])
    line = market.now() - timedelta(hours=30)
    conn.execute("UPDATE trading_pairs SET trades_retained_from = %s WHERE symbol <> 'GONE/USDT'", [line])
    conn.execute("DELETE FROM trades WHERE executed_at < %s", [line])
    assert update(services).exit_code == 0
    found = payload(cache, market.pair())
    assert found["lastPrice"] == found["openPrice"] == found["highPrice"] == found["lowPrice"] == "42.5"
    assert (found["prevClosePrice"], found["priceChange"]) == ("42.5", "0")
    assert (found["tradeCount"], found["lastTradeId"], found["lastTradeAt"]) == (0, None, None)
    assert found["stale"] is True
    active = payload(cache, market.pair("ETH/USDT"))
    assert (active["lastPrice"], active["prevClosePrice"], active["stale"]) == ("8", "7", False)
    # Deleted without a line is as if it had never been: that candle waits for its correction.
    gone = payload(cache, market.pair("GONE/USDT"))
    assert (gone["lastPrice"], gone["prevClosePrice"], gone["stale"]) == (None, None, False)
    # Nothing that came later counts for an earlier time.
    earlier = update(services, as_of=line + timedelta(hours=25)).data
    assert earlier is not None
    assert [ticker.prev_close for ticker in earlier["tickers"]][:2] == [Decimal("42.5"), 7]


def test_t04_a_pair_that_never_traded_has_a_key_without_prices(
    services: TestServices, market: Market, cache: redis.Redis
) -> None:
    market.pair()
    market.trade(timedelta(minutes=-1), pair="ETH/USDT")
    assert update(services).exit_code == 0
    found = payload(cache, market.pair())
    for name in (
        "lastPrice",
        "openPrice",
        "highPrice",
        "lowPrice",
        "prevClosePrice",
        "priceChange",
        "priceChangePercent",
    ):
        assert found[name] is None, name
    assert (found["volume"], found["quoteVolume"], found["tradeCount"], found["stale"]) == (
        "0",
        "0",
        0,
        False,
    )
    assert found["lastTradeAt"] is None


def test_t05_one_trade_and_the_payload_s_exact_shape(
    services: TestServices, market: Market, cache: redis.Redis
) -> None:
    pair = market.pair()
    number = market.trade(timedelta(minutes=-90), "100.10", "0.300", id=77)
    outcome = update(services)
    assert outcome.exit_code == 0
    assert outcome.data is not None
    found = payload(cache, pair)
    assert list(found) == [
        "asOf",
        "pairId",
        "symbol",
        "lastPrice",
        "openPrice",
        "highPrice",
        "lowPrice",
        "prevClosePrice",
        "priceChange",
        "priceChangePercent",
        "volume",
        "quoteVolume",
        "tradeCount",
        "firstTradeId",
        "lastTradeId",
        "lastTradeAt",
        "stale",
    ]
    assert len(found["asOf"]) == 27
    assert found["asOf"] == iso_micros(outcome.data["as_of"])
    assert (found["pairId"], found["symbol"]) == (pair.id, "BTC/USDT")
    assert found["lastPrice"] == found["openPrice"] == found["highPrice"] == found["lowPrice"] == "100.1"
    assert (found["priceChange"], found["priceChangePercent"]) == ("0", "0")
    assert (found["volume"], found["quoteVolume"], found["tradeCount"]) == ("0.3", "30.03", 1)
    assert (found["firstTradeId"], found["lastTradeId"]) == (number, number)
    assert found["prevClosePrice"] is None
    assert found["stale"] is False


@pytest.mark.parametrize(
    ("opening", "last", "change", "share"),
    [
        ("100", "110", "10", "10"),
        ("100", "90", "-10", "-10"),
        ("3", "4", "1", "33.33333333"),
        ("3", "5", "2", "66.66666667"),
        ("3", "1", "-2", "-66.66666667"),
        ("0.000000000000000003", "0.000000000000000001", "-0.000000000000000002", "-66.66666667"),
        ("200000000", "200000000.01", "0.01", "0.00000001"),  # half a unit, away from zero
        ("200000000", "199999999.99", "-0.01", "-0.00000001"),
        ("1000000000000", "1000000000000.000000000000000001", "0.000000000000000001", "0"),
        (
            "0.000000000000000001",
            "999999999999999999",
            "999999999999999998.999999999999999999",
            "99999999999999999899999999999999999900",
        ),
        # Less than half a unit by 5e-28: a quotient that is rounded on the way rounds up.
        ("200000000.000000000000000002", "200000000.010000000000000002", "0.01", "0"),
    ],
)
def test_t05_change_and_percent_are_exact(
    services: TestServices,
    market: Market,
    cache: redis.Redis,
    opening: str,
    last: str,
    change: str,
    share: str,
) -> None:
    market.trade(timedelta(minutes=-2), opening)
    market.trade(timedelta(minutes=-1), last)
    assert update(services).exit_code == 0
    found = payload(cache, market.pair())
    assert (found["priceChange"], found["priceChangePercent"]) == (change, share)


def test_t06_a_back_dated_trade_shows_at_the_next_pass(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    for minutes in range(60, 0, -1):
        market.trade(timedelta(minutes=-minutes), "100")
    close_candles(services)
    assert update(services).exit_code == 0
    market.trade(timedelta(minutes=-10), "150")
    market.trade(timedelta(minutes=-11), "50")
    market.trade(timedelta(hours=-23), "70")
    for closed in (False, True):
        if closed:
            close_candles(services)
        outcome = update(services)
        found = payload(cache, market.pair())
        assert (found["highPrice"], found["lowPrice"], found["openPrice"]) == ("150", "50", "70"), closed
        assert found["tradeCount"] == 63
        assert outcome.data is not None
        agree(services, conn, outcome.data["as_of"])


def test_t07_a_future_trade_waits_for_its_time_and_is_counted(
    services: TestServices, market: Market, cache: redis.Redis, cli: Cli
) -> None:
    market.trade(timedelta(minutes=-1), "100")
    market.trade(timedelta(hours=1), "999")
    market.trade(timedelta(hours=30), "999")
    close_candles(services)
    outcome = update(services)
    assert outcome.exit_code == 0
    assert outcome.data is not None
    assert outcome.data["future_trades"] == 2
    assert payload(cache, market.pair())["highPrice"] == "100"
    market.trade(NOON + timedelta(hours=1), "7", pair="ETH/USDT")
    assert computed(services, NOON)["ETH/USDT"].last is None
    assert computed(services, NOON + timedelta(hours=2))["ETH/USDT"].last == 7
    done = cli("tickers", "update")
    assert done.code == 0
    assert "[TickerUpdateWorker] 2 trades are dated in the future and left out until then" in done.err


@pytest.mark.parametrize(
    "how", ["delete", "update the price", "move away", "move to another pair", "truncate"]
)
def test_t08_a_trade_that_goes_or_changes_takes_its_high_along(
    services: TestServices, market: Market, conn: psycopg.Connection, how: str
) -> None:
    market.trade(NOON - timedelta(hours=9), "100", id=1)
    market.trade(NOON - timedelta(hours=5), "500", id=2)
    market.trade(NOON - timedelta(minutes=30), "100", id=3)
    other = market.pair("ETH/USDT")
    market.trade(NOON - timedelta(hours=2), "7", pair="ETH/USDT", id=4)
    close_candles(services, NOON)
    assert computed(services, NOON)["BTC/USDT"].high == 500
    match how:
        case "delete":
            conn.execute("DELETE FROM trades WHERE id = 2")
        case "update the price":
            conn.execute("UPDATE trades SET price = 90 WHERE id = 2")
        case "move away":
            conn.execute("UPDATE trades SET executed_at = %s WHERE id = 2", [NOON - timedelta(hours=30)])
        case "move to another pair":
            conn.execute("UPDATE trades SET trading_pair_id = %s WHERE id = 2", [other.id])
        case "truncate":
            conn.execute("TRUNCATE trades")
    assert computed(services, NOON)["BTC/USDT"].high != 500
    agree(services, conn, NOON, "before the candle pass")
    close_candles(services, NOON)
    agree(services, conn, NOON, "after the candle pass")


def test_t09_one_pair_that_fails_in_postgresql_leaves_the_others_and_its_own_key_alone(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis, cli: Cli
) -> None:
    for pair in ("AAA/USDT", "BAD/USDT", "ZZZ/USDT"):
        for hours in range(12, 0, -1):
            market.trade(timedelta(hours=-hours), "100", pair=pair)
    close_candles(services)
    assert update(services).exit_code == 0
    bad = market.pair("BAD/USDT")
    before = cache.get(tickers.key(bad.id))
    conn.execute("UPDATE candles SET base_volume = '9e131071'::numeric WHERE trading_pair_id = %s", [bad.id])
    for pair in ("AAA/USDT", "ZZZ/USDT"):
        market.trade(timedelta(seconds=-1), "111", pair=pair)
    done = cli("tickers", "update", "--json")
    assert done.code == 1
    document = done.document
    assert (document["status"], document["exit_code"]) == ("partial", 1)
    assert document["data"]["updated"] == 2
    [error] = document["errors"]
    assert error["item"] == "BAD/USDT"
    assert "overflow" in error["message"]
    assert "[TickerUpdateWorker] Failed to update ticker for BAD/USDT: " in done.err
    assert cache.get(tickers.key(bad.id)) == before
    assert 0 < int(str(cache.pttl(tickers.key(bad.id)))) <= 15_000
    for pair in ("AAA/USDT", "ZZZ/USDT"):
        assert payload(cache, market.pair(pair))["lastPrice"] == "111"
    outcome, counts, error_text = conn.execute(
        "SELECT outcome, counts, error FROM worker_runs ORDER BY id DESC LIMIT 1"
    ).fetchall()[0]
    assert outcome == "partial"
    assert counts["errors"] == 1
    assert error_text.startswith("BAD/USDT: ")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nonexistent/valkey.sock"])
def test_t10_redis_down_changes_nothing_and_the_next_pass_heals(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis, url: str
) -> None:
    market.trade(timedelta(minutes=-1))
    close_candles(services)
    before = everything(conn)
    with pytest.raises(RedisDownError) as caught:
        update(replace(services, redis_url=url))
    assert caught.value.exit_code == 69
    assert "can't be reached" in str(caught.value)
    assert everything(conn) == before
    assert conn.execute("SELECT outcome FROM worker_runs ORDER BY id DESC LIMIT 1").fetchone() == ("error",)
    assert cache.keys("ticker:*") == []
    assert update(services).exit_code == 0
    assert payload(cache, market.pair())["tradeCount"] == 1


def test_t11_of_two_passes_one_is_skipped(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    market.trade(timedelta(minutes=-1))
    with pass_lock(services.lock_url, "tickers"):
        outcome = update(services)
        assert (outcome.status, outcome.exit_code, outcome.data) == ("skipped", 75, None)
        assert cache.keys("ticker:*") == []
        # Looking needs no lock.
        assert update(services, as_of=market.now()).exit_code == 0
        assert update(services, dry_run=True).exit_code == 0
    assert conn.execute("SELECT outcome, as_of, error FROM worker_runs").fetchall() == [
        ("skipped", None, "Previous run still running, skipping...")
    ]
    assert update(services).exit_code == 0


def test_t11_a_finished_pass_is_never_in_the_way_of_the_next(services: TestServices, market: Market) -> None:
    market.trade(timedelta(minutes=-1))
    assert [update(services).exit_code for _ in range(25)] == [0] * 25


def test_t12_digits_are_never_lost(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    market.trade(timedelta(hours=-3), "0.000000000000000001", "999999999999999999")
    market.trade(timedelta(hours=-2), "0.000000000000000001", "0.000000000000000001", pair="ETH/USDT")
    for minutes in range(50, 40, -1):
        market.trade(
            timedelta(minutes=-minutes),
            "999999999999999999.999999999999999999",
            "999999999999999999.999999999999999999",
            pair="BIG/USDT",
        )
    for closed in (False, True):
        if closed:
            close_candles(services)
        assert update(services).exit_code == 0
        found = payload(cache, market.pair())
        assert (found["lastPrice"], found["volume"]) == ("0.000000000000000001", "999999999999999999")
        assert found["quoteVolume"] == "0.999999999999999999"
        assert payload(cache, market.pair("ETH/USDT"))["quoteVolume"] == "0." + "0" * 35 + "1"
        big = payload(cache, market.pair("BIG/USDT"))
        with localcontext(prec=200):
            one = Decimal("999999999999999999.999999999999999999")
            assert Decimal(big["quoteVolume"]) == one * one * 10
            assert Decimal(big["volume"]) == one * 10
    with pytest.raises(ValueError, match="more than 18 decimals"):
        check_fits("0.0000000000000000001")
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        market.trade(timedelta(0), "1000000000000000000")


@pytest.mark.parametrize("day", ["2025-03-09", "2025-11-02"], ids=["spring forward", "fall back"])
def test_t13_the_session_s_time_zone_changes_nothing(
    services: TestServices, market: Market, conn: psycopg.Connection, day: str
) -> None:
    start = datetime.fromisoformat(day).replace(tzinfo=UTC)
    rng = Random(day)
    for _ in range(300):
        offset = timedelta(microseconds=rng.randrange(-30 * 3_600_000_000, 30 * 3_600_000_000))
        market.trade(start + offset, str(rng.randint(1, 999)), str(rng.randint(1, 9)))
    moments = [start + timedelta(minutes=20 * step, seconds=step % 2) for step in range(0, 72, 5)]
    in_utc = [computed(services, moment) for moment in moments]
    set_database(conn, TimeZone="America/New_York")
    with psycopg.connect(services.database_url) as other:
        assert other.execute("SHOW TimeZone").fetchone() == ("America/New_York",)
    for moment, before in zip(moments, in_utc, strict=True):
        assert computed(services, moment) == before, "raw"
    for moment, before in zip(moments, in_utc, strict=True):
        close_candles(services, moment)
        assert computed(services, moment) == before, "from candles"
        agree(services, conn, moment)
    assert all(str(ticker.last_trade_at).endswith("+00:00") for ticker in in_utc[-1].values())


def test_t14_a_halted_pair_loses_its_key(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    market.trade(timedelta(minutes=-1))
    market.trade(timedelta(minutes=-1), pair="ETH/USDT")
    assert update(services).exit_code == 0
    assert len(list(cache.scan_iter("ticker:24h:*"))) == 2
    set_status(conn, "ETH/USDT", "HALTED")
    # A pass that is narrowed to another pair removes it, too: it is gone after the *next* pass.
    assert update(services, pairs=["BTC/USDT"]).exit_code == 0
    assert list(cache.scan_iter("ticker:24h:*")) == [tickers.key(market.pair().id)]
    assert update(services, pairs=["ETH/USDT"]).exit_code == 0
    assert cache.get(tickers.key(market.pair("ETH/USDT").id)) is None
    set_status(conn, "ETH/USDT", "ACTIVE")
    assert update(services).exit_code == 0
    assert payload(cache, market.pair("ETH/USDT"))["tradeCount"] == 1


def test_t15_a_candle_worker_dead_for_two_hours_costs_no_exactness(
    services: TestServices, market: Market, conn: psycopg.Connection
) -> None:
    rng = Random(15)
    for _ in range(400):
        offset = timedelta(microseconds=rng.randrange(28 * 3_600_000_000))
        market.trade(
            NOON - offset, str(rng.randint(50, 150)), "0.1", pair=rng.choice(["BTC/USDT", "ETH/USDT"])
        )
    close_candles(services, NOON - timedelta(hours=2))
    market.trade(NOON - timedelta(minutes=1), "151", pair="NEW/USDT")  # never seen by a candle pass
    market.trade(NOON - timedelta(minutes=119), "1000")
    market.trade(NOON - timedelta(minutes=121), "1")
    agree(services, conn, NOON)
    agree(services, conn, NOON.replace(second=59, microsecond=999_999))


def test_t16_a_key_outlives_a_late_pass(services: TestServices, market: Market, cache: redis.Redis) -> None:
    """Every 5 s, and 3 s late: it must live 8 s at least, here with what a loaded machine takes to look at it."""
    key = tickers.key(market.pair().id)
    assert update(services).exit_code == 0
    assert 8_000 < int(str(cache.pttl(key))) <= 15_000
    cache.pexpire(key, 100_000)  # the next pass sets the life anew, whatever it was
    assert update(services).exit_code == 0
    assert int(str(cache.pttl(key))) <= 15_000
    assert update(with_settings(services, ticker_ttl_grace=timedelta(0))).exit_code == 0
    assert int(str(cache.pttl(key))) <= 5_000


FROZEN = """
import os, signal, sys
import maven_cli.passes.tickers as passes
from maven_cli.__main__ import run
write = passes.write_newer
def frozen(*args, **options):
    print("computed", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return write(*args, **options)
passes.write_newer = frozen
sys.exit(run(["tickers", "update", "--json"]))
"""


@contextmanager
def frozen_pass(cli: Cli) -> Iterator[subprocess.Popen[bytes]]:
    """A real `maven tickers update` that has stopped itself (SIGSTOP) between its last read and its write."""
    process = subprocess.Popen(
        [sys.executable, "-c", FROZEN], env=cli.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"computed\n"
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        if process.poll() is None:
            process.kill()
        process.communicate()


def end_lock(conn: psycopg.Connection, scope: str) -> None:
    """What PostgreSQL does by itself after 30 s of a frozen process: ends the session that holds its lock."""
    found = conn.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s AND datname = %s",
        [f"maven lock {scope}", conn.info.dbname],
    ).fetchall()
    assert found == [(True,)]


def test_t17_a_frozen_pass_that_wakes_up_does_not_replace_a_newer_ticker(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis, cli: Cli
) -> None:
    market.trade(timedelta(minutes=-5), "100")
    with frozen_pass(cli) as process:
        end_lock(conn, "tickers")
        market.trade(timedelta(minutes=-1), "200")
        assert update(services).exit_code == 0
        newer = cache.get(tickers.key(market.pair().id))
        os.kill(process.pid, signal.SIGCONT)
        out, err = process.communicate(timeout=30)
        document = json.loads(out)
        assert process.returncode == 0, err
        assert document["data"]["updated"] == 0
    assert cache.get(tickers.key(market.pair().id)) == newer
    assert payload(cache, market.pair())["lastPrice"] == "200"


def test_t17_a_frozen_pass_that_wakes_up_does_not_remove_a_newer_ticker(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis, cli: Cli
) -> None:
    """It saw a pair halted that has been activated since."""
    market.trade(timedelta(minutes=-5), "100")
    set_status(conn, "BTC/USDT", "HALTED")
    with frozen_pass(cli) as process:
        end_lock(conn, "tickers")
        set_status(conn, "BTC/USDT", "ACTIVE")
        assert update(services).exit_code == 0
        os.kill(process.pid, signal.SIGCONT)
        process.communicate(timeout=30)
    assert payload(cache, market.pair())["lastPrice"] == "100"


def test_t17_what_is_newer_is_decided_per_key_in_one_call(redis_url: str, cache: redis.Redis) -> None:
    def value(second: int, body: str) -> str:
        return f'{{"asOf":"2026-01-01T00:00:{second:02}.000000Z","x":"{body}"}}'

    with open_cache(redis_url) as client:

        def write(*values: tuple[str, str]) -> tuple[int, int, int]:
            return write_newer(client, values, ttl=timedelta(seconds=30))

        assert write(("a", value(5, "one")), ("b", value(9, "one"))) == (2, 2, 0)
        assert write(("a", value(7, "two")), ("b", value(7, "two"))) == (1, 1, 0)
        assert (cache.get("a"), cache.get("b")) == (value(7, "two"), value(9, "one"))
        assert write(("a", value(8, "two"))) == (1, 0, 0), "newer, but nothing changed"
        assert write(("a", value(8, "three"))) == (1, 1, 0), "the same instant, recomputed"
        # Somebody else's values at our keys don't keep ours away.
        cache.set("a", "~" * 60)
        cache.delete("b")
        cache.hset("b", "a", "hash")
        assert write(("a", value(1, "one")), ("b", value(1, "one"))) == (2, 2, 0)
        assert write() == (0, 0, 0)


def test_t18_a_transaction_that_commits_late_is_seen_by_the_next_pass(
    services: TestServices, market: Market, conn: psycopg.Connection
) -> None:
    market.trade(NOON - timedelta(hours=6), "100")
    close_candles(services, NOON - timedelta(minutes=2))
    with psycopg.connect(services.database_url) as early:
        market.trade(
            NOON - timedelta(hours=3), "900", conn=early
        )  # takes its transaction id, isn't committed
        market.trade(NOON - timedelta(hours=2), "200")  # a later one, committed and read
        close_candles(services, NOON - timedelta(minutes=1))
        assert computed(services, NOON)["BTC/USDT"].high == 200
        close_candles(services, NOON)
        early.commit()
    assert computed(services, NOON)["BTC/USDT"].high == 900
    agree(services, conn, NOON, "before the candle pass")
    close_candles(services, NOON)
    agree(services, conn, NOON, "after the candle pass")


def test_another_cluster_s_candles_are_not_trusted(
    services: TestServices, market: Market, conn: psycopg.Connection
) -> None:
    """C18: after a restore transaction ids mean nothing, so late trades can't be told from known ones."""
    market.trade(NOON - timedelta(hours=6), "100")
    close_candles(services, NOON)
    conn.execute("UPDATE ingest_state SET system_identifier = system_identifier - 1")
    market.trade(NOON - timedelta(hours=5), "300")
    conn.execute("UPDATE trades SET xid = '3' WHERE price = 300")
    conn.execute("DELETE FROM candle_marks")
    agree(services, conn, NOON)


# --- beyond the matrix


def test_one_message_says_what_changed_apart_from_its_time(
    services: TestServices, market: Market, cache: redis.Redis
) -> None:
    """Channels know no database numbers: what other tests publish is told apart by its symbols."""
    market.trade(timedelta(minutes=-1), "100", pair="MESSAGE1/USDT")
    market.trade(timedelta(minutes=-1), "5", pair="MESSAGE2/USDT")
    with cache.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe("tickers")
        assert channel.get_message(timeout=5) is None  # the subscription's own, swallowed

        def messages() -> list[Any]:
            # One of our own afterwards: what the pass published has come before it.
            cache.publish("tickers", '[{"symbol":"MESSAGE/END"}]')
            found: list[Any] = []
            while True:
                message = channel.get_message(timeout=5)
                items = json.loads(message["data"]) if message is not None else [{"symbol": ""}]
                if items[0]["symbol"] == "MESSAGE/END":
                    return found
                if items[0]["symbol"].startswith("MESSAGE"):
                    found.append(items)

        assert update(services).exit_code == 0
        [both] = messages()
        assert [item["symbol"] for item in both] == ["MESSAGE1/USDT", "MESSAGE2/USDT"]
        assert both[0] == payload(cache, market.pair("MESSAGE1/USDT"))
        outcome = update(services)
        assert outcome.data is not None
        assert (outcome.data["updated"], outcome.data["changed"]) == (2, 0)
        assert messages() == []
        market.trade(timedelta(seconds=-1), "6", pair="MESSAGE2/USDT")
        assert update(services).exit_code == 0
        assert [[item["symbol"] for item in message] for message in messages()] == [["MESSAGE2/USDT"]]


@pytest.mark.parametrize(("batch", "concurrency"), [(1, 1), (2, 3), (3, 8), (0, 8)])
def test_batches_and_connections_change_nothing(
    services: TestServices, market: Market, conn: psycopg.Connection, batch: int, concurrency: int
) -> None:
    for number in range(7):
        for hours in range(number):
            market.trade(NOON - timedelta(hours=hours), str(100 + hours), pair=f"A{number}/USDT")
        market.pair(f"A{number}/USDT")
    close_candles(services, NOON)
    found = computed(with_settings(services, ticker_batch=batch), NOON, concurrency=concurrency)
    assert list(found.items()) == list(computed(services, NOON).items()), "in the same order, too"
    assert len(found) == 7


def test_nothing_to_do_is_no_error(services: TestServices, cache: redis.Redis) -> None:
    outcome = update(services)
    assert (outcome.exit_code, outcome.status) == (0, "success")
    assert outcome.data is not None
    assert outcome.data["updated"] == 0
    assert cache.dbsize() == 0


def test_as_of_and_dry_run_write_nothing(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    market.trade(timedelta(minutes=-1))
    before = everything(conn)
    no_redis = replace(services, redis_url="redis://127.0.0.1:1/0")
    assert len(computed(no_redis, market.now())) == 1
    for outcome in (update(no_redis, as_of=market.now()), update(no_redis, dry_run=True)):
        assert outcome.data is not None
        assert outcome.data["dry_run"] is True
        assert outcome.data["tickers"][0].trade_count == 1
    assert cache.dbsize() == 0
    assert everything(conn) == before
    assert conn.execute("SELECT count(*) FROM worker_runs").fetchone() == (0,)


def test_an_unknown_pair_is_wrong_usage(services: TestServices, market: Market) -> None:
    market.pair()
    with pytest.raises(UsageError, match="did you mean BTC/USDT") as caught:
        update(services, pairs=["BTC/USD"])
    assert caught.value.exit_code == 2


def test_below_the_retained_trades_nothing_is_computed_and_the_others_are_not_stopped(
    services: TestServices, market: Market, conn: psycopg.Connection, cache: redis.Redis
) -> None:
    market.trade(timedelta(minutes=-1), "100")
    market.trade(timedelta(minutes=-1), "5", pair="ETH/USDT")
    kept = market.now() - timedelta(hours=2)
    conn.execute("UPDATE trading_pairs SET trades_retained_from = %s WHERE symbol = 'ETH/USDT'", [kept])
    with pytest.raises(UsageError, match="ETH/USDT's trades are kept from"):
        update(services, as_of=market.now())
    outcome = update(services)
    assert (outcome.status, outcome.exit_code) == ("partial", 1)
    assert [error.item for error in outcome.errors] == ["ETH/USDT"]
    assert payload(cache, market.pair())["lastPrice"] == "100"
    assert cache.get(tickers.key(market.pair("ETH/USDT").id)) is None


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_database_with_another_default_isolation_level(
    services: TestServices, market: Market, conn: psycopg.Connection, level: str
) -> None:
    """A snapshot taken before the work lock was granted would write candles of an older state."""
    market.trade(NOON - timedelta(hours=6), "100")
    set_database(conn, default_transaction_isolation=level)
    seen: list[str] = []
    original = Pass.elapsed

    def look(current: Pass) -> timedelta:
        with current.transaction("test") as inside:
            seen.append(inside.execute("SHOW transaction_isolation").fetchall()[0][0])
        return original(current)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pass, "elapsed", look)
        close_candles(services, NOON)
    assert set(seen) == {"read committed"}
    agree(services, conn, NOON)


# --- the model


EDGES = [timedelta(0), MICRO, -MICRO, timedelta(seconds=30), timedelta(minutes=1), -timedelta(minutes=1)]


class Exchange:
    """A random market: trades come late, leave, move and change, in transactions that end whenever they like, while
    candle passes run at random moments, or are cut short, or never run."""

    def __init__(self, seed: int, services: TestServices, conn: psycopg.Connection) -> None:
        self.rng = Random(seed)
        self.services = services
        self.market = Market(conn)
        self.conn = conn
        self.symbols = [f"P{number}/USD" for number in range(self.rng.randint(1, 4))]
        for symbol in self.symbols:
            self.market.pair(symbol)
        self.clock = datetime(2025, 3, 29, tzinfo=UTC) + timedelta(minutes=self.rng.randrange(3 * 1440))
        self.open: list[psycopg.Connection] = []
        self.touched: set[int] = set()
        self.log: list[str] = []
        rate = self.rng.choice([0, 1, 3])
        self.actions: list[Callable[[], None]] = (
            [self.insert] * 4
            + [self.begin] * 2
            + [self.end] * 2
            + [self.disturb] * 2
            + [self.advance] * 3
            + [self.candles] * rate * 2
            + [self.check] * 4
            + [self.move_cluster] * self.rng.choice([0, 0, 0, 1])
        )

    def moment(self) -> datetime:
        """A time that is likely to be an edge of something."""
        rng = self.rng
        match rng.randrange(6):
            case 0:
                base = self.clock - timedelta(microseconds=rng.randrange(3_600_000_000))
            case 1:
                base = self.clock - timedelta(microseconds=rng.randrange(50 * 3_600_000_000))
            case 2:
                base = self.clock - DAY
            case 3:
                base = self.clock + timedelta(seconds=rng.randrange(7200))
            case 4:
                base = INTERVALS[rng.choice(["4h", "1h", "5m", "1d", "1M"])].floor(self.clock)
            case _:
                base = self.clock
        if rng.random() < 0.5:
            base = INTERVALS[rng.choice(["1m", "1m", "5m", "15m", "1h", "4h"])].floor(base)
        return base + rng.choice(EDGES)

    def amount(self) -> Decimal:
        digits = self.rng.choice([1, 3, 9, 20, 36])
        return Decimal(self.rng.randint(1, 10**digits - 1)).scaleb(
            -self.rng.choice([0, 2, 18]) if digits < 19 else -18
        )

    def put(self, conn: psycopg.Connection, count: int) -> None:
        dense = self.moment()
        for _ in range(count):
            at = dense if self.rng.random() < 0.3 else self.moment()
            self.market.trade(at, self.amount(), self.amount(), pair=self.rng.choice(self.symbols), conn=conn)
            if conn is not self.conn:
                self.touched.add(self.market.next_id - 1)

    def insert(self) -> None:
        self.put(self.conn, self.rng.choice([1, 1, 2, 20]))
        self.log.append("insert")

    def begin(self) -> None:
        """A transaction that has its id now, and ends later."""
        if len(self.open) < 3:
            conn = psycopg.connect(self.services.database_url)
            self.open.append(conn)
            self.put(conn, self.rng.randint(1, 3))
            if self.rng.random() < 0.5:
                self.change(conn)
            self.log.append("begin")

    def end(self) -> None:
        if self.open:
            conn = self.open.pop(self.rng.randrange(len(self.open)))
            (conn.commit if self.rng.random() < 0.75 else conn.rollback)()
            conn.close()
            self.log.append("end")

    def disturb(self) -> None:
        if self.rng.random() < 0.03 and not self.open:
            self.conn.execute("TRUNCATE trades")
            self.log.append("truncate")
        else:
            self.change(self.conn)

    def change(self, conn: psycopg.Connection) -> None:
        """Deletes, reprices or moves some trades that no open transaction holds."""
        rows = self.conn.execute("SELECT id FROM trades ORDER BY id").fetchall()
        ids = [row[0] for row in rows if row[0] not in self.touched]
        some = self.rng.sample(ids, min(len(ids), self.rng.choice([1, 2, 5])))
        if conn is not self.conn:
            self.touched.update(some)
        kind = self.rng.randrange(4)
        if kind == 0:
            conn.execute("DELETE FROM trades WHERE id = ANY (%s)", [some])
        elif kind == 1:
            conn.execute("UPDATE trades SET price = %s WHERE id = ANY (%s)", [self.amount(), some])
        elif kind == 2:
            conn.execute("UPDATE trades SET executed_at = %s WHERE id = ANY (%s)", [self.moment(), some])
        else:
            pair = self.market.pair(self.rng.choice(self.symbols)).id
            conn.execute("UPDATE trades SET trading_pair_id = %s WHERE id = ANY (%s)", [pair, some])
        self.log.append(f"change {kind} of {len(some)}")

    def advance(self) -> None:
        self.clock += self.rng.choice(
            [MICRO, timedelta(seconds=5), timedelta(minutes=1), timedelta(minutes=17), timedelta(hours=3)]
        )
        if self.rng.random() < 0.4:
            self.clock = INTERVALS[self.rng.choice(["1m", "1m", "1h", "4h"])].floor(self.clock)

    def candles(self) -> None:
        """A candle pass: whole, of one pair, of a longer interval, in small chunks, or out of time half-way."""
        rng = self.rng
        name = rng.choice(["1m", "1m", "1m", "5m", "1h", "1d"])
        as_of = self.clock - rng.choice(
            [timedelta(0), timedelta(0), timedelta(minutes=2), timedelta(hours=5)]
        )
        pairs = rng.sample(self.symbols, 1) if rng.random() < 0.3 else []
        services = with_settings(
            self.services,
            candle_chunk=rng.choice([timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)]),
        )
        steps = rng.choice([0, 1, 2, 3, 1000])

        def elapsed(_: Pass) -> timedelta:
            nonlocal steps
            steps -= 1
            return timedelta(0) if steps >= 0 else timedelta(days=1)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pass, "elapsed", elapsed)
            close_candles(services, as_of, name, pairs=pairs)
        self.log.append(f"candles {name} {as_of} {pairs} {steps}")

    def move_cluster(self) -> None:
        self.conn.execute("UPDATE ingest_state SET system_identifier = system_identifier - 1")
        self.log.append("another cluster")

    def check(self) -> None:
        rng = self.rng
        as_of = self.clock
        if rng.random() < 0.5:
            as_of = self.moment()
        elif rng.random() < 0.5:
            row = self.conn.execute("SELECT executed_at FROM trades ORDER BY random() LIMIT 1").fetchone()
            if row is not None:  # the window's start, or its end, on a trade
                as_of = row[0].astimezone(UTC) + rng.choice([DAY, timedelta(0)]) + rng.choice(EDGES)
        agree(self.services, self.conn, as_of, self.log)

    def run(self, steps: int) -> None:
        try:
            for _ in range(steps):
                self.rng.choice(self.actions)()
            while self.open:
                self.end()
            self.check()
            self.candles()
            self.check()
        finally:
            for conn in self.open:
                conn.close()


@pytest.mark.parametrize("seed", range(400 if FULL else 40))
def test_tickers_equal_brute_force_whatever_the_candles_are_doing(
    services: TestServices, conn: psycopg.Connection, seed: int
) -> None:
    """T06, T08, T15, T18, C11, C17 and C18 in any order and mixture."""
    Exchange(seed, services, conn).run(40)


@pytest.mark.parametrize("writers", [3])
def test_tickers_equal_the_trades_of_their_own_snapshot_under_concurrent_writers(
    services: TestServices, conn: psycopg.Connection, writers: int
) -> None:
    """T18 for real: transactions overlap with candle passes and with the reader in every way that they like to."""
    market = Market(conn)
    symbols = ["A/USD", "B/USD"]
    pairs = [market.pair(symbol) for symbol in symbols]
    now = market.now()
    done = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Callable[[Random], None], seed: int) -> threading.Thread:
        def target() -> None:
            rng = Random(seed)
            try:
                while not done.is_set():
                    work(rng)
            except BaseException as error:  # noqa: BLE001 the test's own thread shows it
                failures.append(error)

        thread = threading.Thread(target=target)
        thread.start()
        return thread

    def write(rng: Random) -> None:
        with psycopg.connect(services.database_url) as mine:
            for _ in range(10):
                for _ in range(rng.randint(1, 3)):
                    at = now - timedelta(microseconds=rng.randrange(25 * 3_600_000_000))
                    mine.execute(
                        "INSERT INTO trades (trading_pair_id, executed_at, price, quantity) VALUES (%s, %s, %s, %s)",
                        [rng.choice(pairs).id, at, rng.randint(1, 999), rng.randint(1, 99)],
                    )
                if rng.random() < 0.3:
                    # SKIP LOCKED: another writer's row isn't waited for, so there is no deadlock.
                    mine.execute(
                        "DELETE FROM trades WHERE (trading_pair_id, id) IN"
                        " (SELECT trading_pair_id, id FROM trades ORDER BY random() LIMIT 2 FOR UPDATE SKIP LOCKED)"
                    )
                time.sleep(rng.random() * 0.02)
                (mine.commit if rng.random() < 0.8 else mine.rollback)()

    def candles(rng: Random) -> None:
        generate(services, INTERVALS["1m"], as_of=now - timedelta(minutes=rng.choice([0, 0, 90])))

    threads = [guarded(write, seed) for seed in range(writers)] + [guarded(candles, 99)]
    try:
        trusted = 0
        with psycopg.connect(services.database_url, autocommit=True) as reader:
            for _ in range(400 if FULL else 60):
                with reader.transaction():
                    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    found = tickers.compute(reader, pairs, now)
                    trades = stored(reader)
                    trusted += len(reader.execute("SELECT 1 FROM candles LIMIT 1").fetchall())
                assert found == [expected(pair, trades.get(pair.id, []), now) for pair in pairs]
        assert trusted > 0, "no candle was there to be trusted: the test tests nothing"
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_the_model_itself_on_an_example() -> None:
    pair = TradingPair(1, "A/B", "ACTIVE")

    def trades(*items: tuple[int, int, str]) -> Sequence[Trade]:
        return [
            Trade(NOON - timedelta(hours=hours), number, Decimal(price), Decimal(2))
            for number, hours, price in items
        ]

    found = expected(pair, trades((1, 30, "7"), (2, 24, "8"), (4, 3, "12"), (3, 3, "9"), (5, 0, "10")), NOON)
    assert shown(found.prev_close, found.open, found.high, found.low, found.last) == "8 9 12 9 10"
    assert (found.first_trade_id, found.last_trade_id, found.trade_count) == (3, 5, 3)
    assert shown(found.quote_volume) == "62"
    assert found.change_percent == Decimal("11.11111111")
    assert expected(pair, trades((1, 30, "7")), NOON).stale
    assert expected(pair, [], NOON).last is None


def test_settings_of_the_tests_are_the_defaults(services: TestServices) -> None:
    assert services.settings == Settings.model_validate({})
