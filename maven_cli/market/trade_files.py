"""Trade files: a CSV with a header, or one of Binance's public trade dumps, as checked rows ready for COPY.

Two roads, one meaning. A regular expression walks over thousands of plain rows at once and lets them through as they
are. A row that it doesn't know (quotes, spaces, a year with a 29th of February) is taken apart, checked column by
column and written anew. What neither takes stops the reading with a UsageError that names file, line and column.

Exact by construction: a number is never converted to anything but the digits it already is.
"""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import select
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from typing import IO, Any, NoReturn

from maven_cli.errors import UsageError
from maven_cli.numbers import check_fits, plain
from maven_cli.times import YEARS

BLOCK = 4 << 20  # bytes read at once; a block of rows is about as large, whatever the size of the file
LARGEST_ID = 2**63 - 1
_FIRST_MS, _END_MS = 946_684_800_000, 7_258_118_400_000
MICROSECONDS_FROM = 10**15  # a bare number at or above is in microseconds

_AMOUNT = "a plain decimal greater than 0, at most 18 digits before and 18 after the point"
_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|z|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)


@dataclass(frozen=True)
class Field:
    """A column that is read. `plain_rows` matches only text that PostgreSQL reads exactly as `convert` does."""

    plain_rows: bytes
    convert: Callable[[str], str]
    expected: str


def _identifier(text: str) -> str:
    if re.fullmatch(r"\d{1,40}", text, re.ASCII) is None or int(text) > LARGEST_ID:
        raise ValueError(f"{text[:60]!r} is not a trade id")
    return str(int(text))


def _amount(text: str) -> str:
    return plain(check_fits(text))


def _side(text: str) -> str:
    if text.lower() not in ("buy", "sell", ""):
        raise ValueError(f"{text[:60]!r} is not a side")
    return text.lower()


def _boolean(text: str) -> str:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text[:60]!r} is neither true nor false")
    return text.lower()


def _milliseconds(text: str) -> str:
    if re.fullmatch(r"\d{1,40}", text, re.ASCII) is None:
        raise ValueError(f"{text[:60]!r} is not a whole number")
    return str(_in_range(int(text), 1))


def _milli_or_microseconds(text: str) -> str:
    if re.fullmatch(r"\d{1,40}", text, re.ASCII) is None:
        raise ValueError(f"{text[:60]!r} is not a whole number")
    return str(_in_range(int(text), 1000 if int(text) >= MICROSECONDS_FROM else 1))


def _in_range(value: int, per_millisecond: int) -> int:
    if not _FIRST_MS <= value // per_millisecond < _END_MS:
        raise ValueError(f"{value} is not in the years {YEARS[0]} to {YEARS[-1]}")
    return value


def _iso(text: str) -> str:
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError(f"{text[:60]!r} is not a time")
    moment, fraction, zone = match.groups()
    fraction = (fraction or "").rstrip("0")
    if len(fraction) > 6:
        raise ValueError(f"{text[:60]!r} is finer than a microsecond, which would be lost")
    try:
        whole = datetime.fromisoformat(moment + ("+00:00" if zone in (None, "z") else zone))
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is not a time: {error}") from None
    if whole.year not in YEARS:
        raise ValueError(f"{text[:60]!r} is not in the years {YEARS[0]} to {YEARS[-1]}")
    return f"{whole.astimezone(UTC):%Y-%m-%dT%H:%M:%S}{'.' if fraction else ''}{fraction}Z"


_ID_ROWS = rb"\d{1,18}+"
# Not zero: the digits after which nothing but zeros come.
_AMOUNT_ROWS = rb'(?!0*+(?:\.0*+)?[,"\n])\d{1,18}+(?:\.\d{1,18}+)?'
# 29 February goes the long way, so that nobody has to know leap years here.
_DATE_ROWS = (
    rb"2[01]\d\d-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
    rb"|02-(?:0[1-9]|1\d|2[0-8]))"
)
_TIME_ROWS = rb"[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,6}+)?(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d)?"
_BOOLEAN_ROWS = rb"(?:[Tt]rue|[Ff]alse)"
# A column that nobody reads: printable ASCII, so that the rows stay what the long way would call valid UTF-8.
_IGNORED_ROWS = rb"[ !#-+\--~\t]*+"

