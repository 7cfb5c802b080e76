"""The one way out for events: from the outbox to the Redis stream, at least once, in order per aggregate.

Why the order of ids is the order of an aggregate's events: whoever writes one holds the aggregate's row lock (the
order's, the wallet's) until the commit. So the next event of the same aggregate gets its id after the one before has
been committed (the identity hands them out one by one, without a cache per session): a smaller id is never still to
come, and who sees an event sees all those before it. Ids of different aggregates commit in any order, and no order is
promised between them.

A batch is one transaction: the advisory lock, the oldest undelivered rows (locked, too), one MULTI/EXEC with all of
them, the mark, the commit. Redis takes all of a batch or none of it, in order, and nobody else publishes meanwhile. What
is killed between EXEC and the commit is sent again with the same ids: a consumer that drops ids it has seen has each
event once, in order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import psycopg
import redis

from maven_cli.cache import open_cache
from maven_cli.db.locks import work_lock
from maven_cli.db.queries import load
from maven_cli.errors import ConfigurationError, DependencyDownError
from maven_cli.logs import WorkerLog
from maven_cli.settings import Settings

WORK_KEY = "events"
# A batch takes milliseconds. Who waits longer than this leaves its events to whoever is publishing, or to the relay.
WAIT_MS = 1_000
LONGEST = "30s"
BATCH = 500
# (id, event_id, type, aggregate, the CloudEvent as JSON text)
Row = tuple[int, str, str, str, str]


@dataclass
class Published:
    """What became of the waiting events.

    pending: how many wait still; None when that wasn't counted. busy: somebody else was publishing.
    """

    delivered: int = 0
    pending: int | None = None
    busy: bool = False


class Services(Protocol):
    """Where Redis is, and the settings."""

    @property
    def settings(self) -> Settings: ...
    @property
    def redis_url(self) -> str: ...


def publish(
    conn: psycopg.Connection,
    client: redis.Redis,
    *,
    stream: str,
    maxlen: int,
    budget: timedelta,
    batch: int = BATCH,
    limit: int | None = None,
    stop: Callable[[], None] | None = None,
) -> Published:
    """Delivers what waits, oldest first, until nothing is left, `limit` events are out or the budget is spent.

    conn: autocommit, and in no transaction, since each batch is committed on its own. maxlen: about how many entries
    the stream keeps; 0 never trims it. stop: called before each batch; what it raises ends the call.

    Raises redis.RedisError or ConfigurationError when Redis doesn't take them, psycopg.Error for the database's own
    errors. What was delivered until then stays marked.
    """
    found = Published()
    _publish(
        conn, client, found, stream=stream, maxlen=maxlen, budget=budget, batch=batch, limit=limit, stop=stop
    )
    return found


def publish_after(
    services: Services,
    conn: psycopg.Connection,
    log: WorkerLog,
    *,
    stop: Callable[[], None] | None = None,
) -> Published:
    """What a pass calls after its commits: delivers what waits, its own events and others.

    When Redis doesn't take them one warning says so, and they wait for the relay: what the pass has committed is done
    either way. Without waiting events this is one small query, and Redis isn't even connected.
    """
    found = Published(pending=0)
    if not anything_waits(conn):
        return found
    settings = services.settings
    try:
        with open_cache(services.redis_url) as client:
            _publish(
                conn,
                client,
                found,
                stream=settings.events_stream,
                maxlen=settings.events_maxlen,
                budget=settings.events_budget,
                stop=stop,
            )
    except (DependencyDownError, ConfigurationError, redis.RedisError) as error:
        found.pending, _ = waiting(conn)
        log.warning(
            "events.waiting",
            f"{found.pending} events wait in the outbox for maven events relay: {error}",
            pending=found.pending,
        )
    return found


def anything_waits(conn: psycopg.Connection) -> bool:
    """Whether any event is undelivered: one look at the end of a small index."""
    return conn.execute("SELECT EXISTS (SELECT FROM outbox WHERE delivered_at IS NULL)").fetchone() == (True,)


def waiting(conn: psycopg.Connection) -> tuple[int, timedelta | None]:
    """How many events are undelivered, and the age of the first in line."""
    row = conn.execute(load("events", "waiting")).fetchone()
    assert row is not None
    return row[0], row[1]


def _publish(
    conn: psycopg.Connection,
    client: redis.Redis,
    found: Published,
    *,
    stream: str,
    maxlen: int,
    budget: timedelta,
    batch: int = BATCH,
    limit: int | None = None,
    stop: Callable[[], None] | None = None,
) -> None:
    """`publish`, counting in `found` while it goes on."""
    if conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        raise ValueError(
            "events are published outside of any transaction: each batch is committed on its own"
        )
    deadline = time.monotonic() + budget.total_seconds()
    found.pending = None
    while True:
        if stop is not None:
            stop()
        size = batch if limit is None else min(batch, limit - found.delivered)
        try:
            delivered = _batch(conn, client, size, stream=stream, maxlen=maxlen) if size > 0 else 0
        except psycopg.errors.LockNotAvailable:
            found.busy = True
            return
        found.delivered += delivered
        if size > 0 and delivered < size:
            found.pending = 0
            return
        if size == 0 or time.monotonic() >= deadline:
            found.pending, _ = waiting(conn)
            return


def _batch(conn: psycopg.Connection, client: redis.Redis, size: int, *, stream: str, maxlen: int) -> int:
    """One transaction's worth; how many events Redis took. Raises its refusal once what it took is committed."""
    with conn.transaction():
        take_turn(conn)
        rows: list[Row] = conn.execute(load("events", "next_batch"), {"limit": size}).fetchall()
        if not rows:
            return 0
        taken, refusal = send(client, rows, stream=stream, maxlen=maxlen)
        if taken:
            conn.execute(load("events", "mark_delivered"), {"ids": [row[0] for row in rows[:taken]]})
    if refusal is not None:
        raise refusal
    return taken


