"""Tickers and candles as text: drawn to fit on a terminal, exact and whole in a pipe.

A table is a list of `Field`s. On a terminal the fields of the highest rank go until the rest fits; numbers are grouped and
volumes shortened. In a pipe every field is there, every number is exact, and nothing but the last one holds a space, so
that awk and cut work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rich.cells import cell_len
from rich.text import Text

from maven_cli.cli.chart_axes import compact, decimals, grouped
from maven_cli.numbers import plain
from maven_cli.times import iso

if TYPE_CHECKING:
    from rich.console import Console

    from maven_cli.market.candle_view import Candle
    from maven_cli.market.pairs import TradingPair
    from maven_cli.market.tickers import Ticker

NO_TICKER = "no ticker: is the tickers pass running?"
NO_PAIRS = "no active pairs; add one with: maven pairs add BTC/USDT"
TICKER_KEYS = (
    "last", "open", "high", "low", "prev_close", "change", "change_percent", "volume", "quote_volume", "trade_count",
    "first_trade_id", "last_trade_id", "last_trade_at", "stale", "as_of",
)  # fmt: skip
UP, DOWN = "green", "red"

T = TypeVar("T")
Row = dict[str, Any]

# A column's width is that of its widest cell among so many rows: the whole of a year's minutes need not be in memory.
_MEASURED = 1000


@dataclass(frozen=True)
class Field(Generic[T]):
    """One column: its name and exact text in a pipe, its title and looks on a terminal; None where it has none.

    rank: 0 always stays; of the others the highest goes first when the terminal is too narrow.
    """

    key: str
    title: str
    rank: int
    exact: Callable[[T], str] | None
    shown: Callable[[T], Text | str] | None
    right: bool = True

    def cell(self, row: T, *, terminal: bool) -> Text:
        """What stands in the column for this row."""
        made = self.shown if terminal else self.exact
        text = made(row) if made is not None else ""
        return text if isinstance(text, Text) else Text(text)


def table_lines(fields: Sequence[Field[T]], rows: Iterable[T], width: int | None) -> Iterator[Text]:
    """A header, and one line per row. `width` in cells is a terminal's; None is a pipe."""
    terminal = width is not None
    fields = [field for field in fields if (field.shown if terminal else field.exact) is not None]
    waiting = iter(rows)
    sample = list(islice(waiting, _MEASURED))
    measured = [[field.cell(row, terminal=terminal) for field in fields] for row in sample]
    titles = [field.title if terminal else field.key for field in fields]
    sizes = [
        max([cell_len(title), *(line[at].cell_len for line in measured)]) for at, title in enumerate(titles)
    ]
    kept = list(range(len(fields)))
    while width is not None and sum(sizes[at] + 2 for at in kept) - 2 > width:
        worst = max(fields[at].rank for at in kept)
        if worst == 0:
            break
        kept = [at for at in kept if fields[at].rank < worst]

    def joined(line: Sequence[Text]) -> Text:
        parts = []
        for cell, at in zip(line, kept, strict=True):
            room = " " * max(0, sizes[at] - cell.cell_len)
            parts.append(Text.assemble(room, cell) if fields[at].right else Text.assemble(cell, room))
        text = Text("  ").join(parts)
        text.rstrip()
        if width is not None:
            text.truncate(width, overflow="ellipsis")
        return text

    yield joined([Text(titles[at], "bold" if terminal else "") for at in kept])
    for row in chain(sample, waiting):
        yield joined([fields[at].cell(row, terminal=terminal) for at in kept])


def print_table(out: Console, fields: Sequence[Field[T]], rows: Iterable[T]) -> None:
    """Prints the table as it comes."""
    if not out.is_terminal:
        for line in table_lines(fields, rows, None):
            print(line.plain, file=out.file)
        return
    for line in table_lines(fields, rows, out.width):
        out.print(line, no_wrap=True, overflow="crop", crop=True)


def is_unicode(out: Console) -> bool:
    """Whether this terminal or pipe can be given more than ASCII."""
    return out.encoding.lower().startswith("utf")


def ticker_rows(tickers: Sequence[Ticker]) -> list[Row]:
    """Tickers as documents name their values: snake_case, the pair by its symbol."""
    return [
        {"pair": ticker.pair.symbol, **{key: getattr(ticker, key) for key in TICKER_KEYS}}
        for ticker in tickers
    ]


