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
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.db.failures import explain
from maven_cli.engines import Answer, Engine, Nonsense, NotFound, Removal, Removed, Unreachable, open_engine
from maven_cli.errors import ConfigurationError
from maven_cli.events.publish import publish_after
from maven_cli.market.pairs import resolve_pairs
from maven_cli.numbers import plain
from maven_cli.operations import circuits, dead_letters, incidents
from maven_cli.orders import due, removals
from maven_cli.orders.due import BATCH, BEGINNING, DueOrder, Expired
from maven_cli.runner import Outcome, Pass, Services, Worker, run

WORKER = Worker("orders-expire", "OrderExpirationWorker", "orders-expire")
WORK_KEY = "orders:expire"
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
    engine: Engine | None = None
    fenced: bool = True
    expired: list[Expired] = field(default_factory=list)
    waiting: int = 0
    owed: int = 0
    busy: int = 0

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
        _expire_due(expiry, pairs, lambda orders: [(o.id, o.remaining, o.changed_at) for o in orders])
    else:
        with closing(engine):
            expiry.engine = engine
            expiry.fenced = settings.settlement_fence == "enforced"
            if expiry.fenced and not removals.fence_stands(current.conn):
                expiry.fenced = False
                log.error(
                    "orders.unfenced",
                    "MAVEN_SETTLEMENT_FENCE says enforced, but the trigger isn't there: orders wait for the engine",
                )
            if not expiry.dry_run:
                _settle_open(expiry)
            _expire_due(expiry, pairs, lambda orders: _ask_engine(expiry, orders))
    backlog = due.count_due(current.conn, current.as_of) if expiry.room == 0 else 0
    if not expiry.dry_run:
        publish_after(current.services, current.conn, log, stop=current.stop.check)
    mismatched = sum(one.differs for one in expiry.expired)
    milliseconds = round(current.elapsed().total_seconds() * 1000)
    log.info(
        "orders.done",
        f"Expired {len(expiry.expired)} orders, {len(current.errors)} errors ({milliseconds}ms)",
        expired=len(expiry.expired),
        errors=len(current.errors),
        waiting=expiry.waiting,
        owed=expiry.owed,
        mismatched=mismatched,
        backlog=backlog,
        duration_ms=milliseconds,
    )
    data = {
        "as_of": current.as_of,
        "expired": len(expiry.expired),
        "waiting": expiry.waiting,
        "owed": expiry.owed,
        "busy": expiry.busy,
        "mismatched": mismatched,
        "backlog": backlog,
    }
    if expiry.dry_run:
        data["orders"] = expiry.expired
    return data


Ready = Callable[[Sequence[DueOrder]], list[tuple[int, Decimal, datetime]]]


def _expire_due(expiry: _Expiry, pairs: Sequence[int] | None, ready: Ready) -> None:
    """Walks over everything that is due, oldest first; `ready` says which of a batch may end."""
    current = expiry.current
    after = BEGINNING
    # Nearly always nothing is.
    if not due.anything_due(current.conn, current.as_of):
        return
    while room := expiry.room:
        current.stop.check()
        orders = due.due_orders(current.conn, current.as_of, after, pairs=pairs, limit=room)
        if not orders:
            return
        after = (orders[-1].expires_at, orders[-1].id)
        names = {order.id: order.pair for order in orders}
        if able := ready(orders):
            _end(expiry, able, names)
        if len(orders) < room:
            return


def _end(expiry: _Expiry, orders: list[tuple[int, Decimal, datetime]], names: dict[int, str | None]) -> None:
    """One transaction; when it fails, halves."""
    current, settings = expiry.current, expiry.current.settings
    try:
        with current.rehearsal() if expiry.dry_run else current.transaction(WORK_KEY, money=True) as conn:
            done = due.expire(conn, current.as_of, orders, formula=settings.expiry_formula == "apply")
            if done and not expiry.dry_run:
                ids = [one.id for one in done]
                dead_letters.resolve(conn, WORKER.name, [f"order:{number}" for number in ids])
                if expiry.engine is not None:
                    removals.settle(conn, ids)
                    _close_incidents(conn, ids)
    except psycopg.Error as error:
        if not isinstance(error, BUSY) and explain(error) is not None:
            raise
        if isinstance(error, BUSY) and expiry.room == 0:
            # Each half would wait as long again for whoever holds the rows; the next pass finds them.
            expiry.busy += len(orders)
            return
        if len(orders) > 1:
            middle = len(orders) // 2
            _end(expiry, orders[:middle], names)
            _end(expiry, orders[middle:], names)
        elif isinstance(error, BUSY):
            expiry.busy += 1
        else:
            expiry.dead(orders[0][0], error)
        return
    expiry.busy += len(orders) - len(done)
    expiry.expired += done
    for one in done:
        current.log.debug("orders.item", f"Expired order {one.id} ({names[one.id]})", order=one.id)
        if one.differs:
            assert one.rule is not None
            current.log.warning(
                "orders.mismatch",
                f"Order {one.id} released {plain(one.released)} {one.asset}, as its lock says; the rule says {plain(one.rule)}",
                order=one.id,
            )


# ------------------------------------------------------------------------------------------------------- the engine


