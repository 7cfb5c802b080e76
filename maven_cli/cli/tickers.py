"""`maven tickers`: update them, and look at them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from maven_cli.cli.command import command, current, from_outcome
from maven_cli.cli.options import AsOf, DryRun, Pairs
from maven_cli.cli.output import Result

if TYPE_CHECKING:
    from maven_cli.market.tickers import Ticker

app = typer.Typer(no_args_is_help=True, help="Rolling 24 h statistics of every active pair.")


@command(app, "update")
def update(
    pair: Pairs = None,
    as_of: AsOf = None,
    concurrency: Annotated[
        int, typer.Option(min=1, max=32, help="Connections that share the batches of MAVEN_TICKER_BATCH.")
    ] = 1,
    dry_run: DryRun = False,
) -> Result:
    """Compute the last 24 hours of every active pair and write them to Redis.

    With --as-of or --dry-run the tickers are printed instead; Redis and the lock aren't touched.
    """
    from maven_cli.passes import tickers

    outcome = tickers.update(
        current().services, pairs=pair or [], as_of=as_of, dry_run=dry_run, concurrency=concurrency
    )
    if outcome.data is None:
        return from_outcome(outcome, None)
    found: list[Ticker] = outcome.data.pop("tickers")
    if as_of is None and not dry_run:
        return from_outcome(outcome, outcome.data)
    from maven_cli.cli.render import ticker_rows, ticker_table

    data = {**outcome.data, "tickers": ticker_rows(found)}
    return from_outcome(outcome, data, lambda out: ticker_table(out, data["tickers"]))