def missing_row(pair: TradingPair) -> Row:
    """The row of a pair that Redis has no ticker of."""
    note = NO_TICKER if pair.status == "ACTIVE" else f"no ticker: the pair is {pair.status}"
    return {"pair": pair.symbol, **dict.fromkeys(TICKER_KEYS), "note": note}


def ticker_table(out: Console, rows: Sequence[Row]) -> None:
    """Prints rows of `ticker_rows`; they may have an `age` and a `note` besides."""
    if not rows:
        out.print(NO_PAIRS)
        return
    print_table(out, ticker_fields(rows, is_unicode(out)), rows)
    if out.is_terminal:
        for note in sorted({str(row["note"]) for row in rows if row.get("note")}):
            out.print(note, style="yellow")


def ticker_screen(out: Console, rows: Sequence[Row]) -> Text:
    """The same as one text that fits the terminal as it is now, pairs that don't fit counted."""
    if not rows:
        return Text(NO_PAIRS)
    lines = list(table_lines(ticker_fields(rows, is_unicode(out)), rows, out.width))
    room = max(2, out.height - 1)
    if len(lines) > room:
        left = len(lines) - room + 1
        lines[room - 1 :] = [Text(f"and {left} more pairs; a taller window shows them", "dim")]
    elif NO_TICKER in {row.get("note") for row in rows}:
        lines.append(Text(NO_TICKER, "yellow"))
    return Text("\n", no_wrap=True, overflow="crop").join(lines)


def ticker_line(row: Row) -> str:
    """One ticker in one line of a pipe: time, pair, last price, change in percent, volume, trades."""
    if row.get("note"):
        return f"- {row['pair']} {row['note']}"
    values = ("as_of", "pair", "last", "change_percent", "volume", "trade_count")
    return " ".join(_exact(row[key]) for key in values) + (" stale" if row["stale"] else "")


def ticker_fields(rows: Sequence[Row], unicode: bool) -> list[Field[Row]]:
    """The columns for these rows."""

    def number(key: str, title: str, rank: int, shown: Callable[[Row], Text | str]) -> Field[Row]:
        return Field(key, title, rank, lambda row: _exact(row[key]), shown)

    def price(key: str) -> Callable[[Row], Text | str]:
        return lambda row: (
            _dash(row[key]) or Text(grouped(row[key], _places(row)), "dim" if row["stale"] else "")
        )

    def volume(key: str) -> Callable[[Row], Text | str]:
        return lambda row: _dash(row[key]) or compact(row[key])

    fields: list[Field[Row]] = [
        Field("pair", "Pair", 0, lambda row: row["pair"], lambda row: Text(row["pair"], "bold"), right=False),
        number("last", "Last", 0, lambda row: _dash(row["last"]) or _last(row)),
        number(
            "change",
            "Change",
            7,
            lambda row: _dash(row["change"]) or _signed(row["change"], _places(row), "", unicode),
        ),
        number(
            "change_percent",
            "24 h %",
            1,
            lambda row: _dash(row["change_percent"]) or _signed(row["change_percent"], 2, "", unicode),
        ),
        number("open", "Open", 8, price("open")),
        number("high", "High", 4, price("high")),
        number("low", "Low", 4, price("low")),
        number("prev_close", "Prev close", 9, price("prev_close")),
        number("volume", "Volume", 3, volume("volume")),
        number("quote_volume", "Turnover", 6, volume("quote_volume")),
        number(
            "trade_count", "Trades", 5, lambda row: _dash(row["trade_count"]) or f"{row['trade_count']:,}"
        ),
        Field("last_trade_at", "Last trade", 10, lambda row: _exact(row["last_trade_at"]), _last_trade),
        Field("as_of", "As of", 11, lambda row: _exact(row["as_of"]), lambda row: _clock(row["as_of"])),
    ]
    if any("age" in row for row in rows):
        fields.append(
            Field(
                "age",
                "Age",
                2,
                lambda row: _seconds(row["age"]),
                lambda row: Text(short_age(row["age"]), "dim"),
            )
        )
    if not all(_note(row) == "" for row in rows):
        fields.append(Field("note", "", 1, _long_note, lambda row: Text(_note(row), "yellow"), right=False))
    return fields


