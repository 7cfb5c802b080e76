"""The relay pass: deliver what a crash or a Redis outage left in the outbox, then prune what was delivered long ago.

1. Deliver, oldest first, in batches of one transaction each (maven_cli.events.publish). Passes deliver their own events
   right after their commits, so as a rule nothing waits, and Redis isn't even connected.
2. Delete delivered events older than MAVEN_EVENTS_RETENTION, in bounded transactions, each of which moves
   `outbox_state.pruned_until` behind what it deleted.

Killed between Redis's answer and the commit, it has delivered a batch that the next pass delivers again: same ids.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import psycopg

from maven_cli.cache import open_cache
from maven_cli.db.queries import load
from maven_cli.errors import ConfigurationError, DependencyDownError
from maven_cli.events.publish import WAIT_MS, WORK_KEY, Published, publish, waiting
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("events-relay", "EventRelayWorker", "events-relay")
# An event normally leaves within the second.
LATE = timedelta(minutes=1)
PRUNED_AT_ONCE = 5_000


def relay(services: Services, *, limit: int | None = None, dry_run: bool = False) -> Outcome:
    """Runs one relay pass. `data`: as_of, delivered, pending, pruned (numbers of events), busy (others were publishing).

    limit: deliver at most so many. Dry, the numbers are what would be, and Redis isn't touched.
    """
    return run(WORKER, lambda current: _body(current, limit), services, dry_run=dry_run)


def _body(current: Pass, limit: int | None) -> dict[str, Any]:
    log = current.log
    log.debug("events.start", "Looking for undelivered events...")
    pending, age = waiting(current.conn)
    found = Published(pending=pending)
    if current.dry_run:
        found.delivered = pending if limit is None else min(limit, pending)
        found.pending = pending - found.delivered
    elif pending:
        try:
            found = _deliver(current, limit)
        except (DependencyDownError, ConfigurationError):
            _warn_when_late(current, pending, age)
            raise
        if found.pending != 0:
            found.pending, age = waiting(current.conn)
            _warn_when_late(current, found.pending, age)
    pruned = _prune(current)
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    log.info(
        "events.done",
        f"Relayed {found.delivered} events, {found.pending} pending ({milliseconds}ms)",
        delivered=found.delivered,
        pending=found.pending,
        pruned=pruned,
        duration_ms=milliseconds,
    )
    return {
        "as_of": current.as_of,
        "delivered": found.delivered,
        "pending": found.pending,
        "pruned": pruned,
        "busy": found.busy,
    }


def _deliver(current: Pass, limit: int | None) -> Published:
    settings = current.settings
    with open_cache(current.services.redis_url) as client:
        return publish(
            current.conn,
            client,
            stream=settings.events_stream,
            maxlen=settings.events_maxlen,
            budget=settings.events_budget,
            limit=limit,
            stop=current.stop.check,
        )


def _warn_when_late(current: Pass, pending: int, age: timedelta | None) -> None:
    if age is not None and age > LATE:
        current.log.warning(
            "events.late",
            f"{pending} events wait in the outbox, the oldest for {round(age.total_seconds())}s",
            pending=pending,
            age=age.total_seconds(),
        )


def _prune(current: Pass) -> int:
    """Deletes what was delivered before the retention began, within the budget; how many.

    It takes turns with whoever publishes, so that a replay doesn't lose rows half-way; who waits in vain leaves the
    rest to the next pass.
    """
    before = current.as_of - current.settings.events_retention
    pruned = 0
    while current.elapsed() < 2 * current.settings.events_budget and _anything_old(current.conn, before):
        try:
            with current.transaction(WORK_KEY, wait_ms=WAIT_MS) as conn:
                row = conn.execute(
                    load("events", "prune"), {"before": before, "limit": PRUNED_AT_ONCE}
                ).fetchone()
        except psycopg.errors.LockNotAvailable:
            break
        assert row is not None
        pruned += row[0]
        if row[0] < PRUNED_AT_ONCE:
            break
    return pruned


def _anything_old(conn: psycopg.Connection, before: datetime) -> bool:
    query = "SELECT EXISTS (SELECT FROM outbox WHERE delivered_at < %s)"
    return conn.execute(query, [before]).fetchone() == (True,)
