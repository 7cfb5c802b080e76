"""`maven deposits`: find them, follow them, credit them; and look at them."""

from __future__ import annotations

from typing import Annotated

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.output import Result
from maven_cli.cli.parsing import Group

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
