"""`maven candles`: make them, check them, look at them."""

from __future__ import annotations

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import AsOf, DryRun, IntervalOption, Pairs
from maven_cli.cli.output import Result

app = typer.Typer(no_args_is_help=True, help="OHLCV candles of nine intervals, without gaps.")


@command(app, "gen")
def gen(interval: IntervalOption, pair: Pairs = None, as_of: AsOf = None, dry_run: DryRun = False) -> Result:
    """Close every window that has ended, correct what changed, and refresh Redis."""
    from maven_cli.passes import candles

    outcome = candles.generate(current().services, interval, pairs=pair or [], as_of=as_of, dry_run=dry_run)
    return from_outcome(outcome, outcome.data)
