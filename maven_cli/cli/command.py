"""How a function becomes a command: shared options in, one rendered result out, errors as exit codes."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from maven_cli.cli.output import Result, console, document
from maven_cli.cli.parsing import Command
from maven_cli.cli.services import LazyServices
from maven_cli.errors import UsageError
from maven_cli.logs import configure
from maven_cli.runner import Outcome
from maven_cli.settings import Settings, load_settings

JSON = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
QUIET = Annotated[bool, typer.Option("--quiet", "-q", help="Only errors on stderr.")]
VERBOSE = Annotated[bool, typer.Option("--verbose", "-v", help="Every item on stderr.")]

_SHARED = {
    "json_": inspect.Parameter("json_", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JSON),
    "quiet": inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=QUIET),
    "verbose": inspect.Parameter(
        "verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=VERBOSE
    ),
}


@dataclass
class Shared:
    """What `maven` itself was told, before the command's name; and which command that was, once it is known.

    settings: those of a loop, so that each of its passes needn't read the same environment again.
    """

    path: str = ""
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    settings: Settings | None = None


shared = Shared()
_context: ContextVar[Context] = ContextVar("command")


@dataclass(frozen=True)
class Context:
    """What a running command can use."""

    path: str
    settings: Settings
    services: LazyServices
    json: bool
    quiet: bool


def current() -> Context:
    """The context of the command that is running."""
    return _context.get()


def command(
    app: typer.Typer, name: str | None = None, **options: Any
) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Registers a function as a command of `app`: it gains --json, --quiet and --verbose, and its Result is printed."""

    def decorate(function: Callable[..., Result]) -> Callable[..., Result]:
        signature = inspect.signature(function, eval_str=True)

        @functools.wraps(function)
        def run(
            ctx: typer.Context, *args: Any, json_: bool, quiet: bool, verbose: bool, **kwargs: Any
        ) -> None:
            shared.path = path = ctx.command_path.partition(" ")[2]
            settings = shared.settings or load_settings()
            json_, quiet, verbose = json_ or shared.json, quiet or shared.quiet, verbose or shared.verbose
            if quiet and verbose:
                raise UsageError("--quiet and --verbose exclude each other")
            level = "error" if quiet else "debug" if verbose else settings.log_level
            configure(level, settings.log_format)
            context = Context(path, settings, LazyServices(settings, announce=not quiet), json_, quiet)
            token = _context.set(context)
            try:
                result = function(*args, **kwargs)
            finally:
                _context.reset(token)
            show(path, result, as_json=json_)
            raise typer.Exit(result.exit_code)

        parameters = [
            inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
            *signature.parameters.values(),
            *_SHARED.values(),
        ]
        parameters.sort(key=lambda parameter: parameter.kind)
        run.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        del run.__wrapped__
        app.command(name, **{"cls": Command, **options})(run)
        return function

    return decorate


def show(path: str, result: Result, *, as_json: bool) -> None:
    """Prints a result."""
    if as_json:
        print(document(path, result))
    elif result.text is not None:
        result.text(console())
    sys.stdout.flush()


def from_outcome(outcome: Outcome, data: Any, text: Callable[[Any], None] | None = None) -> Result:
    """A pass's outcome as a command's result."""
    return Result(
        data, text if outcome.data is not None else None, outcome.errors, outcome.status, outcome.exit_code
    )
