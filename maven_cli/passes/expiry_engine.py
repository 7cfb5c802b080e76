"""What an expiry pass has to do with the engine: ask it, judge what it said, and work off what is still open.

Intents are committed before a call and answers after it, and no row is locked meanwhile. Calls go through the engine's
circuit. Why an order ends without the engine's word, and when: docs/explanation/expiry.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import psycopg

from maven_cli.engines import Answer, Engine, Nonsense, NotAsked, NotFound, Removal, Removed, Unreachable
from maven_cli.numbers import plain
from maven_cli.operations import circuits, incidents
from maven_cli.orders import removals
from maven_cli.orders.due import BATCH, BEGINNING, WORK_KEY, DueOrder
from maven_cli.runner import Pass

# Incidents about an order that lives; they are over when it has ended.
ALARMS = ("books_differ", "engine_gone", "revived_order", "doubtful_removal")
# So many answers to what is owed, the last one none: somebody has to look.
ENOUGH = 5
# An open circuit lets a probe through at least this often, however short the grace is.
SHORTEST = timedelta(seconds=1)


class EngineSide:
    """The engine's side of one pass.

    waiting: due orders on which the books don't agree yet. held: those that changed or vanished before they could be
    asked about. unheard: orders that may end without the engine's word.
    """

    def __init__(self, current: Pass, engine: Engine, *, dry_run: bool) -> None:
        self.waiting = 0
        self.held: list[int] = []
        self.unheard: set[int] = set()
        self._current = current
        self._settings = current.settings
        self._engine = engine
        self._dry_run = dry_run
        self._circuit = f"engine:{engine.name}"
        self._down = False
        self._may_end_unheard = self._fenced() and not self._settings.expiry_require_engine

    def _fenced(self) -> bool:
        """Whether the database refuses trades of ended orders."""
        if self._settings.settlement_fence != "enforced":
            return False
        stands = removals.fence_stands(self._current.conn)
        if not stands:
            self._current.log.error(
                "orders.unfenced",
                "MAVEN_SETTLEMENT_FENCE says enforced, but the trigger isn't there: orders wait for the engine",
            )
        return stands

    # ---------------------------------------------------------------------------------------------- orders that are due

    def ready(self, orders: Sequence[DueOrder]) -> list[tuple[int, Decimal, datetime]]:
        """Asks the engine about a batch, and returns the orders that may end now (id, what remains, last change)."""
        current = self._current
        ids = [order.id for order in orders]
        if not self._dry_run:
            # On disk before the call: under another key the engine wouldn't repeat its answer.
            with current.transaction(WORK_KEY, money=True) as conn:
                removing, asked = removals.ask(conn, orders, current.as_of)
            self.held += set(ids) - set(removing)
            ids = removing
            self._call(asked)
        able, alarming = [], []
        for verdict in self._verdicts(ids):
            if verdict.kind == "gone" and self._may_end_unheard:
                self.unheard.add(verdict.order_id)
            elif verdict.kind != "agreed":
                self.waiting += 1
                if verdict.kind in ("differs", "gone"):
                    alarming.append(verdict)
                continue
            able.append((verdict.order_id, verdict.remaining, verdict.changed_at))
        if alarming:
            self._alarm(alarming)
        return able

    def ended(self, conn: psycopg.Connection, ids: Sequence[int]) -> None:
        """In the transaction that ends orders: what was open about them is over."""
        removals.settle(conn, ids)
        for reason, some in (
            ("the order has ended: both books agreed in the end", set(ids) - self.unheard),
            (
                "the order has ended without the engine's word, after the grace; its removal is still owed",
                set(ids) & self.unheard,
            ),
        ):
            if some:
                incidents.close(conn, ALARMS, _items(some), self._current.worker.name, reason)

    def _verdicts(self, ids: Sequence[int]) -> list[removals.Verdict]:
        return removals.verdicts(
            self._current.conn,
            ids,
            self._current.as_of,
            circuit=self._circuit,
            down=self._down,
            grace=self._settings.engine_grace,
            settle=self._settings.engine_settle,
        )

    def _alarm(self, verdicts: Sequence[removals.Verdict]) -> None:
        """Orders that stay locked until somebody looks: an incident each, and an error of this pass."""
        current = self._current
        found = [(verdict, *_trouble(verdict)) for verdict in verdicts]
        for verdict, _, why in found:
            current.fail(f"order:{verdict.order_id}", ValueError(why))
            current.log.error("orders.alert", why, order=verdict.order_id)
        if self._dry_run:
            return
        with current.transaction(WORK_KEY) as conn:
            for verdict, kind, why in found:
                details: dict[str, object] = {"request_key": verdict.request_key}
                if verdict.kind == "differs":
                    details |= {"remaining": verdict.remaining, "engine_remaining": verdict.engine_remaining}
                incidents.open_incident(
                    conn, kind, f"order:{verdict.order_id}", why, details, unless_resolved=True
                )

    # ------------------------------------------------------------------------------------------------------- the calls

    def _call(self, asked: Sequence[Removal], *, owed: bool = False) -> dict[int, Answer]:
        """Calls the engine unless its circuit is open, and records what it said. Answers by order.

        owed: for orders that have ended already. Their failures open no circuit, which orders that are due would find open.
        """
        current = self._current
        if not asked:
            return {}
        counts = not owed or not circuits.is_closed(current.conn, self._circuit)
        answers: list[tuple[Removal, Answer]]
        if circuits.admit(current.conn, self._circuit):
            answers = list(self._engine.cancel(asked))
        else:
            answers = [(removal, NotAsked("not asked, because its circuit is open")) for removal in asked]
        with current.transaction(WORK_KEY) as conn:
            removals.record(conn, answers)
        self._conclude([answer for _, answer in answers], counts=counts)
        for removal, answer in answers:
            if isinstance(answer, Nonsense):
                current.fail(
                    f"order:{removal.order_id}", ValueError(f"the engine's answer isn't one: {answer.reason}")
                )
        return {removal.order_id: answer for removal, answer in answers}

    def _conclude(self, answers: Sequence[Answer], *, counts: bool) -> None:
        """What a call says about the engine as a whole."""
        current, settings = self._current, self._settings
        failed = [answer.reason for answer in answers if isinstance(answer, Unreachable | Nonsense)]
        unasked = [answer.reason for answer in answers if isinstance(answer, NotAsked)]
        if failed or unasked:
            current.log.warning(
                "orders.engine",
                f"The engine has no answer for {len(failed) + len(unasked)} of {len(answers)} orders: "
                f"{(failed or unasked)[0]}",
                engine=self._engine.name,
            )
        if len(unasked) == len(answers):
            return
        # Nonsense about an order is that order's trouble: an engine that answers at all is there.
        self._down = all(isinstance(answer, Unreachable | NotAsked) for answer in answers)
        if not self._down:
            circuits.succeeded(current.conn, self._circuit)
        elif counts:
            circuits.failed(
                current.conn,
                self._circuit,
                failed[0],
                threshold=settings.circuit_failures,
                cool_down=settings.circuit_cool_down,
                # While an order waits out its grace, the engine is tried again at least once.
                longest=min(settings.circuit_longest, max(settings.engine_grace / 2, SHORTEST)),
            )

    # ------------------------------------------------------------------------------------------- what is still open

    def work_off(self) -> None:
        """Works off what is open beyond the orders that are due: one batch in any case, others while there is time."""
        current, settings = self._current, self._settings
        after = BEGINNING
        while True:
            found = removals.open_removals(
                current.conn,
                current.as_of,
                after,
                BATCH,
                base=settings.retry_after,
                longest=settings.retry_longest,
            )
            if found:
                after = (found[-1][0], found[-1][1].removal.order_id)
                self._work_off([one for _, one in found])
            if len(found) < BATCH or current.elapsed() >= settings.expiry_budget:
                return

    def _work_off(self, found: Sequence[removals.OpenRemoval]) -> None:
        answers = self._call([one.removal for one in found if one.state == "owed"], owed=True)
        done = [
            one.removal.order_id
            for one in found
            if one.state == "done" or isinstance(answers.get(one.removal.order_id), Removed | NotFound)
        ]
        with self._current.transaction(WORK_KEY) as conn:
            for one in found:
                if incident := _incident(one, answers.get(one.removal.order_id)):
                    incidents.open_incident(
                        conn,
                        incident[0],
                        f"order:{one.removal.order_id}",
                        incident[1],
                        {"request_key": one.removal.request_key},
                        unless_resolved=True,
                    )
            removals.settle(conn, done)
            if done:
                reason = "the engine has answered: the order is in its book no more"
                incidents.close(conn, ["owed_removal"], _items(done), self._current.worker.name, reason)


def _incident(one: removals.OpenRemoval, answer: Answer | None) -> tuple[str, str] | None:
    """Kind and summary of the incident about an open removal, if there is one. answer: to what is owed."""
    order = f"order {one.removal.order_id}"
    match one.state:
        case "revived":
            return "revived_order", (
                f"{order} was given a later end after the engine had taken it out of its book; "
                "place it again or cancel it"
            )
        case "doubtful":
            return "doubtful_removal", (
                f"{order} was given a later end while the engine was to take it out of its book, and no answer says whether "
                "it did; look into the engine's book, and place the order again or cancel it"
            )
    if isinstance(answer, Nonsense) and one.attempts + 1 >= ENOUGH:
        return "owed_removal", (
            f"{order} is {one.status}, and after {one.attempts + 1} attempts the engine doesn't say that it is out of its "
            f"book ({answer.reason}); take it out by hand"
        )
    left = answer.remaining if isinstance(answer, Removed) else one.engine_remaining
    if left is None or left == one.remaining or one.amended:
        return None
    return "late_fill", (
        f"{order} is {one.status} with {plain(one.remaining)} left, but the engine had {plain(left)}: "
        "what it matched in between is refused by the settlement fence"
    )


def _trouble(verdict: removals.Verdict) -> tuple[str, str]:
    """Kind and summary of the incident about an order that stays locked."""
    if verdict.kind == "differs":
        assert verdict.engine_remaining is not None
        return "books_differ", (
            f"the engine removed order {verdict.order_id} with {plain(verdict.engine_remaining)} left, the database has "
            f"{plain(verdict.remaining)}; a fill was never settled"
        )
    return "engine_gone", (
        f"order {verdict.order_id} stays locked: the engine can't be asked"
        f" ({verdict.error}), and without its word it may not end"
    )


def _items(ids: Sequence[int] | set[int]) -> list[str]:
    return [f"order:{number}" for number in ids]
