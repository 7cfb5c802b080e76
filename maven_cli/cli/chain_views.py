"""Chains as text: what `maven chains test` and `rescan` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from maven_cli.cli.deposit_views import rows, text
from maven_cli.cli.output import Column, table
from maven_cli.cli.render import Field, print_table
from maven_cli.numbers import plain
from maven_cli.times import format_duration, iso

if TYPE_CHECKING:
    from rich.console import Console

    from maven_cli.passes.chains_check import Checked


def checked(out: Console, found: Sequence[Checked]) -> None:
    """A line for each endpoint; what is wrong with one stands last."""
    if not found:
        out.print("there are no chains yet: maven chains add FILE")
        return

    def column(name: str, title: str, rank: int, *, right: bool = True) -> Field[Checked]:
        def cell(one: Checked) -> str:
            value = getattr(one, name)
            return (
                "-"
                if value is None
                else ("yes" if value else "no")
                if isinstance(value, bool)
                else str(value)
            )

        return Field(name, title, rank, cell, cell, right=right)

    def latency(one: Checked) -> str:
        return "-" if one.latency is None else format_duration(one.latency)

    def outcome(one: Checked) -> str:
        return "failed" if one.code else "ok"

    fields: list[Field[Checked]] = [
        column("chain", "CHAIN", 0, right=False),
        column("endpoint", "ENDPOINT", 0, right=False),
        Field("outcome", "", 0, outcome, outcome, right=False),
        column("identity", "IDENTITY", 5, right=False),
        column("head", "HEAD", 1),
        Field("head_at", "", 0, lambda one: "-" if one.head_at is None else iso(one.head_at), None),
        column("lag", "LAG", 1),
        column("safe", "SAFE", 4),
        column("finalized", "FINALIZED", 3),
        column("reads", "READS", 2, right=False),
        column("batches", "BATCHES", 4, right=False),
        Field("latency", "LATENCY", 2, latency, latency),
        column("circuit", "CIRCUIT", 3, right=False),
    ]
    if any(one.error for one in found):
        fields.append(Field("error", "", 0, lambda one: one.error or "-", None, right=False))
    print_table(out, fields, found)
    if out.is_terminal:
        for one in found:
            if one.error:
                out.print(f"{one.chain}: {one.error}", markup=False)


def tokens(out: Console, found: Sequence[dict[str, Any]]) -> None:
    if not found:
        out.print("there are no tokens yet: maven chains add FILE")
        return

    def minimum(row: dict[str, Any]) -> str:
        return plain(row["minimum"])

    fields: list[Field[dict[str, Any]]] = [
        text("chain", "CHAIN", 0),
        text("asset", "ASSET", 0),
        text("contract", "CONTRACT", 3),
        text("decimals", "DECIMALS", 1, right=True),
        Field("minimum", "MINIMUM", 1, minimum, minimum),
        text("confirmations", "CONFIRMATIONS", 2, right=True),
        text("state", "STATE", 0),
        text("reason", "REASON", 0),
    ]
    print_table(out, fields, found)


def rescan_data(data: Mapping[str, Any]) -> dict[str, Any]:
    """A rescan as a document."""
    if "changes" not in data:
        return dict(data)
    # An id that was rolled back means nothing.
    changes = asdict(data["changes"])
    for name in ("created", "moved", "orphaned"):
        changes[name] = rows(changes[name])
    for row in changes["created"]:
        row["id"] = None
    return {**data, "changes": changes}


def rescanned(out: Console, data: Mapping[str, Any]) -> None:
    if not data["dry_run"]:
        out.print(
            f"{data['chain']} was read up to block {data['cursor']}, and will be read again from block {data['from']} on; next: "
            f"maven deposits scan --chain {data['chain']}",
            markup=False,
        )
        return
    changes = data["changes"]
    columns = [
        Column("WOULD"), Column("ID", True), Column("USER", True), Column("AMOUNT", True), Column("ASSET"), Column("STATUS"),
        Column("BLOCK", True), Column("TX"),
    ]  # fmt: skip
    lines = [
        [
            effect,
            "-" if effect == "create" else str(row["id"]),
            str(row["user_id"]),
            plain(row["amount"]),
            row["asset"],
            row["status"],
            str(row["block_height"]),
            row["tx_hash"],
        ]
        for effect, found in (
            ("create", changes.created),
            ("move", changes.moved),
            ("orphan", changes.orphaned),
        )
        for row in found
    ]
    table(out, columns, lines, empty="no deposit would change")
    for summary in changes.incidents:
        out.print(f"would open an incident: {summary}", markup=False)
    if changes.unmatched:
        out.print(
            f"{changes.unmatched} transfers would be unmatched that weren't known: see maven deposits unmatched"
        )
    end = f"all of blocks {data['from']} to {data['read_to']} were read"
    if not data["complete"]:
        end = f"blocks {data['from']} to {data['read_to']} were read, as many as one scan does; {data['cursor'] - data['read_to']} are left"
    out.print(f"nothing was written; {end}")
