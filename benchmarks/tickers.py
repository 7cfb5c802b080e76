"""P1 and P2: the ticker pass against counting the same trades, and against thirty times fewer of them."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg

from benchmarks.bench import WINDOW, Bench, Market
from benchmarks.report import PLATFORM, Finding, scale
from benchmarks.timing import Samples, in_turns
from maven_cli.db.connection import database_now
from maven_cli.market.pairs import all_pairs
from maven_cli.market.tickers import Ticker, compute
from maven_cli.passes.tickers import update

_COUNT = "SELECT count(*) FROM trades WHERE executed_at > %s AND executed_at <= %s"

# The definition of a ticker, straight from the trades.
_BRUTE_FORCE = """
SELECT p.id,
       (array_agg(t.price ORDER BY t.executed_at DESC, t.id DESC))[1],
       (array_agg(t.price ORDER BY t.executed_at, t.id))[1],
       max(t.price), min(t.price),
       (SELECT b.price FROM trades b WHERE b.trading_pair_id = p.id AND b.executed_at <= %(start)s
         ORDER BY b.executed_at DESC, b.id DESC LIMIT 1),
       sum(t.quantity), sum(t.price * t.quantity), count(*),
       (array_agg(t.id ORDER BY t.executed_at, t.id))[1],
       (array_agg(t.id ORDER BY t.executed_at DESC, t.id DESC))[1]
  FROM trading_pairs p
  JOIN trades t ON t.trading_pair_id = p.id AND t.executed_at > %(start)s AND t.executed_at <= %(as_of)s
 GROUP BY p.id
"""


def ticker_pass(bench: Bench) -> None:
    """P1, at every size; the goal is about the largest."""
    for market in bench.sizes():
        largest = market.pairs == bench.most_pairs
        goal = 0.2 if largest else None
        with market.connect() as conn:
            samples = _measure(market, conn, bench.rounds)
            size = f"{market.pairs:,} pairs, {market.trades:,} trades"
            count = samples.median("count") * 1000
            for name, what in (("compute", "tickers computed"), ("pass", "whole pass, Redis included")):
                ratios = samples.ratios(name, "count")
                times = [(name, samples.median(name) * 1000), ("count(*)", count)]
                bench.report.add(
                    Finding(
                        "P1",
                        f"{what} / count(*): {size}",
                        samples.ratio(name, "count"),
                        at_most=goal,
                        rounds=samples.rounds,
                        spread=(min(ratios), max(ratios)),
                        detail=scale(times, PLATFORM["tickers"] if market.pairs == 10 else ""),
                    )
                )
            with bench.telling(f"computing the tickers of {size} from the trades alone"):
                wrong = _different(conn)
        bench.report.add(
            Finding("P1", f"tickers that differ from brute force: {size}", wrong, at_most=0, unit="tickers")
        )


def more_trades(bench: Bench) -> None:
    """P2: thirty times the trades at the same number of pairs."""
    many, few = bench.largest(), bench.market(bench.most_pairs, bench.trades // 30)
    with many.connect() as many_conn, few.connect() as few_conn:
        samples = in_turns(
            {"few": lambda: _compute(few_conn), "many": lambda: _compute(many_conn)},
            bench.rounds * 2,
            warm_up=2,
        )
    ratios = samples.ratios("many", "few")
    bench.report.add(
        Finding(
            "P2",
            f"tickers of {many.trades:,} / {few.trades:,} trades, {many.pairs:,} pairs",
            samples.ratio("many", "few"),
            at_most=2,
            rounds=samples.rounds,
            spread=(min(ratios), max(ratios)),
            detail=scale([(name, samples.median(name) * 1000) for name in ("many", "few")]),
        )
    )


def _measure(market: Market, conn: psycopg.Connection, rounds: int) -> Samples:
    def count() -> None:
        as_of = database_now(conn)
        conn.execute(_COUNT, [as_of - WINDOW, as_of]).fetchone()

    return in_turns(
        {"count": count, "compute": lambda: _compute(conn), "pass": lambda: update(market.services)},
        rounds,
        warm_up=2,
    )


def _compute(conn: psycopg.Connection, as_of: datetime | None = None) -> list[Ticker]:
    """What the pass does in PostgreSQL, in a transaction like its own."""
    pairs = all_pairs(conn)
    moment = as_of or database_now(conn)
    with conn.transaction():
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        return compute(conn, pairs, moment)


def _different(conn: psycopg.Connection) -> int:
    """How many pairs' tickers differ in any field from the trades' plain aggregate."""
    as_of = database_now(conn)
    expected = {
        row[0]: row[1:] for row in conn.execute(_BRUTE_FORCE, {"start": as_of - WINDOW, "as_of": as_of})
    }
    wrong = 0
    for ticker in _compute(conn, as_of):
        row = expected.pop(ticker.pair.id, None)
        wrong += row is None or _fields(ticker) != (*row, *_change(row[0], row[1]))
    return wrong + len(expected)


def _fields(ticker: Ticker) -> tuple[Any, ...]:
    return (
        ticker.last,
        ticker.open,
        ticker.high,
        ticker.low,
        ticker.prev_close,
        ticker.volume,
        ticker.quote_volume,
        ticker.trade_count,
        ticker.first_trade_id,
        ticker.last_trade_id,
        ticker.change,
        ticker.change_percent,
    )


def _change(last: Decimal, opening: Decimal) -> tuple[Decimal, Decimal]:
    """The change, and in percent: half away from zero, as PostgreSQL's round() does."""
    from decimal import ROUND_HALF_UP, localcontext

    with localcontext(prec=60, rounding=ROUND_HALF_UP):
        change = last - opening
        return change, (change * 100 / opening).quantize(Decimal("1e-8"))
