"""`maven tickers show` and `maven candles show`: what readers get, to the digit, and what they are told when it is late."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from itertools import pairwise
from typing import IO, Any

import psycopg
import pyte
import pytest
from rich.console import Console

from maven_cli.cli.candle_show import chart_size
from maven_cli.cli.output import jsonable
from maven_cli.cli.render import missing_row, print_table, table_lines, ticker_fields, ticker_rows
from maven_cli.intervals import INTERVALS, Interval
from maven_cli.market.candle_read import reading
from maven_cli.market.pairs import TradingPair, set_status
from maven_cli.market.tickers import Ticker
from maven_cli.passes import candles as candle_pass
from maven_cli.passes import tickers as ticker_pass
from tests.conftest import TestServices
from tests.support import Cli, Market, utc

KEYS = [
    "start", "open", "high", "low", "close", "base_volume", "quote_volume", "trade_count", "first_trade_id",
    "last_trade_id", "revision", "closed", "empty",
]  # fmt: skip
TICKER_KEYS = [
    "pair", "last", "open", "high", "low", "prev_close", "change", "change_percent", "volume", "quote_volume",
    "trade_count", "first_trade_id", "last_trade_id", "last_trade_at", "stale", "as_of", "note", "age",
]  # fmt: skip
HOUR, MINUTE, SECOND = timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1)
NO_TICKER = "no ticker: is the tickers pass running?"


# --- tickers show ---------------------------------------------------------------------------------------------------


def test_tickers_show_what_the_pass_wrote(cli: Cli, market: Market, services: TestServices) -> None:
    market.trade(-25 * HOUR, "90")
    market.trade(-2 * HOUR, "100", "0.5")
    market.trade(-1 * HOUR, "110.50", "0.000000000000000001")
    market.trade(-30 * HOUR, "7", pair="ETH/USDT")
    market.pair("SOL/USDT")
    outcome = ticker_pass.update(services)
    assert outcome.data is not None

    done = cli("tickers", "show", "--json")

    assert done.code == 0
    rows = done.document["data"]
    assert [list(row) for row in rows] == [TICKER_KEYS] * 3
    ages = [row.pop("age") for row in rows]
    assert all(0 < age < 15 for age in ages)
    assert [row.pop("note") for row in rows] == [None] * 3
    assert rows == jsonable(ticker_rows(outcome.data["tickers"]))
    assert rows[0]["quote_volume"] == "50.0000000000000001105"
    assert (rows[1]["pair"], rows[1]["stale"], rows[1]["last"]) == ("ETH/USDT", True, "7")
    assert (rows[2]["last"], rows[2]["stale"]) == (None, False)


def test_a_ticker_that_is_not_there_is_shown_as_missing(
    cli: Cli, market: Market, conn: psycopg.Connection
) -> None:
    market.trade(-1 * HOUR)
    set_status(conn, market.pair("ETH/USDT").symbol, "HALTED")

    row = cli("tickers", "show", "--json").document["data"]
    plain = cli("tickers", "show", "BTC/USDT", "ETH/USDT")

    assert row == [{**dict.fromkeys(TICKER_KEYS), "pair": "BTC/USDT", "note": NO_TICKER}]
    assert plain.code == 0
    lines = plain.out.splitlines()
    assert lines[1].startswith("BTC/USDT")
    assert lines[1].endswith(NO_TICKER)
    assert lines[2].endswith("no ticker: the pair is HALTED")


def test_tickers_in_a_pipe_are_whole_and_exact(cli: Cli, market: Market, services: TestServices) -> None:
    market.trade(-2 * HOUR, "123456789.123456789123456789", "1000000.000000000000000001")
    market.trade(-1 * HOUR, "123456789.12", "1")
    ticker_pass.update(services)

    done = cli("tickers", "show", env={"COLUMNS": "40"})

    header, line = done.out.splitlines()
    found = dict(zip(header.split(), line.split(), strict=True))
    assert found["open"] == "123456789.123456789123456789"
    assert found["volume"] == "1000001.000000000000000001"
    assert found["change"] == "-0.003456789123456789"
    assert "\x1b" not in done.out


def test_tickers_show_refuses_an_unknown_pair(cli: Cli, market: Market) -> None:
    market.pair()
    done = cli("tickers", "show", "BTC/USD")
    assert done.code == 2
    assert done.out == ""
    assert "did you mean BTC/USDT?" in done.err


def test_tickers_show_without_pairs_says_how_to_add_one(cli: Cli) -> None:
    done = cli("tickers", "show")
    assert (done.code, done.out) == (0, "no active pairs; add one with: maven pairs add BTC/USDT\n")
    assert cli("tickers", "show", "--json").document["data"] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_watch_prints_a_document_per_change(
    cli: Cli, market: Market, services: TestServices, number: signal.Signals, code: int
) -> None:
    market.trade(-1 * HOUR, "100")
    market.pair("ETH/USDT")
    process = cli.start("tickers", "show", "--watch", "--json")
    try:
        assert process.stdout is not None
        first = json.loads(line_of(process.stdout))
        ticker_pass.update(services)
        second = json.loads(line_of(process.stdout))
        process.send_signal(number)
        rest, errors = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert [row["note"] for row in first["data"]] == [NO_TICKER] * 2
    assert [(row["pair"], row["last"]) for row in second["data"]] == [("BTC/USDT", "100"), ("ETH/USDT", None)]
    assert (first["schema"], first["command"]) == (1, "tickers show")
    assert process.returncode == code
    # Nothing more than what changed: no closing document, and no line for what stayed as it was.
    assert rest.decode() == "" or code == 143
    assert "Traceback" not in errors.decode()


def test_watch_in_a_pipe_prints_a_line_per_ticker(cli: Cli, market: Market, services: TestServices) -> None:
    market.trade(-2 * HOUR, "100")
    market.trade(-1 * HOUR, "150", "2")
    process = cli.start("tickers", "show", "--watch")
    try:
        assert process.stdout is not None
        first = line_of(process.stdout)
        outcome = ticker_pass.update(services)
        second = line_of(process.stdout)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
    assert outcome.data is not None
    assert first == f"- BTC/USDT {NO_TICKER}\n"
    assert second == f"{jsonable(outcome.data['as_of'])} BTC/USDT 150 50 3 2\n"


def test_watch_on_a_terminal_stays_current_and_restores_it(
    cli: Cli, market: Market, services: TestServices
) -> None:
    market.trade(-1 * HOUR, "41999.5")
    with on_terminal(cli, "tickers", "show", "--watch") as terminal:
        terminal.until(lambda: NO_TICKER in terminal.text())
        ticker_pass.update(services)
        terminal.until(lambda: "41,999.5" in terminal.text())
        terminal.process.send_signal(signal.SIGINT)
        terminal.until_ended()
    assert terminal.process.returncode == 0
    assert terminal.raw.index(b"\x1b[?1049h") < terminal.raw.index(b"\x1b[?1049l")
    assert terminal.raw.rindex(b"\x1b[?25l") < terminal.raw.rindex(b"\x1b[?25h")
    assert b"41,999.5" in terminal.raw[terminal.raw.index(b"\x1b[?1049l") :]


# --- how tickers are drawn --------------------------------------------------------------------------------------------

PAIR = TradingPair(1, "BTC/USDT", "ACTIVE")
SOME = Ticker(
    pair=PAIR, as_of=utc("2026-01-02T03:04:05"), last=Decimal("97123.45"), open=Decimal("98000"), high=Decimal("99000"),
    low=Decimal("96000"), prev_close=Decimal("98001"), change=Decimal("-876.55"), change_percent=Decimal("-0.89443878"),
    volume=Decimal("1234.5678"), quote_volume=Decimal("119876543.21"), trade_count=34567, first_trade_id=1,
    last_trade_id=34567, last_trade_at=utc("2026-01-02T03:04:04"), stale=False,
)  # fmt: skip


@pytest.mark.parametrize("width", range(24, 200, 8))
def test_a_narrow_terminal_drops_columns_and_never_wraps(width: int) -> None:
    rows = [*ticker_rows([SOME]), missing_row(TradingPair(2, "DOGE/USDT", "ACTIVE"))]
    lines = [line.plain for line in table_lines(ticker_fields(rows, True), rows, width)]
    assert len(lines) == 3
    assert all(len(line) <= width for line in lines)
    assert "BTC/USDT" in lines[1]
    assert "97,123.45" in lines[1]
    assert ("▼ -0.89" in lines[1]) == (width >= 40)


def test_wider_terminals_only_gain_columns() -> None:
    rows = ticker_rows([SOME])
    shown = [
        set(next(table_lines(ticker_fields(rows, True), rows, width)).plain.split("  ")) - {""}
        for width in range(20, 240)
    ]
    assert all(
        {title.strip() for title in before} <= {title.strip() for title in after}
        for before, after in pairwise(shown)
    )
    assert len(shown[-1]) > len(shown[60])


@pytest.mark.parametrize(
    ("change", "style", "text"), [("876.55", "green", "▲ +0.89"), ("-876.55", "red", "▼ -0.89")]
)
def test_changes_are_signed_and_coloured(change: str, style: str, text: str) -> None:
    percent = Decimal("0.89443878").copy_sign(Decimal(change))
    rows = [{**ticker_rows([SOME])[0], "change": Decimal(change), "change_percent": percent}]
    line = list(table_lines(ticker_fields(rows, True), rows, 80))[1]
    at = line.plain.index(text)
    assert any(span.start <= at < span.end and style in str(span.style) for span in line.spans)
    plain = list(table_lines(ticker_fields(rows, False), rows, 80))[1].plain
    assert plain.isascii()
    assert text[2:] in plain


def test_a_terminal_without_colour_gets_none() -> None:
    printed = {}
    for no_color in (False, True):
        out = Console(
            file=StringIO(), force_terminal=True, no_color=no_color, color_system="standard", width=80
        )
        rows = ticker_rows([SOME])
        print_table(out, ticker_fields(rows, True), rows)
        assert isinstance(out.file, StringIO)
        printed[no_color] = out.file.getvalue()
    assert "\x1b[31m" in printed[False]
    assert "\x1b[3" not in printed[True]


# --- candles show -----------------------------------------------------------------------------------------------------


def test_candles_show_closed_quiet_and_running_windows(
    cli: Cli, market: Market, services: TestServices
) -> None:
    minute = INTERVALS["1m"].floor(market.now())
    market.trade(minute - 3 * MINUTE, "10", "2")
    market.trade(minute - 3 * MINUTE + SECOND, "12", "0.5")
    market.trade(
        minute, "11", "1"
    )  # the running minute, or the last closed one when the minute turns meanwhile
    candle_pass.generate(services, INTERVALS["1m"])

    done = cli("candles", "show", "BTC/USDT", "--interval", "1m", "--to", jsonable(minute + MINUTE), "--json")

    assert done.code == 0
    rows = done.document["data"]
    assert (done.document["command"], done.document["errors"]) == ("candles show", [])
    assert [list(row) for row in rows] == [KEYS] * 4
    assert rows[0] == {
        "start": jsonable(minute - 3 * MINUTE), "open": "10", "high": "12", "low": "10", "close": "12",
        "base_volume": "2.5", "quote_volume": "26", "trade_count": 2, "first_trade_id": 1, "last_trade_id": 2,
        "revision": 0, "closed": True, "empty": False,
    }  # fmt: skip
    for quiet, at in zip(rows[1:3], (2, 1), strict=True):
        assert quiet == {
            "start": jsonable(minute - at * MINUTE), "open": "12", "high": "12", "low": "12", "close": "12",
            "base_volume": "0", "quote_volume": "0", "trade_count": 0, "first_trade_id": None, "last_trade_id": None,
            "revision": 0, "closed": True, "empty": True,
        }  # fmt: skip
    assert (rows[3]["close"], rows[3]["trade_count"], rows[3]["empty"]) == ("11", 1, False)
    unfilled = cli("candles", "show", "BTC/USDT", "-i", "1m", "--fill", "none", "--json").document["data"]
    assert [row["start"] for row in unfilled] == [rows[0]["start"], rows[3]["start"]]


def test_a_pair_that_is_behind_is_never_shown_as_quiet(
    cli: Cli, market: Market, services: TestServices
) -> None:
    """The pass stopped ten minutes ago: nine windows have ended since, and two of them traded."""
    minute = INTERVALS["1m"].floor(market.now())
    market.trade(minute - 12 * MINUTE, "10")
    candle_pass.generate(services, INTERVALS["1m"], as_of=minute - 10 * MINUTE)
    market.trade(minute - 10 * MINUTE, "20")
    market.trade(minute - 5 * MINUTE + 30 * SECOND, "30", "4")

    done = cli("candles", "show", "BTC/USDT", "-i", "1m", "--to", jsonable(minute), "--json")

    found = [(row["close"], row["closed"], row["empty"]) for row in done.document["data"]]
    assert found == [
        ("10", True, False), ("10", True, True),
        ("20", False, False), *[("20", False, True)] * 4,
        ("30", False, False), *[("30", False, True)] * 4,
    ]  # fmt: skip
    assert "closed up to" in done.err
    until = minute - 10 * MINUTE
    closed = cli("candles", "show", "BTC/USDT", "-i", "1m", "--to", jsonable(until))
    assert (closed.code, closed.err) == (0, ""), "all of that is closed"
    coarser = cli("candles", "show", "BTC/USDT", "-i", "1M", "--to", jsonable(until))
    assert "closed up to" in coarser.err, "the month that begins before isn't"
    higher = cli("candles", "show", "BTC/USDT", "-i", "1M", "-n", "2", "--json").document["data"]
    assert sum(row["trade_count"] for row in higher) == 3


@pytest.mark.parametrize("seed", range(6))
def test_readings_equal_the_trades(
    market: Market, conn: psycopg.Connection, services: TestServices, seed: int
) -> None:
    """Any interval, range, limit and fill, however far the pass came: what is shown is what the trades say."""
    rng = random.Random(seed)
    now = market.now()
    length = rng.choice([2 * HOUR, 30 * HOUR, timedelta(days=40)])
    moments = sorted(now - SECOND - rng.random() * length for _ in range(rng.choice([1, 30, 150])))
    trades = []
    for at, moment in enumerate(moments, 1):
        price, quantity = Decimal(rng.randrange(90, 110)), Decimal(rng.randrange(1, 9))
        trades.append((at, moment, price, quantity))
        market.trade(moment, price, quantity)
    pair = market.pair()
    # Closed to somewhere: not at all, in the middle, or up to now.
    if (closed := rng.choice([None, now - length * rng.random(), now])) is not None:
        candle_pass.generate(services, INTERVALS["1m"], as_of=closed)

    for _ in range(40):
        interval = INTERVALS[
            rng.choice(list(INTERVALS if length > 3 * HOUR else ["1m", "5m", "15m", "30m", "1h"]))
        ]
        if length > 3 * HOUR and interval.name == "1m" and rng.random() < 0.8:
            interval = INTERVALS["4h"]
        start = rng.choice([None, now - length * rng.random() * 1.2])
        end = rng.choice([None, (start or now - length) + length * rng.random() * 0.7])
        limit = rng.choice([None, 1, 7, 60])
        filled = rng.random() < 0.5
        with reading(conn, pair, interval, start=start, end=end, limit=limit, filled=filled) as found:
            shown = list(found.candles)
            expected = naive(trades, interval, found.as_of, start, end, limit, filled=filled)
            closed_until = found.closed_until
        assert [
            (
                c.start,
                c.open,
                c.high,
                c.low,
                c.close,
                c.base_volume,
                c.quote_volume,
                c.trade_count,
                c.first_trade_id,
                c.last_trade_id,
                c.empty,
            )
            for c in shown
        ] == expected
        for candle in shown:
            done = closed_until is not None and interval.after(candle.start) <= closed_until
            assert candle.closed == done


def naive(
    trades: list[tuple[int, datetime, Decimal, Decimal]],
    interval: Interval,
    as_of: datetime,
    start: datetime | None,
    end: datetime | None,
    limit: int | None,
    *,
    filled: bool,
) -> list[tuple[Any, ...]]:
    """What `reading` promises, from the trades alone."""
    windows: dict[datetime, list[tuple[int, datetime, Decimal, Decimal]]] = {}
    for trade in trades:
        windows.setdefault(interval.floor(trade[1]), []).append(trade)
    rows: list[tuple[Any, ...]] = []
    at = interval.floor(trades[0][1])
    close = Decimal(0)
    while at <= as_of:
        if inside := windows.get(at):
            prices = [trade[2] for trade in inside]
            close = prices[-1]
            volume = sum(trade[3] for trade in inside)
            quote = sum(trade[2] * trade[3] for trade in inside)
            rows.append(
                (
                    at,
                    prices[0],
                    max(prices),
                    min(prices),
                    close,
                    volume,
                    quote,
                    len(inside),
                    inside[0][0],
                    inside[-1][0],
                    False,
                )
            )
        elif filled:
            rows.append((at, close, close, close, close, 0, 0, 0, None, None, True))
        at = interval.after(at)
    rows = [row for row in rows if (start is None or row[0] >= start) and (end is None or row[0] < end)]
    return rows if limit is None else rows[-limit:]


def test_a_table_has_sixty_windows_and_a_document_all_unless_told_otherwise(cli: Cli, market: Market) -> None:
    market.trade(-3 * HOUR)
    market.trade(-1 * SECOND)

    def count(*args: str) -> int:
        return len(cli("candles", "show", "BTC/USDT", "-i", "1m", *args, "--json").document["data"])

    assert len(cli("candles", "show", "BTC/USDT", "-i", "1m").out.splitlines()) == 61
    assert count() in (181, 182)
    assert count("--chart") in (181, 182)
    assert count("--fill", "none") == 2
    assert count("--to", jsonable(market.now() - 1 * HOUR)) in (120, 121)
    assert count("-n", "5") == 5
    assert 181 <= count("-n", "999999999999999999999") <= 182
    assert 181 <= count("--from", "2000-01-01") <= 182
    assert count("--from", jsonable(market.now() - 2 * HOUR)) in (120, 121)
    assert count("--from", "2199-12-31T23:59:59") == 0
    assert count("--to", "2000-01-01") == 0
    assert count("-n", "999999999999999999999", "--fill", "none") == 2


def test_a_range_holds_the_windows_that_start_in_it(cli: Cli, market: Market, services: TestServices) -> None:
    hour = INTERVALS["1h"].floor(market.now()) - 10 * HOUR
    for at in range(8):
        market.trade(hour + at * HOUR + MINUTE, str(100 + at))
    candle_pass.generate(services, INTERVALS["1m"])

    def closes(start: timedelta, end: timedelta) -> list[str]:
        bounds = ["--from", jsonable(hour + start), "--to", jsonable(hour + end)]
        done = cli("candles", "show", "BTC/USDT", "-i", "1h", *bounds, "--json")
        return [row["close"] for row in done.document["data"]]

    assert closes(2 * HOUR, 4 * HOUR) == ["102", "103"]
    assert closes(2 * HOUR + SECOND, 4 * HOUR + SECOND) == ["103", "104"]
    assert closes(2 * HOUR + SECOND, 3 * HOUR) == []
    assert closes(-5 * HOUR, 1 * HOUR) == ["100"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["BTC/USDT", "-i", "3m"], "choose from 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w, 1M"),
        (["BTC/EUR", "-i", "1m"], "did you mean BTC/USDT?"),
        (["BTC/USDT", "-i", "1m", "--limit", "0"], "--limit"),
        (["BTC/USDT", "-i", "1m", "--limit", "-3"], "--limit"),
        (["BTC/USDT", "-i", "1m", "--from", "2026-02-02", "--to", "2026-02-01"], "earlier than --to"),
        (["BTC/USDT", "-i", "1m", "--from", "yesterday"], "is not a time"),
        (["BTC/USDT", "-i", "1m", "--fill", "zero"], "previous"),
        (["BTC/USDT"], "--interval"),
    ],
)
def test_candles_show_refuses(cli: Cli, market: Market, args: list[str], said: str) -> None:
    market.trade(-1 * HOUR)
    done = cli("candles", "show", *args)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1


def test_a_pair_without_trades_has_no_candles(cli: Cli, market: Market) -> None:
    market.pair()
    assert cli("candles", "show", "BTC/USDT", "-i", "1m", "--json").document["data"] == []
    assert cli("candles", "show", "BTC/USDT", "-i", "1m").out == "no candles: BTC/USDT has no trades there\n"
    chart = cli("candles", "show", "BTC/USDT", "-i", "1m", "--chart")
    assert (chart.code, "no candles to draw" in chart.out) == (0, True)


def test_candles_in_a_pipe_are_columns_of_exact_text(
    cli: Cli, market: Market, services: TestServices
) -> None:
    market.trade(-3 * MINUTE, "0.000000123456789012", "1234567.000000000000000001")
    candle_pass.generate(services, INTERVALS["1m"])
    lines = cli("candles", "show", "BTC/USDT", "-i", "1d", "-n", "1").out.splitlines()
    assert lines[0].split() == KEYS
    found = dict(zip(KEYS, lines[1].split(), strict=True))
    assert found["close"] == "0.000000123456789012"
    assert found["quote_volume"] == "0.152415677640177804000000123456789012"
    assert (found["closed"], found["empty"]) == ("false", "false")


def test_a_chart_in_a_pipe_fits_80_columns_without_colour(cli: Cli, market: Market) -> None:
    for at in range(100):
        market.trade(-at * MINUTE, str(97000 + at % 7), str(1 + at % 3))
    done = cli("candles", "show", "BTC/USDT", "-i", "1m", "--chart")
    lines = done.out.splitlines()
    assert len(lines) == 24
    assert 60 < max(map(len, lines)) <= 80
    assert "\x1b" not in done.out
    assert lines[0].startswith("BTC/USDT 1m")
    assert "newest" not in lines[0], "no more than fit were asked for"
    assert any("V " in line for line in lines)
    assert cli(
        "candles", "show", "BTC/USDT", "-i", "1m", "--chart", env={"PYTHONIOENCODING": "ascii"}
    ).out.isascii()


@pytest.mark.parametrize(
    ("columns", "width"),
    [
        ("", 80),
        ("0", 80),
        ("wide", 80),
        ("-5", 80),
        ("²", 80),
        ("1", 20),
        ("0100", 100),
        ("1001", 1000),
        ("99999999", 1000),
        ("9" * 20, 1000),
        ("9" * 5000, 1000),
    ],
)
def test_the_width_of_a_chart_in_a_pipe(monkeypatch: pytest.MonkeyPatch, columns: str, width: int) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert chart_size(Console(file=StringIO(), width=10_000)) == (width, 24)


def test_a_terminal_can_not_be_too_wide() -> None:
    assert chart_size(Console(file=StringIO(), width=99_999_999, height=30, force_terminal=True)) == (
        1000,
        28,
    )


@pytest.mark.parametrize("columns", ["99999999", "9" * 20])
def test_any_number_of_columns_ends(cli: Cli, market: Market, columns: str) -> None:
    market.trade(-MINUTE)
    done = cli("candles", "show", "BTC/USDT", "-i", "1m", "--chart", env={"COLUMNS": columns})
    assert (done.code, len(done.out.splitlines())) == (0, 24)
    assert max(map(len, done.out.splitlines())) <= 1000


def test_a_chart_says_of_how_many_windows_it_shows_the_newest(cli: Cli, market: Market) -> None:
    market.trade(-200 * MINUTE)
    market.trade(-1 * SECOND)
    start = INTERVALS["1m"].floor(market.now()) - 141 * MINUTE
    bounds = ["--from", jsonable(start), "--to", jsonable(start + 142 * MINUTE)]
    title = cli("candles", "show", "BTC/USDT", "-i", "1m", "--chart", *bounds).out.splitlines()[0]
    assert re.search(r"newest \d+ of 142 ", title), title


@pytest.mark.parametrize(("columns", "rows"), [(60, 20), (80, 24), (120, 40)])
def test_candles_fit_a_terminal(cli: Cli, market: Market, columns: int, rows: int) -> None:
    for at in range(5):
        market.trade(-at * MINUTE, str(97000 + at), "1")
    for mode in ("--table", "--chart"):
        args = ["candles", "show", "BTC/USDT", "-i", "1m", mode, "-n", "5"]
        with on_terminal(cli, *args, columns=columns, lines=rows) as terminal:
            terminal.until_ended()
        assert terminal.process.returncode == 0
        shown = [line.rstrip() for line in terminal.screen.display if line.strip()]
        assert "BTC/USDT 1m" in shown[0] if mode == "--chart" else len(shown) == 6, "\n".join(shown)
        assert any("97,00" in line for line in shown)


def test_candles_show_does_not_hold_what_it_prints(market: Market, conn: psycopg.Connection) -> None:
    """Millions of minutes lie between two trades: the first candle comes at once."""
    market.trade(utc("2016-01-01T00:00:00"), "1")
    market.trade(-1 * SECOND, "2")
    with reading(conn, market.pair(), INTERVALS["1m"]) as found:
        began = time.monotonic()
        assert next(found.candles).close == 1
        assert time.monotonic() - began < 1


# --- helpers ----------------------------------------------------------------------------------------------------------


def line_of(stream: IO[bytes], timeout: float = 20) -> str:
    """The next line of a process's output. The process flushes line by line, so that nothing is left in between."""
    ready, _, _ = select.select([stream], [], [], timeout)
    assert ready, "nothing was printed in time"
    return stream.readline().decode()