FIELDS = {
    "trade_id": Field(_ID_ROWS, _identifier, f"a whole number from 0 to {LARGEST_ID}"),
    "executed_at_ms": Field(rb"1\d{12}", _milliseconds, "milliseconds since 1970, like 1570752011620"),
    "executed_at": Field(
        _DATE_ROWS + _TIME_ROWS, _iso, "ISO 8601 like 2019-10-11T00:00:11.62Z (UTC where there is no offset)"
    ),
    "side": Field(rb"(?:buy|sell|)", _side, "buy or sell, the taker's side"),
    "price": Field(_AMOUNT_ROWS, _amount, _AMOUNT),
    "quantity": Field(_AMOUNT_ROWS, _amount, _AMOUNT),
    "time": Field(
        rb"1\d{12}(?:\d{3})?",
        _milli_or_microseconds,
        "milliseconds or microseconds since 1970, like 1570752011620",
    ),
    "is_buyer_maker": Field(_BOOLEAN_ROWS, _boolean, "true or false"),
}
MOMENTS = ("executed_at_ms", "executed_at")
NEEDED = (("trade_id",), MOMENTS, ("price",), ("quantity",))  # one of each
BINANCE_TITLES = ("id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch")
_BINANCE_FIELDS = ("trade_id", "price", "quantity", None, "time", "is_buyer_maker", None)


@dataclass(frozen=True)
class Layout:
    """A file's columns in their order: what each is called there, and which field it is (None: ignored)."""

    titles: tuple[str, ...]
    fields: tuple[str | None, ...]
    first_row: int  # the line number of the first trade

    def rows(self) -> re.Pattern[bytes]:
        """Matches as many plain rows as there are from a position on; each field may stand in quotes."""
        columns = [FIELDS[name].plain_rows if name else _IGNORED_ROWS for name in self.fields]
        return re.compile(
            b"(?:" + b",".join(b'(?:%b|"%b")' % (column, column) for column in columns) + b"\n)*+"
        )


