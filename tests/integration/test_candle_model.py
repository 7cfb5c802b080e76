"""Random histories against a brute-force model: whatever happened to the trades, the candles are what they say.

One seed is one history: trades inserted, back-dated, changed, moved, deleted and truncated, in transactions that stay open
while passes run, with passes of random intervals at random instants, cut short by budgets and kills. Whenever all
transactions have ended and one 1m pass ran, every closed candle of all nine intervals equals the model digit for digit.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
import redis

from maven_cli.intervals import INTERVALS
from maven_cli.market import candles
from maven_cli.passes.backfill import backfill
from maven_cli.passes.candles import generate
from maven_cli.runner import Pass
from maven_cli.times import iso
from tests import candle_oracle as oracle
from tests.conftest import TestServices
from tests.support import Market

SEEDS = range(300 if os.environ.get("MAVEN_TEST_FULL") == "1" else 30)
STEPS = 26
PAIRS = ("AAA/USD", "BBB/USD", "CCC/USD")

# Each history plays around one of these: a leap day in a week across two months, a year's end, a plain Sunday.
STAGES = (
    datetime(2024, 2, 27, tzinfo=UTC),
    datetime(2023, 12, 29, tzinfo=UTC),
    datetime(2022, 5, 6, tzinfo=UTC),
    datetime(1999, 12, 30, tzinfo=UTC),
)
LENGTH = timedelta(days=8)


class Killed(BaseException):
    """The process is gone: no handler of the pass may see to anything."""


@dataclass
class History:
    """One random history and what it needs."""

    seed: int
    market: Market
    services: TestServices
    cache: redis.Redis
    monkeypatch: pytest.MonkeyPatch
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.start = self.random.choice(STAGES)
        self.now = self.start  # how far passes have looked
        self.backfilled = False
        self.open: list[psycopg.Connection] = []
        self.number = 1
        for symbol in PAIRS:
            self.market.pair(symbol)
        self.ids = [self.market.pairs[symbol].id for symbol in PAIRS]

    # --- trades -----------------------------------------------------------------------------------------------

    def moment(self) -> datetime:
        """Somewhere in the stage; half of the time on one of the edges, or a microsecond before it."""
        at = self.start + self.random.random() * LENGTH
        at = at.replace(microsecond=self.random.choice((0, 1, 500_000, 999_999)))
        if self.random.random() < 0.5:
            edge = oracle.window(self.random.choice(oracle.NAMES), at)[self.random.random() < 0.5]
            at = edge - timedelta(microseconds=self.random.choice((0, 0, 1)))
        return min(max(at, self.start - timedelta(days=3)), self.start + LENGTH)

    def amount(self) -> Decimal:
        return Decimal(self.random.randint(1, 10**12)).scaleb(-self.random.choice((0, 2, 8, 18)))

    def insert(self, conn: psycopg.Connection) -> None:
        at = self.moment()
        for _ in range(self.random.choice((1, 1, 2, 5))):
            if self.random.random() < 0.6:
                at = self.moment()
            pair = self.random.choice(self.ids)
            conn.execute(
                "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity) VALUES (%s, %s, %s, %s, %s)",
                [pair, self.number, at, self.amount(), self.amount()],
            )
            self.log.append(f"  trade {self.number} of pair {pair} at {iso(at)}")
            self.number += 1

    def some(self, conn: psycopg.Connection) -> list[tuple[int, int]]:
        """A few trades that nobody else has locked, as (pair, id)."""
        seen = conn.execute("SELECT trading_pair_id, id FROM trades ORDER BY id").fetchall()
        if not seen:
            return []
        picked = self.random.sample(seen, min(len(seen), self.random.choice((1, 1, 3))))
        return [
            (pair, number)
            for pair, number in picked
            if conn.execute(
                "SELECT FROM trades WHERE trading_pair_id = %s AND id = %s FOR UPDATE SKIP LOCKED",
                [pair, number],
            ).fetchone()
            is not None
        ]

    def update(self, conn: psycopg.Connection) -> None:
        for pair, number in self.some(conn):
            column, value = self.random.choice(
                (
                    ("price", self.amount()),
                    ("quantity", self.amount()),
                    ("executed_at", self.moment()),
                    ("trading_pair_id", self.random.choice(self.ids)),
                    ("side", "sell"),
                )
            )
            conn.execute(
                f"UPDATE trades SET {column} = %s WHERE trading_pair_id = %s AND id = %s",
                [value, pair, number],
            )
            self.log.append(f"  {column} of trade {number} of pair {pair} becomes {value}")

    def delete(self, conn: psycopg.Connection) -> None:
        for pair, number in self.some(conn):
            conn.execute("DELETE FROM trades WHERE trading_pair_id = %s AND id = %s", [pair, number])
            self.log.append(f"  trade {number} of pair {pair} deleted")

    # --- transactions -----------------------------------------------------------------------------------------

    def begin(self) -> None:
        if len(self.open) < 3:
            conn = psycopg.connect(self.services.database_url, autocommit=True)
            conn.execute("BEGIN")
            self.open.append(conn)

    def end(self, conn: psycopg.Connection) -> None:
        how = self.random.choice(("COMMIT", "COMMIT", "ROLLBACK"))
        self.log.append(f"  {how} of session {conn.info.backend_pid}")
        conn.execute(how)
        conn.close()
        self.open.remove(conn)

    def change(self) -> None:
        """One change of trades: at once, or in a transaction that stays open, perhaps undone to a savepoint."""
        conn = self.random.choice([self.market.conn, *self.open])
        self.log.append(f" session {conn.info.backend_pid}")
        step = self.random.choice(
            (self.insert, self.insert, self.insert, self.update, self.update, self.delete)
        )
        if conn is self.market.conn:
            with conn.transaction():
                step(conn)
        elif self.random.random() < 0.3:
            conn.execute("SAVEPOINT here")
            step(conn)
            if self.random.random() < 0.5:
                conn.execute("ROLLBACK TO SAVEPOINT here")
                self.log.append("  undone")
        else:
            step(conn)

    # --- passes -----------------------------------------------------------------------------------------------

    def settings(self) -> None:
        chunk = self.random.choice((timedelta(hours=3), timedelta(days=1), timedelta(days=5)))
        self.services.settings = self.services.settings.model_copy(update={"candle_chunk": chunk})

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """Now and then a pass runs out of its budget, or is killed at some statement of its work."""
        kind = self.random.choice((None, None, "budget", "kill"))
        left = self.random.randint(0, 12)
        real = candles._rebuild_interval

        def elapsed(_: Pass) -> timedelta:
            nonlocal left
            left -= 1
            return timedelta(0) if left >= 0 else timedelta(days=1)

        def rebuild(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return real(*args)

        with self.monkeypatch.context() as patch:
            if kind == "budget":
                patch.setattr(Pass, "elapsed", elapsed)
            elif kind == "kill":
                patch.setattr(candles, "_rebuild_interval", rebuild)
            try:
                yield
            except Killed:
                self.log.append("  killed")

    def pass_(self) -> None:
        self.settings()
        interval = INTERVALS[self.random.choice(oracle.NAMES)]
        if self.random.random() < 0.8:
            self.now = min(self.now + self.random.random() ** 3 * LENGTH, self.start + LENGTH)
        as_of = self.now
        if self.random.random() < 0.2:
            as_of = self.start + self.random.random() * (self.now - self.start)
        dry = self.random.random() < 0.15
        narrowed = [self.random.choice(PAIRS)] if self.random.random() < 0.15 else []
        self.log.append(f" pass {interval.name} as of {iso(as_of)} {'dry ' if dry else ''}{narrowed}")
        with self.watched(dry), self.trouble():
            generate(self.services, interval, as_of=as_of, dry_run=dry, pairs=narrowed)

    def backfill(self) -> None:
        self.backfilled = True
        start = self.moment() if self.random.random() < 0.5 else None
        interval = INTERVALS[self.random.choice(oracle.NAMES)] if self.random.random() < 0.3 else None
        jobs = self.random.choice((1, 2))
        self.log.append(f" backfill from {start} of {interval} with {jobs} jobs")
        with self.watched(False), self.trouble():
            backfill(self.services, start=start, interval=interval, jobs=jobs)

    @contextmanager
    def watched(self, dry: bool) -> Iterator[None]:
        """A revision rises exactly when a closed candle changed; a dry run leaves no trace."""
        before = oracle.stored(self.market.conn)
        state = self.state()
        yield
        after = oracle.stored(self.market.conn)
        if dry:
            assert before == after, self.story("a dry run changed candles")
            assert state == self.state(), self.story("a dry run changed the state")
            return
        for key in before.keys() & after.keys():
            old, new = before[key], after[key]
            if old.values == new.values:
                assert old == new, self.story(
                    f"{key} was written although nothing in it changed: {old}, {new}"
                )
            else:
                assert new.revision > old.revision, self.story(f"{key} changed, not its revision")
        for key in after.keys() - before.keys():
            assert after[key].revision == 0, self.story(
                f"{key} is new, and has revision {after[key].revision}"
            )

    def state(self) -> list[Any]:
        return [
            self.market.conn.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall()
            for table in ("candle_progress", "candle_marks", "ingest_state", "worker_runs")
        ]

    # --- the end ----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """All transactions end, one 1m pass runs, and everything is right; a second one finds nothing to do."""
        while self.open:
            self.end(self.open[0])
        as_of = None if self.backfilled else self.now
        self.log.append(f" settle at {as_of}")
        with self.watched(False):
            done = generate(self.services, INTERVALS["1m"], as_of=as_of)
        assert (done.status, done.errors) == ("success", ()), self.story(str(done))
        conn = self.market.conn
        assert (found := oracle.wrong(conn)) == [], self.story("\n".join(found))
        assert conn.execute("SELECT count(*) FROM candle_marks").fetchone() == (0,), self.story(
            "marks are left"
        )
        assert done.data is not None
        ends = oracle.closed_until(conn)
        until = done.data["as_of"].replace(second=0, microsecond=0)
        for pair in oracle.trades_of(conn):
            assert pair in ends, self.story(f"pair {pair} has trades, and no candle was ever made")
            assert ends[pair] >= until, self.story(f"pair {pair} is closed until {ends[pair]} only")
        self.check_cache(done.data["as_of"])
        before = oracle.stored(conn)
        again = generate(self.services, INTERVALS["1m"], as_of=done.data["as_of"])
        assert again.data is not None
        assert [again.data[what] for what in ("inserted", "changed", "removed")] == [{}, {}, {}]
        assert oracle.stored(conn) == before, self.story("the rerun wrote candles")

    def check_cache(self, as_of: datetime) -> None:
        trades = oracle.trades_of(self.market.conn)
        ends = oracle.closed_until(self.market.conn)
        revisions = {key: row.revision for key, row in oracle.stored(self.market.conn).items()}
        for pair in self.ids:
            if pair in ends and ends[pair] > as_of:
                continue  # this settling looks at the past
            past = [trade for trade in trades.get(pair, []) if trade.at <= as_of]
            for name in oracle.NAMES:
                text = self.cache.get(f"candles:{name}:{pair}")
                assert (text is not None) == (pair in ends), self.story(f"candles:{name}:{pair}: {text!r}")
                found = json.loads(str(text))["candles"] if text else []
                want = newest(past, name, as_of, 2)
                for shown in want:
                    start = datetime.fromisoformat(shown["openTime"])
                    shown["revision"] = revisions.get((pair, name, start), 0) if shown["closed"] else 0
                assert found == want, self.story(f"candles:{name}:{pair} as of {as_of}:\n{found}\n{want}")

    def story(self, problem: str) -> str:
        return "\n".join([f"seed {self.seed}", *self.log, problem])

    def play(self) -> None:
        for _ in range(STEPS):
            dice = self.random.random()
            if dice < 0.55:
                self.change()
            elif dice < 0.62:
                self.begin()
            elif dice < 0.68 and self.open:
                self.end(self.random.choice(self.open))
            elif dice < 0.95:
                self.pass_()
            elif dice < 0.97:
                self.settle()
            elif dice < 0.985 and not self.open:
                self.log.append(" TRUNCATE")
                self.market.conn.execute("TRUNCATE trades")
            elif self.random.random() < 0.7:
                self.backfill()
        self.settle()


def newest(trades: list[oracle.Trade], name: str, as_of: datetime, keep: int) -> list[dict[str, Any]]:
    """What readers of Redis must get: the last `keep` windows, quiet ones filled, the running one last."""
    inside = oracle.windows(trades, name)
    start = oracle.window(name, as_of)[0]
    starts = [start]
    while len(starts) < keep:
        starts.insert(0, oracle.window(name, starts[0] - timedelta(microseconds=1))[0])
    shown = []
    for at in starts:
        before = [trade for trade in trades if trade.at < at]
        if at in inside:
            values: tuple[Any, ...] = oracle.candle(inside[at])
        elif before:
            last = max(before, key=lambda trade: (trade.at, trade.id)).price
            values = (last, last, last, last, Decimal(0), Decimal(0), 0, None, None)
        else:
            continue
        texts = [_text(value) for value in values[:6]]
        shown.append(
            {
                "openTime": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                **dict(zip(("open", "high", "low", "close", "volume", "quoteVolume"), texts, strict=True)),
                **dict(zip(("tradeCount", "firstTradeId", "lastTradeId"), values[6:], strict=True)),
                "revision": 0,
                "closed": at != start,
                "empty": at not in inside,
            }
        )
    return shown


def _text(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


@pytest.mark.parametrize("seed", SEEDS)
def test_candles_are_what_their_trades_say(
    seed: int,
    market: Market,
    services: TestServices,
    cache: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = History(seed, market, services, cache, monkeypatch)
    try:
        history.play()
    finally:
        for conn in history.open:
            conn.close()
