"""A little exchange for tests: it does with orders and balances what the platform does, by the published contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.market.pairs import TradingPair, add_pair

Number = str | int | Decimal


@dataclass
class Exchange:
    """Users, wallets, orders and settlement on one connection (autocommit); pass another one to be somebody else."""

    conn: psycopg.Connection
    assets: dict[str, int] = field(default_factory=dict)
    pairs: dict[str, TradingPair] = field(default_factory=dict)
    references: int = 0

    def pair(self, symbol: str = "BTC/USDT") -> TradingPair:
        if symbol not in self.pairs:
            self.pairs[symbol] = add_pair(self.conn, symbol)
            self.assets.update(self.conn.execute("SELECT symbol, id FROM assets").fetchall())
        return self.pairs[symbol]

    def fund(self, user: int, asset: str, amount: Number) -> int:
        """Credits an amount; returns the wallet."""
        self.pair()
        self.references += 1
        row = self.conn.execute(
            "SELECT wallet_id FROM maven_ledger_credit(%s, %s, %s, %s)",
            [[user], [self.assets[asset]], [f"test:{id(self)}:{self.references}"], [Decimal(amount)]],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def wallet(self, user: int, asset: str) -> tuple[Decimal | int, Decimal | int]:
        """Available and locked, without trailing zeros."""
        row = self.conn.execute(
            "SELECT trim_scale(available), trim_scale(locked) FROM wallets WHERE user_id = %s AND asset_id = %s",
            [user, self.assets[asset]],
        ).fetchone()
        assert row is not None
        return row[0], row[1]

    def place(
        self,
        user: int = 1,
        side: str = "sell",
        quantity: Number | None = "10",
        price: Number | None = "100",
        *,
        pair: str = "BTC/USDT",
        expires: timedelta | datetime | None = timedelta(seconds=-1),
        lock: Number | bool | None = None,
        lock_id: int | None = None,
        conn: psycopg.Connection | None = None,
        **columns: Any,
    ) -> int:
        """An order and its lock in one transaction; returns the order's id.

        expires: an instant, or an offset from now. lock: how much (by default what the rule says); False: none.
        """
        conn = conn or self.conn
        found = self.pair(pair)
        base, quote = pair.split("/")
        asset = self.assets[base if side == "sell" else quote]
        if lock is None:
            if side == "sell":
                lock = Decimal(quantity or 0)
            elif quantity is None:
                lock = Decimal(columns["quote_quantity"])
            else:
                lock = Decimal(quantity) * Decimal(price or 0) + Decimal(columns.get("fee_reserve", 0))
        with conn.transaction():
            if lock_id is None and lock is not False:
                self.references += 1
                row = conn.execute(
                    "SELECT maven_ledger_lock(id, 'order', %s, %s) FROM wallets WHERE user_id = %s AND asset_id = %s",
                    [f"{id(self)}-{self.references}", Decimal(lock), user, asset],
                ).fetchone()
                assert row is not None, "no wallet"
                lock_id = row[0]
            fields = {
                "user_id": user,
                "trading_pair_id": found.id,
                "side": side,
                "price": None if price is None else Decimal(price),
                "quantity": None if quantity is None else Decimal(quantity),
                "lock_id": lock_id,
                **columns,
            }
            names = ", ".join(fields)
            places = ", ".join(["%s"] * len(fields))
            moment = "now() + %s" if isinstance(expires, timedelta) else "%s"
            row = conn.execute(
                f"INSERT INTO orders ({names}, expires_at) VALUES ({places}, {moment}) RETURNING id",
                [*fields.values(), expires],
            ).fetchone()
        assert row is not None
        return int(row[0])

    def order(self, number: int) -> dict[str, Any]:
        cursor = self.conn.execute("SELECT * FROM orders WHERE id = %s", [number])
        row = cursor.fetchone()
        assert row is not None
        return dict(zip([column.name for column in cursor.description or ()], row, strict=True))

    def status(self, number: int) -> str:
        return str(self.order(number)["status"])

    def cancel(self, number: int, *, conn: psycopg.Connection | None = None) -> bool:
        """As the platform's API does it when a user cancels; False when the order has ended already."""
        conn = conn or self.conn
        with conn.transaction():
            row = conn.execute(
                "UPDATE orders SET status = 'CANCELED' WHERE id = %s AND status IN ('OPEN', 'PARTIALLY_FILLED')"
                " RETURNING lock_id",
                [number],
            ).fetchone()
            if row is None:
                return False
            conn.execute("SELECT maven_ledger_release(%s)", [[row[0]]])
        return True

    def settle(
        self,
        trade: int,
        price: Number,
        quantity: Number,
        *,
        buy: int | None = None,
        sell: int | None = None,
        pair: str = "BTC/USDT",
        conn: psycopg.Connection | None = None,
    ) -> None:
        """Settlement's one transaction: the trade (through the fence), the orders, the balances.

        Raises psycopg.Error with SQLSTATE MVF01 when the fence refuses it.
        """
        conn = conn or self.conn
        price, quantity = Decimal(price), Decimal(quantity)
        found = self.pair(pair)
        base, quote = (self.assets[name] for name in pair.split("/"))
        with conn.transaction():
            conn.execute(
                "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, buy_order_id, sell_order_id)"
                " VALUES (%s, %s, clock_timestamp(), %s, %s, %s, %s)",
                [found.id, trade, price, quantity, buy, sell],
            )
            postings: list[tuple[Any, ...]] = []
            releases = []
            for order, gets, gives in (
                (buy, (base, quantity), (quote, price * quantity)),
                (sell, (quote, price * quantity), (base, quantity)),
            ):
                if order is None:
                    continue
                row = conn.execute(
                    "UPDATE orders SET filled_quantity = filled_quantity + %s,"
                    " status = CASE WHEN filled_quantity + %s = quantity THEN 'FILLED' ELSE 'PARTIALLY_FILLED' END"
                    " WHERE id = %s RETURNING user_id, lock_id, status",
                    [quantity, quantity, order],
                ).fetchone()
                assert row is not None
                user, lock, status = row
                conn.execute(
                    "INSERT INTO wallets (user_id, asset_id) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    [user, gets[0]],
                )
                name = f"{found.id}:{trade}:{order}"
                postings.append((user, gives[0], "trade", f"{name}:gives", Decimal(0), -gives[1], lock))
                postings.append((user, gets[0], "trade", f"{name}:gets", gets[1], Decimal(0), None))
                if status == "FILLED":
                    releases.append(lock)
            users, assets, kinds, names, available, locked, locks = (
                list(c) for c in zip(*postings, strict=True)
            )
            conn.execute(
                "SELECT maven_ledger_post(array_agg((w.id, p.kind, p.ref, p.available, p.locked, p.lock_id)::maven_posting"
                " ORDER BY p.n)) FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::numeric[],"
                " %s::numeric[], %s::bigint[]) WITH ORDINALITY AS p (u, a, kind, ref, available, locked, lock_id, n)"
                " JOIN wallets w ON w.user_id = p.u AND w.asset_id = p.a",
                [users, assets, kinds, names, available, locked, locks],
            )
            if releases:
                conn.execute("SELECT maven_ledger_release(%s)", [releases])

    def entries(self, kind: str = "unlock") -> list[tuple[str, Decimal | int]]:
        """Reference and amount of every entry of a kind, in order."""
        return self.conn.execute(
            "SELECT reference, trim_scale(available_delta) FROM ledger_entries WHERE kind = %s ORDER BY wallet_id, seq",
            [kind],
        ).fetchall()

    def events(self) -> list[str]:
        """The outbox's event ids, in order."""
        return [row[0] for row in self.conn.execute("SELECT event_id FROM outbox ORDER BY id")]

    def books_balance(self) -> None:
        """What must hold at any time: wallets = their newest entry, and what is locked = what locks hold."""
        wrong = self.conn.execute(
            "SELECT w.id, w.available, w.locked, w.seq, e.available, e.locked, e.n, l.remaining FROM wallets w"
            " LEFT JOIN LATERAL (SELECT sum(available_delta) AS available, sum(locked_delta) AS locked, count(*) AS n"
            "   FROM ledger_entries e WHERE e.wallet_id = w.id) e ON true"
            " LEFT JOIN LATERAL (SELECT sum(remaining) AS remaining FROM locks l WHERE l.wallet_id = w.id) l ON true"
            " WHERE (w.available, w.locked, w.seq, w.locked)"
            "    <> (coalesce(e.available, 0), coalesce(e.locked, 0), e.n, coalesce(l.remaining, 0))"
        ).fetchall()
        assert wrong == []
