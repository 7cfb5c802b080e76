"""Synthetic books: users with funded wallets, and orders that hold locks in them, all through the ledger's functions.

Every user has a BTC and a USDT wallet. Orders go around the users in turn, half of them buy; a batch of 500 touches as many wallets.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg

AT_ONCE = 5_000
PAIR = "BTC/USDT"

_ASSETS = """
WITH made AS (INSERT INTO assets (symbol) VALUES ('BTC'), ('USDT') RETURNING id, symbol)
INSERT INTO trading_pairs (id, symbol, base_asset_id, quote_asset_id)
SELECT 1, 'BTC/USDT', b.id, q.id FROM made b, made q WHERE b.symbol = 'BTC' AND q.symbol = 'USDT'
"""

_FUND = """
SELECT count(*) FROM (SELECT maven_ledger_credit(array_agg(u.n), array_agg(a.id), array_agg('bench:' || a.id || ':' || u.n),
                                                 array_agg(1000000::numeric))
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) u (n), assets a) c
"""

# A lock's row, its entry, and its order, as maven_ledger_lock and the platform write them one by one.
_LOCKS = """
WITH drawn AS (
    SELECT n, (n %% %(users)s) + 1 AS user_id, CASE WHEN n / %(users)s %% 2 = 0 THEN 'sell' ELSE 'buy' END AS side
      FROM generate_series(%(first)s::bigint, %(last)s::bigint) n
)
INSERT INTO locks (wallet_id, kind, reference, amount, remaining)
SELECT w.id, 'order', 'bench:' || d.n, CASE d.side WHEN 'sell' THEN 1.5 ELSE 150 END, 0
  FROM drawn d JOIN trading_pairs p ON p.id = 1
  JOIN wallets w ON w.user_id = d.user_id AND w.asset_id = CASE d.side WHEN 'sell' THEN p.base_asset_id ELSE p.quote_asset_id END
 ORDER BY d.n
"""
_ENTRIES = """
SELECT maven_ledger_post(array_agg((l.wallet_id, 'lock', 'order:' || l.reference, -l.amount, l.amount, l.id)::maven_posting
                                   ORDER BY l.id))
  FROM locks l WHERE l.remaining = 0 AND l.ended_at IS NULL
"""
_ORDERS = """
INSERT INTO orders (user_id, trading_pair_id, side, price, quantity, lock_id, expires_at)
SELECT w.user_id, 1, CASE l.amount WHEN 1.5 THEN 'sell' ELSE 'buy' END, 100, 1.5, l.id,
       %(due)s + (substr(l.reference, 7)::bigint - %(start)s) * %(every)s::interval
  FROM locks l JOIN wallets w ON w.id = l.wallet_id
 WHERE l.ended_at IS NULL AND NOT EXISTS (SELECT FROM orders o WHERE o.lock_id = l.id) ORDER BY l.id
"""


def add_users(conn: psycopg.Connection, users: int) -> None:
    """Users 1 to `users`, each with a million BTC and a million USDT."""
    conn.execute(_ASSETS)
    for first in range(1, users + 1, AT_ONCE):
        conn.execute(_FUND, {"first": first, "last": min(first + AT_ONCE - 1, users)})


def add_orders(
    conn: psycopg.Connection,
    users: int,
    count: int,
    due: datetime,
    every: timedelta = timedelta(0),
    start: int = 0,
) -> None:
    """`count` orders with locks, the first of which ends at `due`, each `every` later than the one before.

    start: how many there are already; a number is an order's forever.
    """
    for first in range(start, start + count, AT_ONCE):
        last = min(first + AT_ONCE, start + count) - 1
        with conn.transaction():
            conn.execute(_LOCKS, {"users": users, "first": first, "last": last})
            conn.execute(_ENTRIES)
            conn.execute(_ORDERS, {"due": due, "every": every, "start": start})
    conn.execute("VACUUM (FREEZE, ANALYZE)")


def cloud_event(name: str, aggregate: str, moment: datetime, data: dict[str, Any]) -> dict[str, Any]:
    """An event as the usual design would write it, the same content as ours."""
    return {
        "specversion": "1.0",
        "id": name,
        "source": "/maven",
        "type": name.partition(":")[0],
        "subject": aggregate,
        "time": moment.isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }
