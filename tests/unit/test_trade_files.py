"""Trade files: what is taken, what is refused and how that is told. No database."""

from __future__ import annotations

import _thread
import gzip
import io
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maven_cli.errors import UsageError
from maven_cli.market import trade_files
from maven_cli.market.trade_files import FIELDS, TradeFile, file_size, open_trade_file
from maven_cli.numbers import plain

HEADER = "trade_id,executed_at_ms,side,price,quantity\n"
ROW = "1,1570752011620,sell,0.5,2\n"


def rows(content: str | bytes) -> list[list[str]]:
    """The accepted rows of a file called t.csv."""
    data = content.encode() if isinstance(content, str) else content
    taken = b"".join(TradeFile("t.csv", io.BytesIO(data)).blocks()).decode()
    return [[value.strip('"') for value in line.split(",")] for line in taken.splitlines()]


def refused(content: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        rows(content)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content",
    [
        HEADER + ROW,
        (HEADER + ROW).replace("\n", "\r\n"),
        "\ufeff" + HEADER + ROW,
        HEADER + ROW.rstrip("\n"),
        HEADER + ROW + "\n  \n\r\n",
        " Trade_ID , executed_at_ms,side , price,quantity\n" + ROW,
        HEADER + '"1","1570752011620","sell","0.5","2"\n',
        HEADER + '1, 1570752011620, "SELL",0.5 ,2\n',
        HEADER + "0001,1570752011620,sell,00.50,2.000000000000000000000\n",
    ],
)
def test_ways_to_write_the_same_trade(content: str) -> None:
    [[number, moment, side, price, quantity]] = rows(content)
    assert (int(number), moment, side) == (1, "1570752011620", "sell")
    assert (Decimal(price), Decimal(quantity)) == (Decimal("0.5"), Decimal(2))


def test_columns_in_any_order_and_unknown_ones_ignored() -> None:
    content = 'fee,price,quantity,note,trade_id,executed_at\n0.1,5,6,"a, b",7,2019-10-11T00:00:11.62Z\n'
    file = TradeFile("t.csv", io.BytesIO(content.encode()))
    assert file.layout.fields == (None, "price", "quantity", None, "trade_id", "executed_at")
    assert list(file.blocks()) == [b",5,6,,7,2019-10-11T00:00:11.62Z\n"]


def test_a_binance_dump_has_no_header() -> None:
    content = (
        "28457,4261.48,0.075,319.611,1502942428322,True,True\n28458,4261,1,4261,1502942428322123,false,true\n"
    )
    file = TradeFile("t.csv", io.BytesIO(content.encode()))
    assert file.layout.fields == ("trade_id", "price", "quantity", None, "time", "is_buyer_maker", None)
    assert b"".join(file.blocks()) == content.encode()


@pytest.mark.parametrize(
    ("row", "column", "why"),
    [
        ("x,1570752011620,sell,1,2", "trade_id", "'x' is not a trade id"),
        ("-1,1570752011620,sell,1,2", "trade_id", "'-1' is not a trade id"),
        ("1.0,1570752011620,sell,1,2", "trade_id", "'1.0' is not a trade id"),
        ("9223372036854775808,1570752011620,sell,1,2", "trade_id", "is not a trade id"),
        (
            ",1570752011620,sell,1,2",
            "trade_id",
            "it is empty; expected a whole number from 0 to 9223372036854775807",
        ),
        ("1,1570752011,sell,1,2", "executed_at_ms", "not in the years 2000 to 2199; expected milliseconds"),
        ("1,1570752011620000,sell,1,2", "executed_at_ms", "not in the years"),
        ("1,1570752011620.5,sell,1,2", "executed_at_ms", "is not a whole number"),
        ("1,1570752011620,short,1,2", "side", "'short' is not a side; expected buy or sell"),
        ("1,1570752011620,sell,1e-5,2", "price", "'1e-5' is not a plain decimal"),
        ("1,1570752011620,sell,NaN,2", "price", "'NaN' is not a plain decimal"),
        ("1,1570752011620,sell,Infinity,2", "price", "is not a plain decimal"),
        ("1,1570752011620,sell,0,2", "price", "zero"),
        ("1,1570752011620,sell,0.000,2", "price", "zero"),
        ("1,1570752011620,sell,-1,2", "price", "'-1' is not a plain decimal"),
        ("1,1570752011620,sell,+1,2", "price", "'+1' is not a plain decimal"),
        ("1,1570752011620,sell,٣,2", "price", "is not a plain decimal"),
        ("1,1570752011620,sell,1,0.0000000000000000001", "quantity", "more than 18 decimals"),
        ("1,1570752011620,sell,1,1000000000000000000", "quantity", "more than 18 digits before"),
        ("1,1570752011620,sell,1,", "quantity", "it is empty; expected a plain decimal greater than 0"),
        ('1,1570752011620,sell,1,"0"', "quantity", "zero"),
    ],
)
def test_a_wrong_value_names_file_line_and_column(row: str, column: str, why: str) -> None:
    message = refused(HEADER + ROW * 3 + row + "\n" + ROW)
    assert message.startswith(f"t.csv, line 5, column {column}: ")
    assert why in message
    assert "; expected " in message


