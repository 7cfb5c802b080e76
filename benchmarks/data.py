"""Synthetic markets, made inside PostgreSQL: Zipf-distributed, exact, the same at every run.

A pair's share of the trades falls with its rank (the first of 2,000 has 9 %, the last 0.007 %). Rows lie in the table in
the order of time, the pairs mixed, as an exchange would have inserted them. Prices have 8 decimals, quantities 18.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import psycopg

ROWS_AT_ONCE = 500_000

_PAIRS = """
WITH coins AS (
    INSERT INTO assets (symbol) SELECT 'USDT' UNION ALL SELECT 'C' || n FROM generate_series(1, %(pairs)s::int) n
    RETURNING id, symbol
)
INSERT INTO trading_pairs (id, symbol, base_asset_id, quote_asset_id)
SELECT substr(c.symbol, 2)::bigint, c.symbol || '/USDT', c.id, q.id
  FROM coins c, coins q WHERE q.symbol = 'USDT' AND c.symbol <> 'USDT'
"""

# hashint8extended is PostgreSQL's own, the same on every machine of one byte order. Its low 53 bits, as a fraction,
# pick the pair: with weights 1/rank the inverse of the distribution is (pairs + 1) to the power of the fraction.
# Transaction ids are spread over the cluster's old ones; in one huge transaction they would all be the same.
_TRADES = """
INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, side, created_at, xid)
SELECT pair, n, executed_at, ((pair %% 997 + 1) * (100000000 + (hashint8extended(n, 2) & 4194303)))::numeric * 0.00000001,
       ((hashint8extended(n, 3) & 1152921504606846975) + 1)::numeric * 0.000000000000000001,
       CASE WHEN hashint8extended(n, 4) & 1 = 0 THEN 'buy' ELSE 'sell' END, executed_at,
       (3 + n * 600 / %(trades)s)::text::xid8
  FROM (SELECT n, %(start)s + n * %(step)s::float8 * interval '1 microsecond' AS executed_at,
               least(%(pairs)s, floor(power(%(pairs)s::float8 + 1,
                     (hashint8extended(n, 1) & 9007199254740991) / 9007199254740992.0::float8)))::bigint AS pair
          FROM generate_series(%(first)s::bigint, %(last)s::bigint) n) AS drawn
"""

# One trade of every pair at a steady pace, each pair a little later than the one before.
_STEADY = """
INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, side, xid)
SELECT p.id, n, %(start)s + n * %(every)s::interval + (hashint8extended(n, p.id) & 33554431) * interval '1 microsecond',
       ((p.id %% 997 + 1) * (100000000 + (hashint8extended(n, 2) & 4194303)))::numeric * 0.00000001,
       ((hashint8extended(n, 3) & 1152921504606846975) + 1)::numeric * 0.000000000000000001, 'buy', '3'
  FROM generate_series(0, %(count)s::bigint - 1) n, trading_pairs p
"""


def add_pairs(conn: psycopg.Connection, count: int) -> None:
    """Pairs 1 to `count`, all active."""
    conn.execute(_PAIRS, {"pairs": count})


def add_zipf_trades(
    conn: psycopg.Connection, pairs: int, trades: int, start: datetime, end: datetime
) -> None:
    """`trades` trades of `pairs` pairs, evenly over (start, end]."""
    step = (end - start) / timedelta(microseconds=1) / trades
    with _bare(conn):
        for first in range(1, trades + 1, ROWS_AT_ONCE):
            last = min(first + ROWS_AT_ONCE - 1, trades)
            values = {
                "pairs": pairs,
                "trades": trades,
                "start": start,
                "step": step,
                "first": first,
                "last": last,
            }
            conn.execute(_TRADES, values)


def add_steady_trades(conn: psycopg.Connection, start: datetime, every: timedelta, count: int) -> None:
    """`count` trades of each pair, one every `every` (and up to half a minute), from `start`."""
    with _bare(conn):
        conn.execute(_STEADY, {"start": start, "every": every, "count": count})


@contextmanager
def _bare(conn: psycopg.Connection) -> Iterator[None]:
    """Takes the trades' indexes and foreign key away for the time of a load, and leaves the table vacuumed."""
    constraints = conn.execute(
        "SELECT format('ALTER TABLE trades DROP CONSTRAINT %I', conname),"
        "       format('ALTER TABLE trades ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid))"
        "  FROM pg_constraint WHERE conrelid = 'trades'::regclass AND contype IN ('p', 'f')"
    ).fetchall()
    indexes = conn.execute(
        "SELECT format('DROP INDEX %I', c.relname), pg_get_indexdef(i.indexrelid)"
        "  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE i.indrelid = 'trades'::regclass AND NOT i.indisprimary"
    ).fetchall()
    for drop, _ in [*constraints, *indexes]:
        conn.execute(drop)
    yield
    conn.execute("SET maintenance_work_mem = '256MB'")
    for _, create in [*constraints, *indexes]:
        conn.execute(create)
    conn.execute("RESET maintenance_work_mem")
    conn.execute("VACUUM (FREEZE, ANALYZE) trades")
