"""The expiry pass: what is past its end leaves the engine, becomes EXPIRED, and gives its locked balance back once.

Without an engine the database is the book, and a due order simply ends. With one, batch by batch:

1. The intent to remove the orders is committed, the engine is called without any row locked, its answers are committed.
2. An order ends when both books agree on what remains of it. A fill that the engine has matched and settlement hasn't
   written yet shows as a difference, and the order waits for it.
3. Ending it is one transaction: status, lock, balance, ledger, events. A batch that fails is halved until the bad order
   stands alone; that one becomes a dead letter, and the others go on.

An engine that can't be asked delays an order by MAVEN_ENGINE_GRACE. Then it ends without the engine's word, if the
settlement fence stands, and its removal stays owed until the engine has answered. Afterwards the events are published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.db.failures import explain
from maven_cli.engines import open_engine
from maven_cli.errors import ConfigurationError
from maven_cli.events.publish import publish_after
from maven_cli.market.pairs import resolve_pairs
from maven_cli.numbers import plain
from maven_cli.operations import dead_letters, incidents
from maven_cli.orders import due
from maven_cli.orders.due import BATCH, BEGINNING, WORK_KEY, DueOrder, Expired
from maven_cli.passes.expiry_engine import ALARMS, EngineSide
from maven_cli.runner import Outcome, Pass, Services, Worker, run
from maven_cli.times import format_duration

WORKER = Worker("orders-expire", "OrderExpirationWorker", "orders-expire")
# Past its end for so long, and still held by somebody else: a transaction that was left open, perhaps.
HELD_LONG = timedelta(minutes=1)
# Somebody else holds a row, or won a race: nothing is wrong with the order, the next pass finds it again.
BUSY = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)


def expire(
    services: Services,
    *,
    pairs: Sequence[str] = (),
    as_of: datetime | None = None,
    limit: int | None = None,
    dry_run: bool = False,
) -> Outcome:
    """Runs one expiry pass. `data`: as_of, expired, waiting, owed, busy, mismatched, backlog; dry also orders.

    waiting: due, but the engine's book and ours don't agree yet. owed: ended without the engine's word. busy: held by
    somebody else just now. mismatched: the lock held another amount than the platform's rule says. backlog: what is still
    due when the time (MAVEN_EXPIRY_BUDGET) or `limit` is used up.

    dry_run calls no engine and takes no lock; each batch is rolled back at once, so that no wallet stays locked.
    """
    return run(
        WORKER,
        lambda current: _body(_Expiry(current, limit, dry_run), pairs),
        services,
        as_of=as_of,
        record=not dry_run,
    )


@dataclass
class _Expiry:
    """One pass under way."""

    current: Pass
    limit: int | None
    dry_run: bool
    engine: EngineSide | None = None
    expired: list[Expired] = field(default_factory=list)
    held: list[int] = field(default_factory=list)  # left to the next pass, because somebody else was at them
    owed: int = 0
    met_lock: bool = False  # somebody holds what we need: later waits are short

    @property
    def room(self) -> int:
        """How many orders the next batch may have; 0 when the pass is over."""
        if self.current.elapsed() >= self.current.settings.expiry_budget:
            return 0
        return min(BATCH, BATCH if self.limit is None else self.limit - len(self.expired))

    def dead(self, order_id: int, error: BaseException) -> None:
        """An order that can't be ended as it stands: reported, remembered, and left alone for a while."""
        item = f"order:{order_id}"
        reason = self.current.fail(item, error)
        self.current.log.error(
            "orders.failed", f"Failed to expire order {order_id}: {reason}", order=order_id
        )
        if not self.dry_run:
            settings = self.current.settings
            with self.current.transaction(WORK_KEY) as conn:
                dead_letters.record(
                    conn, WORKER.name, item, reason, base=settings.retry_after, limit=settings.retry_longest
                )


def _body(expiry: _Expiry, symbols: Sequence[str]) -> dict[str, Any]:
    current, settings = expiry.current, expiry.current.settings
    log = current.log
    log.debug("orders.start", "Checking for expired orders...")
    current.check_clock()
    pairs = [pair.id for pair in resolve_pairs(current.conn, symbols)] if symbols else None
    if settings.expiry_require_engine and settings.engine == "none":
        raise ConfigurationError(
            "MAVEN_EXPIRY_REQUIRE_ENGINE needs an engine; set MAVEN_ENGINE to redis or http"
        )
    engine = open_engine(settings, lambda: current.services.redis_url)
    if engine is None:
        backlog = _expire_due(
            expiry, pairs, lambda orders: [(o.id, o.remaining, o.changed_at) for o in orders]
        )
    else:
        with closing(engine):
            expiry.engine = side = EngineSide(current, engine, dry_run=expiry.dry_run)
            backlog = _expire_due(expiry, pairs, side.ready)
            expiry.held += side.held
            # After the orders that are due: what has ended already must not cost them their time.
            if not expiry.dry_run:
                side.work_off()
    if not expiry.dry_run:
        _close_ended(current)
        publish_after(current.services, current.conn, log, stop=current.stop.check)
        _warn_of_held(expiry)
    counts = {
        "expired": len(expiry.expired),
        "waiting": 0 if expiry.engine is None else expiry.engine.waiting,
        "owed": expiry.owed,
        "busy": len(expiry.held),
        "mismatched": sum(one.differs for one in expiry.expired),
        "backlog": backlog,
    }
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    log.info(
        "orders.done",
        f"Expired {len(expiry.expired)} orders, {len(current.errors)} errors ({milliseconds}ms)",
        **counts,
        errors=len(current.errors),
        duration_ms=milliseconds,
    )
    data = {"as_of": current.as_of, **counts}
    if expiry.dry_run:
        data["orders"] = expiry.expired
    return data


