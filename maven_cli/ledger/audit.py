"""The proof of the books: checks in SQL, each over all its rows at once. Which they are stands in CHECKS, how in sql/."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import psycopg

from maven_cli.db.queries import load

# name → what holds when nothing is wrong. `audit_<name>.sql` gives a row per thing checked: `wrong` (what is, or null)
# and `unproven` (it can't be known).
CHECKS = {
    "wallets": "wallets are what their newest entries say, and the sum of their entries",
    "entries": "entries follow on each other without a gap",
    "digests": "entries say what they said when they were written",
    "checkpoints": "checkpoints are what their entries say",
    "locks": "locks hold what their entries say, and end with the last of it",
    "locked": "locked balances are what the locks hold",
    "references": "entries refer to what exists",
    "adjustments": "adjustments were approved by a second person and posted once",
    "orders": "orders' locks are open as long as an order needs them",
    "trades": "no trade came after its order's end",
    "expired": "expired orders gave back once, and have their event",
    "unlocked": "unlock events are what the ledger says",
    "rejected": "refused trades have their event",
    "deposits": "credited deposits are what their entries and events say, and no entry is without its deposit",
    "outbox": "events are as they were written, under deterministic ids",
}
# Hash tables of a million wallets or locks; a sort of more goes to disk.
WORK_MEM = "64MB"


@dataclass
class Check:
    """One check's figures. rows: the first wrong ones, each named with what is wrong."""

    name: str
    title: str
    checked: int = 0
    wrong: int = 0
    unproven: int = 0
    rows: list[str] = field(default_factory=list)


def checks(conn: psycopg.Connection, *, full: bool, listed: int) -> Iterator[Check]:
    """Makes every check, one statement each. `conn` is inside one snapshot.

    full: from the first entry on, not from the checkpoints. listed: how many wrong rows each names.
    """
    conn.execute("SELECT set_config('work_mem', %s, true)", [WORK_MEM])
    for name, title in CHECKS.items():
        query = load("ledger", f"audit_{name}")
        parameters = {"full": full, "listed": listed}
        row = conn.execute(
            f"SELECT count(*), count(wrong), count(*) FILTER (WHERE wrong IS NULL AND unproven) FROM ({query}) c",
            parameters,
        ).fetchone()
        assert row is not None
        check = Check(name, title, *row)
        if check.wrong:
            found = conn.execute(
                f"SELECT wrong FROM ({query}) c WHERE wrong IS NOT NULL LIMIT %(listed)s", parameters
            )
            check.rows = [text for (text,) in found]
        yield check


def write_checkpoints(conn: psycopg.Connection) -> int:
    """Records up to where each wallet is proved, as the snapshot that proved it has it; returns how many moved on."""
    return conn.execute(load("ledger", "audit_checkpoint")).rowcount
