"""Books to audit: a small exchange's life by the published contract, each statement as docs/reference/ledger.md has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg import sql

from maven_cli.market.pairs import add_pair


@dataclass
class Books:
    """Users, wallets and orders of BTC/USDT on one autocommit connection. Orders are due at once unless told otherwise."""

    conn: psycopg.Connection
    pair: int = 0
    assets: dict[str, int] = field(default_factory=dict)
    trades: int = 0
    deposits: int = 0

    def __post_init__(self) -> None:
        self.pair = add_pair(self.conn, "BTC/USDT").id
        add_pair(self.conn, "ETH/USDT")
        self.assets = dict(self.conn.execute("SELECT symbol, id FROM assets").fetchall())

    def value(self, query: str, *parameters: Any) -> Any:
        """The one value that a query gives."""
        row = self.conn.execute(query, parameters or None).fetchone()
        assert row is not None, query
        return row[0]

    def deposit(self, user: int, asset: str, amount: str) -> int:
        """Credits an amount; returns the wallet."""
        self.deposits += 1
        return int(
            self.value(
                "SELECT wallet_id FROM maven_ledger_credit(%s, %s, %s, %s)",
                [user], [self.assets[asset]], [f"tx-{self.deposits}"], [Decimal(amount)],
            )
        )  # fmt: skip

    def wallet(self, user: int, asset: str) -> int:
        return int(
            self.value(
                "SELECT id FROM wallets WHERE user_id = %s AND asset_id = %s", user, self.assets[asset]
            )
        )

    def place(
        self,
        user: int,
        side: str,
        quantity: str | None,
        price: str | None,
        *,
        lock: int | None = None,
        locked: str | None = None,
        due: timedelta = timedelta(seconds=-1),
        **columns: Any,
    ) -> int:
        """An order with its lock, or with the lock of another one; returns its id."""
        with self.conn.transaction():
            number = self.value("SELECT nextval(pg_get_serial_sequence('orders', 'id'))")
            if lock is None:
                asset = "BTC" if side == "sell" else "USDT"
                amount = (
                    Decimal(locked)
                    if locked
                    else Decimal(quantity or 0) * (1 if side == "sell" else Decimal(price or 0))
                )
                lock = self.value(
                    "SELECT maven_ledger_lock(%s, 'order', %s, %s)",
                    self.wallet(user, asset),
                    str(number),
                    amount,
                )
            fields = {
                "id": number, "user_id": user, "trading_pair_id": self.pair, "side": side, "quantity": quantity,
                "price": price, "lock_id": lock, **columns,
            }  # fmt: skip
            self.conn.execute(
                sql.SQL("INSERT INTO orders ({}, expires_at) VALUES ({}, now() + %s)").format(
                    sql.SQL(", ").join(map(sql.Identifier, fields)),
                    sql.SQL(", ").join([sql.Placeholder()] * len(fields)),
                ),
                [*fields.values(), due],
            )
        return int(number)

    def lock_of(self, order: int) -> int:
        return int(self.value("SELECT lock_id FROM orders WHERE id = %s", order))

    def fill(self, buy: int, sell: int, quantity: str, price: str) -> int:
        """Settles a trade in one transaction; returns its id. Raises SQLSTATE MVF01 when the fence refuses it."""
        self.trades += 1
        amount, cost = Decimal(quantity), Decimal(quantity) * Decimal(price)
        with self.conn.transaction():
            self.conn.execute(
                "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, side, buy_order_id, sell_order_id)"
                " VALUES (%s, %s, now(), %s, %s, 'buy', %s, %s)",
                [self.pair, self.trades, price, quantity, buy, sell],
            )
            ended = []
            postings: list[tuple[Any, ...]] = []
            for order, pays, gets, leaves, comes in (
                (buy, "USDT", "BTC", cost, amount), (sell, "BTC", "USDT", amount, cost),
            ):  # fmt: skip
                row = self.conn.execute(
                    "UPDATE orders SET filled_quantity = filled_quantity + %s, filled_quote_quantity = filled_quote_quantity + %s,"
                    " status = CASE WHEN filled_quantity + %s = quantity THEN 'FILLED' ELSE 'PARTIALLY_FILLED' END"
                    " WHERE id = %s RETURNING user_id, lock_id, status",
                    [amount, cost, amount, order],
                ).fetchone()
                assert row is not None
                user, lock, status = row
                name = f"{self.pair}:{self.trades}:{order}"
                postings.append(
                    (self.wallet(user, pays), "trade", f"{name}:gives", Decimal(0), -leaves, lock)
                )
                postings.append((self.wallet(user, gets), "trade", f"{name}:gets", comes, Decimal(0), None))
                if status == "FILLED":
                    ended.append(lock)
            self.post(*postings)
            self.conn.execute("SELECT maven_ledger_release(%s)", [ended])
        return self.trades

    def post(self, *postings: tuple[Any, ...], conn: psycopg.Connection | None = None) -> None:
        """Posts (wallet, kind, reference, available, locked, lock)."""
        columns = [list(column) for column in zip(*postings, strict=True)]
        (conn or self.conn).execute(
            "SELECT maven_ledger_post(array_agg(p::maven_posting)) FROM unnest("
            "%s::bigint[], %s::text[], %s::text[], %s::numeric[], %s::numeric[], %s::bigint[]) p",
            columns,
        )

    def cancel(self, order: int) -> None:
        with self.conn.transaction():
            lock = self.value("UPDATE orders SET status = 'CANCELED' WHERE id = %s RETURNING lock_id", order)
            self.conn.execute("SELECT maven_ledger_release(%s)", [[lock]])

    def expire(self, *orders: int, formula: bool = True) -> int:
        """Expires orders as the pass does; how many."""
        return int(
            self.value(
                "SELECT count(*) FROM (SELECT array_agg(id ORDER BY id) AS ids, array_agg(remaining_quantity ORDER BY id) AS remaining,"
                " array_agg(updated_at ORDER BY id) AS seen FROM orders WHERE id = ANY (%s)) o"
                " CROSS JOIN LATERAL maven_expire_orders(now(), o.ids, o.remaining, o.seen, %s)",
                list(orders), formula,
            )
        )  # fmt: skip

    def adjust(self, wallet: int, amount: str, reason: str = "a deposit was booked twice") -> str:
        made = self.value("SELECT maven_ledger_propose(%s, %s, %s, 'alice')", wallet, Decimal(amount), reason)
        self.value("SELECT maven_ledger_adjust(%s, 'bob')", made)
        return str(made)

    def refused(self, order: int) -> int:
        """A trade against an order that has ended: the fence refuses it, and it is recorded."""
        with pytest.raises(psycopg.Error) as caught:
            self.fill(order, order, "0.1", "100")
        assert caught.value.sqlstate == "MVF01"
        self.value(
            "SELECT maven_reject_trade(%s, %s, now(), 100.5, 0.1, %s, NULL, 'order ended')",
            self.pair,
            self.trades,
            order,
        )
        return self.trades

    def live(self) -> dict[str, Any]:
        """A day of it: a bit of everything that the ledger has a word for. Names of what was made."""
        for user in (1, 2, 3):
            self.deposit(user, "BTC", "50.5")
            self.deposit(user, "USDT", "10000.25")
        filled = self.place(1, "sell", "1", "100")
        partly = self.place(2, "buy", "2.5", "110", due=timedelta(hours=1))
        self.fill(partly, filled, "1", "100")
        self.fill(partly, self.place(3, "sell", "0.5", "90"), "0.5", "90.5")
        expired = self.place(
            2, "sell", "3", "120", fee_asset_id=self.assets["BTC"], fee_reserve="0.03", locked="3.03"
        )
        taker = self.place(1, "buy", "2", "130")
        self.fill(taker, expired, "1.25", "120")
        canceled = self.place(3, "buy", "1", "95")
        self.cancel(canceled)
        leg = self.place(1, "sell", "4", "140")
        shared = self.lock_of(leg)
        other = self.place(1, "sell", "4", None, type="stop_market", stop_price="80", lock=shared)
        waiting = self.place(3, "sell", "2", "150", due=timedelta(hours=1))
        half = self.place(3, "sell", "2", "150")
        kept = self.place(3, "sell", "2", "160", lock=self.lock_of(half), due=timedelta(hours=1))
        market = self.place(2, "buy", None, None, type="market", quote_quantity="77", locked="77")
        assert self.expire(expired, leg, other, half, market) == 5
        rejected = self.refused(expired)
        adjustment = self.adjust(self.wallet(3, "USDT"), "-0.25")
        proposed = self.value("SELECT maven_ledger_propose(%s, 5, 'later', 'alice')", self.wallet(3, "USDT"))
        self.conn.execute(
            "UPDATE ledger_adjustments SET state = 'REJECTED', decided_by = 'bob', decided_at = now(), rejection = 'no'"
            " WHERE id = maven_ledger_propose(%s, 6, 'perhaps', 'alice')",
            [self.wallet(3, "USDT")],
        )
        lock = self.value("SELECT maven_ledger_lock(%s, 'withdrawal', 'w1', 1.5)", self.wallet(2, "USDT"))
        self.post((self.wallet(2, "USDT"), "withdrawal", "w1", Decimal(0), Decimal("-1.5"), lock))
        self.conn.execute("SELECT maven_ledger_release(%s)", [[lock]])
        return {
            "expired": expired, "other": other, "kept": kept, "waiting": waiting, "market": market,
            "partly": partly, "rejected": rejected, "adjustment": adjustment, "proposed": str(proposed),
        }  # fmt: skip
