"""Deposits as text: what the commands of `maven deposits` that look print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from maven_cli.cli.output import Column, facts, table
from maven_cli.cli.render import Field, print_table, short_age
from maven_cli.numbers import plain
from maven_cli.times import iso

if TYPE_CHECKING:
    from rich.console import Console

    from maven_cli.passes.deposits_stuck import Stuck

Row = dict[str, Any]
# What a row has for the commands' own use, or says twice.
_INTERNAL = ("chain_id", "total")


def rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Deposits as documents tell of them: base units as text, as they may be larger than what JSON readers take exactly."""
    return [
        {**{name: value for name, value in row.items() if name not in _INTERNAL}, "units": str(row["units"])}
        for row in found
    ]


def stats(out: Console, data: Mapping[str, Any]) -> None:
    """A line for each chain, a sum where there are several, and what is held for which reason."""
    if not data["chains"]:
        out.print("there are no chains yet: maven chains add FILE")
        return
    ranks = {
        "pending": 0,
        "confirming": 0,
        "confirmed": 0,
        "credited": 0,
        "held": 1,
        "failed": 1,
        "orphaned": 2,
        "rejected": 3,
    }
    lines = [*data["chains"], {**data, "chain": "all"}] if len(data["chains"]) > 1 else data["chains"]
    fields = [
        text("chain", "CHAIN", 0),
        *(text(name, name.upper(), rank, right=True) for name, rank in ranks.items()),
    ]
    print_table(out, fields, lines)
    for reason, number in sorted(data["held_reasons"].items(), key=lambda item: -item[1]):
        out.print(f"{number} held: {reason}", markup=False)


def stuck(out: Console, data: Mapping[str, Any]) -> None:
    """One deposit a line, and below it why it is stuck and what to do; in a pipe one line each."""
    from maven_cli.passes.deposits_stuck import hours

    found: list[Stuck] = data["stuck"]
    for chain in data["inactive"]:
        out.print(
            f"no endpoint of {chain.chain} answers: {chain.error}; see: maven chains test {chain.chain}",
            markup=False,
        )
    if not found:
        out.print(f"no deposit is stuck for >{hours(data['older_than'])}")
        return
    fields: list[Field[Stuck]] = [
        Field("id", "ID", 0, lambda one: str(one.id), lambda one: str(one.id)),
        Field("chain", "CHAIN", 1, lambda one: one.chain, lambda one: one.chain, right=False),
        Field("status", "STATUS", 0, lambda one: one.status, lambda one: one.status, right=False),
        Field(
            "confirmations",
            "CONFIRMATIONS",
            2,
            lambda one: f"{one.confirmations}/{one.required}",
            lambda one: f"{one.confirmations}/{one.required}",
        ),
        Field("age", "AGE", 0, lambda one: hours(one.age), lambda one: hours(one.age)),
        Field("amount", "AMOUNT", 2, lambda one: plain(one.amount), lambda one: plain(one.amount)),
        Field("asset", "ASSET", 2, lambda one: one.asset, lambda one: one.asset, right=False),
        Field("user", "USER", 3, lambda one: str(one.user_id), lambda one: str(one.user_id)),
        Field("tx_hash", "TX", 4, lambda one: one.tx_hash, lambda one: one.tx_hash, right=False),
        Field("cause", "CAUSE", 0, lambda one: one.cause, lambda one: one.cause, right=False),
        Field(
            "why",
            "",
            0,
            lambda one: one.why + (f"; next: {one.next}" if one.next else ""),
            None,
            right=False,
        ),
    ]
    print_table(out, fields, found)
    if out.is_terminal:
        for one in found:
            out.print(f"\n{one.id}: {one.why}", markup=False)
            if one.next:
                out.print(f"  next: {one.next}", markup=False)
    if data["total"] > len(found):
        out.print(f"and {data['total'] - len(found)} more; see --limit")


