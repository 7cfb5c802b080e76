"""The ground of a run: servers under a temporary home, databases with data, and where findings go."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import psycopg

from benchmarks import data
from benchmarks.report import Report, describe_machine
from maven_cli import embedded
from maven_cli.db.connection import connect, database_now
from maven_cli.db.migrate import upgrade
from maven_cli.intervals import MINUTE
from maven_cli.market import candles
from maven_cli.passes.candles import generate
from maven_cli.settings import Settings, load_settings

# Trades reach further back than the window: there is a close before it, and it may slide while the benchmarks run.
HISTORY = timedelta(hours=27)
WINDOW = timedelta(hours=24)
TEMPLATE = "bench_template"


@dataclass(frozen=True)
class Market:
    """A database with trades, and candles that are closed up to the last whole minute.

    end: the last trade. Behind `closed_until` lies a part of a minute of raw trades, as in production.
    """

    pairs: int
    trades: int
    end: datetime
    services: Services

    @property
    def closed_until(self) -> datetime:
        return MINUTE.floor(self.end)

    def connect(self) -> psycopg.Connection:
        return connect(self.services.database_url, "benchmark")


@dataclass(frozen=True)
class Services:
    """What a pass needs."""

    database_url: str
    redis_url: str
    settings: Settings

    @property
    def lock_url(self) -> str:
        return self.database_url


@dataclass
class Bench:
    """A run. Markets are made when a benchmark asks for them, and shared by all that ask for the same."""

    report: Report
    home: Path
    admin: psycopg.Connection
    url: str
    redis_url: str
    pairs: list[int]
    trades: int
    rounds: int
    markets: dict[tuple[int, int], Market] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """Defaults, with room for the set-up: a first pass over a whole day isn't what is measured."""
        patient = {
            "candle_budget": timedelta(hours=1),
            "candle_chunk": timedelta(hours=4),
            "statement_timeout": timedelta(minutes=10),
        }
        return load_settings().model_copy(update=patient)

    @property
    def most_pairs(self) -> int:
        return max(self.pairs)

    def largest(self) -> Market:
        """The market that the goals are about: the most pairs, all trades."""
        return self.market(self.most_pairs, self.trades)

    def sizes(self) -> Iterator[Market]:
        """A market per number of pairs, each with as many trades per pair."""
        for pairs in self.pairs:
            yield self.market(pairs, self.trades * pairs // self.most_pairs)

    def market(self, pairs: int, trades: int) -> Market:
        """A market of that many pairs, with that many trades in 24 hours."""
        if (pairs, trades) not in self.markets:
            with self.telling(f"making a market of {pairs:,} pairs and {trades:,} trades in 24 h"):
                self.markets[pairs, trades] = self._make(pairs, trades)
        return self.markets[pairs, trades]

    def _make(self, pairs: int, trades: int) -> Market:
        services = self.database(f"bench_{pairs}_{trades}")
        with connect(services.database_url, "benchmark") as conn:
            # A fraction of a minute that has ended already: the raw right edge, 40 s long.
            end = MINUTE.floor(database_now(conn)) - timedelta(seconds=20)
            data.add_pairs(conn, pairs)
            data.add_zipf_trades(conn, pairs, int(trades * (HISTORY / WINDOW)), end - HISTORY, end)
            generate(services, MINUTE, as_of=end)
            assert not candles.behind(conn, MINUTE.floor(end))
            conn.execute("VACUUM (FREEZE, ANALYZE)")
        return Market(pairs, trades, end, services)

    def database(self, name: str, template: str = TEMPLATE) -> Services:
        """A new database: migrated and empty, or a copy of another."""
        self.admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return Services(self.url_of(name), self.redis_url, self.settings)

    def drop(self, name: str) -> None:
        self.admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def url_of(self, name: str) -> str:
        return self.url.replace("/maven?", f"/{name}?", 1)

    @contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """Says on stderr what takes long, and how long it took."""
        print(f"… {what}", end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        yield
        print(f": {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


@contextmanager
def started(pairs: list[int], trades: int, rounds: int) -> Iterator[Bench]:
    """Servers for one run; gone with everything in them at its end."""
    root = Path(tempfile.mkdtemp(prefix="maven-bench-", dir="/tmp"))
    root.chmod(0o755)  # run by root, the servers have an account of their own
    home = root / "home"
    try:
        servers = embedded.attach(home)
        with connect(servers.database_url, "benchmark") as admin:
            admin.execute(f"CREATE DATABASE {TEMPLATE}")
            bench = Bench(
                Report(), home, admin, servers.database_url, servers.redis_url, pairs, trades, rounds
            )
            upgrade(bench.url_of(TEMPLATE))
            version = admin.info.parameter_status("server_version") or ""
            bench.report.machine = describe_machine(version)
            yield bench
    finally:
        if home.exists():
            embedded.stop(home, force=True)
        shutil.rmtree(root, ignore_errors=True)