def candle_fields(
    sample: Sequence[Candle], now: datetime, end: Callable[[datetime], datetime]
) -> list[Field[Candle]]:
    """The columns of a candle table. `end` gives a window's end for its start."""
    places = max((decimals(price) for candle in sample for price in _prices(candle)), default=0)

    def exact(key: str) -> Callable[[Candle], str]:
        return lambda candle: _exact(getattr(candle, key))

    def price(key: str) -> Callable[[Candle], Text | str]:
        def shown(candle: Candle) -> Text | str:
            value: Decimal = getattr(candle, key)
            style = "dim" if candle.empty else color(candle.close - candle.open) if key == "close" else ""
            return Text(grouped(value, max(places, decimals(value))), style)

        return shown

    def state(candle: Candle) -> Text:
        if not candle.closed:
            return Text("running" if end(candle.start) > now else "not closed", "yellow")
        return Text(
            "no trades" if candle.empty else f"revision {candle.revision}" if candle.revision else "", "dim"
        )

    def change(candle: Candle) -> Text | str:
        return Text() if candle.empty else _percent((candle.close - candle.open) * 100 / candle.open)

    def volume(key: str) -> Callable[[Candle], Text | str]:
        return lambda candle: Text(compact(getattr(candle, key)), "dim" if candle.empty else "")

    def number(key: str, title: str, rank: int, shown: Callable[[Candle], Text | str]) -> Field[Candle]:
        return Field(key, title, rank, exact(key), shown)

    return [
        Field("start", "Start (UTC)", 0, exact("start"), lambda c: f"{c.start:%Y-%m-%d %H:%M}", right=False),
        number("open", "Open", 2, price("open")),
        number("high", "High", 2, price("high")),
        number("low", "Low", 2, price("low")),
        number("close", "Close", 0, price("close")),
        number("base_volume", "Volume", 4, volume("base_volume")),
        number("quote_volume", "Turnover", 6, volume("quote_volume")),
        number("trade_count", "Trades", 5, lambda c: Text(f"{c.trade_count:,}", "dim" if c.empty else "")),
        *(
            Field(key, "", 0, exact(key), None)
            for key in ("first_trade_id", "last_trade_id", "revision", "closed", "empty")
        ),
        Field("", "Change", 7, None, change),
        Field("", "", 3, None, state, right=False),
    ]


def color(difference: Decimal) -> str:
    """Green for more, red for less."""
    return UP if difference > 0 else DOWN if difference < 0 else ""


def short_age(age: timedelta | None) -> str:
    """``3s``, ``5m``, ``2h``, ``4d``."""
    if age is None:
        return "-"
    seconds = max(0, int(age.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _exact(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case Decimal():
            return plain(value)
        case datetime():
            return iso(value)
        case _:
            return str(value)


def _dash(value: Any) -> Text | None:
    return Text("-", "dim") if value is None else None


def _seconds(age: timedelta | None) -> str:
    return "-" if age is None else f"{age.total_seconds():.1f}s"


def _clock(moment: datetime | None) -> str:
    return "-" if moment is None else f"{moment:%H:%M:%S}"


def _last_trade(row: Row) -> str:
    return "-" if row["last_trade_at"] is None else f"{row['last_trade_at']:%m-%d %H:%M:%S}"


def _prices(candle: Candle) -> tuple[Decimal, ...]:
    return candle.open, candle.high, candle.low, candle.close


def _places(row: Row) -> int:
    """A pair's prices with as many decimals as any of them needs: figures that stand below each other compare."""
    return max(
        (decimals(row[key]) for key in ("last", "open", "high", "low") if row[key] is not None), default=0
    )


def _last(row: Row) -> Text:
    style = "dim" if row["stale"] else f"bold {color(row['change'] or Decimal(0))}"
    return Text(grouped(row["last"], _places(row)), style)


def _signed(value: Decimal, places: int, unit: str, unicode: bool) -> Text:
    arrow = ("▲ " if value > 0 else "▼ " if value < 0 else "  ") if unicode else ""
    return Text(f"{arrow}{value:+z,.{places}f}{unit}" if value else f"{0:.{places}f}{unit}", color(value))


def _percent(value: Decimal) -> Text:
    return Text(f"{value:+z,.2f}%", color(value))


def _note(row: Row) -> str:
    if row.get("note"):
        return str(row["note"]).partition(":")[0]
    return "stale" if row["stale"] else "never traded" if row["last"] is None else ""


def _long_note(row: Row) -> str:
    return str(row.get("note") or _note(row))
