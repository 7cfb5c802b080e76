"""`maven chains`: which chains are watched, from where, and how far each was read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import Reason, check_reason
from maven_cli.cli.output import Column, Result, table
from maven_cli.cli.parsing import Group

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(cls=Group, no_args_is_help=True, help="Chains, their nodes, tokens and deposit addresses.")

Names = Annotated[list[str], typer.Argument(metavar="NAME...", help="As in: maven chains list")]


@command(app, "list")
def list_() -> Result:
    """Show every chain: its state, its newest block, and how far it was read."""
    from maven_cli.db.connection import session
    from maven_cli.deposits import read

    with session(current().services.database_url, "chains list") as conn:
        rows = read.chains(conn)
    return Result(rows, lambda out: _listed(out, rows))


def _listed(out: Console, rows: list[dict[str, Any]]) -> None:
    columns = [
        Column("CHAIN"),
        Column("STATE"),
        Column("HEAD", True),
        Column("READ", True),
        Column("FINAL", True),
        Column("CONFIRMATIONS", True),
        Column("ENDPOINTS", True),
        Column("TOKENS", True),
        Column("ADDRESSES", True),
        Column("REASON"),
    ]
    table(
        out,
        columns,
        [
            [
                row["name"],
                row["state"].lower(),
                *(
                    "-" if row[name] is None else str(row[name])
                    for name in ("head", "cursor", "final_cursor")
                ),
                str(row["confirmations"]),
                str(row["endpoints"]),
                str(row["tokens"]),
                str(row["addresses"]),
                row["state_reason"] or "",
            ]
            for row in rows
        ],
        empty="there are no chains yet: maven chains add FILE",
    )


@command(app, "add")
def add(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A TOML file; docs/reference/chains-file.md says how it is written."
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check the file, and write nothing.")] = False,
) -> Result:
    """Add chains, endpoints, tokens and addresses, or bring them in line with a file. All of it, or nothing."""
    from maven_cli.db.connection import session
    from maven_cli.deposits import config

    chains = config.read_file(file)
    with session(current().services.database_url, "chains add") as conn:
        written = config.write(conn, chains, dry_run=dry_run)

    def tell(out: Console) -> None:
        parts = ("chains", "endpoints", "tokens", "addresses", "internal")
        counts = ", ".join(f"{getattr(written, name)} {name}" for name in parts)
        out.print(f"{'Would write' if dry_run else 'Wrote'} {counts}", markup=False)

    return Result(written, tell)


@command(app, "pause")
def pause(
    names: Names,
    reason: Reason,
) -> Result:
    """Stop every pass on chains: nothing is scanned, confirmed or credited there until they are resumed."""
    return _set(names, "PAUSED", check_reason(reason))


@command(app, "resume")
def resume(names: Names) -> Result:
    """Let the passes go on with chains that were paused, or halted by a reorganisation that somebody has looked at."""
    return _set(names, "ACTIVE", None)


@command(app, "test")
def check_endpoints(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these chains. Default: all.")
    ] = None,
) -> Result:
    """Ask every endpoint what the passes need of it: which chain it is on, its newest and its final blocks, whole blocks.

    Exit 1 when some of them fail; when all fail for the same kind of reason, 69 (down) or 78 (configured wrongly). Circuits
    and progress don't change by it.
    """
    from maven_cli.cli import chain_views
    from maven_cli.passes import chains_check

    outcome = chains_check.check(current().services, chains=names or [])
    checked: list[chains_check.Checked] = (outcome.data or {})["endpoints"]
    codes = [one.code for one in checked]
    failed = [code for code in codes if code]
    result = Result(checked, lambda out: chain_views.checked(out, checked))
    if failed:
        result.exit_code = codes[0] if len(set(codes)) == 1 else 1
        result.status = "error" if len(failed) == len(codes) else "partial"
    return result


@command(app, "rescan")
def rescan(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As in: maven chains list")],
    first: Annotated[
        int, typer.Option("--from", min=0, metavar="N", help="The first block to be read again.")
    ],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Read the blocks now, at most as many as one scan does, and only say what would change.",
        ),
    ] = False,
) -> Result:
    """Have a chain read again from an earlier block on: by the next scans, or with --dry-run for a look.

    Deposits stay where they are until their blocks are read again; all evidence is void, so none is credited without being
    verified anew. A chain that was halted is active again, from a block that you have compared with another source.
    """
    from maven_cli.cli import chain_views
    from maven_cli.cli.operator import operator_name
    from maven_cli.passes import chains_rescan

    outcome = chains_rescan.rescan(
        current().services, name, first, operator=operator_name(current().settings), dry_run=dry_run
    )
    data = outcome.data or {}
    return from_outcome(outcome, chain_views.rescan_data(data), lambda out: chain_views.rescanned(out, data))


def _set(names: list[str], state: str, reason: str | None) -> Result:
    from maven_cli.cli.operator import operator_name
    from maven_cli.db.connection import session
    from maven_cli.deposits.chains import resolve_chains, set_state

    if reason is not None:
        reason = f"{reason} ({operator_name(current().settings)})"
    with session(current().services.database_url, f"chains {state.lower()}") as conn, conn.transaction():
        chains = sorted(resolve_chains(conn, names), key=lambda chain: chain.id)
        data = [
            {"name": chain.name, "state": state, "changed": set_state(conn, chain, state, reason)}
            for chain in chains
        ]

    def tell(out: Console) -> None:
        for row in data:
            out.print(
                f"{row['name']} {'is now' if row['changed'] else 'was already'} {state.lower()}", markup=False
            )

    return Result(data, tell)


@command(app, "tokens")
def tokens(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only of these chains. Default: of all.")
    ] = None,
) -> Result:
    """Show every token: its contract, decimals, minimum, confirmations, and whether it is active."""
    from maven_cli.cli import chain_views
    from maven_cli.db.connection import session
    from maven_cli.deposits import suspension
    from maven_cli.deposits.read import chain_ids

    with session(current().services.database_url, "chains tokens") as conn:
        rows = suspension.tokens(conn, chain_ids(conn, names or []))
    return Result(rows, lambda out: chain_views.tokens(out, rows))


Name = Annotated[str, typer.Argument(metavar="NAME", help="As in: maven chains list")]
TokenName = Annotated[
    str, typer.Option("--token", metavar="TOKEN", help="Its asset, or its contract where that isn't clear.")
]


@command(app, "suspend")
def suspend(name: Name, token: TokenName, reason: Reason) -> Result:
    """Leave one token alone: its new deposits are held, and those on their way aren't confirmed, until it is unsuspended."""
    from maven_cli.cli.operator import operator_name
    from maven_cli.db.connection import session
    from maven_cli.deposits import suspension
    from maven_cli.deposits.chains import resolve_chains

    why = f"{check_reason(reason)} ({operator_name(current().settings)})"
    with session(current().services.database_url, "chains suspend") as conn, conn.transaction():
        [chain] = resolve_chains(conn, [name])
        found = suspension.find_token(conn, chain, token)
        changed = suspension.suspend(conn, found["id"], why)
    message = f"{found['asset']} on {chain.name} " + (
        "is suspended" if changed else "was suspended already; the reason is the new one"
    )
    data = {**found, "state": "SUSPENDED", "reason": why, "changed": changed}
    return Result(data, lambda out: out.print(message, markup=False))


@command(app, "unsuspend")
def unsuspend(name: Name, token: TokenName) -> Result:
    """Let a token go on that was suspended, or that maven halted; deposits held for a suspension are followed again.

    What a halted token's deposits are worth is doubtful: the next scan asks the chain again, and they stay held until somebody
    releases them.
    """
    from maven_cli.cli.operator import operator_name
    from maven_cli.db.connection import session
    from maven_cli.deposits import suspension
    from maven_cli.deposits.chains import resolve_chains

    with session(current().services.database_url, "chains unsuspend") as conn, conn.transaction():
        [chain] = resolve_chains(conn, [name])
        found = suspension.find_token(conn, chain, token)
        changed, followed = suspension.unsuspend(conn, chain, found, operator_name(current().settings))
    message = f"{found['asset']} on {chain.name} "
    if not changed:
        message += "was active already"
    elif found["state"] == "HALTED":
        message += "is active; the next scan asks the chain again, and its held deposits wait to be released"
    else:
        message += f"is active; {followed} held deposits are followed now"
    data = {**found, "state": "ACTIVE", "reason": None, "changed": changed, "followed": followed}
    return Result(data, lambda out: out.print(message, markup=False))
