"""What the demo shows of its books: which orders expired, what they gave back, and what the audit says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.demo.traders import users
from maven_cli.market.tickers import Ticker

# An order ends once and says so once; the newest stand at the end of the outbox.
_EXPIRED = """
SELECT o.id, o.user_id, p.symbol, o.side, o.price, o.remaining_quantity, (x.event -> 'data' ->> 'released')::numeric,
       x.event -> 'data' ->> 'asset', x.created_at
  FROM (SELECT * FROM outbox ORDER BY id DESC LIMIT %(looked_at)s) x
  JOIN orders o ON x.aggregate = 'order:' || o.id JOIN trading_pairs p ON p.id = o.trading_pair_id
 WHERE x.type = 'OrderExpiredEvent' AND o.user_id = ANY (%(users)s) AND o.status = 'EXPIRED' ORDER BY x.id DESC
"""
_LOOKED_AT = 600  # events: the last minute's, and many more


@dataclass(frozen=True)
class Expired:
    """An order that the expiry pass has ended, and what that released."""

    order: int
    user: int
    pair: str
    side: str
    price: Decimal
    remaining: Decimal
    released: Decimal
    asset: str
    at: datetime


@dataclass(frozen=True)
class Orders:
    """A moment's view: how many live, how many expired in the last minute, what that released in USDT, the newest of all."""

    live: int
    expired: int
    released_usdt: Decimal | None
    newest: list[Expired]


@dataclass(frozen=True)
class Verdict:
    """What the audit found, and the first rows that are wrong."""

    checks: int
    rows: int
    wrong: int
    named: list[str]

    @classmethod
    def of(cls, data: dict[str, Any]) -> Verdict:
        """The verdict in the audit pass's `data`."""
        found = data["checks"]
        return cls(
            len(found),
            sum(check.checked for check in found),
            data["wrong"],
            [row for c in found for row in c.rows],
        )


def expired(conn: psycopg.Connection) -> list[Expired]:
    """The demo's orders that expired last, the newest first."""
    rows = conn.execute(_EXPIRED, {"users": list(users()), "looked_at": _LOOKED_AT})
    return [Expired(*row) for row in rows]


def live(conn: psycopg.Connection) -> int:
    """How many of the demo's orders live."""
    row = conn.execute(
        "SELECT count(*) FROM orders WHERE status IN ('OPEN', 'PARTIALLY_FILLED') AND expires_at IS NOT NULL"
        " AND user_id = ANY (%s)",
        [list(users())],
    ).fetchone()
    assert row is not None
    return int(row[0])


def delivered(conn: psycopg.Connection) -> int:
    """How many events of the demo's orders and wallets Redis has had."""
    row = conn.execute(
        "SELECT count(*) FROM outbox WHERE delivered_at IS NOT NULL AND aggregate IN ("
        "SELECT 'order:' || id FROM orders WHERE user_id = ANY (%(users)s) UNION ALL"
        " SELECT 'wallet:' || id FROM wallets WHERE user_id = ANY (%(users)s))",
        {"users": list(users())},
    ).fetchone()
    assert row is not None
    return int(row[0])


def worth(expired: Sequence[Expired], tickers: Sequence[Ticker]) -> Decimal | None:
    """What these orders gave back, in USDT at the last prices; None when an asset has no price."""
    last = {ticker.pair.symbol: ticker.last for ticker in tickers if ticker.last is not None}
    total = Decimal(0)
    for one in expired:
        way = _way(one.asset, last)
        if way is None:
            return None
        amount = one.released
        for symbol in way:
            amount *= last[symbol]
        total += amount
    return total


def _way(asset: str, last: dict[str, Decimal]) -> list[str] | None:
    """The pairs by whose prices an asset becomes USDT."""
    if asset == "USDT":
        return []
    if f"{asset}/USDT" in last:
        return [f"{asset}/USDT"]
    through = [f"{asset}/BTC", "BTC/USDT"]
    return through if all(symbol in last for symbol in through) else None