def _ask_engine(expiry: _Expiry, orders: Sequence[DueOrder]) -> list[tuple[int, Decimal, datetime]]:
    """Asks the engine about a batch, and returns the orders on which both books agree now."""
    current, settings = expiry.current, expiry.current.settings
    if not expiry.dry_run:
        with current.transaction(WORK_KEY) as conn:
            asked = removals.ask(conn, orders)
        _call(expiry, asked)
    found = removals.verdicts(
        current.conn,
        [order.id for order in orders],
        current.as_of,
        grace=settings.engine_grace,
        settle=settings.engine_settle,
    )
    able = []
    for verdict in found:
        without_engine = verdict.kind == "gone" and expiry.fenced and not settings.expiry_require_engine
        if verdict.kind == "agreed" or without_engine:
            able.append((verdict.order_id, verdict.remaining, verdict.changed_at))
            expiry.owed += without_engine
            continue
        expiry.waiting += 1
        if verdict.kind in ("differs", "gone"):
            _alarm(expiry, verdict)
    return able


def _call(expiry: _Expiry, asked: Sequence[Removal]) -> list[tuple[Removal, Answer]]:
    """Calls the engine unless its circuit is open, and records what it said."""
    engine, current, settings = expiry.engine, expiry.current, expiry.current.settings
    if engine is None or not asked:
        return []
    circuit = f"engine:{engine.name}"
    admitted = circuits.admit(current.conn, circuit)
    if admitted:
        answers = list(engine.cancel(asked))
    else:
        answers = [(removal, Unreachable("its circuit is open")) for removal in asked]
    with current.transaction(WORK_KEY) as conn:
        removals.record(conn, answers)
    failures = [answer.reason for _, answer in answers if isinstance(answer, Unreachable | Nonsense)]
    # Nonsense about an order is that order's trouble: an engine that answers at all is there.
    if admitted and all(isinstance(answer, Unreachable) for _, answer in answers):
        circuits.failed(
            current.conn,
            circuit,
            failures[0],
            threshold=settings.circuit_failures,
            cool_down=settings.circuit_cool_down,
            longest=settings.circuit_longest,
        )
    elif admitted:
        circuits.succeeded(current.conn, circuit)
    if failures:
        current.log.warning(
            "orders.engine",
            f"The engine has no answer for {len(failures)} of {len(answers)} orders: {failures[0]}",
            engine=engine.name,
        )
    for removal, answer in answers:
        if isinstance(answer, Nonsense):
            current.fail(
                f"order:{removal.order_id}", ValueError(f"the engine's answer isn't one: {answer.reason}")
            )
    return answers


def _settle_open(expiry: _Expiry) -> None:
    """Works off what is still open between the engine and us, within half of the time."""
    current = expiry.current
    after = BEGINNING
    while current.elapsed() < current.settings.expiry_budget / 2:
        found = removals.open_removals(current.conn, current.as_of, after, BATCH)
        if not found:
            return
        after = (found[-1][0], found[-1][1].removal.order_id)
        owed = {one.removal.order_id: one for _, one in found if one.state == "owed"}
        answers = {
            removal.order_id: answer for removal, answer in _call(expiry, [o.removal for o in owed.values()])
        }
        done = []
        with current.transaction(WORK_KEY) as conn:
            for _, one in found:
                number = one.removal.order_id
                answer = answers.get(number)
                if one.state == "done" or isinstance(answer, Removed | NotFound):
                    done.append(number)
                left = answer.remaining if isinstance(answer, Removed) else one.engine_remaining
                if one.state != "revived" and left is not None and left != one.remaining:
                    incidents.open_incident(
                        conn,
                        "late_fill",
                        f"order:{number}",
                        f"order {number} is {one.status} with {plain(one.remaining)} left, but the engine had {plain(left)}: "
                        "what it matched in between is refused by the settlement fence",
                    )
            removals.settle(conn, done)
            for _, one in found:
                if one.state == "revived":
                    incidents.open_incident(
                        conn,
                        "revived_order",
                        f"order:{one.removal.order_id}",
                        f"order {one.removal.order_id} was given a later end after the engine had taken it out of its book; "
                        "place it again or cancel it",
                    )


def _alarm(expiry: _Expiry, verdict: removals.Verdict) -> None:
    """An order that stays locked until somebody looks: an incident, and an error of this pass."""
    item = f"order:{verdict.order_id}"
    if verdict.kind == "differs":
        assert verdict.engine_remaining is not None
        kind = "books_differ"
        why = (
            f"the engine removed order {verdict.order_id} with {plain(verdict.engine_remaining)} left, the database has "
            f"{plain(verdict.remaining)}; a fill was never settled"
        )
    else:
        kind = "engine_gone"
        why = (
            f"order {verdict.order_id} stays locked: the engine can't be asked"
            f" ({verdict.error}), and without its word it may not end"
        )
    expiry.current.fail(item, ValueError(why))
    expiry.current.log.error("orders.alert", why, order=verdict.order_id)
    if not expiry.dry_run:
        with expiry.current.transaction(WORK_KEY) as conn:
            incidents.open_incident(conn, kind, item, why)


def _close_incidents(conn: psycopg.Connection, ids: Sequence[int]) -> None:
    """What the alarms were about is over: these orders have ended after all."""
    rows = conn.execute(
        "SELECT kind, item FROM incidents WHERE resolved_at IS NULL AND kind IN ('books_differ', 'engine_gone')"
        " AND item = ANY (%s)",
        [[f"order:{number}" for number in ids]],
    ).fetchall()
    for kind, item in rows:
        incidents.close(conn, kind, item, WORKER.name, "the order has ended: both books agreed in the end")
