"""`maven every`: a pass again and again, from one warm process."""

from __future__ import annotations

import logging
import select
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module, util
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from maven_cli import loop
from maven_cli.cli.command import command, current, shared
from maven_cli.cli.options import option_parser
from maven_cli.cli.output import Result, document
from maven_cli.cli.parsing import Command
from maven_cli.errors import UsageError
from maven_cli.logs import WorkerLog, logger
from maven_cli.runner import ItemError
from maven_cli.settings import Settings
from maven_cli.times import format_duration, parse_duration

SHORTEST_STEP = timedelta(milliseconds=100)
EXAMPLE = "maven every 5s -- tickers update"
LOG = WorkerLog("maven every", "every")

_duration = option_parser(parse_duration)

app = typer.Typer(help="Run a pass again and again on the wall-clock grid.")


class EveryCommand(Command):
    """Insists on the ``--``: without it the pass's options would be read as ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = list(args)
        own = given[: given.index("--")] if "--" in given else given
        if not {"--help", "-h"} & set(own):
            if len(own) == len(given):
                raise UsageError(f"put the pass after --, as in: {EXAMPLE}")
            if len(own) + 1 == len(given):
                raise UsageError(f"name a pass after --, as in: {EXAMPLE}")
        rest = super().parse_args(ctx, args)
        if list(ctx.params["words"]) != given[len(own) + 1 :]:
            raise UsageError(f"only STEP and options go before --, as in: {EXAMPLE}")
        return rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", "STEP", "--", "COMMAND", "[ARGS]..."]


@command(app, "every", cls=EveryCommand)
def every(
    step: Annotated[timedelta, typer.Argument(parser=_duration, metavar="STEP", help="As in 5s, 1min.")],
    words: Annotated[list[str], typer.Argument(metavar="COMMAND", help="A pass, as in: tickers update")],
    length: Annotated[
        timedelta | None,
        typer.Option(
            "--for",
            parser=_duration,
            metavar="DURATION",
            help="Start no pass later than this. From 58s to 60s, for cron: to the end of this minute.",
        ),
    ] = None,
    phase: Annotated[
        timedelta | None,
        typer.Option(
            parser=_duration, metavar="DURATION", help="Shift the grid: 10s and 2s give :02, :12, …"
        ),
    ] = None,
    timeout: Annotated[
        timedelta | None,
        typer.Option(parser=_duration, metavar="DURATION", help="Stop a pass that takes longer, and go on."),
    ] = None,
) -> Result:
    """Run a pass at every STEP of the wall clock, until --for is over or a signal comes.

    A slot that comes while a pass runs is skipped. The exit code is the last one of a pass that was neither 0 nor 75.
    """
    from maven_cli.__main__ import run

    _check(step, length, phase, timeout)
    context = current()
    # What was said to `every` is meant for its passes.
    flags = {"json": context.json, "quiet": context.quiet, "verbose": _verbose(context.settings)}
    path = _check_pass(words, quiet=flags["quiet"], verbose=flags["verbose"])
    grid = loop.Grid(loop.nanoseconds(step), loop.nanoseconds(phase or timedelta(0)))
    world = loop.RealWorld()
    # Before anything that takes time: the window is that of the minute in which cron started us.
    window = loop.Window.of(world.now(), None if length is None else loop.nanoseconds(length))
    if context.settings.embedded:
        # This process's hold keeps the servers up between two passes.
        _ = context.services.database_url, context.services.redis_url
    _preload(path)
    shared.settings = context.settings
    loop.settle()
    line = [*words, *(f"--{name}" for name, given in flags.items() if given)]

    def one_pass(slot: int) -> loop.Ended:
        if context.json and _reader_gone():
            raise typer.Exit
        ended = loop.run_forked(lambda: run(line), slot, world, timeout.total_seconds() if timeout else None)
        _tell(" ".join(path), ended, timeout, as_json=context.json)
        return ended

    def skipped(count: int) -> None:
        LOG.debug("every.skipped", f"{count} slots went by while {' '.join(path)} ran", slots=count)

    with world.installed():
        code = loop.loop(grid, window, world, one_pass, skipped=skipped)
    # Each pass has printed its own document or lines; the loop has nothing to add.
    raise typer.Exit(code)


def _check(
    step: timedelta, length: timedelta | None, phase: timedelta | None, timeout: timedelta | None
) -> None:
    if step < SHORTEST_STEP:
        raise UsageError(f"STEP must be at least {format_duration(SHORTEST_STEP)}")
    if phase is not None and phase >= step:
        raise UsageError(f"--phase must be shorter than STEP ({format_duration(step)})")
    for name, value in (("--for", length), ("--timeout", timeout)):
        if value is not None and value <= timedelta(0):
            raise UsageError(f"{name} must be longer than 0s")


def _check_pass(words: Sequence[str], *, quiet: bool = False, verbose: bool = False) -> list[str]:
    """Parses the pass's command line without running it, and returns the command's names."""
    from maven_cli.cli.app import PASSES, root_command

    group: Any = root_command()
    context = group.make_context("maven", list(words))
    path: list[str] = []
    while isinstance(group, TyperGroup):
        rest = [*context._protected_args, *context.args]
        if not rest:
            raise UsageError(f"name a pass after --, as in: {EXAMPLE}")
        _, group, rest = group.resolve_command(context, rest)
        name = str(group.name)  # what an alias stands for
        path.append(name)
        if name == "every":
            raise UsageError("every can't run every; name a pass after --")
        if isinstance(group, TyperGroup) and not rest:
            choices = ", ".join(each.partition(" ")[2] for each in PASSES if each.startswith(f"{name} "))
            if not choices:
                raise UsageError(f"{name} has no pass; choose from {', '.join(PASSES)}")
            raise UsageError(f"name the pass after -- {' '.join(path)}; choose from {choices}")
        if not isinstance(group, TyperGroup) and " ".join(path) not in PASSES:
            raise UsageError(f"{' '.join(path)} is not a pass; choose from {', '.join(PASSES)}")
        context = group.make_context(name, rest, parent=context)
    if (quiet or context.params.get("quiet")) and (verbose or context.params.get("verbose")):
        raise UsageError("--quiet and --verbose exclude each other")
    return path


def _verbose(settings: Settings) -> bool:
    return logger.isEnabledFor(logging.DEBUG) and settings.log_level != "debug"


def _preload(path: Sequence[str]) -> None:
    """Imports what the command would import when it runs: maven_cli.passes.GROUP or GROUP_COMMAND."""
    for name in (path[0], "_".join(path)):
        module = f"maven_cli.passes.{name.replace('-', '_')}"
        if util.find_spec(module) is not None:
            import_module(module)


def _reader_gone() -> bool:
    """Whether nobody will read our documents any more: `maven every … --json | head`."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _tell(name: str, ended: loop.Ended, timeout: timedelta | None, *, as_json: bool) -> None:
    """Says what a pass that was killed, or never began, couldn't say itself."""
    if ended.timed_out and timeout is not None:
        LOG.error("every.timeout", f"{name} took longer than {format_duration(timeout)} and was stopped")
    if ended.killed_by is not None:
        message = f"{name} was ended by {signal.Signals(ended.killed_by).name}"
    elif ended.failure:
        message = f"{name}: {ended.failure}"
    else:
        return
    LOG.error("every.killed", message)
    if as_json:
        print(document(name, Result(None, None, [ItemError("", message)], "error", ended.code)), flush=True)
