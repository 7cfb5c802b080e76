"""The demo's people: the same for a seed, within the market's steps, and what the expiry pass needs to show."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from maven_cli.demo.exchange import MARKETS, Market, Trade, Walk
from maven_cli.demo.traders import DUE, FILLED, ORDERS, Traders, Wish, holdings, users
from maven_cli.market.pairs import split_symbol
from maven_cli.numbers import check_fits, plain
from tests.support import utc

LAST = {market.symbol: market.price for market in MARKETS}
ASSETS = list(dict.fromkeys(name for market in MARKETS for name in split_symbol(market.symbol)))


def traded(markets: tuple[Market, ...] = MARKETS) -> list[tuple[Market, Trade]]:
    """FILLED trades of the markets that trade."""
    open_ = [market for market in markets if not market.silent]
    end = utc("2026-03-10T12:34:56")
    history = {market.symbol: list(Walk.of(market, 7).history(end, timedelta(hours=3))) for market in open_}
    return [(market, history[market.symbol].pop()) for market in (open_ * FILLED)[:FILLED]]


def opening(seed: int, markets: tuple[Market, ...] = MARKETS) -> list[tuple[Wish, Trade | None]]:
    return Traders.of(seed).opening(markets, LAST, traded(markets))


def test_a_seed_gives_one_set_of_people() -> None:
    assert opening(7) == opening(7)
    assert opening(7) != opening(8)
    assert holdings(7, ASSETS) == holdings(7, ASSETS)
    assert holdings(7, ASSETS) != holdings(8, ASSETS)
    assert len(holdings(7, ASSETS)) == len(users()) * len(ASSETS)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_orders_are_due_or_to_come_and_some_are_partly_filled(count: int) -> None:
    made = opening(7, MARKETS[:count])
    assert len(made) == ORDERS
    assert sum(wish.lifetime < timedelta(0) for wish, _ in made) == DUE
    assert all(wish.lifetime < timedelta(hours=1) for wish, _ in made)
    filled = [(wish, trade) for wish, trade in made if trade is not None]
    assert len(filled) == FILLED
    assert {wish.lifetime < timedelta(0) for wish, _ in filled} == {True, False}
    for wish, trade in filled:
        assert wish.price == trade.price
        assert wish.quantity > trade.quantity
        assert wish.side != trade.side


def test_orders_fit_their_market() -> None:
    markets = {market.symbol: market for market in MARKETS}
    for wish, trade in opening(7):
        market = markets[wish.symbol]
        assert wish.price % market.tick == 0
        assert wish.quantity % market.lot == 0
        assert check_fits(plain(wish.price * wish.quantity)) > 0
        if trade is None:
            away = wish.price / LAST[wish.symbol] - 1
            assert away < 0 if wish.side == "buy" else away > 0
            assert abs(away) < Decimal("0.01") or abs(wish.price - LAST[wish.symbol]) == market.tick


def test_a_taker_is_somebody_else() -> None:
    traders = Traders.of(7)
    for market, trade in traded():
        for maker in users():
            taker = traders.taker(maker, market, trade)
            assert taker.user in users()
            assert taker.user != maker
            assert (taker.side, taker.price, taker.quantity) == (trade.side, trade.price, trade.quantity)
