"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

import typer

from maven_cli.errors import UsageError
from maven_cli.intervals import Interval, parse_interval
from maven_cli.times import iso, parse_instant

T = TypeVar("T")


def option_parser(parse: Callable[[str], T]) -> Callable[[Any], Any]:
    """Makes a parser of text usable by Typer: its ValueError becomes a usage error."""

    def callback(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    callback.__name__ = parse.__name__.removeprefix("parse_")
    return callback


def parse_id(text: str) -> int:
    """The number of a row, as the lists show it. Raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or not 1 <= int(text) < 2**63:
        raise ValueError(f"{text[:40]!r} is not an id; write the number that the list shows")
    return int(text)


Pairs = Annotated[
    list[str] | None, typer.Option("--pair", "-p", metavar="SYMBOL", help="Only this pair; repeatable.")
]
AsOf = Annotated[
    datetime | None,
    typer.Option(
        "--as-of",
        parser=option_parser(parse_instant),
        metavar="TIME",
        help="Compute as of this instant (UTC).",
    ),
]
From = Annotated[
    datetime | None,
    typer.Option(
        "--from",
        parser=option_parser(parse_instant),
        metavar="TIME",
        help="Start of the range, inclusive (UTC).",
    ),
]
To = Annotated[
    datetime | None,
    typer.Option(
        "--to", parser=option_parser(parse_instant), metavar="TIME", help="End of the range, exclusive (UTC)."
    ),
]
IntervalOption = Annotated[
    Interval,
    typer.Option(
        "--interval",
        "-i",
        parser=option_parser(parse_interval),
        metavar="INTERVAL",
        help="1m 5m 15m 30m 1h 4h 1d 1w 1M.",
    ),
]
OneInterval = Annotated[
    Interval | None,
    typer.Option(
        "--interval",
        "-i",
        parser=option_parser(parse_interval),
        metavar="INTERVAL",
        help="Only this interval.",
    ),
]
Intervals = Annotated[
    list[Interval] | None,
    typer.Option(
        "--interval",
        "-i",
        parser=option_parser(parse_interval),
        metavar="INTERVAL",
        help="Only this interval; repeatable.",
    ),
]
Id = Annotated[
    int, typer.Argument(parser=option_parser(parse_id), metavar="ID", help="The number that the list shows.")
]
Ids = Annotated[
    list[int],
    typer.Argument(parser=option_parser(parse_id), metavar="ID...", help="The numbers that the list shows."),
]
Reason = Annotated[
    str,
    typer.Option(
        "--reason", metavar="TEXT", help="Why, for the record; who is MAVEN_OPERATOR or the login name."
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Run the real statements and roll them back; no lock, nothing written to Redis."
    ),
]


def check_range(start: datetime | None, end: datetime | None) -> None:
    """Raises UsageError unless --from lies before --to."""
    if start is not None and end is not None and start >= end:
        raise UsageError(f"--from {iso(start)} must be earlier than --to {iso(end)}")


def check_reason(text: str) -> str:
    """Why somebody decides something, without spaces around it. Raises UsageError when it says nothing."""
    reason = " ".join(text.split())
    if not reason:
        raise UsageError("--reason must say why")
    return reason
