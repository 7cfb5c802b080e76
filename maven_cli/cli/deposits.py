"""`maven deposits`: find them, follow them, credit them; and look at them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import Id, Ids, Reason, check_reason, option_parser, parse_id
from maven_cli.cli.output import Result
from maven_cli.cli.parsing import Group
from maven_cli.errors import UsageError
from maven_cli.times import parse_duration

if TYPE_CHECKING:
    from rich.console import Console

    from maven_cli.deposits.decisions import Decided

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    help="Deposits on every chain: found, followed to finality, credited once.",
)

Chains = Annotated[
    list[str] | None,
    typer.Option(
        "--chain", metavar="NAME", help="Only this chain; may be repeated. Default: all that are active."
    ),
]
OfChains = Annotated[
    list[str] | None, typer.Option("--chain", metavar="NAME", help="Only of this chain; may be repeated.")
]
Limit = Annotated[
    int, typer.Option("--limit", "-n", min=1, max=100_000, metavar="N", help="At most so many.")
]


@command(app, "scan")
def scan(chain: Chains = None) -> Result:
    """Find what arrived at the users' addresses, and what a reorganisation took back.

    Reads every active chain from where it was left to its head.
    """
    from maven_cli.passes import deposits_scan

    outcome = deposits_scan.scan(current().services, chains=chain or [])
    return from_outcome(outcome, outcome.data)


@command(app, "confirm")
def confirm(chain: Chains = None) -> Result:
    """Count confirmations, and verify against the chain what has enough of them."""
    from maven_cli.passes import deposits_confirm

    outcome = deposits_confirm.confirm(current().services, chains=chain or [])
    return from_outcome(outcome, outcome.data)


@command(app, "credit")
def credit(chain: Chains = None) -> Result:
    """Credit what is confirmed, exactly once. Asks no node.

    A deposit whose evidence is older than MAVEN_CREDIT_EVIDENCE_MAX_AGE is verified again first.
    """
    from maven_cli.passes import deposits_credit

    outcome = deposits_credit.credit(current().services, chains=chain or [])
    return from_outcome(outcome, outcome.data)


@command(app, "stats")
def stats() -> Result:
    """Count deposits by status, and warn of confirmed ones that wait to be credited. Asks no node."""
    from maven_cli.cli import deposit_views
    from maven_cli.passes import deposits_stats

    outcome = deposits_stats.stats(current().services)
    return from_outcome(outcome, outcome.data, lambda out: deposit_views.stats(out, outcome.data or {}))


@command(app, "stuck")
def stuck(
    older_than: Annotated[
        timedelta,
        typer.Option(
            "--older-than",
            parser=option_parser(parse_duration),
            metavar="DURATION",
            help="How long ago a deposit must have been seen first.",
        ),
    ] = "24h",  # type: ignore[assignment]  # Typer parses defaults, too
    limit: Limit = 100,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Exit 1 when a deposit is stuck or no endpoint of a chain answers."),
    ] = False,
) -> Result:
    """Show deposits that should have come further by now, why each hasn't, and what to do.

    Not those that are held: they wait for somebody's decision. A node is asked only where no pass has heard of one lately.
    """
    from maven_cli.cli import deposit_views
    from maven_cli.passes import deposits_stuck

    outcome = deposits_stuck.stuck(current().services, older_than=older_than, limit=limit)
    data = outcome.data or {}
    result = from_outcome(outcome, data, lambda out: deposit_views.stuck(out, data))
    if exit_code and (data["stuck"] or data["inactive"]):
        result.exit_code = 1
    return result


@command(app, "list")
def list_(
    status: Annotated[
        list[str] | None,
        typer.Option("--status", "-s", metavar="STATUS", help="Only in this status; may be repeated."),
    ] = None,
    chain: OfChains = None,
    user: Annotated[int | None, typer.Option("--user", metavar="ID", help="Only of this user.")] = None,
    limit: Limit = 100,
) -> Result:
    """Show deposits, the newest first."""
    from maven_cli.cli import deposit_views
    from maven_cli.db.connection import database_now, session
    from maven_cli.deposits import read

    statuses = [read.parse_status(one) for one in status] if status else None
    with session(current().services.database_url, "deposits list") as conn:
        rows = read.listed(
            conn, statuses=statuses, chains=read.chain_ids(conn, chain or []), user=user, limit=limit
        )
        now = database_now(conn)
    return Result(deposit_views.rows(rows), lambda out: deposit_views.listed(out, rows, now, limit))


@command(app, "show")
def show(number: Id) -> Result:
    """Show everything about one deposit."""
    from maven_cli.cli import deposit_views
    from maven_cli.db.connection import session
    from maven_cli.deposits import read

    with session(current().services.database_url, "deposits show") as conn:
        [row] = deposit_views.rows(read.named(conn, [number]))
    return Result(row, lambda out: deposit_views.one(out, row))


@command(app, "explain")
def explain(
    what: Annotated[
        str,
        typer.Argument(
            metavar="ID|TXID", help="A deposit's id, or a transaction's hash as its chain writes it."
        ),
    ],
    chain: Annotated[
        list[str] | None,
        typer.Option(
            "--chain",
            metavar="NAME",
            help="Look for the hash on this chain only; may be repeated. EVM chains write it alike.",
        ),
    ] = None,
    on_chain: Annotated[
        bool, typer.Option("--on-chain", help="Ask a node also about what the books know.")
    ] = False,
) -> Result:
    """Tell the whole story of a deposit: what happened, what it waits for, until when about, and what to do.

    A transaction that the books don't know is looked for on its chain, to say why it is no deposit.
    """
    from maven_cli.cli import deposit_views
    from maven_cli.passes import deposits_explain

    outcome = deposits_explain.explain(current().services, what, chains=chain or [], on_chain=on_chain)
    data = outcome.data or {}
    document = {
        **data,
        "deposits": deposit_views.rows(data["deposits"]),
        "unmatched": [{**row, "units": str(row["units"])} for row in data["unmatched"]],
    }
    return from_outcome(outcome, document, lambda out: deposit_views.explained(out, data))


@command(app, "unmatched")
def unmatched(chain: OfChains = None, limit: Limit = 100) -> Result:
    """Show what arrived at the users' addresses and is no deposit: tokens that aren't listed, the exchange's own transfers.

    Amounts are in base units, because nobody knows an unlisted token's decimals.
    """
    from maven_cli.cli import deposit_views
    from maven_cli.db.connection import database_now, session
    from maven_cli.deposits import read

    with session(current().services.database_url, "deposits unmatched") as conn:
        rows = read.unmatched(conn, chains=read.chain_ids(conn, chain or []), limit=limit)
        now = database_now(conn)
    data = [{**row, "units": str(row["units"])} for row in rows]
    return Result(data, lambda out: deposit_views.unmatched(out, rows, now, limit))


@command(app, "retry")
def retry(
    ids: Annotated[
        list[int] | None,
        typer.Argument(
            parser=option_parser(parse_id), metavar="[ID]...", help="FAILED ones; all of them, or none."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every FAILED one.")] = False,
    chain: Annotated[
        list[str] | None,
        typer.Option("--chain", metavar="NAME", help="With --all: only of this chain; may be repeated."),
    ] = None,
) -> Result:
    """Let the passes try failed deposits again, after the cause was mended: they are verified anew, then credited once."""
    from maven_cli.cli.operator import operator_name
    from maven_cli.db.connection import session
    from maven_cli.deposits import decisions, read

    if bool(ids) == everything or (chain and not everything):
        raise UsageError("name either IDs, or --all, which may have --chain NAME")
    who = operator_name(current().settings)
    with session(current().services.database_url, "deposits retry") as conn, conn.transaction():
        numbers = ids or decisions.failed_ids(conn, read.chain_ids(conn, chain or []))
        decided = decisions.retry(conn, numbers, who) if numbers else []
    return _decided(decided, "no deposit has failed")


@command(app, "release")
def release(ids: Ids, reason: Reason) -> Result:
    """Let held deposits go: they are followed, and credited once they have their confirmations. All of those named, or none."""
    from maven_cli.cli.operator import operator_name
    from maven_cli.db.connection import session
    from maven_cli.deposits import decisions

    why = check_reason(reason)
    who = operator_name(current().settings)
    with session(current().services.database_url, "deposits release") as conn, conn.transaction():
        decided = decisions.release(conn, ids, who, why)
    return _decided(decided)


@command(app, "reject")
def reject(ids: Ids, reason: Reason) -> Result:
    """Turn deposits down for good that are held, have failed, or were taken back by their chain. All of those named, or none.

    A rejected deposit is never credited, also when its transaction is mined again.
    """
    from maven_cli.cli.operator import operator_name
    from maven_cli.db.connection import session
    from maven_cli.deposits import decisions

    why = check_reason(reason)
    who = operator_name(current().settings)
    with session(current().services.database_url, "deposits reject") as conn, conn.transaction():
        decided = decisions.reject(conn, ids, who, why)
    return _decided(decided)


def _decided(decided: list[Decided], empty: str = "") -> Result:
    def tell(out: Console) -> None:
        for one in decided:
            out.print(one.message, markup=False)
        if not decided:
            out.print(empty)

    return Result(decided, tell)
