"""`maven` itself: which command groups there are, and where each is loaded from when it is used."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Annotated, Any

import typer

from maven_cli.cli.command import shared
from maven_cli.cli.parsing import Group

# name → module that defines `app`, and the line that `maven --help` shows. A group is imported when it is used, so
# that a pass doesn't pay for the other thirty commands at every start.
GROUPS: dict[str, tuple[str, str]] = {
    "tickers": ("maven_cli.cli.tickers", "Rolling 24 h statistics of every active pair."),
    "candles": ("maven_cli.cli.candles", "OHLCV candles of nine intervals, without gaps."),
    "trades": ("maven_cli.cli.trades", "Bring trades in."),
    "orders": ("maven_cli.cli.orders", "Orders past their end: expire them, look at them."),
    "deposits": (
        "maven_cli.cli.deposits",
        "Deposits on every chain: found, followed to finality, credited once.",
    ),
    "chains": ("maven_cli.cli.chains", "Chains, their nodes, tokens and deposit addresses."),
    "pairs": ("maven_cli.cli.pairs", "List, add, activate and halt trading pairs."),
    "dlq": ("maven_cli.cli.dlq", "Dead letters: items that failed; look at them, retry or discard them."),
    "circuits": (
        "maven_cli.cli.circuits",
        "What is left alone for a while because it failed again and again.",
    ),
    "incidents": ("maven_cli.cli.incidents", "What only a person can decide."),
    "events": ("maven_cli.cli.events", "Deliver events to Redis, look at them, send them again."),
    "ledger": ("maven_cli.cli.ledger", "Wallets and their ledger: look, adjust, say who checks."),
    "audit": ("maven_cli.cli.audit", "Prove the books: wallets, ledger, locks, orders, events, candles."),
    "db": ("maven_cli.cli.db", "Create and check maven's tables."),
    "every": ("maven_cli.cli.every", "Run a pass again and again on the wall-clock grid."),
    "demo": ("maven_cli.cli.demo", "A sample exchange on the embedded default, from trades to a chart."),
    "up": ("maven_cli.cli.servers", "Keep the embedded PostgreSQL and Valkey running in the foreground."),
    "down": ("maven_cli.cli.servers", "Stop the embedded PostgreSQL and Valkey."),
}
# What `maven every` may run: commands that end by themselves, and that nothing is lost without.
PASSES = (
    "tickers update",
    "candles gen",
    "candles backfill",
    "candles gaps",
    "candles verify",
    "orders expire",
    "deposits scan",
    "deposits confirm",
    "deposits credit",
    "deposits stats",
    "deposits stuck",
    "events relay",
    "audit",
)
# The platform's own spellings.
ALIASES = {
    "ticker": "tickers",
    "candle": "candles",
    "trade": "trades",
    "pair": "pairs",
    "order": "orders",
    "deposit": "deposits",
    "chain": "chains",
}


class LazyGroup(Group):
    """Imports a command group when it is named, and all of them only for --help."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = ALIASES.get(cmd_name, cmd_name)
        if name in self.commands:
            return self.commands[name]
        if name not in GROUPS:
            return None
        group = typer.main.get_group(import_module(GROUPS[name][0]).app)
        # A module whose app has a command of the very name is that command: `maven every`, not `maven every every`.
        found = group.commands.get(name, group)
        found.name = name
        found.short_help = GROUPS[name][1]
        self.commands[name] = found
        return found

    def list_commands(self, ctx: Any) -> list[str]:
        return list(GROUPS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # Typer suggests a close name from the commands that are loaded; ours aren't yet.
        if args and self.get_command(ctx, args[0]) is None:
            from difflib import get_close_matches

            close = get_close_matches(args[0], GROUPS, 1)
            hint = f"; did you mean {close[0]}?" if close else f"; choose from {', '.join(GROUPS)}"
            ctx.fail(f"no command {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="maven",
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
    help="The background workers of a crypto exchange: each command runs one idempotent pass.",
)


@cache
def root_command() -> Any:
    """The parser of `maven`. One for the process: a loop's passes share it, and the groups it has loaded."""
    return typer.main.get_command(app)


def _version(value: bool) -> None:
    if value:
        from maven_cli import __version__

        print(f"maven {__version__}")
        raise typer.Exit


@app.callback()
def root(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Every item on stderr.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    shared.quiet, shared.verbose, shared.json = quiet, verbose, json_