Ready = Callable[[Sequence[DueOrder]], list[tuple[int, Decimal, datetime]]]


def _expire_due(expiry: _Expiry, pairs: Sequence[int] | None, ready: Ready) -> int:
    """Walks over everything that is due, oldest first; `ready` says which of a batch may end.

    Returns the backlog: how many orders are still due when there is no room for more.
    """
    current = expiry.current
    after = BEGINNING
    # Nearly always nothing is.
    if not due.anything_due(current.conn, current.as_of):
        return 0
    while room := expiry.room:
        current.stop.check()
        orders = due.due_orders(current.conn, current.as_of, after, pairs=pairs, limit=room)
        if not orders:
            break
        after = (orders[-1].expires_at, orders[-1].id)
        names = {order.id: order.pair for order in orders}
        if able := ready(orders):
            _end(expiry, able, names)
        if len(orders) < room:
            break
    return 0 if expiry.room else due.count_due(current.conn, current.as_of, pairs)


def _end(expiry: _Expiry, orders: list[tuple[int, Decimal, datetime]], names: dict[int, str | None]) -> None:
    """One transaction; when it fails, halves."""
    current, settings = expiry.current, expiry.current.settings
    try:
        with current.rehearsal() if expiry.dry_run else current.transaction(WORK_KEY, money=True) as conn:
            if expiry.met_lock:
                due.hurry(conn)
            done = due.expire(conn, current.as_of, orders, formula=settings.expiry_formula == "apply")
            if done and not expiry.dry_run:
                ids = [one.id for one in done]
                dead_letters.resolve(conn, WORKER.name, [f"order:{number}" for number in ids])
                if expiry.engine is not None:
                    expiry.engine.ended(conn, ids)
    except psycopg.Error as error:
        if not isinstance(error, BUSY) and explain(error) is not None:
            raise
        busy = isinstance(error, BUSY)
        expiry.met_lock |= busy
        # Each half would wait again for whoever holds the rows; the next pass finds them.
        if busy and (len(orders) == 1 or expiry.room == 0):
            expiry.held += [number for number, _, _ in orders]
        elif len(orders) > 1:
            middle = len(orders) // 2
            _end(expiry, orders[:middle], names)
            _end(expiry, orders[middle:], names)
        else:
            expiry.dead(orders[0][0], error)
        return
    ended = {one.id for one in done}
    expiry.held += [number for number, _, _ in orders if number not in ended]
    expiry.expired += done
    if expiry.engine is not None:
        expiry.owed += len(ended & expiry.engine.unheard)
    for one in done:
        current.log.debug("orders.item", f"Expired order {one.id} ({names[one.id]})", order=one.id)
        if one.differs:
            assert one.rule is not None
            current.log.warning(
                "orders.mismatch",
                f"Order {one.id} released {plain(one.released)} {one.asset}, as its lock says; the rule says {plain(one.rule)}",
                order=one.id,
            )


def _close_ended(current: Pass) -> None:
    """Closes dead letters and incidents about orders that somebody else has ended: there is nothing to do any more."""
    by_status: dict[str | None, list[str]] = {}
    for item, status in due.ended_elsewhere(current.conn, WORKER.name, ALARMS):
        by_status.setdefault(status, []).append(item)
    if not by_status:
        return
    with current.transaction(WORK_KEY) as conn:
        for status, items in by_status.items():
            if status is None:
                reason = "the order doesn't exist any more"
            elif status == "EXPIRED":
                reason = "the order has ended: it is EXPIRED"
            else:
                reason = f"the platform has ended the order itself: it is {status}"
            dead_letters.resolve(conn, WORKER.name, items, reason=reason)
            incidents.close(conn, ALARMS, items, WORKER.name, reason)


def _warn_of_held(expiry: _Expiry) -> None:
    """Whoever holds an order, or its wallet, for a moment is nobody's concern; for a minute, he is."""
    current = expiry.current
    if not expiry.held:
        return
    if late := due.overdue(current.conn, expiry.held, current.as_of - HELD_LONG):
        current.log.warning(
            "orders.held",
            f"{len(late)} orders are past their end for more than {format_duration(HELD_LONG)} and held by another "
            f"transaction, the oldest is order {late[0]}",
            busy=len(late),
        )
