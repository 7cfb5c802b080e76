"""What the platform does with orders and balances, by maven's contract: fund, place, settle. On an autocommit connection.

A trade is one transaction: the trade, past the settlement fence; both orders; the ledger. The books are right after each,
whoever else trades, cancels or expires meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import psycopg

from maven_cli.demo.exchange import Trade
from maven_cli.demo.traders import Wish
from maven_cli.market.pairs import TradingPair

NOT_ENOUGH, REFUSED = "MVL03", "MVF01"


@dataclass
class Order:
    """A live order as the platform knows it."""

    id: int
    user: int
    pair: TradingPair
    side: str
    price: Decimal
    quantity: Decimal
    lock_id: int
    expires_at: datetime
    filled: Decimal = Decimal(0)

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.filled


@dataclass
class Platform:
    """The exchange's own program. numbers: of its orders; a copy on another connection goes on counting."""

    conn: psycopg.Connection
    pairs: dict[str, TradingPair]
    numbers: count[int] = field(default_factory=lambda: count(1))
    _assets: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        self._assets = dict(self.conn.execute("SELECT symbol, id FROM assets").fetchall())

    def on(self, conn: psycopg.Connection) -> Platform:
        """The same on another connection; its orders go on being numbered."""
        return Platform(conn, self.pairs, self.numbers)

    def fund(self, amounts: Sequence[tuple[int, str, Decimal]]) -> int:
        """Credits amounts (user, asset, how much), making the wallets; how many."""
        row = self.conn.execute(
            "SELECT count(*) FROM maven_ledger_credit(%s, %s, %s, %s)",
            [
                [user for user, _, _ in amounts],
                [self._assets[asset] for _, asset, _ in amounts],
                [f"demo:{user}:{asset}" for user, asset, _ in amounts],
                [amount for _, _, amount in amounts],
            ],
        ).fetchone()
        assert row is not None
        return int(row[0])

    def place(self, wish: Wish) -> Order | None:
        """A limit order and the lock that pays for it, in one transaction; None when its user hasn't enough."""
        pair = self.pairs[wish.symbol]
        base, quote = wish.symbol.split("/")
        pays, amount = (base, wish.quantity) if wish.side == "sell" else (quote, wish.quantity * wish.price)
        try:
            with self.conn.transaction():
                lock = self.conn.execute(
                    "SELECT maven_ledger_lock(id, 'order', %s, %s) FROM wallets WHERE user_id = %s AND asset_id = %s",
                    [f"demo:{next(self.numbers)}", amount, wish.user, self._assets[pays]],
                ).fetchone()
                if lock is None:
                    return None
                row = self.conn.execute(
                    "INSERT INTO orders (user_id, trading_pair_id, side, price, quantity, lock_id, expires_at)"
                    " VALUES (%s, %s, %s, %s, %s, %s, now() + %s) RETURNING id, expires_at",
                    [wish.user, pair.id, wish.side, wish.price, wish.quantity, lock[0], wish.lifetime],
                ).fetchone()
                assert row is not None
        except psycopg.Error as error:
            if error.sqlstate == NOT_ENOUGH:
                return None
            raise
        return Order(
            row[0],
            wish.user,
            pair,
            wish.side,
            wish.price,
            wish.quantity,
            lock[0],
            row[1].astimezone(UTC),
        )

    def settle(self, trade: Trade, buy: Order, sell: Order) -> bool:
        """One trade between two orders, at the price of both; False when the fence refuses it, which is on record then."""
        pair = buy.pair
        values = [pair.id, trade.id, trade.executed_at, trade.price, trade.quantity]
        try:
            with self.conn.transaction():
                self.conn.execute(
                    "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, side, buy_order_id, sell_order_id)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
                    [*values, trade.side, buy.id, sell.id],
                )
                self._fill(trade, buy, sell)
        except psycopg.Error as error:
            if error.sqlstate != REFUSED:
                raise
            self.conn.execute(
                "SELECT maven_reject_trade(%s, %s, %s, %s, %s, %s, %s, %s)",
                [*values, buy.id, sell.id, "an order had ended before settlement"],
            )
            return False
        for order in (buy, sell):
            order.filled += trade.quantity
        return True

    def _fill(self, trade: Trade, buy: Order, sell: Order) -> None:
        """Both orders' fill, and what changes hands: postings to wallets that are made where there was none."""
        base, quote = (self._assets[asset] for asset in buy.pair.symbol.split("/"))
        paid = trade.price * trade.quantity
        postings: list[tuple[Any, ...]] = []
        full = []
        for order, gives, gets in (
            (buy, (quote, paid), (base, trade.quantity)),
            (sell, (base, trade.quantity), (quote, paid)),
        ):
            row = self.conn.execute(
                "UPDATE orders SET filled_quantity = filled_quantity + %s,"
                " status = CASE WHEN filled_quantity + %s = quantity THEN 'FILLED' ELSE 'PARTIALLY_FILLED' END"
                " WHERE id = %s RETURNING status",
                [trade.quantity, trade.quantity, order.id],
            ).fetchone()
            assert row is not None
            if row[0] == "FILLED":
                full.append(order.lock_id)
            name = f"{order.pair.id}:{trade.id}:{order.id}"
            postings.append((order.user, gives[0], f"{name}:gives", Decimal(0), -gives[1], order.lock_id))
            postings.append((order.user, gets[0], f"{name}:gets", gets[1], Decimal(0), None))
        self.conn.execute(
            "INSERT INTO wallets (user_id, asset_id) SELECT * FROM unnest(%s::bigint[], %s::bigint[]) AS w (u, a) ORDER BY 1, 2"
            " ON CONFLICT DO NOTHING",
            [[posting[0] for posting in postings], [posting[1] for posting in postings]],
        )
        self.conn.execute(
            "SELECT maven_ledger_post(array_agg((w.id, 'trade', p.ref, p.available, p.locked, p.lock_id)::maven_posting"
            " ORDER BY p.n)) FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::numeric[], %s::numeric[], %s::bigint[])"
            " WITH ORDINALITY AS p (u, a, ref, available, locked, lock_id, n)"
            " JOIN wallets w ON w.user_id = p.u AND w.asset_id = p.a",
            [list(column) for column in zip(*postings, strict=True)],
        )
        if full:
            self.conn.execute("SELECT maven_ledger_release(%s)", [full])
