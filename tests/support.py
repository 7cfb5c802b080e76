"""What tests share: a market to fill, and the real command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg

from maven_cli.market.pairs import TradingPair, add_pair


def utc(text: str) -> datetime:
    """``2026-01-31T13:45:00`` → aware datetime."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass
class Market:
    """Pairs and trades in a test's database."""

    conn: psycopg.Connection
    next_id: int = 1
    pairs: dict[str, TradingPair] = field(default_factory=dict)

    def pair(self, symbol: str = "BTC/USDT", *, active: bool = True) -> TradingPair:
        if symbol not in self.pairs:
            self.pairs[symbol] = add_pair(self.conn, symbol, active=active)
        return self.pairs[symbol]

    def now(self) -> datetime:
        """The database's clock."""
        row = self.conn.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        moment: datetime = row[0]
        return moment.astimezone(UTC)

    def trade(
        self,
        at: datetime | timedelta,
        price: str | Decimal = "100",
        quantity: str | Decimal = "1",
        *,
        pair: str = "BTC/USDT",
        id: int | None = None,
        side: str = "buy",
        conn: psycopg.Connection | None = None,
    ) -> int:
        """One trade; `at` as an instant, or as an offset from now (negative: ago). Returns its id."""
        moment = self.now() + at if isinstance(at, timedelta) else at
        number = self.next_id if id is None else id
        self.next_id = max(self.next_id, number) + 1
        (conn or self.conn).execute(
            "INSERT INTO trades (trading_pair_id, id, executed_at, price, quantity, side)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            [self.pair(pair).id, number, moment, Decimal(price), Decimal(quantity), side],
        )
        return number

    def candles(self, interval: str, pair: str = "BTC/USDT") -> list[dict[str, Any]]:
        """The stored candles of an interval, oldest first."""
        cursor = self.conn.execute(
            "SELECT start_at, open, high, low, close, base_volume, quote_volume, trade_count, first_trade_id,"
            " last_trade_id, revision FROM candles WHERE trading_pair_id = %s AND interval = %s ORDER BY start_at",
            [self.pair(pair).id, interval],
        )
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor]
        for row in rows:
            row["start_at"] = row["start_at"].astimezone(UTC)
        return rows


@dataclass(frozen=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """stdout as the one JSON document it must be."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


@dataclass(frozen=True)
class Cli:
    """The real command, in a process of its own, with a clean environment."""

    variables: Mapping[str, str]

    def environment(self, **extra: str) -> dict[str, str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("MAVEN_")
            and name not in ("LOG_LEVEL", "NO_COLOR", "PYTHONDONTWRITEBYTECODE")
        }
        return {**kept, **self.variables, **extra}

    def __call__(
        self,
        *args: str,
        stdin: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Done:
        """Runs `maven args…` to its end."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            [sys.executable, "-m", "maven_cli", *args],
            env=self.environment(**(env or {})),
            input=data,
            stdin=None if data is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def start(self, *args: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Starts `maven args…`; the caller waits for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "maven_cli", *args],
            env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