def listed(out: Console, found: Sequence[Row], now: datetime, limit: int) -> None:
    if not found:
        out.print("there is no such deposit")
        return
    fields: list[Field[Row]] = [
        text("id", "ID", 0, right=True),
        text("chain", "CHAIN", 1),
        text("status", "STATUS", 0),
        Field("confirmations", "CONFIRMATIONS", 3, _confirmations, _confirmations),
        Field("amount", "AMOUNT", 0, lambda row: plain(row["amount"]), lambda row: plain(row["amount"])),
        text("asset", "ASSET", 0),
        text("user_id", "USER", 2, right=True),
        Field(
            "first_seen_at",
            "AGE",
            2,
            lambda row: iso(row["first_seen_at"]),
            lambda row: short_age(now - row["first_seen_at"]),
        ),
        text("tx_hash", "TX", 4),
        text("reason", "REASON", 5),
    ]
    print_table(out, fields, found)
    if found[0]["total"] > limit:
        out.print(f"the newest {limit} of {found[0]['total']}; see --limit")


def one(out: Console, row: Row) -> None:
    """Every field, a line each."""
    lines: list[tuple[str, Any]] = []
    for name, value in row.items():
        if name == "evidence" and value:
            lines += [(f"evidence.{key}", item) for key, item in value.items()]
        elif name == "amount":
            lines.append((name, f"{plain(value)} {row['asset']}"))
        else:
            lines.append((name, value))
    facts(out, lines)


def explained(out: Console, data: Mapping[str, Any]) -> None:
    """Each deposit's story, then what stands in the way; then what isn't a deposit, and what the chain says."""
    for row in data["deposits"]:
        diagnosis = row["diagnosis"]
        out.print(
            f"Deposit {row['id']} of user {row['user_id']}: {plain(row['amount'])} {row['asset']} on {row['chain']}, {row['status']}, "
            f"{row['confirmations']} of {row['required']} confirmations",
            markup=False,
        )
        out.print(f"transaction {row['tx_hash']}, to {row['address'] or '-'}", markup=False)
        lines = [
            [iso(step["at"].replace(microsecond=0)), step["what"], step["detail"] or ""]
            for step in row["story"]
        ]
        table(out, [Column("WHEN"), Column("WHAT"), Column("")], lines, empty="")
        out.print(f"now: {diagnosis.why}", markup=False)
        if diagnosis.expected is not None:
            out.print(f"expected: about {iso(diagnosis.expected)}", markup=False)
        if diagnosis.next is not None:
            out.print(f"next: {diagnosis.next}", markup=False)
    for row in data["unmatched"]:
        what = "the chain's coin" if row["contract"] is None else f"token {row['contract']}"
        out.print(
            f"No deposit on {row['chain']}: {row['units']} base units of {what} to user {row['user_id']} in block "
            f"{row['block_height']}: {row['reason']}",
            markup=False,
        )
    for one in data["looked"]:
        out.print(f"On {one.chain}: {one.why}", markup=False)
        if one.next is not None:
            out.print(f"next: {one.next}", markup=False)


def unmatched(out: Console, found: Sequence[Row], now: datetime, limit: int) -> None:
    if not found:
        out.print("nothing arrived at the users' addresses that is no deposit")
        return
    fields: list[Field[Row]] = [
        text("chain", "CHAIN", 0),
        text("user_id", "USER", 0, right=True),
        Field("units", "UNITS", 0, lambda row: str(row["units"]), lambda row: str(row["units"])),
        Field(
            "contract",
            "TOKEN",
            1,
            lambda row: row["contract"] or "-",
            lambda row: row["contract"] or "the chain's coin",
            right=False,
        ),
        text("block_height", "BLOCK", 2, right=True),
        Field(
            "first_seen_at",
            "AGE",
            2,
            lambda row: iso(row["first_seen_at"]),
            lambda row: short_age(now - row["first_seen_at"]),
        ),
        text("tx_hash", "TX", 3),
        text("address", "ADDRESS", 4),
        text("reason", "REASON", 0),
    ]
    print_table(out, fields, found)
    if len(found) == limit:
        out.print(f"the newest {limit}; there may be more, see --limit")


def _confirmations(row: Row) -> str:
    return f"{row['confirmations']}/{row['required']}"


def text(name: str, title: str, rank: int, *, right: bool = False) -> Field[Row]:
    """A column that is the same on a terminal and in a pipe."""

    def cell(row: Row) -> str:
        return "-" if row[name] is None else str(row[name])

    return Field(name, title, rank, cell, cell, right=right)
