"""The Redis stream as it is: its newest entries, and those that come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

import redis

from maven_cli.events.publish import explain

_CHUNK = 500
BEGINNING = "0-0"


@dataclass(frozen=True)
class Entry:
    """An entry of the stream. What isn't in one that others wrote is an empty text.

    id: Redis's own, not the event's. event: the CloudEvent; its text where that isn't JSON.
    """

    id: str
    event_id: str
    type: str
    aggregate: str
    event: Any


def newest(
    client: redis.Redis, stream: str, count: int, types: Sequence[str] | None = None
) -> tuple[list[Entry], str]:
    """The newest `count` entries of those types, oldest first, and the id to go on from with `following`.

    A stream that doesn't exist is an empty one. Raises redis.RedisError or ConfigurationError.
    """
    found: list[Entry] = []
    position, until = BEGINNING, "+"
    chunk = _CHUNK if types else max(1, min(count, _CHUNK))
    try:
        while True:
            raw = cast("list[Any]", client.xrevrange(stream, max=until, count=chunk))
            entries = [_entry(*item) for item in raw]
            if until == "+" and entries:
                position = entries[0].id
            found += [entry for entry in entries if types is None or entry.type in types]
            if len(found) >= count or not entries:
                return found[:count][::-1], position
            until = f"({entries[-1].id}"
    except redis.ResponseError as error:
        raise explain(error, stream) from None


def following(
    client: redis.Redis, stream: str, position: str, wait_ms: int, types: Sequence[str] | None = None
) -> tuple[list[Entry], str]:
    """Entries after a position, oldest first, and the new position; waits for the first one at most so long."""
    try:
        answer = cast("Any", client.xread({stream: position}, count=_CHUNK, block=wait_ms))
    except redis.ResponseError as error:
        raise explain(error, stream) from None
    pairs = answer.items() if isinstance(answer, dict) else answer or ()
    entries = [_entry(*item) for _, items in pairs for item in _flat(items)]
    return [entry for entry in entries if types is None or entry.type in types], (
        entries[-1].id if entries else position
    )


def _flat(items: Any) -> Any:
    """RESP3 answers wrap each stream's entries in one more list."""
    return items[0] if len(items) == 1 and isinstance(items[0], list) else items


def _entry(number: bytes, fields: dict[bytes, bytes] | None) -> Entry:
    def text(name: bytes) -> str:
        return (fields or {}).get(name, b"").decode(errors="replace")

    event: Any = text(b"event")
    with suppress(ValueError):
        event = json.loads(event, parse_float=Decimal, parse_constant=str)
    return Entry(number.decode(), text(b"id"), text(b"type"), text(b"aggregate"), event)
