"""Backfill, gaps, verify and `db check`: what mends candles, and what notices that they need it."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import psycopg
import pytest

from maven_cli.db.check import differences
from maven_cli.db.locks import pass_lock
from maven_cli.errors import UsageError
from maven_cli.intervals import INTERVALS
from maven_cli.market import candles
from maven_cli.market.candle_check import Gap, Mismatch
from maven_cli.passes.backfill import backfill
from maven_cli.passes.candle_check import check, find_gaps, merge_into
from maven_cli.passes.candles import generate
from maven_cli.runner import Outcome
from tests import candle_oracle as oracle
from tests.conftest import TestServices
from tests.support import Cli, Market, utc

DAY = utc("2024-05-14T00:00:00")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
END = utc("2024-07-01T00:00:00")
EXACT = Context(prec=200)
PAIRS = ("AAA/USDT", "BBB/USDT", "CCC/USDT")


@pytest.fixture
def history(market: Market) -> Market:
    """Three pairs with trades over seven weeks, not closed yet."""
    for number, symbol in enumerate(PAIRS):
        for hours in range(0, 40 * 24, 11):
            market.trade(DAY + hours * HOUR + number * MINUTE, Decimal(hours % 97 + 1), "0.5", pair=symbol)
    return market


@pytest.fixture
def closed(history: Market, services: TestServices) -> Market:
    """The same, closed up to END."""
    generate(services, INTERVALS["1m"], as_of=END)
    right(history)
    return history


def right(market: Market) -> None:
    assert oracle.wrong(market.conn) == []


def data(outcome: Outcome) -> dict[str, Any]:
    assert outcome.data is not None
    return outcome.data


def spoil(market: Market, interval: str, start: datetime, pair: str = "AAA/USDT", **fields: Any) -> None:
    """Changes a stored candle by hand."""
    for name, value in fields.items():
        done = market.conn.execute(
            f"UPDATE candles SET {name} = %s WHERE trading_pair_id = %s AND interval = %s AND start_at = %s",
            [value, market.pair(pair).id, interval, start],
        )
        assert done.rowcount == 1


# --- backfill -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_backfill_closes_everything(history: Market, services: TestServices, jobs: int) -> None:
    seen: list[tuple[timedelta, timedelta]] = []
    found = data(backfill(services, jobs=jobs, progress=lambda done, total: seen.append((done, total))))
    right(history)
    assert (found["pairs"], found["failed"], found["changed"], found["removed"]) == (3, 0, {}, {})
    assert found["inserted"] == {
        name: sum(len(history.candles(name, pair)) for pair in PAIRS) for name in oracle.NAMES
    }
    assert min(oracle.closed_until(history.conn).values()) > history.now() - timedelta(minutes=10)
    # Progress only grows, and ends at the end.
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1] > timedelta(days=3 * 365)
    before = oracle.stored(history.conn)
    assert data(backfill(services, jobs=jobs))["inserted"] == {}
    assert oracle.stored(history.conn) == before


def test_backfill_of_one_pair(history: Market, services: TestServices) -> None:
    backfill(services, pairs=["BBB/USDT"])
    assert [bool(history.candles("1d", pair)) for pair in PAIRS] == [False, True, False]


def test_backfill_recomputes_a_range_of_closed_candles(closed: Market, services: TestServices) -> None:
    week = DAY + timedelta(days=7)
    outside = DAY
    inside = next(row["start_at"] for row in closed.candles("1m", "AAA/USDT") if row["start_at"] >= week)
    for moment in (inside, outside):
        spoil(closed, "1m", moment, high=12345)
    spoil(closed, "1h", INTERVALS["1h"].floor(inside), low=Decimal("0.1"))
    backfill(services, start=week, end=week + timedelta(days=2), jobs=2)
    want = oracle.expected(closed.conn)
    left = [key for key, row in oracle.stored(closed.conn).items() if row.values != want[key]]
    # The range is mended in all intervals; what lies outside stays, and is in the month's high, as its candle says.
    assert (closed.pair("AAA/USDT").id, "1m", outside) in left
    assert {name for _, name, _ in left} == {"1m"}
    assert closed.conn.execute("SELECT count(*) FROM candle_marks").fetchone() == (0,)


def test_backfill_of_one_interval_leaves_the_others(closed: Market, services: TestServices) -> None:
    hour = INTERVALS["1h"].floor(closed.candles("1m", "AAA/USDT")[5]["start_at"])
    spoil(closed, "1h", hour, high=12345)
    spoil(closed, "5m", closed.candles("5m", "BBB/USDT")[3]["start_at"], "BBB/USDT", low=Decimal("0.1"))
    found = data(backfill(services, interval=INTERVALS["1h"], jobs=2))
    assert found["changed"] == {"1h": 1}
    assert [line.split()[0] for line in oracle.wrong(closed.conn)] == ["5m"]
    assert data(backfill(services, interval=INTERVALS["5m"], start=DAY, end=END))["changed"] == {"5m": 1}
    right(closed)


def test_backfill_refuses_a_future_start(history: Market, services: TestServices) -> None:
    with pytest.raises(UsageError, match="future"):
        backfill(services, start=history.now() + HOUR)


@pytest.mark.parametrize("jobs", [1, 2])
def test_backfill_goes_on_when_one_pair_fails(history: Market, services: TestServices, jobs: int) -> None:
    bad = history.pair("BBB/USDT").id
    refuse = f"ALTER TABLE candles ADD CONSTRAINT refused CHECK (interval <> '4h' OR trading_pair_id <> {bad}) NOT VALID"
    history.conn.execute(refuse)
    outcome = backfill(services, jobs=jobs)
    assert (outcome.status, outcome.exit_code) == ("partial", 1)
    assert [error.item for error in outcome.errors] == ["BBB/USDT"]
    assert "refused" in outcome.errors[0].message
    assert data(outcome)["failed"] == 1
    assert [bool(history.candles("4h", pair)) for pair in PAIRS] == [True, False, True]
    right(history)
    history.conn.execute("ALTER TABLE candles DROP CONSTRAINT refused")
    assert backfill(services, jobs=jobs).errors == ()
    right(history)
    # The same for one interval, and for marks.
    for symbol in PAIRS:
        spoil(history, "4h", history.candles("4h", symbol)[2]["start_at"], symbol, high=12345)
    history.conn.execute(refuse)
    for options in ({"interval": INTERVALS["4h"]}, {"start": DAY, "end": END}):
        outcome = backfill(services, jobs=jobs, **options)
        assert [error.item for error in outcome.errors] == ["BBB/USDT"]
        assert {line.split(": ")[0].split()[-1] for line in oracle.wrong(history.conn)} == {str(bad)}
    history.conn.execute("ALTER TABLE candles DROP CONSTRAINT refused")
    assert backfill(services, jobs=jobs).errors == ()
    right(history)


def test_backfill_on_the_command_line(history: Market, cli: Cli) -> None:
    done = cli("candles", "backfill", "--from", "2024-05-20", "--to", "2024-05-21", "--jobs", "3", "--json")
    assert done.code == 0
    assert done.document["data"]["pairs"] == 3
    assert "Backfilled 3 pairs, 0 failed" in done.err
    right(history)
    assert cli("candles", "backfill", "--from", "2024-05-21", "--to", "2024-05-20").code == 2
    assert cli("candles", "backfill", "--jobs", "0").code == 2


# --- gaps ---------------------------------------------------------------------------------------------------------


def gaps(services: TestServices, *intervals: str, **options: Any) -> list[Gap]:
    options = {"start": DAY, "end": DAY + timedelta(days=2)} | options
    found = data(find_gaps(services, intervals=[INTERVALS[name] for name in intervals], **options))["gaps"]
    assert all(isinstance(gap, Gap) for gap in found)
    return list(found)


def test_gaps_kinds(market: Market, services: TestServices) -> None:
    for minutes in (0, 1, 2, 30, 31, 200):
        market.trade(DAY + minutes * MINUTE)
    # No pass has met the pair yet.
    assert [(gap.kind, gap.start) for gap in gaps(services, "1h", end=DAY + 5 * HOUR)] == [("behind", DAY)]
    generate(services, INTERVALS["1m"], as_of=DAY + timedelta(days=2))
    assert gaps(services) == []
    # Behind: ended, not closed.
    (behind,) = gaps(services, "1h", end=DAY + timedelta(days=2, hours=3, minutes=30))
    assert (behind.kind, behind.windows) == ("behind", 3)
    assert (behind.start, behind.end) == (DAY + timedelta(days=2), DAY + timedelta(days=2, hours=3))
    # Missing: neighbours are one gap. A quiet window is none.
    market.conn.execute("DELETE FROM candles WHERE interval = '1m' AND start_at < %s", [DAY + 31 * MINUTE])
    assert [(gap.kind, gap.start, gap.windows) for gap in gaps(services, "1m")] == [
        ("missing", DAY, 3),
        ("missing", DAY + 30 * MINUTE, 1),
    ]
    # A parent is missed although the candles it would be made from are gone, too.
    market.conn.execute("DELETE FROM candles WHERE start_at < %s", [DAY + HOUR])
    assert [(gap.kind, gap.start) for gap in gaps(services, "1h")] == [("missing", DAY)]
    assert {gap.interval for gap in gaps(services)} == {"1m", "5m", "15m", "30m", "1h", "4h", "1d"}
    # Marked: waits for a correction.
    candles.add_mark(market.conn, market.pair().id, DAY + 200 * MINUTE, DAY + 201 * MINUTE)
    (marked,) = [gap for gap in gaps(services, "30m") if gap.kind == "marked"]
    assert (marked.start, marked.end, marked.windows) == (DAY + 3 * HOUR, DAY + 3 * HOUR + 30 * MINUTE, 1)
    # Outside of the range there is nothing to say.
    assert gaps(services, start=DAY + timedelta(days=1)) == []


def test_gaps_below_the_retention_line(market: Market, services: TestServices) -> None:
    """C19: where the trades are gone, the 1m candles say what was traded."""
    for minutes in (0, 60):
        market.trade(DAY + minutes * MINUTE)
    generate(services, INTERVALS["1m"], as_of=DAY + timedelta(days=2))
    market.conn.execute("UPDATE trading_pairs SET trades_retained_from = %s", [DAY + 30 * MINUTE])
    market.conn.execute("DELETE FROM trades WHERE executed_at < %s", [DAY + 30 * MINUTE])
    assert gaps(services) == []
    market.conn.execute("DELETE FROM candles WHERE interval = '15m'")
    assert [gap.start for gap in gaps(services, "15m")] == [DAY, DAY + HOUR]


def test_gaps_on_the_command_line(market: Market, cli: Cli) -> None:
    market.trade(-3 * HOUR)
    assert cli("candles", "backfill").code == 0
    quiet = cli("candles", "gaps", "--exit-code", "-i", "1m", "--to", (market.now() - HOUR).isoformat())
    assert (quiet.code, quiet.out.strip()) == (0, "no gaps")
    market.conn.execute("DELETE FROM candles WHERE interval = '1m'")
    found = cli("candles", "gaps", "--json", "-i", "1m", "--to", (market.now() - HOUR).isoformat())
    (gap,) = found.document["data"]
    assert (gap["pair"], gap["interval"], gap["kind"], gap["windows"]) == ("BTC/USDT", "1m", "missing", 1)
    assert found.code == 0  # a finding is no failure
    assert cli("candles", "gaps", "--exit-code").code == 1


# --- verify -------------------------------------------------------------------------------------------------------


def mismatches(services: TestServices, **options: Any) -> list[Mismatch]:
    found = data(check(services, **options))
    assert found["count"] == len(found["mismatches"])
    return list(found["mismatches"])


@pytest.mark.parametrize("interval", ["1m", "4h", "1w", "1M"])
def test_verify_names_every_field(closed: Market, services: TestServices, interval: str) -> None:
    rows = closed.candles(interval, "BBB/USDT")
    row = rows[len(rows) // 2]
    nudged: dict[str, Any] = {
        **{name: EXACT.add(row[name], Decimal("1e-18")) for name in ("open", "high", "low", "close")},
        "base_volume": EXACT.add(row["base_volume"], Decimal("1e-18")),
        "quote_volume": EXACT.add(row["quote_volume"], Decimal("1e-36")),
        **{name: row[name] + 1 for name in ("trade_count", "first_trade_id", "last_trade_id")},
    }
    assert set(nudged) == set(oracle.FIELDS)
    for name, value in nudged.items():
        spoil(closed, interval, row["start_at"], "BBB/USDT", **{name: value})
        (found,) = mismatches(services, intervals=[INTERVALS[interval]])
        assert (found.pair, found.interval, found.start) == ("BBB/USDT", interval, row["start_at"])
        assert (found.kind, found.fields, found.pending) == ("different", {name: (value, row[name])}, False)
        spoil(closed, interval, row["start_at"], "BBB/USDT", **{name: row[name]})
    assert mismatches(services) == []


def test_verify_finds_missing_and_extra_rows_and_repairs_all(closed: Market, services: TestServices) -> None:
    pair = closed.pair("AAA/USDT").id
    rows = {name: closed.candles(name, "AAA/USDT") for name in oracle.NAMES}
    gone = {name: rows[name][1]["start_at"] for name in ("1m", "30m", "1d")}
    for name, start in gone.items():
        closed.conn.execute(
            "DELETE FROM candles WHERE trading_pair_id = %s AND interval = %s AND start_at = %s",
            [pair, name, start],
        )
    quiet = DAY + timedelta(days=45, hours=5)  # after the last trade, and closed
    extra = {"5m": quiet, "1h": DAY - timedelta(days=3), "1M": utc("2024-02-01T00:00:00")}
    for name, start in extra.items():
        closed.conn.execute(
            "INSERT INTO candles SELECT trading_pair_id, interval, %s, open, high, low, close, base_volume, quote_volume,"
            " trade_count, first_trade_id, last_trade_id FROM candles"
            " WHERE trading_pair_id = %s AND interval = %s ORDER BY start_at LIMIT 1",
            [start, pair, name],
        )
    spoil(closed, "1w", rows["1w"][2]["start_at"], close=5000)
    found = {(item.interval, item.start): item.kind for item in mismatches(services)}
    assert found == {
        **dict.fromkeys(gone.items(), "missing"),
        **dict.fromkeys(extra.items(), "extra"),
        ("1w", rows["1w"][2]["start_at"]): "different",
    }
    repaired = data(check(services, repair=True))
    assert (repaired["count"], repaired["repaired"]) == (7, 7)
    assert mismatches(services) == []
    right(closed)
    assert closed.conn.execute("SELECT count(*) FROM candle_marks").fetchone() == (0,)


def test_verify_does_not_call_pending_windows_wrong(closed: Market, services: TestServices) -> None:
    """A late trade, a deleted one and an uncommitted one: nothing is wrong that the next pass mends."""
    closed.trade(DAY + 5 * MINUTE, "7000", pair="AAA/USDT")
    closed.conn.execute("DELETE FROM trades WHERE executed_at = %s", [DAY + 2 * MINUTE])
    with psycopg.connect(services.database_url) as late:
        closed.trade(DAY + 5 * MINUTE, "7000", pair="BBB/USDT", conn=late)
        found = data(check(services))
        assert (found["count"], found["mismatches"]) == (0, [])
        # The new trade's minute up to its month, and those of the deleted one, the pair's first.
        assert found["pending"] == 18
        late.rollback()
    # What is wrong elsewhere is said all the same.
    later = closed.candles("1m", "AAA/USDT")[9]["start_at"]
    spoil(closed, "1m", later, high=12345)
    assert [(item.interval, item.start) for item in mismatches(services)] == [("1m", later)]
    assert data(check(services, repair=True))["count"] == 1
    generate(services, INTERVALS["1m"], as_of=END)
    right(closed)


def test_verify_looks_only_where_it_was_told(closed: Market, services: TestServices) -> None:
    rows = closed.candles("1h", "CCC/USDT")
    spoil(closed, "1h", rows[4]["start_at"], "CCC/USDT", high=12345)
    at = rows[4]["start_at"]
    assert mismatches(services, pairs=["AAA/USDT", "BBB/USDT"]) == []
    assert mismatches(services, intervals=[INTERVALS["1d"]]) == []
    assert mismatches(services, start=at + MINUTE) == []
    assert mismatches(services, end=at + HOUR - MINUTE) == []
    assert len(mismatches(services, start=at, end=at + HOUR)) == 1


@pytest.mark.parametrize("interval", ["1w", "1M"])
def test_verify_from_an_earlier_time_begins_with_the_pair_s_first_window(
    closed: Market, services: TestServices, interval: str
) -> None:
    """Also when those candles are missing, so that the first thing left of the pair lies in the middle of the window."""
    first = closed.candles(interval, "AAA/USDT")[0]["start_at"]
    closed.conn.execute(
        "DELETE FROM candles WHERE trading_pair_id = %s AND interval IN ('1w', '1M') AND start_at < %s",
        [closed.pair("AAA/USDT").id, DAY],
    )
    one = {"pairs": ["AAA/USDT"], "intervals": [INTERVALS[interval]]}
    for start in (None, first - timedelta(days=40), first):
        assert [(found.start, found.kind) for found in mismatches(services, start=start, **one)] == [
            (first, "missing")
        ]
    assert mismatches(services, start=first + MINUTE, **one) == []


def test_verify_stops_at_the_retention_line(closed: Market, services: TestServices) -> None:
    """C19: candles whose trades are gone are neither wrong nor repaired."""
    line = DAY + timedelta(days=10, hours=3, seconds=30)
    closed.conn.execute("UPDATE trading_pairs SET trades_retained_from = %s", [line])
    closed.conn.execute("DELETE FROM trades WHERE executed_at < %s", [line])
    before = oracle.stored(closed.conn)
    assert data(check(services, repair=True))["count"] == 0
    assert oracle.stored(closed.conn) == before
    below, above = closed.candles("1m", "AAA/USDT")[0], closed.candles("1m", "AAA/USDT")[-1]
    for row in (below, above):
        spoil(closed, "1m", row["start_at"], high=12345)
    assert [item.start for item in mismatches(services)] == [above["start_at"]]


def test_verify_repair_goes_on_when_one_pair_fails(closed: Market, services: TestServices) -> None:
    for symbol in PAIRS:
        spoil(closed, "1h", closed.candles("1h", symbol)[3]["start_at"], symbol, high=12345)
    bad = closed.pair("BBB/USDT").id
    closed.conn.execute(
        f"ALTER TABLE candles ADD CONSTRAINT refused CHECK (interval <> '1h' OR trading_pair_id <> {bad}) NOT VALID"
    )
    outcome = check(services, repair=True)
    assert (outcome.exit_code, [error.item for error in outcome.errors]) == (1, ["BBB/USDT"])
    assert {line.split(": ")[0].split()[-1] for line in oracle.wrong(closed.conn)} == {str(bad)}
    closed.conn.execute("ALTER TABLE candles DROP CONSTRAINT refused")
    generate(services, INTERVALS["1m"], as_of=END)
    right(closed)


def test_verify_progress_counts_every_pair(closed: Market, services: TestServices) -> None:
    closed.pair("NEW/USDT")
    seen: list[tuple[int, int]] = []
    check(services, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4)


def test_verify_on_the_command_line(closed: Market, cli: Cli) -> None:
    assert cli("candles", "verify").code == 0
    start = closed.candles("1h", "AAA/USDT")[3]["start_at"]
    spoil(closed, "1h", start, high=Decimal("12345.5"))
    wrong = cli("candles", "verify", "--pair", "AAA/USDT")
    assert wrong.code == 1
    assert "high 12345.5 →" in wrong.out
    assert "1 windows differ" in wrong.out
    mended = cli("candles", "verify", "--repair", "--json")
    assert (mended.code, mended.document["data"]["repaired"]) == (0, 1)
    assert cli("candles", "verify").code == 0
    right(closed)


def test_ranges_to_repair_are_joined_where_they_meet() -> None:
    ranges: list[tuple[datetime, datetime]] = []
    for minutes in (0, 1, 2, 5, 5, 3):
        merge_into(ranges, DAY + minutes * MINUTE, DAY + (minutes + 1) * MINUTE)
    assert [((lo - DAY) // MINUTE, (hi - DAY) // MINUTE) for lo, hi in ranges] == [(0, 3), (5, 6), (3, 4)]


# --- db check -----------------------------------------------------------------------------------------------------


def test_db_check_finds_nothing_in_a_fresh_schema(database_url: str) -> None:
    assert differences(database_url) == []


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("DROP TRIGGER maven_trades_deleted ON trades", "maven_trades_deleted"),
        ("ALTER TABLE trades DISABLE TRIGGER maven_trades_updated", "maven_trades_updated"),
        ("ALTER TABLE trades ENABLE REPLICA TRIGGER maven_trades_truncated", "maven_trades_truncated"),
        ("ALTER TABLE candles DROP COLUMN revision", "revision"),
        ("ALTER TABLE candles ALTER COLUMN quote_volume TYPE numeric(36,18)", "quote_volume"),
        ("ALTER TABLE candles ALTER COLUMN quote_volume DROP NOT NULL", "quote_volume"),
        ("ALTER TABLE trades ALTER COLUMN xid DROP DEFAULT", "xid"),
        ("ALTER TABLE trades ALTER COLUMN xid SET DEFAULT '3'", "xid"),
        ("DROP INDEX ix_trades_xid", "ix_trades_xid"),
        ("ALTER TABLE trades DROP CONSTRAINT ck_trades_price", "ck_trades_price"),
        ("ALTER TABLE candles DROP CONSTRAINT pk_candles", "pk_candles"),
        ("ALTER TABLE trades DROP CONSTRAINT fk_trades_trading_pair_id", "trading_pair_id"),
        ("ALTER TABLE trading_pairs DROP CONSTRAINT uq_trading_pairs_symbol", "uq_trading_pairs_symbol"),
        ("DROP TABLE candle_marks", "candle_marks"),
    ],
)
def test_db_check_names_what_is_missing(
    conn: psycopg.Connection, database_url: str, damage: str, named: str
) -> None:
    conn.execute(damage)
    found = differences(database_url)
    assert found
    assert any(named in line for line in found), found


def test_db_check_names_a_table_once(conn: psycopg.Connection, database_url: str) -> None:
    conn.execute("ALTER TABLE candles DROP COLUMN revision")
    conn.execute("ALTER TABLE candles ALTER COLUMN high DROP NOT NULL")
    conn.execute("DROP INDEX ix_trades_xid")
    conn.execute("DROP TABLE worker_runs")
    assert {
        "column candles.revision is missing",
        "nullable candles.high differs",
        "index trades.ix_trades_xid is missing",
        "table worker_runs is missing",
    } <= set(differences(database_url))


def test_verify_with_repair_beside_another_is_skipped(cli: Cli, database_url: str) -> None:
    with pass_lock(database_url, "candles:verify"):
        done = cli("candles", "verify", "--repair", "--json")
    assert (done.code, done.document["status"], done.document["data"]) == (75, "skipped", None)


def test_db_check_on_the_command_line(conn: psycopg.Connection, cli: Cli) -> None:
    assert cli("db", "check").code == 0
    conn.execute("DROP TRIGGER maven_trades_updated ON trades")
    conn.execute("CREATE TABLE somebody_elses (id int)")
    done = cli("db", "check", "--json")
    assert done.code == 78
    assert "maven_trades_updated" in done.document["errors"][0]["message"]
    assert "somebody_elses" not in done.err
