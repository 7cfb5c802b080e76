"""The simulated market: the same for a seed, exact, in order, up to now, and alive."""

from __future__ import annotations

import math
from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import pairwise

import pytest

from maven_cli.demo.exchange import HISTORY, MARKETS, Market, Trade, Walk, activity, scaled
from maven_cli.numbers import check_fits, plain
from tests.support import utc

NOW = utc("2026-03-10T12:34:56.789012")
by_symbol = pytest.mark.parametrize("market", MARKETS, ids=lambda market: market.symbol)


def made(market: Market, seed: int = 7, end: datetime = NOW) -> list[Trade]:
    return list(Walk.of(market, seed).history(end))


# Nobody changes it, and a day takes a while to make.
history = cache(made)


@by_symbol
def test_a_seed_and_a_moment_give_one_market(market: Market) -> None:
    assert made(market) == history(market)
    assert history(market) != history(market, seed=8)


@by_symbol
def test_trades_are_in_order_and_unique(market: Market) -> None:
    trades = history(market)
    assert len({trade.id for trade in trades}) == len(trades) > 100
    for before, after in pairwise(trades):
        assert (before.executed_at, before.id) < (after.executed_at, after.id)
        assert before.id < after.id


@by_symbol
def test_numbers_are_exact_steps_that_the_database_holds(market: Market) -> None:
    for trade in history(market):
        assert trade.price > 0
        assert trade.quantity > 0
        assert trade.price % market.tick == 0
        assert trade.quantity % market.lot == 0
        assert check_fits(plain(trade.price)) == trade.price
        assert check_fits(plain(trade.quantity)) == trade.quantity
        assert trade.side in ("buy", "sell")


@by_symbol
def test_it_covers_two_days_up_to_now(market: Market) -> None:
    trades = history(market)
    assert all(NOW - HISTORY <= trade.executed_at < NOW - market.silent for trade in trades)
    spare = timedelta(minutes=1) if market.active == 1 else timedelta(hours=1)
    assert trades[0].executed_at - (NOW - HISTORY) < spare
    assert NOW - market.silent - trades[-1].executed_at < spare


def test_the_whole_is_lively_but_bounded() -> None:
    count = sum(len(history(market)) for market in MARKETS)
    assert 100_000 < count < 400_000


def test_one_pair_is_quiet_and_one_is_stale() -> None:
    stale = [market for market in MARKETS if market.silent > timedelta(hours=24)]
    quiet = [market for market in MARKETS if market.active < 0.3]
    assert len(stale) == len(quiet) == 1
    minutes = {trade.executed_at.replace(second=0, microsecond=0) for trade in history(quiet[0])}
    assert len(minutes) < 0.3 * HISTORY / timedelta(minutes=1)


def test_pairs_do_not_depend_on_each_other() -> None:
    """`--pairs 2` shows the same two markets as all seven do."""
    assert len({history(market)[-1].price / market.price for market in MARKETS}) == len(MARKETS)


def test_a_later_run_within_the_hour_shows_the_same_market() -> None:
    """Whoever starts the demo again sees what they saw, some minutes further on."""
    now, later = utc("2026-03-10T12:00:01"), utc("2026-03-10T12:50:00")
    first = {trade for trade in history(MARKETS[0], end=now) if trade.executed_at >= later - HISTORY}
    second = {trade for trade in history(MARKETS[0], end=later) if trade.executed_at < now}
    assert first == second


def test_bursts_cluster() -> None:
    """The size of a minute's move says something about the next minute's; in a plain random walk it says nothing."""
    closes: dict[datetime, float] = {}
    for trade in history(MARKETS[0]):
        closes[trade.executed_at.replace(second=0, microsecond=0)] = float(trade.price)
    moves = [abs(math.log(after / before)) for before, after in pairwise(closes.values())]
    mean = sum(moves) / len(moves)
    variance = sum((move - mean) ** 2 for move in moves)
    lag = sum((before - mean) * (after - mean) for before, after in pairwise(moves))
    assert lag / variance > 0.15


def test_the_day_has_a_busy_and_a_quiet_end() -> None:
    hours = [activity(utc(f"2026-03-10T{hour:02}:00:00")) for hour in range(24)]
    assert sum(hours) / 24 == pytest.approx(1)
    assert hours.index(max(hours)) == 16
    assert hours.index(min(hours)) == 4
    found = Counter[int]()
    for seed in range(5):
        found.update(trade.executed_at.hour for trade in history(MARKETS[0], seed))
    assert sum(found[hour] for hour in range(13, 20)) > 1.5 * sum(found[hour] for hour in range(1, 8))


def test_prices_stay_near_where_they_began() -> None:
    for seed in (7, 8):
        for market in MARKETS[:5]:
            last = history(market, seed)[-1].price
            assert market.price / 2 < last < market.price * 2


def test_a_market_goes_on_second_by_second() -> None:
    walk = Walk.of(MARKETS[0], 7)
    past = list(walk.history(NOW))
    future: list[Trade] = []
    at = NOW
    for _ in range(600):
        future += walk.minute(at, timedelta(seconds=1))
        at += timedelta(seconds=1)
    assert past[-1].id < future[0].id
    assert all(NOW <= trade.executed_at < at for trade in future)
    assert [trade.id for trade in future] == sorted({trade.id for trade in future})
    # Ten minutes of single seconds hold about as many trades as ten minutes.
    assert 60 < len(future) < 900
    assert abs(future[0].price / past[-1].price - 1) < Decimal("0.02")


@pytest.mark.parametrize(
    ("count", "step", "text"),
    [
        (412, "0.00000001", "0.00000412"),
        (9725012, "0.01", "97250.12"),
        (7, "1", "7"),
        (3, "0.5", "1.5"),
        (2, "25", "50"),
    ],
)
def test_scaled_is_exact(count: int, step: str, text: str) -> None:
    assert plain(scaled(count, Decimal(step))) == text