# Only a controlling terminal turns ^C into SIGINT.
_ON_CONTROLLING_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.executable, [sys.executable, '-m', 'maven_cli', *sys.argv[1:]])"
)


class Terminal:
    """A process on a terminal of its own, and what it shows."""

    def __init__(self, process: subprocess.Popen[bytes], master: int, columns: int, lines: int) -> None:
        self.process = process
        self.raw = b""
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.master = master

    def text(self) -> str:
        return "\n".join(self.screen.display)

    def read(self, timeout: float = 0.1) -> bool:
        """Takes what has come; False at the end."""
        if not select.select([self.master], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def until(self, true: Callable[[], bool], timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < deadline, f"never came; the screen is:\n{self.text()}"
            assert self.read() or true(), f"ended early; the screen was:\n{self.text()}"

    def until_ended(self, timeout: float = 60) -> None:
        deadline = time.monotonic() + timeout
        while self.read():
            assert time.monotonic() < deadline, f"doesn't end; the screen is:\n{self.text()}"
        self.process.wait(timeout)


@contextmanager
def on_terminal(cli: Cli, *args: str, columns: int = 80, lines: int = 24) -> Iterator[Terminal]:
    """Runs `maven args…` on a terminal of that size."""
    import fcntl
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _ON_CONTROLLING_TERMINAL, *args],
        # Somebody's exported COLUMNS would be another terminal's.
        env=cli.environment(TERM="xterm-256color", LANG="C.UTF-8", COLUMNS="", LINES=""),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master, columns, lines)
    finally:
        process.kill()
        process.wait()
        os.close(master)
