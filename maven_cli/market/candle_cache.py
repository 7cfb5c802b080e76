"""The newest candles in Redis: one value per pair and interval, newest last, the running one included.

Key ``candles:<interval>:<trading-pair-id>``; the value's shape is in docs/reference/redis.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg

from maven_cli.cache import AS_OF, open_cache, write_newer
from maven_cli.intervals import Interval
from maven_cli.market.candle_view import COLUMNS, Candle, fill, from_row, quiet, running
from maven_cli.market.pairs import TradingPair
from maven_cli.numbers import plain
from maven_cli.runner import Pass
from maven_cli.times import iso, iso_micros

# The platform's contract, to which MAVEN_CANDLE_TTL_GRACE is added.
TTL = timedelta(seconds=60)
# Bounds memory: nine intervals of this many pairs are in hand at a time.
PAIRS_AT_ONCE = 200


def refresh(current: Pass, pairs: Sequence[TradingPair], intervals: Sequence[Interval]) -> int:
    """Writes the newest candles of each pair. Returns how many keys were written.

    A pair that is behind keeps its old value until that expires: an empty window would claim that nobody traded. One whose
    trades are all gone, or lie in the future, gets a value without candles. Raises RedisDownError.
    """
    settings = current.settings
    written = 0
    with open_cache(current.services.redis_url) as client, current.snapshot() as conn:
        rows = conn.execute(
            "SELECT trading_pair_id, closed_until FROM candle_progress WHERE trading_pair_id = ANY (%s)",
            [[pair.id for pair in pairs]],
        )
        groups: dict[datetime, list[TradingPair]] = {}
        symbols = {pair.id: pair for pair in pairs}
        for pair_id, closed_until in rows:
            groups.setdefault(closed_until.astimezone(UTC), []).append(symbols[pair_id])
        for closed_until, group in groups.items():
            if closed_until > current.as_of:  # the pass looks at the past (--as-of); Redis shows the present
                continue
            fresh = [item for item in intervals if item.floor(current.as_of) <= closed_until]
            if not fresh:
                continue
            for at in range(0, len(group), PAIRS_AT_ONCE):
                current.stop.check()
                some = group[at : at + PAIRS_AT_ONCE]
                values = list(_values(conn, some, fresh, closed_until, current.as_of, settings.candle_keep))
                written += write_newer(client, values, ttl=TTL + settings.candle_ttl_grace)[0]
    return written


def _values(
    conn: psycopg.Connection,
    pairs: Sequence[TradingPair],
    intervals: Sequence[Interval],
    closed_until: datetime,
    as_of: datetime,
    keep: int,
) -> list[tuple[str, str]]:
    ids = [pair.id for pair in pairs]
    unfinished = running(conn, ids, intervals, closed_until, as_of)
    rows = conn.execute(
        f"SELECT w.pair, i.name, {', '.join('c.' + column for column in COLUMNS.split(', '))}"
        "  FROM unnest(%(pairs)s::bigint[]) AS w (pair)"
        " CROSS JOIN unnest(%(names)s::text[], %(starts)s::timestamptz[]) AS i (name, start_at)"
        " CROSS JOIN LATERAL (SELECT * FROM candles c"
        "                      WHERE c.trading_pair_id = w.pair AND c.interval = i.name AND c.start_at < i.start_at"
        "                      ORDER BY c.start_at DESC LIMIT %(keep)s) c"
        " ORDER BY 1, 2, c.start_at",
        {
            "pairs": ids,
            "names": [interval.name for interval in intervals],
            "starts": [interval.floor(as_of) for interval in intervals],
            "keep": keep,
        },
    )
    closed: dict[tuple[int, str], list[Candle]] = {}
    for row in rows:
        closed.setdefault((row[0], row[1]), []).append(from_row(row[2:], closed=True))
    values = []
    for pair in pairs:
        for interval in intervals:
            newest = _newest(
                closed.get((pair.id, interval.name), []),
                unfinished.get((pair.id, interval.name)),
                interval,
                closed_until,
                as_of,
                keep,
            )
            values.append((key(interval, pair.id), payload(pair, interval, newest, as_of)))
    return values


def _newest(
    closed: list[Candle],
    unfinished: Candle | None,
    interval: Interval,
    closed_until: datetime,
    as_of: datetime,
    keep: int,
) -> list[Candle]:
    """The last `keep` windows up to the running one, quiet ones filled; fewer when the pair is younger."""
    start = interval.floor(as_of)
    first = interval.after(start, 1 - keep)
    before = [candle for candle in closed if candle.start < first]
    since = iter([candle for candle in closed if candle.start >= first])
    windows = list(fill(since, interval, first, start, before[-1] if before else None, closed_until))
    if unfinished is not None:
        windows.append(unfinished)
    elif closed:
        windows.append(quiet(start, closed[-1].close, closed=False))
    return windows


def key(interval: Interval, pair_id: int) -> str:
    """The Redis key of a pair's newest candles."""
    return f"candles:{interval.name}:{pair_id}"


def payload(pair: TradingPair, interval: Interval, candles: Sequence[Candle], as_of: datetime) -> str:
    """The value's JSON text: names that exchange APIs use, decimals as strings."""
    head = AS_OF % iso_micros(as_of)
    # Assembled by hand: symbols and numbers need no escaping, and json.dumps would be most of the pass's CPU.
    body = ",".join(_candle(candle) for candle in candles)
    return f'{head},"pairId":{pair.id},"symbol":"{pair.symbol}","interval":"{interval.name}","candles":[{body}]}}'


def _candle(candle: Candle) -> str:
    return (
        f'{{"openTime":"{iso(candle.start)}","open":"{plain(candle.open)}","high":"{plain(candle.high)}"'
        f',"low":"{plain(candle.low)}","close":"{plain(candle.close)}","volume":"{plain(candle.base_volume)}"'
        f',"quoteVolume":"{plain(candle.quote_volume)}","tradeCount":{candle.trade_count}'
        f',"firstTradeId":{_id(candle.first_trade_id)},"lastTradeId":{_id(candle.last_trade_id)}'
        f',"revision":{candle.revision},"closed":{str(candle.closed).lower()},"empty":{str(candle.empty).lower()}}}'
    )


def _id(value: int | None) -> str:
    return "null" if value is None else str(value)
