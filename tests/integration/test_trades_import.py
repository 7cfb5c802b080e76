"""`maven trades import`: all or nothing, once, exactly."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest

from maven_cli.db.connection import session
from maven_cli.errors import SchemaError, UsageError
from maven_cli.market import trade_files
from maven_cli.market.trade_files import open_trade_file
from maven_cli.market.trade_import import Imported, import_trades
from tests.support import Cli, Market, utc

HEADER = "trade_id,executed_at_ms,side,price,quantity\n"
ROWS = "1,1570752011620,sell,0.5,2\n2,1570752012000,buy,0.6,3\n"
REAL = "binance-xrpeth-2019-10-trades.csv.gz"

Import = Callable[..., Imported]


@pytest.fixture
def load(conn: psycopg.Connection, market: Market, tmp_path: Path) -> Import:
    """Imports a text as the file t.csv into BTC/USDT."""
    market.pair()

    def run(
        content: str, *, symbol: str = "BTC/USDT", create_pair: bool = False, dry_run: bool = False
    ) -> Imported:
        path = tmp_path / "t.csv"
        path.write_text(content)
        with open_trade_file(str(path)) as file:
            return import_trades(conn, file, symbol, create_pair=create_pair, dry_run=dry_run)

    return run


def stored(conn: psycopg.Connection) -> list[tuple[object, ...]]:
    return conn.execute(
        "SELECT id, executed_at AT TIME ZONE 'UTC', price::text, quantity::text, side FROM trades ORDER BY id"
    ).fetchall()


def count(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM trades").fetchone()
    assert row is not None
    return int(row[0])


def test_rows_arrive_exactly(conn: psycopg.Connection, load: Import) -> None:
    largest = "999999999999999999.999999999999999999"
    found = load(HEADER + f"9223372036854775807,7258118399999,buy,0.000000000000000001,{largest}\n" + ROWS)
    assert (found.imported, found.already_there, found.first_id, found.last_id) == (3, 0, 1, 2**63 - 1)
    assert found.first_executed_at == utc("2019-10-11T00:00:11.620")
    assert stored(conn) == [
        (
            1,
            utc("2019-10-11T00:00:11.620").replace(tzinfo=None),
            "0.500000000000000000",
            "2.000000000000000000",
            "sell",
        ),
        (
            2,
            utc("2019-10-11T00:00:12").replace(tzinfo=None),
            "0.600000000000000000",
            "3.000000000000000000",
            "buy",
        ),
        (
            2**63 - 1,
            utc("2199-12-31T23:59:59.999").replace(tzinfo=None),
            "0.000000000000000001",
            largest,
            "buy",
        ),
    ]


def test_binance_dump_takes_milli_and_microseconds_and_the_takers_side(
    conn: psycopg.Connection, load: Import
) -> None:
    load("5,4261.48,0.075,319.6,1502942428322,True,True\n6,4261,1,4261,1735689600000001,false,true\n")
    assert [(row[0], row[1], row[4]) for row in stored(conn)] == [
        (5, utc("2017-08-17T04:00:28.322").replace(tzinfo=None), "sell"),
        (6, utc("2025-01-01T00:00:00.000001").replace(tzinfo=None), "buy"),
    ]


def test_iso_times_are_utc_whatever_the_server_thinks(conn: psycopg.Connection, load: Import) -> None:
    conn.execute("SET TimeZone = 'Asia/Tokyo'")
    load(
        "executed_at,trade_id,price,quantity\n2019-10-11T00:00:11.62,1,1,1\n"
        "2019-10-11T02:00:00+02:00,2,1,1\n2019-10-11T00:00:00.000001Z,3,1,1\n"
    )
    assert [row[1] for row in stored(conn)] == [
        utc(f"2019-10-11T00:00:{second}").replace(tzinfo=None) for second in ("11.62", "00", "00.000001")
    ]
    assert {row[4] for row in stored(conn)} == {None}


def test_a_quoted_empty_side_is_no_side(conn: psycopg.Connection, load: Import) -> None:
    load(HEADER + '1,1570752011620,"",1,1\n2,1570752011620,,1,1\n')
    assert [row[4] for row in stored(conn)] == [None, None]


def test_a_second_import_changes_nothing(conn: psycopg.Connection, load: Import) -> None:
    load(HEADER + ROWS)
    before = conn.execute("SELECT *, xmin FROM trades ORDER BY id").fetchall()
    found = load(HEADER + ROWS + ROWS)
    assert (found.imported, found.already_there) == (0, 4)
    assert conn.execute("SELECT *, xmin FROM trades ORDER BY id").fetchall() == before


def test_what_is_missing_is_added(conn: psycopg.Connection, load: Import) -> None:
    load(HEADER + ROWS)
    found = load(HEADER + ROWS + "3,1570752012001,buy,1,1\n")
    assert (found.imported, found.already_there, count(conn)) == (1, 2, 3)


@pytest.mark.parametrize(
    "other", ["2,1570752012001,buy,0.6,3\n", "2,1570752012000,buy,0.61,3\n", "2,1570752012000,buy,0.6,3.1\n"]
)
def test_an_id_of_another_trade_is_refused(conn: psycopg.Connection, load: Import, other: str) -> None:
    load(HEADER + ROWS)
    with pytest.raises(
        UsageError, match=r"t\.csv, line 3, column trade_id: trade 2 is .* but BTC/USDT already has trade 2"
    ):
        load(HEADER + "7,1570752012000,buy,0.6,3\n" + other)
    assert count(conn) == 2


def test_a_side_learned_later_is_no_conflict(conn: psycopg.Connection, load: Import) -> None:
    load(HEADER + "2,1570752012000,,0.6,3\n")
    assert load(HEADER + "2,1570752012000,buy,0.6,3\n").already_there == 1


@pytest.mark.parametrize("other", ["1,1570752011620,sell,0.5,3\n", "1,1570752011620,buy,0.5,2\n"])
@pytest.mark.parametrize("block", [32, 4 << 20])
def test_an_id_twice_in_the_file_with_other_content_is_refused(
    conn: psycopg.Connection, load: Import, monkeypatch: pytest.MonkeyPatch, other: str, block: int
) -> None:
    monkeypatch.setattr(trade_files, "BLOCK", block)
    with pytest.raises(
        UsageError, match=r"t\.csv, line 4, column trade_id: trade 1 is .* but an earlier line has trade 1"
    ):
        load(HEADER + ROWS + other)
    assert count(conn) == 0


def test_a_bad_line_far_down_leaves_nothing(
    conn: psycopg.Connection, load: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trade_files, "BLOCK", 4096)
    good = "".join(f"{number},1570752011620,sell,0.5,2\n" for number in range(1000))
    with pytest.raises(UsageError, match=r"t\.csv, line 1002, column price"):
        load(HEADER + good + "1000,1570752011620,sell,1e3,2\n", symbol="NEW/PAIR", create_pair=True)
    assert count(conn) == 0
    assert conn.execute("SELECT 1 FROM trading_pairs WHERE symbol = 'NEW/PAIR'").fetchone() is None


def test_lines_below_the_retention_line_are_refused(conn: psycopg.Connection, load: Import) -> None:
    conn.execute("UPDATE trading_pairs SET trades_retained_from = '2019-10-11T00:00:12Z'")
    assert load(HEADER + ROWS.splitlines(keepends=True)[1]).imported == 1
    with pytest.raises(
        UsageError, match=r"t\.csv, line 3, column executed_at_ms: a trade of 2019-10-11T00:00:11.62"
    ):
        load(HEADER + "3,1570752012001,buy,1,1\n" + ROWS)
    assert count(conn) == 1


def test_a_dry_run_checks_everything_and_writes_nothing(conn: psycopg.Connection, load: Import) -> None:
    found = load(HEADER + ROWS, symbol="NEW/PAIR", create_pair=True, dry_run=True)
    assert (found.imported, found.created, found.dry_run) == (2, True, True)
    assert count(conn) == 0
    assert conn.execute("SELECT 1 FROM trading_pairs WHERE symbol = 'NEW/PAIR'").fetchone() is None
    load(HEADER + ROWS)
    with pytest.raises(UsageError, match="already has trade 2"):
        load(HEADER + "2,1570752012000,buy,0.7,3\n", dry_run=True)


def test_an_unknown_pair_points_to_create_pair(conn: psycopg.Connection, load: Import) -> None:
    with pytest.raises(UsageError, match=r"no pair 'XRP/ETH'.*--create-pair"):
        load(HEADER + ROWS, symbol="XRP/ETH")
    assert load(HEADER + ROWS, symbol="XRP/ETH", create_pair=True).created
    assert not load(HEADER + ROWS, symbol="XRP/ETH", create_pair=True).created


def test_a_default_statement_timeout_does_not_end_an_import(
    database_url: str, load: Import, tmp_path: Path
) -> None:
    """Also not the one for idle transactions, nor a default isolation level that would see no concurrent import."""
    options = "-c statement_timeout=1ms -c default_transaction_isolation=serializable"
    path = tmp_path / "many.csv"
    path.write_text(HEADER + "".join(f"{number},1570752011620,sell,0.5,2\n" for number in range(20_000)))
    with (
        psycopg.connect(database_url, autocommit=True, options=options) as hasty,
        open_trade_file(str(path)) as file,
    ):
        assert import_trades(hasty, file, "BTC/USDT").imported == 20_000


def test_an_import_waits_for_another_one_of_the_same_trades(
    conn: psycopg.Connection, database_url: str, market: Market, cli: Cli, tmp_path: Path
) -> None:
    pair = market.pair()
    path = tmp_path / "t.csv"
    path.write_text(HEADER + ROWS)
    with psycopg.connect(database_url) as other:
        other.execute(
            "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity)"
            " VALUES (%s, 2, '2019-10-11T00:00:12Z', 0.6, 3)",
            [pair.id],
        )
        running = cli.start("trades", "import", str(path), "--pair", "BTC/USDT", "--json")
        _wait_for(conn, "wait_event_type = 'Lock'")
    out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, b"")
    assert b'"imported": 1, "already_there": 1' in out


def _wait_for(conn: psycopg.Connection, condition: str) -> int:
    """The process id of the import's session, once the condition holds."""
    query = (
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'maven trades import'"
        f" AND datname = current_database() AND {condition}"
    )
    for _ in range(600):
        if row := conn.execute(query).fetchone():
            return int(row[0])
        time.sleep(0.05)
    raise AssertionError(f"no import with {condition}")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("where", ["waiting for a lock", "waiting for the pipe"])
