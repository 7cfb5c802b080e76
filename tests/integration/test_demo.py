"""`maven demo` as a stranger runs it: from nothing, on its own servers, and nowhere else."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis

from maven_cli import embedded
from maven_cli.demo.exchange import MARKETS, Trade, Walk
from maven_cli.demo.traders import DUE, FILLED, FIRST_USER, ORDERS, users
from maven_cli.numbers import plain
from maven_cli.times import parse_instant
from tests.exchange import Exchange
from tests.integration.test_show import line_of, on_terminal
from tests.support import Cli, Done, Market

SYMBOLS = [market.symbol for market in MARKETS]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home for this module's demos; in /tmp, where also the unprivileged server account comes in."""
    path = Path(tempfile.mkdtemp(prefix="maven-d-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    if (path / "demo").exists():
        embedded.stop(path / "demo", force=True)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def own(home: Path) -> Cli:
    """The command on that home, without any URL."""
    return Cli({"MAVEN_HOME": str(home)})


@dataclass(frozen=True)
class Made:
    """One demo with --json, how many seconds it took, and what it left (other tests soon start it anew)."""

    done: Done
    seconds: float
    states: dict[str, int]
    credited: list[tuple[Any, ...]]
    held: list[tuple[Any, ...]]
    settled: int
    told: int
    story: Done


@pytest.fixture(scope="module")
def made(own: Cli, home: Path) -> Made:
    began = time.monotonic()
    done = own("demo", "--json", timeout=120)
    seconds = time.monotonic() - began
    assert done.code == 0, done.err
    servers = embedded.attach(home / "demo")
    with psycopg.connect(servers.database_url) as conn, redis.Redis.from_url(servers.redis_url) as client:
        settled = conn.execute(
            "SELECT count(*) FROM trades WHERE buy_order_id IS NOT NULL AND sell_order_id IS NOT NULL"
        ).fetchone()
        assert settled is not None
        states: dict[str, int] = dict(
            conn.execute("SELECT status, count(*) FROM orders GROUP BY 1").fetchall()
        )
        credited = conn.execute(
            "SELECT w.asset_id, sum(e.available_delta) FROM ledger_entries e JOIN wallets w ON w.id = e.wallet_id"
            " WHERE e.kind = 'deposit' GROUP BY 1 ORDER BY 1"
        ).fetchall()
        held = conn.execute(
            "SELECT asset_id, sum(available + locked) FROM wallets GROUP BY 1 ORDER BY 1"
        ).fetchall()
        number = done.document["data"]["orders"]["expired"][0]["order"]
        story = Cli({"MAVEN_HOME": str(home / "demo")})("orders", "show", str(number), "--json")
        told = int(client.xlen("maven:events"))
    return Made(done, seconds, states, credited, held, settled[0], told, story)


@pytest.fixture
def data(made: Made) -> Any:
    return made.done.document["data"]


def test_it_takes_less_than_a_minute(made: Made, data: Any) -> None:
    assert made.seconds < 60
    assert 0 < data["seconds"] < 60
    assert [step["name"] for step in data["steps"]] == [
        "Start PostgreSQL and Valkey",
        "Clear the last demo",
        "Simulate two days of trading",
        "Store the trades",
        "Open accounts",
        "Place orders, and fill some",
        "Close the candles",
        "Run the 1m candle pass",
        "Run the ticker pass",
        "Run the expiry pass",
        "Deliver the events",
        "Audit the books",
    ]


def test_its_document_has_the_whole_exchange(data: Any) -> None:
    assert 100_000 < data["trades"] < 400_000
    assert data["candles"] > 10_000
    rows = {row["pair"]: row for row in data["tickers"]}
    assert set(rows) == set(SYMBOLS)
    assert [pair for pair, row in rows.items() if row["stale"]] == ["XMR/BTC"]
    for row in rows.values():
        assert Decimal(row["low"]) <= Decimal(row["last"]) <= Decimal(row["high"])
    assert rows["BTC/USDT"]["trade_count"] > 10_000
    chart = data["chart"]
    assert (chart["pair"], chart["interval"], len(chart["candles"])) == ("BTC/USDT", "15m", 96)
    assert [candle["closed"] for candle in chart["candles"]] == [True] * 95 + [False]
    # Up to now: the newest window is the one in which the demo ran, or the one that ended meanwhile.
    age = parse_instant(data["as_of"]) - parse_instant(chart["candles"][-1]["start"])
    assert -timedelta(minutes=1) < age < timedelta(minutes=15)


def test_orders_expire_and_the_books_are_right(made: Made, data: Any) -> None:
    orders, audit = data["orders"], data["audit"]
    assert orders["placed"] == ORDERS
    assert orders["live"] == ORDERS - DUE
    assert len(orders["expired"]) == DUE
    assert len({one["order"] for one in orders["expired"]}) == DUE
    assert {one["pair"] for one in orders["expired"]} == set(SYMBOLS)
    assert all(Decimal(one["released"]) > 0 and one["user"] in users() for one in orders["expired"])
    assert 1_000 < Decimal(orders["released_usdt"]) < 200_000
    assert orders["events"] == 2 * DUE
    assert (audit["wrong"], audit["named"]) == (0, [])
    assert audit["checks"] > 10
    states = made.states
    assert states["EXPIRED"] == DUE
    assert states["FILLED"] == FILLED
    assert states["OPEN"] + states["PARTIALLY_FILLED"] == ORDERS - DUE
    # Each fill was between two users, so that no asset became more or less.
    assert made.credited == made.held
    assert made.settled == FILLED
    assert made.told >= 2 * DUE


def test_an_order_of_the_table_has_its_story(made: Made) -> None:
    assert made.story.code == 0, made.story.err
    assert made.story.document["data"]["status"] == "EXPIRED"
    assert [row["what"] for row in made.story.document["data"]["story"]][:2] == ["placed", "ledger"]


def test_its_candles_verify(own: Cli, home: Path, data: Any) -> None:
    verified = Cli({"MAVEN_HOME": str(home / "demo")})("candles", "verify", "--json", timeout=120)
    assert (verified.code, verified.document["data"]["count"]) == (0, 0)


def test_the_commands_it_names_work_when_pasted(own: Cli, home: Path, data: Any) -> None:
    """All but the last, `maven demo --live`, which the tests below run."""
    assert len(data["commands"]) == 3
    assert data["commands"][-1].endswith(" demo --live")
    for line in data["commands"][:-1]:
        assert line.startswith(f"MAVEN_HOME={home}/demo ")
        pasted = subprocess.run(
            line, shell=True, env=own.environment(), capture_output=True, timeout=120, check=False, text=True
        )
        assert pasted.returncode == 0, pasted.stderr
        assert pasted.stdout


def test_it_leaves_the_home_itself_alone(home: Path, data: Any) -> None:
    assert [path.name for path in home.iterdir()] == ["demo"]


def test_every_run_starts_anew_and_a_seed_is_one_market(own: Cli, home: Path, data: Any) -> None:
    for seed in (3, 4):
        found = own("demo", "--json", "--pairs", "2", "--seed", str(seed), timeout=120).document["data"]
        now = parse_instant(found["as_of"])
        expected = {market.symbol: list(Walk.of(market, seed).history(now)) for market in MARKETS[:2]}
        assert found["trades"] == sum(map(len, expected.values()))
        assert {row["pair"]: row["last"] for row in found["tickers"]} == {
            symbol: plain(trades[-1].price) for symbol, trades in expected.items()
        }
        with psycopg.connect(embedded.attach(home / "demo").database_url) as conn:
            stored = conn.execute(
                "SELECT id, executed_at, price, quantity, side FROM trades"
                " WHERE trading_pair_id = (SELECT id FROM trading_pairs WHERE symbol = 'ETH/USDT') ORDER BY id"
            ).fetchall()
            others = conn.execute(
                "SELECT count(*) FROM candles WHERE trading_pair_id NOT IN"
                " (SELECT id FROM trading_pairs WHERE status = 'ACTIVE')"
            ).fetchone()
            books = conn.execute(
                "SELECT (SELECT count(*) FROM orders), (SELECT count(DISTINCT user_id) FROM wallets),"
                " (SELECT count(*) FROM ledger_entries WHERE kind = 'deposit'), (SELECT count(*) FROM wallets),"
                " (SELECT tgenabled = 'O' FROM pg_trigger WHERE tgname = 'maven_ledger_no_change')"
            ).fetchone()
        assert [Trade(*row) for row in stored] == expected["ETH/USDT"]
        assert others == (0,)
        # Nothing of the demos before, and the ledger refuses again what it refused.
        assert books == (ORDERS + FILLED, len(users()), 3 * len(users()), 3 * len(users()), True)
        assert found["audit"]["wrong"] == 0


def test_plain_output_is_plain(own: Cli, home: Path) -> None:
    found = own("demo", "--pairs", "3", timeout=120)
    assert found.code == 0
    assert found.err == ""
    assert "\x1b" not in found.out
    for expected in (
        *SYMBOLS[:3],
        "trade_count",
        "Audit: nothing is wrong in ",
        "BTC/USDT 15m",
        "Done in ",
        f"MAVEN_HOME={home}/demo ",
        "--live",
    ):
        assert expected in found.out
    drawn = found.out[found.out.index("BTC/USDT 15m") : found.out.index("Done in")]
    assert max(map(len, drawn.splitlines())) <= 80
    assert (
        len(
            re.findall(
                r"^(?:Start|Clear|Simulate|Store|Open|Place|Close|Run|Deliver|Audit) .* \d+\.\d\d s$",
                found.out,
                re.MULTILINE,
            )
        )
        == 12
    )
    rows = re.findall(r"^ *\d+ +(\d+)  \S+/\S+ +(?:buy|sell) .* [A-Z]+$", found.out, re.MULTILINE)
    assert len(rows) == DUE
    assert min(map(int, rows)) >= FIRST_USER


def test_a_terminal_gets_the_commands_uncut(own: Cli, home: Path) -> None:
    with on_terminal(own, "demo", "--pairs", "1", columns=40, lines=24) as terminal:
        terminal.until_ended(120)
    assert terminal.process.returncode == 0
    printed = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", terminal.raw).decode()
    command = f"MAVEN_HOME={home}/demo {sys.executable} -m maven_cli orders expiring"
    assert f"\n  {command}\r\n" in printed
    assert re.search(r"#\d+ +\S+/\S+ +\S+ +[A-Z]+", printed)
    assert f"and {DUE - 8} more orders expired" in printed
    assert "\x1b[32m" in terminal.raw.decode()


def test_live_is_a_dashboard_until_ctrl_c(own: Cli, home: Path) -> None:
    with on_terminal(own, "demo", "--live", columns=80, lines=24) as terminal:
        terminal.until(
            lambda: "Ctrl-C ends" in terminal.text() and "✓ tickers" in terminal.text(), timeout=90
        )
        first = trades_on(terminal.text())
        rows = terminal.screen.display
        assert sum(any(row.startswith(symbol) for symbol in SYMBOLS) for row in rows[2:10]) == 7
        assert "BTC/USDT 1m" in terminal.text()
        assert re.search(r"▲ \+\d|▼ -\d", terminal.text())
        assert re.search(r"[▁▂▃▄▅▆▇█]{16}", terminal.text())
        assert re.search(r"✓ candles:1m +\d+ ms", terminal.text())
        assert re.search(r"✓ tickers +\d+ ms", terminal.text())
        assert "stale" in terminal.text()
        assert re.search(r"^Orders  \d+ live   \d+ expired in the last minute", terminal.text(), re.MULTILINE)
        assert re.search(r"#\d+ +(buy|sell) .* back +\d+s ago", terminal.text())
        terminal.until(
            lambda: "✓ orders-expire" in terminal.text() and "✓ events-relay" in terminal.text(), timeout=30
        )
        assert "candles:backfill" not in terminal.text()
        # The newest that expired is soon another one.
        newest = re.findall(r"#\d+", terminal.text())[0]
        terminal.until(lambda: re.findall(r"#\d+", terminal.text())[:1] not in ([], [newest]), timeout=40)
        terminal.until(lambda: trades_on(terminal.text()) > first, timeout=20)
        # A smaller window gets a smaller picture.
        terminal.screen.resize(20, 60)
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
        terminal.until(
            lambda: "Last 24 hours" not in terminal.text() and "Ctrl-C ends" in terminal.text(), timeout=20
        )
        assert terminal.screen.display[0].startswith("maven demo")
        assert "BTC/USDT 1m" in terminal.text()
        os.write(terminal.master, b"\x03")
        terminal.until_ended()
    assert terminal.process.returncode == 0
    assert "Audit: nothing is wrong in " in terminal.text()
    assert terminal.raw.index(b"\x1b[?1049h") < terminal.raw.index(b"\x1b[?1049l")
    assert terminal.raw.rindex(b"\x1b[?25l") < terminal.raw.rindex(b"\x1b[?25h")
    assert b"Traceback" not in terminal.raw
    # Nothing trades on; what did was settled between orders, too, and some of them expired before your eyes.
    with psycopg.connect(embedded.attach(home / "demo").database_url, autocommit=True) as conn:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'maven %'"
        assert conn.execute(query).fetchone() == (0,)
        counts = conn.execute(
            "SELECT (SELECT count(*) FROM orders WHERE status = 'EXPIRED'),"
            " (SELECT count(*) FROM trades WHERE buy_order_id IS NOT NULL), (SELECT count(*) FROM dead_letters)"
        ).fetchone()
    assert counts is not None
    assert counts[0] > DUE
    assert counts[1] > FILLED
    assert counts[2] == 0


def trades_on(screen: str) -> int:
    found = re.search(r"([\d,]+) trades", screen)
    return int(found[1].replace(",", "")) if found else 0


def test_live_says_so_when_the_books_are_wrong(own: Cli, home: Path) -> None:
    process = own.start("demo", "--live", "--pairs", "1")
    assert process.stdout is not None
    try:
        while not re.search(r" orders \d+ live ", line_of(process.stdout, 90)):
            pass
        with (
            psycopg.connect(embedded.attach(home / "demo").database_url, autocommit=True) as conn,
            conn.transaction(),
        ):
            conn.execute("ALTER TABLE ledger_entries DISABLE TRIGGER maven_ledger_no_change")
            conn.execute(
                "UPDATE ledger_entries SET available_delta = available_delta + 1 WHERE kind = 'deposit' AND wallet_id ="
                " (SELECT min(wallet_id) FROM ledger_entries)"
            )
            conn.execute("ALTER TABLE ledger_entries ENABLE TRIGGER maven_ledger_no_change")
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert re.search(rb"^Audit: \d+ of [\d,]+ rows are wrong\n  .*wallet", rest, re.MULTILINE)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_live_in_a_pipe_prints_lines(own: Cli, number: signal.Signals, code: int) -> None:
    process = own.start("demo", "--live", "--pairs", "2")
    assert process.stdout is not None
    try:
        lines = [line_of(process.stdout, 90)]
        while not any(re.fullmatch(r"\S+Z tickers success \d+ms\n", line) for line in lines):
            lines.append(line_of(process.stdout, 90))
        assert any(re.fullmatch(r"\S+Z BTC/USDT [\d.]+ -?[\d.]+ [\d.]+ \d+\n", line) for line in lines)
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == code
    assert any(
        re.fullmatch(r"\S+Z orders \d+ live \d+ expired [\d.]+ USDT released\n", line) for line in lines
    )
    # SIGTERM is in a hurry; Ctrl-C still wants to know.
    assert (b"Audit: nothing is wrong in " in rest) == (number == signal.SIGINT)
    assert b"Traceback" not in errors
    assert b"\x1b" not in rest


def test_live_with_json_prints_a_document_a_line(own: Cli) -> None:
    process = own.start("demo", "--live", "--pairs", "1", "--json")
    assert process.stdout is not None
    try:
        documents = [json.loads(line_of(process.stdout, 90)) for _ in range(2)]
    finally:
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert json.loads(rest.splitlines()[-1])["data"]["audit"]["wrong"] == 0
    assert documents[0]["data"]["orders"]["live"] > 0
    assert [document["command"] for document in documents] == ["demo", "demo"]
    before, after = (document["data"] for document in documents)
    assert after["tickers"][0]["as_of"] > before["tickers"][0]["as_of"]
    assert after["trades"] >= before["trades"]


def test_two_demos_do_not_share_an_exchange(own: Cli) -> None:
    process = own.start("demo", "--live", "--pairs", "1", "--json")
    assert process.stdout is not None
    try:
        line_of(process.stdout, 90)
        second = own("demo", "--pairs", "1")
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert second.code == 75
    assert "another maven demo is running there" in second.err


# --- somebody's own database ------------------------------------------------------------------------------------------


def everything(conn: psycopg.Connection) -> dict[str, Any]:
    tables = (
        "assets",
        "trading_pairs",
        "trades",
        "candles",
        "candle_progress",
        "candle_marks",
        "worker_runs",
    )
    return {table: conn.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in tables}


@pytest.mark.parametrize("symbol", ["ADA/EUR", "BTC/USDT"])
def test_it_refuses_a_real_exchange(cli: Cli, market: Market, cache: redis.Redis, symbol: str) -> None:
    market.trade(timedelta(hours=-1), pair=symbol)
    cache.set("ticker:24h:1", "real")
    before = everything(market.conn)
    found = cli("demo")
    assert found.code == 2
    assert symbol in found.err
    assert "unset MAVEN_DATABASE_URL" in found.err
    assert everything(market.conn) == before
    assert cache.keys() == ["ticker:24h:1"]


def test_not_even_yes_takes_a_real_pair(cli: Cli, market: Market) -> None:
    market.trade(timedelta(hours=-1), pair="BTC/USDT")
    before = everything(market.conn)
    assert cli("demo", "--yes").code == 2
    assert everything(market.conn) == before


def test_yes_leaves_other_peoples_orders_and_wallets(cli: Cli, conn: psycopg.Connection) -> None:
    """Also such that are due: they are the real exchange's expiry pass's."""
    exchange = Exchange(conn)
    exchange.pair("ADA/EUR")
    exchange.assets.update(conn.execute("SELECT symbol, id FROM assets").fetchall())
    conn.execute(
        "SELECT maven_ledger_credit('{1}', ARRAY[%s]::bigint[], '{real}', '{100}')", [exchange.assets["ADA"]]
    )
    order = exchange.place(pair="ADA/EUR")
    queries = [
        "SELECT * FROM orders WHERE user_id = 1",
        "SELECT * FROM wallets WHERE user_id = 1",
        "SELECT * FROM ledger_entries WHERE wallet_id = (SELECT id FROM wallets WHERE user_id = 1) ORDER BY seq",
    ]
    before = [conn.execute(query).fetchall() for query in queries]
    for _ in range(2):
        found = cli("demo", "--yes", "--pairs", "1", "--json")
        assert found.code == 0, found.err
        assert found.document["data"]["audit"]["wrong"] == 0
    assert [conn.execute(query).fetchall() for query in queries] == before
    assert exchange.status(order) == "OPEN"


def test_it_refuses_users_with_its_numbers(cli: Cli, conn: psycopg.Connection) -> None:
    conn.execute("INSERT INTO assets (symbol) VALUES ('EUR')")
    conn.execute("INSERT INTO wallets (user_id, asset_id) SELECT %s, id FROM assets", [FIRST_USER + 1])
    found = cli("demo", "--yes")
    assert found.code == 2
    assert f"users with the demo's numbers ({FIRST_USER} …)" in found.err
    assert conn.execute("SELECT count(*) FROM trading_pairs").fetchone() == (0,)


def test_yes_runs_beside_other_pairs_and_leaves_them(cli: Cli, market: Market) -> None:
    for at in range(3):
        market.trade(timedelta(hours=-at), pair="ADA/EUR")
    query = "SELECT t.* FROM trades t JOIN trading_pairs p ON p.id = t.trading_pair_id WHERE symbol = 'ADA/EUR' ORDER BY id"
    before = market.conn.execute(query).fetchall()
    found = cli("demo", "--yes", "--pairs", "1", "--json")
    assert found.code == 0, found.err
    assert [row["pair"] for row in found.document["data"]["tickers"]] == ["BTC/USDT"]
    assert market.conn.execute(query).fetchall() == before
    # And again, now that the demo's own pairs are there: still only with --yes.
    assert cli("demo", "--pairs", "1").code == 2
    assert cli("demo", "--yes", "--pairs", "1", "--json").code == 0
    assert market.conn.execute(query).fetchall() == before


def test_it_refuses_a_redis_that_others_use(cli: Cli, market: Market, cache: redis.Redis) -> None:
    """The demo's pairs would have the ids of the real ones, and its tickers their keys."""
    cache.set("ticker:24h:1", "real")
    found = cli("demo")
    assert found.code == 2
    assert "MAVEN_REDIS_URL holds tickers or candles that aren't the demo's" in found.err
    assert cache.get("ticker:24h:1") == "real"
    assert market.conn.execute("SELECT count(*) FROM trading_pairs").fetchone() == (0,)


def test_an_empty_database_becomes_the_demos_own(cli: Cli, market: Market, cache: redis.Redis) -> None:
    for _ in range(2):
        found = cli("demo", "--pairs", "2", "--json")
        assert found.code == 0, found.err
        assert found.document["data"]["commands"][0].startswith("MAVEN_HOME") is False
        row = market.conn.execute("SELECT count(*) FROM trades").fetchone()
        assert row == (found.document["data"]["trades"],)
    assert len(list(cache.scan_iter("ticker:24h:*"))) == 2
    assert not (Path(cli.variables["MAVEN_HOME"]) / "demo").exists()


def test_a_redis_url_alone_is_left_alone(own: Cli, cache: redis.Redis, redis_url: str, home: Path) -> None:
    cache.set("ticker:24h:1", "real")
    found = own("demo", "--pairs", "1", "--json", env={"MAVEN_REDIS_URL": redis_url}, timeout=120)
    assert found.code == 0, found.err
    assert cache.keys() == ["ticker:24h:1"]
    assert found.document["data"]["commands"][0].startswith(f"MAVEN_REDIS_URL= MAVEN_HOME={home}/demo ")


@pytest.mark.parametrize("pairs", ["0", "8", "many"])
def test_it_refuses_other_numbers_of_pairs(own: Cli, pairs: str) -> None:
    assert own("demo", "--pairs", pairs).code == 2
