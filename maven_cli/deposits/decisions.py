"""What operators decide about deposits: try again, let go, turn down. All of those named, or none; each with who and why in
the deposit's history. Nothing is credited here: what is let go is followed and verified like any other.

Two who decide at once decide once: rows are locked in the order of their ids, and only what is still as it was is changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from maven_cli.deposits.read import named
from maven_cli.errors import UsageError
from maven_cli.operations.text import one_line

ON_ITS_WAY = ("PENDING", "CONFIRMING", "CONFIRMED")

# A deposit that is followed from where it stands, without evidence. What was counted stays counted.
_FOLLOW = (
    "UPDATE deposits SET status = CASE WHEN confirmations > 0 THEN 'CONFIRMING' ELSE 'PENDING' END, reason = NULL,"
    " verified_at = NULL, verified_epoch = NULL, evidence = NULL, confirmed_at = NULL, missing_since = NULL,"
    " released_by = coalesce(%(released_by)s, released_by), updated_at = now()"
    " WHERE id = ANY (%(ids)s) AND status = %(status)s RETURNING id"
)


@dataclass(frozen=True)
class Decided:
    """What became of one deposit. changed: False for one that was so already."""

    id: int
    status: str
    changed: bool
    message: str


def retry(conn: psycopg.Connection, ids: Sequence[int], operator: str) -> list[Decided]:
    """FAILED deposits are followed again: verified anew, then credited. Those that are on their way already are left alone.

    In a transaction of the caller's. Raises UsageError for any other, and then changes none.
    """
    rows = _locked(conn, ids)
    _refuse(rows, "retried", ("FAILED", *ON_ITS_WAY), "only a FAILED one can be")
    failed = [row["id"] for row in rows if row["status"] == "FAILED"]
    _follow(conn, failed, "FAILED", f"retried by {operator}")
    return _decided(conn, rows, failed, "is followed again", "is on its way already")


def failed_ids(conn: psycopg.Connection, chains: Sequence[int] | None) -> list[int]:
    """Every FAILED deposit, of these chains or of all."""
    rows = conn.execute(
        "SELECT id FROM deposits WHERE status = 'FAILED' AND (%(chains)s::bigint[] IS NULL OR chain_id = ANY (%(chains)s))"
        " ORDER BY id",
        {"chains": None if chains is None else list(chains)},
    )
    return [number for (number,) in rows]


def release(conn: psycopg.Connection, ids: Sequence[int], operator: str, reason: str) -> list[Decided]:
    """HELD deposits are followed: they need their confirmations like any other. One that was released already is left alone.

    In a transaction of the caller's. Raises UsageError for any other, for a token that isn't active, because its amounts may
    be wrong, and for coin that can't be spent yet; and then changes none.
    """
    rows = _locked(conn, ids)
    done = [row for row in rows if row["released_by"] and row["status"] in (*ON_ITS_WAY, "CREDITED")]
    held = [row for row in rows if row not in done]
    _refuse(held, "released", ("HELD",), "only a HELD one can be")
    for row in held:
        if row["token_state"] != "ACTIVE":
            raise UsageError(
                f"deposit {row['id']} can't be released while {row['asset']} on {row['chain']} is {row['token_state'].lower()}: "
                f"{row['token_reason']}; see: maven chains unsuspend. Nothing was changed"
            )
        if row["reason"] == "immature":
            raise UsageError(
                f"deposit {row['id']} is newly made coin that can't be spent yet; it is followed by itself as soon as it can. "
                "Nothing was changed"
            )
    let_go = [row["id"] for row in held]
    _follow(conn, let_go, "HELD", f"released by {operator}: {reason}", released_by=operator)
    return _decided(
        conn,
        rows,
        let_go,
        "is released; it is credited once it has its confirmations",
        "was released already",
    )


def reject(conn: psycopg.Connection, ids: Sequence[int], operator: str, reason: str) -> list[Decided]:
    """HELD, FAILED and ORPHANED deposits are turned down for good, also where their transaction is mined again. One that was
    rejected already is left alone.

    In a transaction of the caller's. Raises UsageError for any other, and then changes none.
    """
    rows = _locked(conn, ids)
    open_ = ("HELD", "FAILED", "ORPHANED")
    _refuse(rows, "rejected", (*open_, "REJECTED"), "only a HELD, FAILED or ORPHANED one can be")
    turned_down = [row["id"] for row in rows if row["status"] in open_]
    conn.execute(
        "UPDATE deposits SET status = 'REJECTED', reason = %s, updated_at = now() WHERE id = ANY (%s) AND status = ANY (%s)",
        [one_line(f"{reason} ({operator})"), turned_down, list(open_)],
    )
    return _decided(conn, rows, turned_down, "is rejected", "was rejected already")


def _locked(conn: psycopg.Connection, ids: Sequence[int]) -> list[dict[str, Any]]:
    """The deposits as they are under their locks, in the order in which they were named. Raises UsageError."""
    conn.execute("SELECT FROM deposits WHERE id = ANY (%s) ORDER BY id FOR NO KEY UPDATE", [sorted(set(ids))])
    return named(conn, ids)


def _refuse(rows: Sequence[dict[str, Any]], done: str, accepted: Sequence[str], rule: str) -> None:
    wrong = [f"deposit {row['id']} is {row['status']}" for row in rows if row["status"] not in accepted]
    if wrong:
        more = f" and {len(wrong) - 5} more are no better" if len(wrong) > 5 else ""
        raise UsageError(f"{', '.join(wrong[:5])}{more}: {rule} {done}. Nothing was changed")


def _follow(
    conn: psycopg.Connection, ids: Sequence[int], status: str, detail: str, *, released_by: str | None = None
) -> None:
    """Sends deposits on their way again, and notes in their history who did."""
    conn.execute(_FOLLOW, {"ids": list(ids), "status": status, "released_by": released_by})
    conn.execute(
        "INSERT INTO deposit_history (deposit_id, status, block_height, block_hash, detail)"
        " SELECT id, status, block_height, block_hash, %s FROM deposits WHERE id = ANY (%s) ORDER BY id",
        [one_line(detail), list(ids)],
    )


def _decided(
    conn: psycopg.Connection,
    before: Sequence[dict[str, Any]],
    changed: Sequence[int],
    done: str,
    already: str,
) -> list[Decided]:
    now = {row["id"]: row for row in named(conn, [row["id"] for row in before])}
    found = []
    for number, row in now.items():
        what = done if number in changed else already
        if number not in changed and row["status"] == "REJECTED":
            what = f"{already}: {row['reason']}"
        elif number not in changed and row["released_by"]:
            what = f"{what}, by {row['released_by']}"
        found.append(Decided(number, row["status"], number in changed, f"deposit {number} {what}"))
    return found