class TradeFile:
    """An open file whose first line has been read. Iterate over `blocks` once."""

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        """Raises UsageError when the first line shows that these are no trades."""
        self.name = name
        self._chunks = self._read(stream)
        first = next(self._chunks, b"")
        if not first.strip():
            # Whitespace without end is still an empty file.
            if any(chunk.strip() for chunk in self._chunks):
                self._refuse(1, "it is empty; expected a header")
            raise UsageError(f"{name} is empty; expected trades with a header, or a Binance trade dump")
        first = first.removeprefix(b"\xef\xbb\xbf")
        line, _, rest = first.partition(b"\n")
        self.layout = self._layout(line)
        self._chunks = chain([rest if self.layout.first_row == 2 else first], self._chunks)

    def blocks(self) -> Iterator[bytes]:
        """The checked rows as CSV, some megabytes at a time: one row for each line, in the layout's columns.

        Raises UsageError at the first line that isn't a trade.
        """
        rows = self.layout.rows()
        line, blank = self.layout.first_row, 0
        for data in self._chunks:
            parts: list[bytes] = []
            at = 0
            while at < len(data):
                match = rows.match(data, at)
                end = match.end() if match else at
                if end == at:
                    end = data.index(b"\n", at) + 1
                    text = data[at : end - 1]
                    if not text.strip():
                        blank = blank or line
                        line += 1
                        at = end
                        continue
                    if blank:
                        self._refuse(blank, "it is empty, and trades follow; expected a trade")
                    parts.append(self._row(text, line))
                    line += 1
                else:
                    if blank:
                        self._refuse(blank, "it is empty, and trades follow; expected a trade")
                    parts.append(data[at:end])
                    line += data.count(b"\n", at, end)
                at = end
            if parts:
                yield b"".join(parts)

    def _row(self, raw: bytes, line: int) -> bytes:
        """One line, column by column, as a plain row."""
        layout = self.layout
        values = self._split(raw, line)
        if len(values) != len(layout.titles):
            self._refuse(
                line,
                f"it has {_columns(len(values))}; expected {len(layout.titles)} ({', '.join(layout.titles)})",
            )
        out = []
        for title, name, value in zip(layout.titles, layout.fields, values, strict=True):
            if not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError:
                    self._refuse(line, "it is not valid UTF-8; expected text in UTF-8", title)
            if name is None:
                out.append("")
                continue
            field = FIELDS[name]
            try:
                out.append(field.convert(value.strip()))
            except ValueError as error:
                wrong = str(error) if value.strip() else "it is empty"
                self._refuse(line, f"{wrong}; expected {field.expected}", title)
        return ",".join(out).encode() + b"\n"

    def _split(self, raw: bytes, line: int) -> list[str]:
        try:
            reader = csv.reader([raw.decode("utf-8", "surrogateescape")], strict=True, skipinitialspace=True)
            return next(reader)
        except csv.Error as error:
            self._refuse(
                line, f"it is not CSV ({error}); expected columns separated by commas, each on this line"
            )

    def _layout(self, raw: bytes) -> Layout:
        if not raw.strip():
            self._refuse(1, "it is empty; expected a header")
        if b"\0" in raw or raw.startswith((b"\xff\xfe", b"\xfe\xff", b"%PDF", b"PAR1")):
            raise UsageError(f"{self.name} is not a CSV file in UTF-8; expected trades as CSV, plain or gzip")
        titles = [title.strip() for title in self._split(raw.rstrip(b"\r"), 1)]
        try:
            ",".join(titles).encode()
        except UnicodeEncodeError:
            self._refuse(1, "it is not valid UTF-8; expected a header in UTF-8")
        if titles and re.fullmatch(r"\d+", titles[0], re.ASCII):
            if len(titles) != len(BINANCE_TITLES):
                self._refuse(
                    1,
                    f"it has {_columns(len(titles))} and no header; expected a header, or a Binance trade dump's "
                    f"{len(BINANCE_TITLES)} columns ({', '.join(BINANCE_TITLES)})",
                )
            return Layout(BINANCE_TITLES, _BINANCE_FIELDS, 1)
        return self._header(titles)

    def _header(self, titles: list[str]) -> Layout:
        known = ["side", *(name for group in NEEDED for name in group)]
        names = [title.lower() if title.lower() in known else None for title in titles]
        missing = [" or ".join(group) for group in NEEDED if not any(name in names for name in group)]
        if missing:
            hint = next((f"; it is separated by {c!r}, not by commas" for c in ";\t|" if c in titles[0]), "")
            self._refuse(1, f"the header lacks {', '.join(missing)}; it has {_shown(titles)}{hint}")
        for name in known:
            if names.count(name) > 1:
                self._refuse(1, "the header has it twice; expected one", name)
        if all(name in names for name in MOMENTS):
            self._refuse(1, f"the header has both {' and '.join(MOMENTS)}; expected one of them")
        return Layout(tuple(titles), tuple(names), 2)

    def _read(self, stream: IO[bytes]) -> Iterator[bytes]:
        """Whole lines, a block at a time, each ending with a bare newline."""
        rest = b""
        while data := self._bytes(stream):
            cut = data.rfind(b"\n") + 1
            if not cut:
                rest += data
                if len(rest) > BLOCK:
                    raise UsageError(f"{self.name} is not a CSV file: a line has more than {BLOCK >> 20} MB")
                continue
            yield (rest + data[:cut]).replace(b"\r\n", b"\n")
            rest = data[cut:]
        if rest:
            yield (rest + b"\n").replace(b"\r\n", b"\n")

    def _bytes(self, stream: IO[bytes]) -> bytes:
        try:
            return stream.read(BLOCK)
        except EOFError:
            raise UsageError(
                f"{self.name} is cut off: the gzip data ends too early; fetch it again"
            ) from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise UsageError(f"{self.name} is damaged gzip data ({error}); fetch it again") from None
        except OSError as error:
            raise UsageError(f"{self.name} can't be read: {error.strerror or error}") from None

    def _refuse(self, line: int, problem: str, column: str | None = None) -> NoReturn:
        raise refusal(self.name, line, problem, column)


