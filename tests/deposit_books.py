"""Chains and deposits in a test's database, made by the functions that the passes use; for what needs no node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from typing import Any

import psycopg

from maven_cli.chains import Block, Sighting, Transfer
from maven_cli.deposits import follow, record
from maven_cli.deposits.chains import Chain, resolve_chains
from maven_cli.deposits.config import write

CONTRACT = bytes.fromhex("dac17f958d2ee523a2206206994597c13d831ec7")


def digest(*parts: object) -> bytes:
    """Thirty-two bytes that are always the same for the same parts."""
    return sha256(repr(parts).encode()).digest()


def key(user: int) -> bytes:
    """A user's deposit address."""
    return digest("address", user)[:20]


def block(height: int, fork: str = "main", parent: str | None = None) -> Block:
    """A block of a fork; its parent is of the same fork unless told otherwise."""
    return Block(
        height,
        digest("block", fork, height),
        digest("block", parent or fork, height - 1),
        datetime.fromtimestamp(1_790_000_000 + 12 * height, UTC),
    )


@dataclass
class DepositBooks:
    """An EVM chain with its coin and one token of six decimals; users 1 to `users` have an address each."""

    conn: psycopg.Connection
    users: int = 5
    confirmations: int = 3
    minimum: str = "0"
    decimals: int = 18
    name: str = "ethereum"
    transactions: int = 0
    columns: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write(
            self.conn,
            [
                {
                    "name": self.name,
                    "family": "evm",
                    "identity": "1",
                    "confirmations": self.confirmations,
                    "finality": "confirmations",
                    "tail": 64,
                    "backscan": 10,
                    **self.columns,
                    "endpoints": [],
                    "tokens": [
                        {"asset": "ETH", "decimals": self.decimals, "minimum": Decimal(self.minimum)},
                        {"asset": "USDT", "contract": CONTRACT, "decimals": 6, "minimum": Decimal(0)},
                    ],
                    "addresses": [
                        {"key": key(user), "address": "0x" + key(user).hex(), "user": user}
                        for user in range(1, self.users + 1)
                    ],
                    "internal": [],
                }
            ],
        )

        # As a scan leaves them: the chain says the same.
        self.conn.execute("UPDATE tokens SET checked_at = now()")

    @property
    def chain(self) -> Chain:
        """The chain as it is now."""
        (chain,) = resolve_chains(self.conn, [self.name])
        return chain

    def transfer(
        self,
        user: int,
        amount: int,
        *,
        token: bytes | None = None,
        ordinal: int = 0,
        tx: bytes | None = None,
        at: Block | None = None,
        **fields: Any,
    ) -> Transfer:
        """A payment to a user, in a transaction of its own unless told otherwise."""
        if tx is None:
            self.transactions += 1
            tx = digest("transaction", self.transactions)
        kind: Any = "native" if token is None else "token"
        return Transfer(tx, kind, ordinal, key(user), token, amount, at or block(100), **fields)

    def record(self, *transfers: Transfer) -> record.Recorded:
        """What a scan that found these writes down."""
        with self.conn.transaction():
            return record.record(self.conn, self.chain, transfers)

    def detect(self, *transfers: Transfer) -> list[int]:
        """The ids of deposits that are new."""
        return self.record(*transfers).detected

    def confirm(self, *transfers: Transfer, head: int = 1000) -> None:
        """What a confirm pass writes down, whose node sees exactly these."""
        chain = self.chain
        with self.conn.transaction():
            follow.count(self.conn, chain, head)
            by_hash: dict[bytes, list[Transfer]] = {}
            for transfer in transfers:
                by_hash.setdefault(transfer.tx_hash, []).append(transfer)
            verdicts = []
            for candidate in follow.candidates(self.conn, chain, None, 0, 100_000):
                seen = by_hash.get(candidate.tx_hash, [])
                sighting = (
                    Sighting("mined", seen[0].block, tuple(seen), digest(candidate.tx_hash))
                    if seen
                    else Sighting("missing")
                )
                verdicts.append(follow.judge(candidate, sighting, "node-1", chain))
            follow.confirm(self.conn, chain, [one for one in verdicts if one.kind == "confirmed"])

    def confirmed(self, *transfers: Transfer) -> list[int]:
        """Deposits of these, found and confirmed."""
        ids = self.detect(*transfers)
        self.confirm(*transfers)
        return ids

    def rows(self, *columns: str) -> list[tuple[Any, ...]]:
        """Columns of every deposit, by id."""
        return self.conn.execute(f"SELECT {', '.join(columns)} FROM deposits ORDER BY id").fetchall()

    def statuses(self) -> list[str]:
        return [status for (status,) in self.rows("status")]

    def balance(self, user: int, asset: str = "ETH") -> Decimal:
        row = self.conn.execute(
            "SELECT w.available FROM wallets w JOIN assets a ON a.id = w.asset_id WHERE w.user_id = %s AND a.symbol = %s",
            [user, asset],
        ).fetchone()
        return row[0] if row else Decimal(0)

    def events(self, kinds: Sequence[str] = ()) -> list[str]:
        """The ids of the events in the outbox, in their order; of these types, or all."""
        rows = self.conn.execute(
            "SELECT event_id FROM outbox WHERE cardinality(%(kinds)s::text[]) = 0 OR type = ANY (%(kinds)s) ORDER BY id",
            {"kinds": list(kinds)},
        )
        return [event for (event,) in rows]
