"""Brings a trade file into a pair: all of it or nothing, and a second time nothing.

One transaction. Block by block: COPY into a temporary table that fits PostgreSQL's temp_buffers, from there into
`trades` what isn't there yet, then the table is emptied. So neither this process nor the server's queue of foreign key
checks grows with the file.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql

from maven_cli.db.queries import load
from maven_cli.errors import InterruptedByUserError, StoppedError, UsageError
from maven_cli.market.pairs import TradingPair, add_pair, resolve_pairs
from maven_cli.market.trade_files import MICROSECONDS_FROM, Layout, TradeFile, refusal
from maven_cli.numbers import plain
from maven_cli.times import iso

_TYPES = {
    "trade_id": "bigint",
    "executed_at_ms": "bigint",
    "executed_at": "timestamptz",
    "side": "text",
    "price": "numeric(36,18)",
    "quantity": "numeric(36,18)",
    "time": "bigint",
    "is_buyer_maker": "boolean",
}
# The factor of an interval is a double, exact below 2^53: microseconds until the year 2255.
_EPOCH = "timestamptz 'epoch' + {} * interval '1 microsecond'"
_MOMENT = {
    "executed_at_ms": _EPOCH.format("(executed_at_ms * 1000)"),
    "executed_at": "executed_at",
    "time": _EPOCH.format(f'(CASE WHEN "time" >= {MICROSECONDS_FROM} THEN "time" ELSE "time" * 1000 END)'),
}
_SIDE = {
    "side": "nullif(side, '')",
    # The maker had the buy order in the book, so the taker sold.
    "is_buyer_maker": "CASE WHEN is_buyer_maker THEN 'sell' ELSE 'buy' END",
}


@dataclass(frozen=True)
class Imported:
    """What an import did. Times and ids span the whole file; None for a file without trades."""

    pair: str
    created: bool
    imported: int
    already_there: int
    first_executed_at: datetime | None
    last_executed_at: datetime | None
    first_id: int | None
    last_id: int | None
    seconds: timedelta
    dry_run: bool


def import_trades(
    conn: psycopg.Connection,
    file: TradeFile,
    symbol: str,
    *,
    create_pair: bool = False,
    dry_run: bool = False,
) -> Imported:
    """Reads the file to its end and commits, or rolls back and raises.

    dry_run does everything but commit. Raises UsageError for an unknown pair, for a line that isn't a trade or is below
    the pair's retention line, and for an id that belongs to another trade; StoppedError after Ctrl-C or SIGTERM.
    """
    started = time.monotonic()
    with conn.transaction(force_rollback=dry_run), _stoppable():
        # READ COMMITTED: trades that another import commits meanwhile are found and compared, whatever the default is.
        conn.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        for name in _timeouts(conn):
            conn.execute("SELECT set_config(%s, '0', true)", [name])
        conn.execute("SET LOCAL TimeZone = 'UTC'")
        pair, created = _pair(conn, symbol, create=create_pair)
        load_block = _Loader(conn, pair, file)
        for rows in file.blocks():
            load_block(rows)
    return Imported(
        pair.symbol,
        created,
        load_block.inserted,
        load_block.rows - load_block.inserted,
        load_block.first_at,
        load_block.last_at,
        load_block.first_id,
        load_block.last_id,
        timedelta(milliseconds=round((time.monotonic() - started) * 1000)),
        dry_run,
    )


def _timeouts(conn: psycopg.Connection) -> Iterator[str]:
    """A long file isn't a hanging statement, and a slow pipe isn't a forgotten transaction."""
    yield "statement_timeout"
    yield "idle_in_transaction_session_timeout"
    if conn.info.server_version >= 170000:
        yield "transaction_timeout"


def _pair(conn: psycopg.Connection, symbol: str, *, create: bool) -> tuple[TradingPair, bool]:
    try:
        return resolve_pairs(conn, [symbol])[0], False
    except UsageError as error:
        if create:
            return add_pair(conn, symbol), True
        raise UsageError(f"{error}; or create it: --create-pair") from None


class _Loader:
    """Takes one block after the other into `trades`, and counts."""

    def __init__(self, conn: psycopg.Connection, pair: TradingPair, file: TradeFile) -> None:
        self._conn, self._pair, self._file = conn, pair, file
        self.rows = self.inserted = 0
        self.first_at: datetime | None = None
        self.last_at: datetime | None = None
        self.first_id: int | None = None
        self.last_id: int | None = None
        layout = file.layout
        names = [name or f"ignored_{at}" for at, name in enumerate(layout.fields)]
        columns = [f'"{name}" {_TYPES.get(name, "text")}' for name in names]
        # Lines are numbered as they arrive, so that any statement can say which line it means.
        conn.execute(
            f"CREATE TEMPORARY TABLE maven_incoming (line bigint GENERATED BY DEFAULT AS IDENTITY"
            f" (START WITH {layout.first_row}), {', '.join(columns)}) ON COMMIT DROP"
        )
        self._copy = sql.SQL("COPY maven_incoming ({}) FROM STDIN (FORMAT csv)").format(
            sql.SQL(", ").join(map(sql.Identifier, names))
        )
        row = _row(layout)
        self._insert = load("market", "trade_import_insert", row=row)
        self._extent = load("market", "trade_import_extent", row=row)
        self._too_old = load("market", "trade_import_too_old", row=row)
        self._conflict = load("market", "trade_import_conflict", row=row)

    def __call__(self, rows: bytes) -> None:
        cursor = self._conn.cursor()
        with cursor.copy(self._copy) as copy:
            copy.write(rows)
        extent = cursor.execute(self._extent, {"pair": self._pair.id}).fetchone()
        assert extent is not None
        count, first_at, last_at, first_id, last_id, retained_from = extent
        if retained_from is not None and first_at < retained_from:
            self._refuse_old(retained_from)
        inserted = cursor.execute(self._insert, {"pair": self._pair.id}).rowcount
        if inserted != count:
            self._refuse_conflict()
        cursor.execute("TRUNCATE maven_incoming")
        self.rows += count
        self.inserted += inserted
        first_at, last_at = first_at.astimezone(UTC), last_at.astimezone(UTC)
        self.first_at = first_at if self.first_at is None else min(self.first_at, first_at)
        self.last_at = last_at if self.last_at is None else max(self.last_at, last_at)
        self.first_id = first_id if self.first_id is None else min(self.first_id, first_id)
        self.last_id = last_id if self.last_id is None else max(self.last_id, last_id)

    def _refuse_old(self, retained_from: datetime) -> None:
        found = self._conn.execute(self._too_old, {"retained_from": retained_from}).fetchone()
        assert found is not None
        raise refusal(
            self._file.name,
            found[0],
            f"a trade of {iso(found[1])} is older than {iso(retained_from)}, below which {self._pair.symbol} keeps no "
            "trades and recomputes nothing; expected newer trades",
            self._title("executed_at_ms", "executed_at", "time"),
        )

    def _refuse_conflict(self) -> None:
        found = self._conn.execute(self._conflict, {"pair": self._pair.id}).fetchone()
        if found is None:
            return
        line, number, same_file, *values = found
        new, old = _shown(values[0:3]), _shown(values[3:6])
        if same_file and new == old:
            new, old = f"side {values[6] or 'unknown'}", f"side {values[7] or 'unknown'}"
        where = "an earlier line has" if same_file else f"{self._pair.symbol} already has"
        raise refusal(
            self._file.name,
            line,
            f"trade {number} is {new}, but {where} trade {number} as {old}; expected one trade for each id",
            self._title("trade_id"),
        )

    def _title(self, *names: str) -> str:
        layout = self._file.layout
        return next(title for title, name in zip(layout.titles, layout.fields, strict=True) if name in names)


def _row(layout: Layout) -> str:
    """The columns of `trades` as expressions of the file's."""
    moment = next(_MOMENT[name] for name in layout.fields if name in _MOMENT)
    side = next((_SIDE[name] for name in layout.fields if name in _SIDE), "NULL::text")
    return f"trade_id AS id, {moment} AS executed_at, price, quantity, {side} AS side"


def _shown(values: list[Any]) -> str:
    at, price, quantity = values
    return f"{plain(quantity)} at {plain(price)} on {iso(at)}"


class _Terminated(KeyboardInterrupt):
    """SIGTERM. psycopg cancels the running statement for a KeyboardInterrupt, whoever raised it."""


def _terminate(_signal: int, _frame: object) -> None:
    raise _Terminated


@contextmanager
def _stoppable() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the block with a StoppedError, also while a pipe is being waited for.

    Stands inside the transaction: of a signal during the commit nobody can say that nothing was imported.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except _Terminated:
        raise StoppedError("stopped by SIGTERM; nothing was imported") from None
    except KeyboardInterrupt:
        raise InterruptedByUserError("stopped by SIGINT; nothing was imported") from None
    finally:
        signal.signal(signal.SIGTERM, previous)
