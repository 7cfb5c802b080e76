"""A simulated market: pairs with their own scales, and trades that look like trades.

Each pair is a clock of minutes. A minute has a volatility, which clusters (calm follows calm, a burst fades over an hour),
a share of the day's activity (a long European and American afternoon, a quiet night), and from both a number of trades.
The price is a random walk of whole ticks, pulled back softly to where the pair began, so that no seed ends at zero.

Prices and quantities are integers of ticks and lots, so every number is exact. The same seed, end and length give the
same trades.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

MINUTE = timedelta(minutes=1)
HISTORY = timedelta(days=2)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Market:
    """How a pair trades.

    price: where it begins. tick, lot: the steps of prices and quantities. trades: per minute on average. size: a typical
    quantity, in lots. volatility: of a minute, as a share of the price. active: the share of minutes in which anybody
    trades at all. silent: for how long nobody has traded at the end of the history.
    """

    symbol: str
    price: Decimal
    tick: Decimal
    lot: Decimal
    trades: float
    size: float
    volatility: float
    active: float = 1.0
    silent: timedelta = timedelta(0)


MARKETS = (
    Market("BTC/USDT", Decimal("97250"), Decimal("0.01"), Decimal("0.00001"), 22, 900, 0.0005),
    Market("ETH/USDT", Decimal("3380"), Decimal("0.01"), Decimal("0.0001"), 16, 2500, 0.0007),
    Market("SOL/USDT", Decimal("236.5"), Decimal("0.01"), Decimal("0.001"), 11, 6000, 0.0010),
    Market("XRP/USDT", Decimal("1.4375"), Decimal("0.0001"), Decimal("1"), 8, 450, 0.0009),
    Market("DOGE/BTC", Decimal("0.00000412"), Decimal("0.00000001"), Decimal("1"), 3, 2200, 0.0010),
    # Nobody for minutes on end: gaps that readers see filled.
    Market("LTC/BTC", Decimal("0.000915"), Decimal("0.0000001"), Decimal("0.001"), 1.5, 1400, 0.0012, active=0.12),
    # Nobody for more than a day: a stale ticker.
    Market(
        "XMR/BTC", Decimal("0.001655"), Decimal("0.0000001"), Decimal("0.001"), 2, 900, 0.0010, active=0.5,
        silent=timedelta(hours=27),
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trade:
    """One match. id rises with time within a pair."""

    id: int
    executed_at: datetime
    price: Decimal
    quantity: Decimal
    side: str


def scaled(count: int, step: Decimal) -> Decimal:
    """`count` steps, exactly, with the step's decimals."""
    exponent = step.as_tuple().exponent
    assert isinstance(exponent, int)
    return Decimal(count * int(step.scaleb(-exponent))).scaleb(exponent)


def activity(moment: datetime) -> float:
    """How busy this time of day is, 1 on average: least at 04:00 UTC, most at 16:00."""
    hour = moment.hour + moment.minute / 60
    return 1 - 0.55 * math.cos((hour - 4) / 24 * math.tau)


@dataclass
class Walk:
    """One pair's trades, minute after minute."""

    market: Market
    random: random.Random
    next_id: int = 1
    _ticks: int = field(init=False)
    _center: float = field(init=False)
    _heat: float = 0.0  # the logarithm of the volatility against its average

    def __post_init__(self) -> None:
        self._ticks = int(self.market.price / self.market.tick)
        self._center = math.log(self._ticks)

    @classmethod
    def of(cls, market: Market, seed: int) -> Walk:
        """The walk that this seed gives the pair, whichever other pairs there are."""
        return cls(market, random.Random(f"{seed} {market.symbol}"))

    @property
    def price(self) -> Decimal:
        """The last price."""
        return scaled(self._ticks, self.market.tick)

    def minute(self, start: datetime, length: timedelta = MINUTE) -> list[Trade]:
        """The trades of [start, start + length), in order; at most a minute."""
        market, rng = self.market, self.random
        share = length / MINUTE
        self._heat = self._heat * 0.97**share + rng.gauss(0, 0.16) * math.sqrt(share)
        if rng.random() < 0.0015 * share:  # news
            self._heat += 1.6
        if rng.random() >= market.active:
            return []
        heat = math.exp(min(self._heat, 2.5))
        rate = market.trades * share * activity(start) * (0.35 + 0.65 * heat)
        count = _poisson(rng, rate)
        if not count:
            return []
        drift = -0.0004 * (math.log(self._ticks) - self._center) * share / count
        step = market.volatility * heat * math.sqrt(share / count)
        micros = length // timedelta(microseconds=1)
        trades = []
        for at in sorted(rng.randrange(micros) for _ in range(count)):
            move = rng.gauss(drift, step)
            self._ticks = max(1, self._ticks + _whole(rng, self._ticks * move))
            lots = max(1, round(market.size * rng.lognormvariate(-0.6, 1.1) * (0.7 + 0.3 * heat)))
            trades.append(
                Trade(
                    self.next_id,
                    start + timedelta(microseconds=at),
                    scaled(self._ticks, market.tick),
                    scaled(lots, market.lot),
                    "buy" if rng.random() < (0.62 if move > 0 else 0.38) else "sell",
                )
            )
            self.next_id += 1
        return trades

    def history(self, end: datetime, length: timedelta = HISTORY) -> Iterator[Trade]:
        """The trades of [end − length, end), less the pair's silence, in order."""
        start = end - length
        until = end - self.market.silent
        # From a whole hour on, so that runs within the hour show one market, some minutes further on.
        first = start - (start - _EPOCH) % timedelta(hours=1)
        while first < until:
            for trade in self.minute(first):
                # Cut, not drawn differently: the minutes in between don't depend on the second at which `end` falls.
                if start <= trade.executed_at < until:
                    yield trade
            first += MINUTE


def _whole(rng: random.Random, ticks: float) -> int:
    """Rounded at random, so that a step of a third of a tick moves the price every third time."""
    low = math.floor(ticks)
    return low + (rng.random() < ticks - low)


def _poisson(rng: random.Random, rate: float) -> int:
    """How many events of that rate happen."""
    if rate > 60:
        return max(0, round(rng.gauss(rate, math.sqrt(rate))))
    limit, count, product = math.exp(-rate), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count