@pytest.mark.parametrize(
    "moment",
    [
        "2019-10-11",
        "2019-13-01T00:00:00Z",
        "2019-02-29T00:00:00Z",
        "2019-04-31T00:00:00Z",
        "2019-10-11T25:00:00Z",
        "2019-10-11T23:59:60Z",
        "2019-10-11T00:00:00.1234567Z",
        "1999-12-31T23:59:59Z",
        "2019-10-11T00:00:00+25:00",
        "now",
        "infinity",
        "1570752011620",
    ],
)
def test_wrong_times_are_refused(moment: str) -> None:
    message = refused(f"trade_id,executed_at,price,quantity\n1,{moment},1,1\n")
    assert message.startswith("t.csv, line 2, column executed_at: ")
    assert "expected ISO 8601" in message


def test_29_february_exists_in_leap_years() -> None:
    content = (
        "trade_id,executed_at,price,quantity\n1,2020-02-29T12:00:00+02:00,1,1\n2,2020-02-29 12:00:00.5,1,1\n"
    )
    assert [row[1] for row in rows(content)] == ["2020-02-29T10:00:00Z", "2020-02-29T12:00:00.5Z"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "t.csv is empty; expected trades"),
        (" \n\n", "t.csv is empty; expected trades"),
        ("\n" + HEADER + ROW, "t.csv, line 1: it is empty; expected a header"),
        (
            "price,trade_id\n1,1\n",
            "t.csv, line 1: the header lacks executed_at_ms or executed_at, quantity; it has price, trade_id",
        ),
        (HEADER.replace(",", ";"), "it is separated by ';', not by commas"),
        ("price," + HEADER, "t.csv, line 1, column price: the header has it twice"),
        (
            HEADER.replace("side", "executed_at"),
            "t.csv, line 1: the header has both executed_at_ms and executed_at",
        ),
        (
            ROW,
            "t.csv, line 1: it has 5 columns and no header; expected a header, or a Binance trade dump's 7 columns",
        ),
        (
            HEADER + "1,2\n",
            "t.csv, line 2: it has 2 columns; expected 5 (trade_id, executed_at_ms, side, price, quantity)",
        ),
        (HEADER + ROW[:-1] + ",\n", "t.csv, line 2: it has 6 columns; expected 5"),
        (HEADER + ROW + "\n" + ROW, "t.csv, line 3: it is empty, and trades follow"),
        (HEADER + '"1,1570752011620,sell,1,2\n' + ROW, "t.csv, line 2: it is not CSV"),
        (
            HEADER.encode() + b"1,1570752011620,se\xffll,1,2\n",
            "t.csv, line 2, column side: it is not valid UTF-8",
        ),
        (b"caf\xe9," + HEADER.encode(), "t.csv, line 1: it is not valid UTF-8"),
        (HEADER.encode("utf-16"), "t.csv is not a CSV file in UTF-8"),
        (b"\x7fELF\0\0\0\n", "t.csv is not a CSV file in UTF-8"),
    ],
)
def test_files_that_are_not_trades(content: str | bytes, message: str) -> None:
    assert message in refused(content)


def test_a_column_that_is_ignored_must_still_be_utf_8() -> None:
    message = refused(b"note," + HEADER.encode() + b"\xff," + ROW.encode())
    assert message.startswith("t.csv, line 2, column note: it is not valid UTF-8")


def test_a_header_alone_is_a_file_without_trades() -> None:
    assert rows(HEADER) == []


def test_lines_are_counted_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trade_files, "BLOCK", 64)
    content = HEADER + "".join(f"{number},1570752011620,sell,1,2\n" for number in range(100))
    assert [row[0] for row in rows(content)] == [str(number) for number in range(100)]
    assert refused(content + "x" + ROW).startswith("t.csv, line 102, column trade_id: ")
    assert "a line has more than" in refused(HEADER + "9" * 1000 + ROW)


def test_gzip_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "trades.csv"
    # Two members, as `cat a.gz b.gz` makes them.
    path.write_bytes(gzip.compress((HEADER + ROW).encode()) + gzip.compress(ROW.encode()))
    taken: list[int] = []
    with open_trade_file(str(path), taken.append) as file:
        assert b"".join(file.blocks()).decode() == ROW * 2
    assert taken[-1] == path.stat().st_size == file_size(str(path))


def test_gzip_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trades.csv.gz"
    path.write_bytes(gzip.compress((HEADER + ROW).encode()))
    with path.open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with open_trade_file("-") as file:
            assert b"".join(file.blocks()).decode() == ROW
            assert file.name == "standard input"


