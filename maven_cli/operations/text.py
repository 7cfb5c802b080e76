"""What the rows of this room have in common: texts that a table and a log line can hold, and times in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from maven_cli.db.connection import redact
from maven_cli.errors import MavenError
from maven_cli.numbers import plain
from maven_cli.times import iso

LONGEST = 500  # characters of a stored text
_READ = 20_000  # characters looked at: an engine's answer may be a whole page of HTML


def one_line(text: str) -> str:
    """The text as one line of at most LONGEST characters, without secrets and without what PostgreSQL can't store."""
    # Redacted before it is cut: half a URL would no longer look like one that has a password.
    known = redact(text[:_READ])
    line = " ".join("".join(char if char.isprintable() else " " for char in known).split())
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def reason_of(error: BaseException) -> str:
    """An error as one line: ours by its message, any other by its class and message, as in run records."""
    return one_line(str(error) if isinstance(error, MavenError) else f"{type(error).__name__}: {error}")


def storable(value: object) -> object:
    """A value for a JSONB column: decimals and times as documents write them, texts without secrets."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return one_line(value)
        case Decimal():
            return plain(value)
        case datetime():
            return iso(value)
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {one_line(str(key)): storable(item) for key, item in value.items()}
        case list() | tuple():
            return [storable(item) for item in value]
        case _:
            raise TypeError(f"{type(value).__name__} has no place in an incident's details")


def in_utc(value: Any) -> Any:
    """A column's value; a time in UTC instead of the session's zone."""
    return value.astimezone(UTC) if isinstance(value, datetime) else value
