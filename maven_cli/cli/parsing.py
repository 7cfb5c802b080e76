"""What our commands and groups have otherwise than Typer's: their --help, and where a usage error points to."""

from __future__ import annotations

from typing import Any

from typer._click.exceptions import UsageError
from typer.core import TyperCommand, TyperGroup, TyperOption


def name_values(options: Any) -> None:
    """What --help shows that an option takes: nothing for a flag, N for a number; what the option says itself stays."""
    for option in options:
        if isinstance(option, TyperOption) and option.metavar is None:
            if option.is_flag:
                option.metavar = ""
            elif option.type_descriptor.annotation is int:
                option.metavar = "N"


class Command(TyperCommand):
    """A command."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        name_values(self.get_params(ctx))
        super().format_help(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            # The parser doesn't say whose option lacks its value.
            if error.ctx is None:
                error.ctx = ctx
            raise


class Group(TyperGroup):
    """A group of commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        name_values(self.get_params(ctx))
        super().format_help(ctx, formatter)
