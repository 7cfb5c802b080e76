"""The one renderer: a result becomes one JSON document, or text for a person or a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from maven_cli.numbers import plain
from maven_cli.runner import ItemError
from maven_cli.times import iso

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Result:
    """What a command found: `data` for --json, `text` for people (called with a console on stdout)."""

    data: Any
    text: Callable[[Console], None] | None = None
    errors: Sequence[ItemError] = ()
    status: str = "success"
    exit_code: int = 0


def jsonable(value: Any) -> Any:
    """Decimals as plain strings, times as ISO 8601 with Z, dataclasses by field."""
    match value:
        case None | bool() | int() | str():
            return value
        case Decimal():
            return plain(value)
        case datetime():
            return iso(value)
        case timedelta():
            return value.total_seconds()
        case dict():
            return {str(key): jsonable(item) for key, item in value.items()}
        case list() | tuple():
            return [jsonable(item) for item in value]
        case _ if is_dataclass(value):
            return {item.name: jsonable(getattr(value, item.name)) for item in fields(value)}
        case _:
            raise TypeError(f"{type(value).__name__} has no JSON form")


def document(command: str, result: Result) -> str:
    """The document that every command prints with --json."""
    return json.dumps(
        {
            "schema": 1,
            "command": command,
            "status": result.status,
            "exit_code": result.exit_code,
            "data": jsonable(result.data),
            "errors": [jsonable(error) for error in result.errors],
        },
        ensure_ascii=False,
    )


def console(*, stderr: bool = False) -> Console:
    """Colours and boxes on a terminal; plain, never cut, elsewhere."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
    # Rich cuts to 80 columns when there is no terminal; a pipe gets lines as long as they are.
    return Console(
        file=stream,
        force_terminal=terminal,
        no_color=True if not terminal or os.environ.get("NO_COLOR") else None,
        width=None if terminal else 10_000,
        highlight=False,
        soft_wrap=not terminal,
        legacy_windows=False,
    )


@dataclass(frozen=True)
class Column:
    """A table's column. Numbers align right."""

    title: str
    right: bool = False
    style: str = ""


def table(out: Console, columns: Sequence[Column], rows: Sequence[Sequence[str]], *, empty: str) -> None:
    """A table: drawn on a terminal, aligned text with two spaces between columns elsewhere."""
    if not rows:
        out.print(empty)
        return
    if not out.is_terminal:
        widths = [
            max(len(column.title), *(len(row[at]) for row in rows)) for at, column in enumerate(columns)
        ]
        for line in ([column.title for column in columns], *rows):
            cells = [
                text.rjust(width) if column.right else text.ljust(width)
                for text, width, column in zip(line, widths, columns, strict=True)
            ]
            print("  ".join(cells).rstrip(), file=out.file)
        return
    from rich import box
    from rich.table import Table

    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(
            column.title, justify="right" if column.right else "left", style=column.style, overflow="fold"
        )
    for row in rows:
        drawn.add_row(*row)
    out.print(drawn)


def facts(out: Console, found: Sequence[tuple[str, Any]]) -> None:
    """One thing, a line per name; what is unknown shows as ``-``."""
    width = max(len(name) for name, _ in found)
    for name, value in found:
        shown = "-" if value is None else iso(value) if isinstance(value, datetime) else str(value)
        out.print(f"{name.ljust(width)}  {shown}", markup=False)
