"""`maven audit`: prove the books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from maven_cli.cli.command import command, current
from maven_cli.cli.output import Column, Result, table
from maven_cli.cli.parsing import Group

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(cls=Group, no_args_is_help=False, help="Prove the books.")


@command(app, "audit")
def audit(
    full: Annotated[
        bool,
        typer.Option("--full", help="From the first entry, not from the checkpoints; and every candle."),
    ] = False,
    checkpoint: Annotated[
        bool,
        typer.Option(
            "--checkpoint", help="When nothing is wrong, let later audits start from here: the only write."
        ),
    ] = False,
    sample: Annotated[
        int,
        typer.Option("--sample", min=0, max=100_000, metavar="N", help="How many minutes' candles to check."),
    ] = 20,
    limit: Annotated[
        int,
        typer.Option(
            "--limit", "-n", min=1, max=100_000, metavar="N", help="Wrong rows that each check names."
        ),
    ] = 20,
) -> Result:
    """Prove the books in one snapshot: wallets, ledger, locks, orders, events, candles. Exit 1 when a row is wrong."""
    from maven_cli.cli.progress import work_bar
    from maven_cli.passes.audit import audit as run

    with work_bar("Auditing", quiet=current().quiet or current().json) as bar:
        outcome = run(
            current().services,
            full=full,
            checkpoint=checkpoint,
            sample=sample,
            listed=limit,
            progress=bar,
        )
    data = outcome.data or {}
    wrong = bool(data["wrong"])
    return Result(
        data,
        lambda out: _tell(out, data, checkpoint),
        outcome.errors,
        status="partial" if wrong else "success",
        exit_code=1 if wrong else 0,
    )


def _tell(out: Console, data: dict[str, Any], checkpoint: bool) -> None:
    columns = [
        Column("CHECK"),
        Column("CHECKED", right=True),
        Column("WRONG", right=True),
        Column("UNPROVEN", right=True),
        Column("WHAT"),
    ]
    rows = [
        [check.name, str(check.checked), str(check.wrong), str(check.unproven), check.title]
        for check in data["checks"]
    ]
    table(out, columns, rows, empty="")
    for check in data["checks"]:
        for row in check.rows:
            out.print(f"{check.name}: {row}", markup=False)
        if check.wrong > len(check.rows):
            out.print(f"{check.name}: and {check.wrong - len(check.rows)} more", markup=False)
    if data["wrong"]:
        out.print(f"{data['wrong']} rows are wrong" + ("; no checkpoint was written" if checkpoint else ""))
    else:
        out.print(
            "nothing is wrong"
            + (f"; {data['checkpoints']} wallets have a new checkpoint" if checkpoint else "")
        )
