"""The demo's own data in a database and a Redis, and nobody else's.

The demo empties what it finds of itself at every start, so it must be sure. A mark says that the demo's pairs are the
demo's: an asset in PostgreSQL, a key in Redis. Where a pair of one of its names is found without the mark, that is a real
exchange, and nothing is touched.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
import redis

from maven_cli.demo.exchange import Market, Trade
from maven_cli.demo.traders import users
from maven_cli.errors import TryLaterError, UsageError
from maven_cli.intervals import INTERVALS
from maven_cli.market import candle_cache, tickers
from maven_cli.market.pairs import TradingPair, add_pair, all_pairs, resolve_pairs, set_status

MARK = "MAVEN-DEMO"
MARK_KEY = "maven:demo"
_REFUSALS = (("ledger_entries", "maven_ledger_no_change"), ("ledger_adjustments", "maven_adjustments_guard"))
_BOOKS = (
    "DELETE FROM engine_removals WHERE order_id IN (SELECT id FROM orders WHERE user_id = ANY (%(users)s))",
    (
        "DELETE FROM outbox WHERE aggregate IN (SELECT 'order:' || id FROM orders WHERE user_id = ANY (%(users)s) UNION ALL"
        " SELECT 'wallet:' || id FROM wallets WHERE user_id = ANY (%(users)s) UNION ALL"
        " SELECT 'trade:' || trading_pair_id || ':' || trade_id FROM rejected_trades WHERE trading_pair_id = ANY (%(pairs)s))"
    ),
    "DELETE FROM rejected_trades WHERE trading_pair_id = ANY (%(pairs)s)",
    "DELETE FROM dead_letters WHERE item IN (SELECT 'order:' || id FROM orders WHERE user_id = ANY (%(users)s))",
    "DELETE FROM incidents WHERE item IN (SELECT 'order:' || id FROM orders WHERE user_id = ANY (%(users)s))",
    "DELETE FROM orders WHERE user_id = ANY (%(users)s)",
    *(
        f"DELETE FROM {table} WHERE wallet_id IN (SELECT id FROM wallets WHERE user_id = ANY (%(users)s))"
        for table in ("ledger_checkpoints", "ledger_adjustments", "ledger_entries", "locks")
    ),
    "DELETE FROM wallets WHERE user_id = ANY (%(users)s)",
)
_TABLES = ("candle_marks", "candles", "candle_progress", "trades")


def check_database(conn: psycopg.Connection, symbols: Sequence[str], target: str, *, yes: bool) -> None:
    """Raises UsageError unless the database is empty or the demo's. With `yes` others' pairs may be there beside it."""
    found = {pair.symbol for pair in all_pairs(conn)}
    ours = conn.execute("SELECT EXISTS (SELECT FROM assets WHERE symbol = %s)", [MARK]).fetchone() == (True,)
    advice = "unset MAVEN_DATABASE_URL for a database of the demo's own"
    taken_users = conn.execute(
        "SELECT EXISTS (SELECT FROM wallets WHERE user_id = ANY (%(users)s)"
        " UNION ALL SELECT FROM orders WHERE user_id = ANY (%(users)s))",
        {"users": list(users())},
    ).fetchone()
    if not ours and taken_users == (True,):
        raise UsageError(
            f"the database {target} has users with the demo's numbers ({users()[0]} …); {advice}"
        )
    if not ours and (taken := sorted(found & set(symbols))):
        raise UsageError(f"the database {target} has a {taken[0]} that isn't the demo's; {advice}")
    if (others := sorted(found - set(symbols))) and not yes:
        listed = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise UsageError(
            f"the database {target} has pairs that aren't the demo's ({listed}); {advice}, or say --yes"
        )


def check_cache(client: redis.Redis, pairs: Sequence[TradingPair]) -> None:
    """Raises UsageError when Redis has values under the demo's keys that the demo didn't write; else marks it."""
    if not client.exists(MARK_KEY):
        if client.exists(*_keys(pairs)):
            raise UsageError(
                "MAVEN_REDIS_URL holds tickers or candles that aren't the demo's; unset both URLs, or give the demo "
                "a Redis database of its own"
            )
        client.set(MARK_KEY, "1")


def clear(
    conn: psycopg.Connection, client: redis.Redis, markets: Sequence[Market], every: Sequence[str]
) -> list[TradingPair]:
    """Removes what is left of an earlier demo, and returns the pairs of these markets, empty and active.

    every: the symbols of all of the demo's pairs; those that aren't wanted this time are halted. `check_database` has
    been called. Raises what `check_cache` does, with nothing changed.
    """
    wanted = {market.symbol for market in markets}
    with conn.transaction():
        conn.execute("INSERT INTO assets (symbol) VALUES (%s) ON CONFLICT DO NOTHING", [MARK])
        for market in markets:
            add_pair(conn, market.symbol)
        all_ours = [pair for pair in all_pairs(conn) if pair.symbol in every]
        check_cache(client, all_ours)
        _clear_books(conn, [pair.id for pair in all_ours])
        for table in _TABLES:
            conn.execute(
                f"DELETE FROM {table} WHERE trading_pair_id = ANY (%s)", [[pair.id for pair in all_ours]]
            )
        for pair in all_ours:
            set_status(conn, pair.symbol, "ACTIVE" if pair.symbol in wanted else "HALTED")
    client.delete(*_keys(all_ours))
    return resolve_pairs(conn, [market.symbol for market in markets])


def _clear_books(conn: psycopg.Connection, pairs: Sequence[int]) -> None:
    """Removes the orders, wallets and events of the demo's users: the one place where entries of a ledger go.

    The ledger refuses that; so for this transaction its refusal is off, while no other can write to it. Raises TryLaterError
    when somebody does so for long.
    """
    found = conn.execute(
        "SELECT EXISTS (SELECT FROM wallets WHERE user_id = ANY (%s))", [list(users())]
    ).fetchone()
    if found == (False,):
        return
    try:
        conn.execute("SELECT set_config('lock_timeout', '5s', true)")
        for table, trigger in _REFUSALS:
            conn.execute(f"ALTER TABLE {table} DISABLE TRIGGER {trigger}")
        for statement in _BOOKS:
            conn.execute(statement, {"users": list(users()), "pairs": list(pairs)})
        for table, trigger in _REFUSALS:
            conn.execute(f"ALTER TABLE {table} ENABLE TRIGGER {trigger}")
    except psycopg.errors.LockNotAvailable:
        raise TryLaterError("somebody is writing to the ledger; run maven demo again in a moment") from None


def _keys(pairs: Sequence[TradingPair]) -> list[str]:
    keys = [tickers.key(pair.id) for pair in pairs]
    return keys + [candle_cache.key(interval, pair.id) for pair in pairs for interval in INTERVALS.values()]


def insert(conn: psycopg.Connection, trades: Sequence[tuple[TradingPair, Sequence[Trade]]]) -> int:
    """Adds trades, all or none. Returns how many."""
    statement = "COPY trades (trading_pair_id, id, executed_at, price, quantity, side) FROM STDIN"
    with conn.transaction(), conn.cursor() as cursor, cursor.copy(statement) as copy:
        for pair, some in trades:
            for at in range(0, len(some), 1000):
                # One string for many rows: write_row would take most of the demo's time.
                copy.write("".join(_line(pair, trade) for trade in some[at : at + 1000]))
    return sum(len(some) for _, some in trades)


def _line(pair: TradingPair, trade: Trade) -> str:
    return f"{pair.id}\t{trade.id}\t{trade.executed_at.isoformat()}\t{trade.price}\t{trade.quantity}\t{trade.side}\n"