def refusal(name: str, line: int, problem: str, column: str | None = None) -> UsageError:
    """Why a file's line can't be taken, in one line."""
    return UsageError(f"{name}, line {line}{f', column {column}' if column else ''}: {problem}")


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _shown(titles: Sequence[str]) -> str:
    listed = ", ".join(ascii(title[:40])[1:-1] for title in titles[:12])
    return listed + (f" and {len(titles) - 12} more" if len(titles) > 12 else "")


class _Counted(io.RawIOBase):
    """A stream with its first bytes put back; tells how many bytes have been taken from it."""

    def __init__(self, head: bytes, stream: io.FileIO, progress: Callable[[int], None] | None) -> None:
        super().__init__()
        self._head, self._stream, self._progress = head, stream, progress
        self._taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head or _read(self._stream, len(buffer))
        data, self._head = data[: len(buffer)], data[len(buffer) :] if self._head else b""
        buffer[: len(data)] = data
        self._taken += len(data)
        if self._progress is not None:
            self._progress(self._taken)
        return len(data)


def _read(stream: io.FileIO, size: int) -> bytes:
    """What there is, at most `size` bytes; empty at the end.

    A signal that arrives just before read() blocks in the kernel would be noticed only when the pipe delivers again, so
    the waiting is done in pieces.
    """
    while not select.select([stream], [], [], 0.2)[0]:
        pass
    return os.read(stream.fileno(), size)


def _head(stream: io.FileIO, size: int) -> bytes:
    """The first `size` bytes, or all there are; a pipe may deliver them one by one."""
    head = b""
    while len(head) < size and (more := _read(stream, size - len(head))):
        head += more
    return head


@contextmanager
def open_trade_file(path: str, progress: Callable[[int], None] | None = None) -> Iterator[TradeFile]:
    """A trade file, plain or gzip by its first bytes, not its name; ``-`` is standard input.

    `progress` is told how many bytes of the file have been read. Raises UsageError for what can't be opened.
    """
    with ExitStack() as stack:
        name = "standard input" if path == "-" else path
        if path == "-" and sys.stdin is None:
            raise UsageError("standard input is closed; expected a trade file")
        try:
            file = sys.stdin.fileno() if path == "-" else path
            stream = stack.enter_context(open(file, "rb", buffering=0, closefd=path != "-"))
            head = _head(stream, 4)
        except FileNotFoundError:
            raise UsageError(f"{name} doesn't exist; expected a trade file") from None
        except IsADirectoryError:
            raise UsageError(f"{name} is a directory; expected a trade file") from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{name} can't be read: {getattr(error, 'strerror', None) or error}") from None
        if head == b"PK\x03\x04":
            raise UsageError(
                f"{name} is a zip archive; unpack it first: unzip -p FILE | maven trades import -"
            )
        source = io.BufferedReader(_Counted(head, stream, progress), 1 << 17)
        if head.startswith(b"\x1f\x8b"):
            yield TradeFile(name, stack.enter_context(gzip.GzipFile(fileobj=source, mode="rb")))  # type: ignore[arg-type]
        else:
            yield TradeFile(name, source)


def file_size(path: str) -> int | None:
    """The size of a regular file; None for everything whose end can't be known, such as a pipe."""
    try:
        found = os.fstat(0) if path == "-" else os.stat(path)  # noqa: PTH116 as above
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None