def take_turn(conn: psycopg.Connection, wait_ms: int = WAIT_MS) -> None:
    """Makes the open transaction the only one that publishes. Raises lock_not_available after the wait."""
    # A host that vanishes while it waits for Redis, or is frozen there, must not keep the others from publishing.
    conn.execute(
        "SELECT set_config('idle_in_transaction_session_timeout', %(longest)s, true),"
        " set_config('statement_timeout', %(longest)s, true)",
        {"longest": LONGEST},
    )
    work_lock(conn, WORK_KEY, timeout_ms=wait_ms)


def send(
    client: redis.Redis, rows: Sequence[Row], *, stream: str, maxlen: int
) -> tuple[int, Exception | None]:
    """Appends the events to the stream in one MULTI/EXEC.

    Returns how many of them, from the first on, Redis has for certain, and what it said to the one after these. Raises
    redis.RedisError when it took none, or when nobody can tell.
    """
    with client.pipeline(transaction=True) as pipeline:
        for _, event_id, kind, aggregate, event in rows:
            pipeline.xadd(
                stream,
                {"id": event_id, "type": kind, "aggregate": aggregate, "event": event},
                maxlen=maxlen or None,
                approximate=True,
            )
        # EXEC doesn't roll back: a command can fail while its neighbours are carried out.
        replies: list[Any] = pipeline.execute(raise_on_error=False)
    for taken, reply in enumerate(replies):
        if isinstance(reply, Exception):
            return taken, explain(reply, stream)
    return len(rows), None


def explain(error: Exception, stream: str) -> Exception:
    """A refusal in words, where Redis's own don't name what is wrong."""
    if isinstance(error, redis.ResponseError) and str(error).startswith("WRONGTYPE"):
        return ConfigurationError(
            f"the Redis key {stream} isn't a stream; rename it, or set MAVEN_EVENTS_STREAM to another name"
        )
    return error
