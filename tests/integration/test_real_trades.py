"""Real trades through the real commands, held against a peer's candles and against DuckDB.

The peer's candles are Binance's own of XRP/ETH in October 2019. DuckDB computes candles and tickers from the very same
CSV file, with decimals and its own calendar: no line of it is shared with maven.
"""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support import Cli, utc

PAIR = "XRP/ETH"
INTERVALS = {
    "1m": "time_bucket(INTERVAL 1 MINUTE, moment)",
    "5m": "time_bucket(INTERVAL 5 MINUTES, moment)",
    "15m": "time_bucket(INTERVAL 15 MINUTES, moment)",
    "30m": "time_bucket(INTERVAL 30 MINUTES, moment)",
    "1h": "date_trunc('hour', moment)",
    "4h": "time_bucket(INTERVAL 4 HOURS, moment)",
    "1d": "date_trunc('day', moment)",
    "1w": "date_trunc('week', moment)",
    "1M": "date_trunc('month', moment)",
}
# Long after the last trade of both files, so that all nine intervals are closed.
AFTER = "2019-12-15"


def iso(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def trades_in(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with a table `trades` (moment, id, price, quantity) of a trade file."""
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        database.execute(
            "CREATE TABLE trades AS SELECT epoch_ms(executed_at_ms) AS moment, trade_id AS id, price, quantity"
            " FROM read_csv(?, header = true, columns = {'trade_id': 'BIGINT', 'executed_at_ms': 'BIGINT',"
            "  'side': 'VARCHAR', 'price': 'DECIMAL(38,8)', 'quantity': 'DECIMAL(38,8)'})",
            [str(file)],
        )
        kinds = database.execute(
            "SELECT typeof(price * quantity), typeof(sum(quantity)) FROM trades GROUP BY price, quantity LIMIT 1"
        )
        assert kinds.fetchone() == ("DECIMAL(38,16)", "DECIMAL(38,8)")
        yield database


def candles_by_duckdb(database: duckdb.DuckDBPyConnection, interval: str) -> list[dict[str, Any]]:
    rows = database.execute(
        f"SELECT {INTERVALS[interval]} AS start, first(price ORDER BY moment, id), max(price), min(price),"
        "  last(price ORDER BY moment, id), sum(quantity), sum(price * quantity), count(*),"
        "  first(id ORDER BY moment, id), last(id ORDER BY moment, id)"
        " FROM trades GROUP BY 1 ORDER BY 1"
    ).fetchall()
    names = (
        "open", "high", "low", "close", "base_volume", "quote_volume", "trade_count", "first_trade_id", "last_trade_id",
    )  # fmt: skip
    return [
        {"start": iso(_moment(start)), **dict(zip(names, values, strict=True))} for start, *values in rows
    ]


def _moment(value: Any) -> datetime:
    """DuckDB truncates a timestamp to a date."""
    moment = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return moment.replace(hour=getattr(value, "hour", 0), minute=getattr(value, "minute", 0))


def shown(cli: Cli, interval: str) -> list[dict[str, Any]]:
    """What the command shows, with exact decimals for its strings."""
    done = cli(
        "candles", "show", PAIR, "--interval", interval, "--json", "--fill", "none",
        "--from", "2019-01-01", "--to", AFTER,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = []
    for row in done.document["data"]:
        assert row.pop("closed") is True
        assert row.pop("empty") is False
        assert row.pop("revision") == 0
        for name in ("open", "high", "low", "close", "base_volume", "quote_volume"):
            assert isinstance(row[name], str)
            assert "E" not in row[name]
            row[name] = Decimal(row[name])
        found.append(row)
    return found


def load(cli: Cli, file: Path) -> None:
    for command in (
        ["trades", "import", str(file), "--pair", PAIR, "--create-pair"],
        ["candles", "backfill", "--jobs", "2"],
    ):
        done = cli(*command)
        assert done.code == 0, done.err


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A trade file whose trades crowd around the edges of weeks, months, days and minutes, in no order of time."""
    dice = random.Random(20191027)
    edges = [utc("2019-09-30T00:00:00"), utc("2019-10-01T00:00:00"), utc("2019-10-27T01:00:00")]
    edges += [utc("2019-10-28T00:00:00"), utc("2019-11-01T00:00:00"), utc("2019-11-03T06:00:00")]
    moments = []
    for _ in range(1500):
        edge = dice.choice(edges) + dice.choice((0, 0, 1, 5, 15, 30, 60, 240, 1440)) * timedelta(minutes=1)
        moments.append(edge + dice.choice((-1, 0, 0, 1, 999, 59_999, 86_000_000)) * timedelta(milliseconds=1))
    moments += [utc("2019-09-25T00:00:00") + dice.random() * timedelta(days=45) for _ in range(1500)]
    path = tmp_path / "trades.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["trade_id", "executed_at_ms", "side", "price", "quantity"])
        for number, moment in enumerate(moments, 1):
            price = Decimal(dice.randint(1, 10**10)).scaleb(-8)
            quantity = Decimal(dice.randint(1, 10 ** dice.choice((3, 10, 17)))).scaleb(-8)
            milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
            rows.writerow([number, milliseconds, dice.choice(("buy", "sell")), f"{price:f}", f"{quantity:f}"])
    return path


@pytest.fixture
def real(shared_data: Path) -> Path:
    return shared_data / "binance-xrpeth-2019-10-trades.csv.gz"


def test_binances_own_candles(cli: Cli, real: Path) -> None:
    load(cli, real)
    for interval, count in (("1m", 2469), ("5m", 706)):
        with (real.parent / f"binance-xrpeth-2019-10-candles-{interval}.csv").open(newline="") as file:
            peer = [
                {name: Decimal(text) if name != "start" else text for name, text in row.items()}
                for row in csv.DictReader(file)
            ]
        assert len(peer) == count
        ours = [
            {
                **{name: row[name] for name in ("start", "open", "high", "low", "close")},
                "volume": row["base_volume"],
            }
            for row in shown(cli, interval)
        ]
        assert ours == peer


@pytest.mark.parametrize("source", ["real", "made_up"])
def test_as_duckdb_computes_them(cli: Cli, request: pytest.FixtureRequest, source: str) -> None:
    """C01, C02, C03, C09, T01, T02: all nine intervals and some tickers, every field, digit for digit."""
    file: Path = request.getfixturevalue(source)
    load(cli, file)
    with trades_in(file) as database:
        for interval in INTERVALS:
            theirs = candles_by_duckdb(database, interval)
            assert shown(cli, interval) == theirs
            if interval == "1w":
                assert {datetime.fromisoformat(row["start"]).weekday() for row in theirs} == {0}
        times = [
            row[0].replace(tzinfo=UTC)
            for row in database.execute("SELECT moment FROM trades ORDER BY moment, id").fetchall()
        ]
        dice = random.Random(7)
        moments = [times[0], times[-1] + timedelta(hours=5)]
        moments += [dice.choice(times) + timedelta(hours=dice.choice((0, 24))) for _ in range(2)]
        moments += [dice.choice(times).replace(minute=0, second=0, microsecond=0) + timedelta(hours=24)]
        for as_of in moments:
            compare_ticker(cli, database, as_of)


def compare_ticker(cli: Cli, database: duckdb.DuckDBPyConnection, as_of: datetime) -> None:
    """The window (as_of − 24 h, as_of] at an instant between, on or beside trades."""
    done = cli("tickers", "update", "--as-of", as_of.isoformat(), "--json")
    assert done.code == 0, done.err
    (row,) = done.document["data"]["tickers"]
    theirs = database.execute(
        "SELECT first(price ORDER BY moment, id), max(price), min(price), last(price ORDER BY moment, id),"
        "  sum(quantity), sum(price * quantity), count(*), first(id ORDER BY moment, id), last(id ORDER BY moment, id)"
        " FROM trades WHERE moment > ?::TIMESTAMP - INTERVAL 24 HOURS AND moment <= ?::TIMESTAMP",
        [as_of.replace(tzinfo=None), as_of.replace(tzinfo=None)],
    ).fetchone()
    assert theirs is not None
    assert theirs[6] > 0
    numbers = [Decimal(row[name]) for name in ("open", "high", "low", "last", "volume", "quote_volume")]
    counts = [row[name] for name in ("trade_count", "first_trade_id", "last_trade_id")]
    assert [*numbers, *counts] == list(theirs), as_of
    assert Decimal(row["change"]) == theirs[3] - theirs[0]