def test_a_signal_that_interrupts_no_system_call_ends_the_waiting_for_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may arrive between two of them; interrupt_main leaves the same trace: noted, but nothing woken up."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb", buffering=0) as pipe, os.fdopen(reading) as stdin:
        pipe.write((HEADER + ROW).encode())
        monkeypatch.setattr(sys, "stdin", stdin)
        late = threading.Timer(0.3, _thread.interrupt_main)
        # The way out if nothing notices: an end of the file.
        way_out = threading.Timer(20, pipe.close)
        late.start()
        way_out.start()
        try:
            with pytest.raises(KeyboardInterrupt), open_trade_file("-"):
                pass
            assert not pipe.closed
        finally:
            way_out.cancel()
            late.join()
            way_out.join()


def _cut(data: bytes) -> bytes:
    return data[:-12]


def _damaged(data: bytes) -> bytes:
    return data[:20] + b"\xff\xff\xff\xff" + data[24:]


@pytest.mark.parametrize(("harm", "why"), [(_cut, "is cut off"), (_damaged, "is damaged gzip data")])
def test_harmed_gzip(tmp_path: Path, harm: Callable[[bytes], bytes], why: str) -> None:
    path = tmp_path / "trades.csv.gz"
    path.write_bytes(harm(gzip.compress((HEADER + ROW * 500).encode())))
    with pytest.raises(UsageError, match=why), open_trade_file(str(path)) as file:
        list(file.blocks())


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK\x03\x04rest")
    for path, why in (
        (str(tmp_path / "none.csv"), "doesn't exist"),
        (str(tmp_path), "is a directory"),
        (str(archive), "zip archive"),
        ("a\0b", "can't be read"),
    ):
        with pytest.raises(UsageError, match=why), open_trade_file(path):
            pass

    def forbidden(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(UsageError, match="can't be read: Permission denied"), open_trade_file("secret.csv"):
        pass


AMOUNTS = st.integers(1, 10**36 - 1).map(lambda units: Decimal(f"{units}e-18"))


@given(st.integers(0, 2**63 - 1), AMOUNTS, AMOUNTS, st.integers(946_684_800_000, 7_258_118_399_999))
def test_any_valid_trade_is_taken_unchanged(
    number: int, price: Decimal, quantity: Decimal, moment: int
) -> None:
    line = f"{number},{moment},buy,{plain(price)},{quantity:f}\n"
    [[one, two, _, three, four]] = rows(HEADER + line)
    assert (int(one), int(two), Decimal(three), Decimal(four)) == (number, moment, price, quantity)


@given(
    st.datetimes(datetime(2000, 1, 2), datetime(2199, 12, 30)),  # noqa: DTZ001 hypothesis wants them naive
    st.integers(-13 * 60, 13 * 60),
    st.sampled_from("T "),
)
def test_any_iso_time_keeps_its_instant(naive: datetime, offset: int, separator: str) -> None:
    moment = naive.replace(tzinfo=timezone(timedelta(minutes=offset)))
    [[_, taken, *_]] = rows(f"trade_id,executed_at,price,quantity\n1,{moment.isoformat(separator)},1,1\n")
    assert datetime.fromisoformat(taken).astimezone(UTC) == moment


SAMPLES = {
    "trade_id": "12345",
    "executed_at_ms": "1570752011620",
    "executed_at": "2019-10-11T00:00:11.62Z",
    "side": "sell",
    "price": "10.05",
    "quantity": "0.00100",
    "time": "1570752011620123",
    "is_buyer_maker": "True",
}


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=400)
@given(st.data(), st.sampled_from(sorted(FIELDS)))
def test_the_fast_road_takes_nothing_that_the_long_way_refuses(data: st.DataObject, name: str) -> None:
    """A sample with some characters exchanged, removed or added: what the pattern takes, `convert` takes as the same."""
    text = list(SAMPLES[name])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(st.text('0129.-+:TZe ,"\n\0é', max_size=2))
    value = "".join(text)
    pattern = trade_files.Layout((name,), (name,), 1).rows()
    line = value.encode() + b"\n"
    match = pattern.match(line)
    assert match is not None
    if match.end() != len(line) or "\n" in value:
        return
    value = value.removeprefix('"').removesuffix('"')
    converted = FIELDS[name].convert(value)
    if name in ("price", "quantity"):
        assert Decimal(converted) == Decimal(value)
    elif name == "executed_at":
        same = datetime.fromisoformat(value)
        assert datetime.fromisoformat(converted) == (same if same.tzinfo else same.replace(tzinfo=UTC))
    elif name in ("trade_id", "executed_at_ms", "time"):
        assert int(converted) == int(value)
    else:
        assert converted == value.lower()
