"""`maven pairs`."""

from __future__ import annotations

import psycopg
import pytest

from tests.support import Cli, Market, utc


def statuses(conn: psycopg.Connection) -> dict[str, str]:
    return dict(conn.execute("SELECT symbol, status FROM trading_pairs").fetchall())


def test_add_twice(cli: Cli, conn: psycopg.Connection) -> None:
    assert cli("pairs", "add", "BTC/USDT").out == "added BTC/USDT (ACTIVE)\n"
    again = cli("pairs", "add", "BTC/USDT", "--halted")
    assert (again.code, again.out) == (0, "BTC/USDT is there already (ACTIVE)\n")
    added = cli("pairs", "add", "ETH/USDT", "--halted", "--json").document["data"]
    assert (added["symbol"], added["status"], added["added"]) == ("ETH/USDT", "HALTED", True)
    assert cli("pairs", "add", "ETH/USDT", "--json").document["data"] == {**added, "added": False}
    assert statuses(conn) == {"BTC/USDT": "ACTIVE", "ETH/USDT": "HALTED"}


def test_small_letters_are_accepted(cli: Cli, conn: psycopg.Connection) -> None:
    assert cli("pairs", "add", "btc/usdt").out == "added BTC/USDT (ACTIVE)\n"
    assert cli("pairs", "add", "Btc/Usdt").out == "BTC/USDT is there already (ACTIVE)\n"
    assert cli("pairs", "halt", "btc/usdt").code == 0
    trades = "trade_id,executed_at_ms,price,quantity\n1,1714500000000,1,2\n"
    done = cli("trades", "import", "-", "--pair", "eth/usdt", "--create-pair", stdin=trades)
    assert (done.code, "into ETH/USDT" in done.out) == (0, True)
    assert statuses(conn) == {"BTC/USDT": "HALTED", "ETH/USDT": "ACTIVE"}
    assert conn.execute("SELECT array_agg(symbol ORDER BY symbol) FROM assets").fetchone() == (
        ["BTC", "ETH", "USDT"],
    )


@pytest.mark.parametrize(
    "symbol",
    [
        "BTC/US'DT",
        'BTC"/USDT',
        "btc/Btc",
        "ſol/usdt",
        "BTCUSDT",
        "BTC/",
        "/USDT",
        "BTC/BTC",
        "A/B/C",
        "A" * 21 + "/B",
        "BTC /USDT",
        "BTC/USDT\n",
        "",
    ],
)
def test_a_bad_symbol_is_one_line_and_exit_2(cli: Cli, conn: psycopg.Connection, symbol: str) -> None:
    done = cli("pairs", "add", symbol)
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("write BASE/QUOTE, like BTC/USDT\n")
    assert done.err.count("\n") == 1
    assert statuses(conn) == {}


def test_halt_and_activate(cli: Cli, market: Market, conn: psycopg.Connection) -> None:
    market.pair("BTC/USDT")
    market.pair("ETH/USDT", active=False)
    done = cli("pairs", "halt", "BTC/USDT", "ETH/USDT")
    assert (done.code, done.out) == (0, "BTC/USDT is now HALTED\nETH/USDT was already HALTED\n")
    assert set(statuses(conn).values()) == {"HALTED"}
    document = cli("pairs", "activate", "ETH/USDT", "--json").document
    assert [(row["symbol"], row["status"], row["changed"]) for row in document["data"]] == [
        ("ETH/USDT", "ACTIVE", True)
    ]
    assert statuses(conn) == {"BTC/USDT": "HALTED", "ETH/USDT": "ACTIVE"}


def test_one_unknown_pair_changes_none(cli: Cli, market: Market, conn: psycopg.Connection) -> None:
    market.pair("BTC/USDT")
    done = cli("pairs", "halt", "BTC/USDT", "BTC/US'DT")
    assert done.code == 2
    assert 'no pair "BTC/US\'DT"; did you mean BTC/USDT?' in done.err
    assert statuses(conn) == {"BTC/USDT": "ACTIVE"}


def test_list(cli: Cli, market: Market, conn: psycopg.Connection) -> None:
    assert cli("pairs", "list").out == "there are no pairs yet: maven pairs add BTC/USDT\n"
    market.trade(utc("2026-01-02T03:04:05.5"), pair="ETH/USDT", id=9)
    market.trade(utc("2026-01-01T00:00:00"), pair="ETH/USDT", id=8)
    ether, bitcoin = market.pair("ETH/USDT"), market.pair("BTC/USDT", active=False)
    conn.execute("INSERT INTO candle_progress VALUES (%s, '2026-01-02T03:04:00Z')", [ether.id])
    lines = cli("pairs", "list").out.splitlines()
    assert [line.split() for line in lines] == [
        ["ID", "PAIR", "STATUS", "LAST", "TRADE", "CANDLES", "CLOSED", "UNTIL"],
        [str(bitcoin.id), "BTC/USDT", "HALTED", "-", "-"],
        [str(ether.id), "ETH/USDT", "ACTIVE", "2026-01-02T03:04:05.500000Z", "2026-01-02T03:04:00Z"],
    ]
    assert lines[0].index("STATUS") == lines[1].index("HALTED") == lines[2].index("ACTIVE")
    assert cli("pairs", "list", "--json").document["data"] == [
        {
            "id": bitcoin.id,
            "symbol": "BTC/USDT",
            "status": "HALTED",
            "last_trade_at": None,
            "closed_until": None,
            "trades_retained_from": None,
        },
        {
            "id": ether.id,
            "symbol": "ETH/USDT",
            "status": "ACTIVE",
            "last_trade_at": "2026-01-02T03:04:05.500000Z",
            "closed_until": "2026-01-02T03:04:00Z",
            "trades_retained_from": None,
        },
    ]
