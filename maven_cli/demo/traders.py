"""The people on the sample exchange: who has how much, and which orders they place. Nothing here touches a database.

Everything comes from the seed: the same seed and market give the same users, amounts, orders and lifetimes.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from maven_cli.demo.exchange import Market, Trade, scaled

USERS = 24
# Far from any number that a platform gives its users: with --yes the demo's stand beside real ones.
FIRST_USER = 990_000_001
ORDERS = 40
DUE = 14  # of them have ended by the time the expiry pass runs
FILLED = 8  # of them are partly filled before

# What a typical user has.
_HOLDINGS = {
    "USDT": Decimal("40000"),
    "BTC": Decimal("0.8"),
    "ETH": Decimal("12"),
    "SOL": Decimal("150"),
    "XRP": Decimal("9000"),
    "DOGE": Decimal("60000"),
    "LTC": Decimal("80"),
    "XMR": Decimal("50"),
}


@dataclass(frozen=True)
class Wish:
    """An order that somebody is about to place. lifetime: until its end, from now; negative: that was then."""

    user: int
    symbol: str
    side: str
    price: Decimal
    quantity: Decimal
    lifetime: timedelta


def users() -> range:
    """The demo's users."""
    return range(FIRST_USER, FIRST_USER + USERS)


def holdings(seed: int, assets: Sequence[str]) -> list[tuple[int, str, Decimal]]:
    """What each user brings along: user, asset, amount."""
    rng = random.Random(f"{seed} holdings")
    return [
        (user, asset, _HOLDINGS[asset] * rng.randrange(2, 13) / 4) for user in users() for asset in assets
    ]


@dataclass
class Traders:
    """Draws orders near the market."""

    random: random.Random

    @classmethod
    def of(cls, seed: int) -> Traders:
        return cls(random.Random(f"{seed} orders"))

    def opening(
        self, markets: Sequence[Market], last: Mapping[str, Decimal], trades: Sequence[tuple[Market, Trade]]
    ) -> list[tuple[Wish, Trade | None]]:
        """The orders of the start: DUE that have just ended, the others to end within the hour, the soonest soon.

        trades: what has just been traded. Each is a part of one of these orders, which is returned with it.
        """
        rng = self.random
        lifetimes = [timedelta(seconds=-rng.randrange(2, 600)) for _ in range(DUE)]
        lifetimes += [timedelta(seconds=30 + rng.randrange(60) + 75 * at) for at in range(ORDERS - DUE)]
        waiting = list(trades)
        made: list[tuple[Wish, Trade | None]] = []
        for at, lifetime in enumerate(lifetimes):
            market = markets[at % len(markets)]
            if at % (ORDERS // FILLED) == 2 and waiting:
                market, trade = waiting.pop(0)
                made.append((self._maker(market, trade, lifetime), trade))
            else:
                made.append((self.wish(market, last[market.symbol], lifetime), None))
        return made

    def _maker(self, market: Market, trade: Trade, lifetime: timedelta) -> Wish:
        """The order that this trade is a part of: somebody took some of it."""
        more = scaled(max(1, round(market.size * self.random.lognormvariate(0, 0.5))), market.lot)
        side = "sell" if trade.side == "buy" else "buy"
        return Wish(
            self.random.choice(users()), market.symbol, side, trade.price, trade.quantity + more, lifetime
        )

    def taker(self, maker: int, market: Market, trade: Trade) -> Wish:
        """The order of somebody else that this trade fills at once."""
        user = self.random.choice([other for other in users() if other != maker])
        return Wish(user, market.symbol, trade.side, trade.price, trade.quantity, timedelta(minutes=1))

    def wish(self, market: Market, last: Decimal, lifetime: timedelta, *, near: float = 0.006) -> Wish:
        """One order for a pair, a buy below its last price or a sell above it, by up to `near` as a share of it."""
        rng = self.random
        side = rng.choice(("buy", "sell"))
        ticks = int(last / market.tick)
        away = max(1, round(ticks * near * rng.random() ** 2))
        price = max(1, ticks - away if side == "buy" else ticks + away)
        lots = max(2, round(market.size * rng.lognormvariate(0.4, 0.7)))
        return Wish(
            rng.choice(users()),
            market.symbol,
            side,
            scaled(price, market.tick),
            scaled(lots, market.lot),
            lifetime,
        )
