"""The ticker pass: compute every active pair's last 24 hours from one snapshot, and publish what is newer.

1. In one REPEATABLE READ snapshot compute all pairs in one statement (MAVEN_TICKER_BATCH pairs at a time when that is
   set). When the statement fails, pair by pair under savepoints: the bad pair is reported, its key left to expire.
2. In one Lua call write what is newer than what is there, publish what changed, and delete the keys of pairs that are
   no longer active.

Nothing is written to PostgreSQL but the run record, so two passes at once can't harm each other: the newer `asOf` wins.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import psycopg

from maven_cli.cache import open_cache, write_newer
from maven_cli.db.failures import explain
from maven_cli.errors import UsageError
from maven_cli.market import tickers
from maven_cli.market.pairs import TradingPair, all_pairs, resolve_pairs
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("tickers", "TickerUpdateWorker", "tickers")


def update(
    services: Services,
    *,
    pairs: Sequence[str] = (),
    as_of: datetime | None = None,
    dry_run: bool = False,
    concurrency: int = 1,
) -> Outcome:
    """Runs one ticker pass. `data`: as_of, dry_run, updated, changed, removed, future_trades, tickers (list of Ticker).

    With `as_of`, or dry, the tickers are computed and returned, and Redis and the lock aren't touched; `dry_run` says so,
    and the four counts are left out. `pairs` (symbols)
    narrows the work. `concurrency` connections share the batches of MAVEN_TICKER_BATCH pairs.
    """
    read_only = dry_run or as_of is not None
    return run(
        WORKER,
        lambda current: _body(current, pairs, concurrency, publish=not read_only),
        services,
        as_of=as_of,
        record=not read_only,
    )


def _body(current: Pass, symbols: Sequence[str], concurrency: int, *, publish: bool) -> dict[str, Any]:
    log = current.log
    log.debug("tickers.start", "Starting ticker update...")
    everything = all_pairs(current.conn)
    active = [pair for pair in everything if pair.status == "ACTIVE"]
    selected = resolve_pairs(current.conn, symbols) if symbols else active
    if not publish:
        computed = _compute_all(current, selected, concurrency)
        return {"as_of": current.as_of, "dry_run": True, "tickers": computed}
    with open_cache(current.services.redis_url) as client:
        computed = _compute_all(current, [pair for pair in selected if pair.status == "ACTIVE"], concurrency)
        gone = [tickers.key(pair.id) for pair in everything if pair.status != "ACTIVE"]
        values = [(tickers.key(ticker.pair.id), tickers.payload(ticker)) for ticker in computed]
        current.stop.check()
        settings = current.settings
        ttl = settings.ticker_ttl + settings.ticker_ttl_grace
        written, changed, removed = write_newer(
            client, values, ttl=ttl, channel=tickers.CHANNEL, remove=gone, as_of=current.as_of
        )
    for ticker in computed:
        log.debug("tickers.pair", f"Updated ticker for {ticker.pair.symbol}", pair=ticker.pair.symbol)
    future = tickers.future_trades(current.conn, current.as_of)
    if future:
        log.warning(
            "tickers.future",
            f"{future} trades are dated in the future and left out until then",
            trades=future,
        )
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    log.info(
        "tickers.done",
        f"Updated {written} tickers in {milliseconds}ms",
        updated=written,
        changed=changed,
        errors=len(current.errors),
        duration_ms=milliseconds,
    )
    return {
        "as_of": current.as_of,
        "dry_run": False,
        "updated": written,
        "changed": changed,
        "removed": removed,
        "future_trades": future,
        "tickers": computed,
    }


def _compute_all(current: Pass, pairs: Sequence[TradingPair], concurrency: int) -> list[tickers.Ticker]:
    size = current.settings.ticker_batch or max(len(pairs), 1)
    batches = [pairs[at : at + size] for at in range(0, len(pairs), size)]
    if concurrency <= 1 or len(batches) <= 1:
        return [ticker for batch in batches for ticker in _compute(current, batch, current.conn)]

    def work(mine: Sequence[Sequence[TradingPair]]) -> list[tickers.Ticker]:
        conn = current.connect()
        try:
            return [ticker for batch in mine for ticker in _compute(current, batch, conn)]
        finally:
            current.stop.connections.remove(conn)
            conn.close()

    with ThreadPoolExecutor(concurrency) as pool:
        results = pool.map(work, [batches[at::concurrency] for at in range(min(concurrency, len(batches)))])
        found = {ticker.pair.id: ticker for result in results for ticker in result}
    return [found[pair.id] for pair in pairs if pair.id in found]


def _compute(current: Pass, pairs: Sequence[TradingPair], conn: psycopg.Connection) -> list[tickers.Ticker]:
    """One batch; pair by pair when the batch as a whole can't be computed."""
    try:
        with current.snapshot(conn):
            return tickers.compute(conn, pairs, current.as_of)
    except (psycopg.Error, UsageError) as error:
        if _ends_the_pass(current, error):
            raise
    found: list[tickers.Ticker] = []
    with current.snapshot(conn):
        for pair in pairs:
            current.stop.check()
            try:
                with conn.transaction():
                    found += tickers.compute(conn, [pair], current.as_of)
            except (psycopg.Error, UsageError) as error:
                if _ends_the_pass(current, error):
                    raise
                reason = current.fail(pair.symbol, error)
                current.log.error("tickers.failed", f"Failed to update ticker for {pair.symbol}: {reason}")
    return found


def _ends_the_pass(current: Pass, error: psycopg.Error | UsageError) -> bool:
    """Whether it isn't one pair's failure: the database's own, a missing table or right, or a time that was asked for."""
    if isinstance(error, UsageError):
        return current.lock is None
    return explain(error) is not None