def test_a_signal_rolls_back(
    conn: psycopg.Connection,
    database_url: str,
    market: Market,
    cli: Cli,
    number: signal.Signals,
    code: int,
    where: str,
) -> None:
    pair = market.pair()
    reading, writing = os.pipe()
    with psycopg.connect(database_url) as other:
        other.execute(
            "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity) VALUES (%s, 2, now(), 1, 1)",
            [pair.id],
        )
        running = subprocess.Popen(
            [sys.executable, "-m", "maven_cli", "trades", "import", "-", "--pair", "BTC/USDT"],
            env=cli.environment(),
            stdin=reading,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(reading)
        # More than a block, so that the first block is loaded while the pipe is still open.
        many = (
            "".join(f"{row},1570752011620,sell,0.5,2\n" for row in range(3, 200_000))
            if "pipe" in where
            else ROWS
        )
        with os.fdopen(writing, "wb") as pipe:
            pipe.write((HEADER + many).encode())
            pipe.flush()
            if "pipe" in where:
                _wait_for(conn, "state = 'idle in transaction' AND query LIKE 'TRUNCATE%'")
                running.send_signal(number)
                out, err = running.communicate(timeout=30)
        if "lock" in where:
            _wait_for(conn, "wait_event_type = 'Lock'")
            running.send_signal(number)
            out, err = running.communicate(timeout=30)
        other.rollback()
    assert (running.returncode, out) == (code, b"")
    assert err == f"maven: stopped by {number.name}; nothing was imported\n".encode()
    assert count(conn) == 0


def test_a_server_that_goes_away_is_told_in_one_line(
    conn: psycopg.Connection, database_url: str, market: Market, cli: Cli, tmp_path: Path
) -> None:
    pair = market.pair()
    path = tmp_path / "t.csv"
    path.write_text(HEADER + ROWS)
    with psycopg.connect(database_url) as other:
        other.execute(
            "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity) VALUES (%s, 2, now(), 1, 1)",
            [pair.id],
        )
        running = cli.start("trades", "import", str(path), "--pair", "BTC/USDT")
        conn.execute("SELECT pg_terminate_backend(%s)", [_wait_for(conn, "wait_event_type = 'Lock'")])
        out, err = running.communicate(timeout=30)
        other.rollback()
    assert (running.returncode, out) == (69, b"")
    assert err.startswith(b"maven: the connection to PostgreSQL broke")
    assert err.count(b"\n") == 1, err
    assert count(conn) == 0


def test_real_trades(conn: psycopg.Connection, cli: Cli, shared_data: Path) -> None:
    args = ("trades", "import", str(shared_data / REAL), "--pair", "XRP/ETH", "--create-pair")
    first = cli(*args)
    span = "2019-10-11T00:00:11.62Z to 2019-10-13T11:19:28.844Z"
    assert (first.code, first.err) == (0, "")
    assert first.out == f"Imported 12477 trades into XRP/ETH (0 were already there), {span}\n"
    assert cli(*args).out == f"Imported 0 trades into XRP/ETH (12477 were already there), {span}\n"
    lines = gzip.decompress((shared_data / REAL).read_bytes()).decode().splitlines()[1:]
    wanted = [
        (int(row[0]), int(row[1]), row[2], *map(Decimal, row[3:]))
        for row in (line.split(",") for line in lines)
    ]
    found = conn.execute(
        "SELECT id, (extract(epoch FROM executed_at) * 1000)::bigint, side, price, quantity FROM trades ORDER BY id"
    ).fetchall()
    assert found == sorted(wanted)


def test_json(cli: Cli, market: Market) -> None:
    market.pair()
    done = cli(
        "trades", "import", "-", "--pair", "BTC/USDT", "--json", stdin=gzip.compress((HEADER + ROWS).encode())
    )
    assert (done.code, done.err) == (0, "")
    data = done.document["data"]
    assert data.pop("seconds") >= 0
    assert data == {
        "pair": "BTC/USDT",
        "created": False,
        "imported": 2,
        "already_there": 0,
        "first_executed_at": "2019-10-11T00:00:11.620000Z",
        "last_executed_at": "2019-10-11T00:00:12Z",
        "first_id": 1,
        "last_id": 2,
        "dry_run": False,
    }


def test_a_header_alone_imports_nothing(cli: Cli, market: Market) -> None:
    market.pair()
    done = cli("trades", "import", "-", "--pair", "BTC/USDT", stdin=HEADER)
    assert (done.code, done.out) == (0, "Imported 0 trades into BTC/USDT (0 were already there)\n")


def test_refusals_are_one_line_and_exit_2(cli: Cli, market: Market, tmp_path: Path) -> None:
    market.pair()
    for stdin, args in (
        (HEADER + "1,1570752011620,sell,\x1b[31m\x07,2\n", ("-",)),
        ("", ("-",)),
        (HEADER, (str(tmp_path),)),
        (HEADER, (str(tmp_path / "none"),)),
    ):
        done = cli("trades", "import", *args, "--pair", "BTC/USDT", stdin=stdin)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("maven: ")
        assert done.err.count("\n") == 1
        assert done.err[:-1].isprintable()


def test_a_database_without_schema_is_told(cli: Cli, empty_database_url: str) -> None:
    done = cli(
        "trades",
        "import",
        "-",
        "--pair",
        "BTC/USDT",
        stdin=HEADER,
        env={"MAVEN_DATABASE_URL": empty_database_url},
    )
    assert done.code == 78
    assert "maven db upgrade" in done.err


def test_session_translates_errors_and_checks_the_schema(database_url: str, empty_database_url: str) -> None:
    with pytest.raises(SchemaError, match="maven db check"), session(database_url, "test") as conn:
        conn.execute("SELECT * FROM nowhere")
    with pytest.raises(psycopg.errors.DivisionByZero), session(database_url, "test") as conn:
        conn.execute("SELECT 1 / 0")
    assert conn.closed
    with pytest.raises(SchemaError, match="maven db upgrade"), session(empty_database_url, "test"):
        pass
    with session(empty_database_url, "test", check=False) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
