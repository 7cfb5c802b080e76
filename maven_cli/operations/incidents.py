"""Incidents: what maven must not decide by itself, and a person has to look at.

One open incident per kind and item, however often a pass sees it. Every function takes an open connection, and the
caller owns the transaction: opened inside the work transaction an incident appears together with what it is about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from maven_cli.db.queries import load
from maven_cli.operations.text import in_utc, one_line, storable

_NONE: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True)
class Incident:
    """One incident; open until `resolved_at`. `item` is what it is about, like ``order:123``."""

    id: int
    kind: str
    item: str
    summary: str
    details: dict[str, Any]
    opened_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None
    resolved_by: str | None
    reason: str | None


def open_incident(
    conn: psycopg.Connection,
    kind: str,
    item: str,
    summary: str,
    details: Mapping[str, object] = _NONE,
    *,
    unless_resolved: bool = False,
) -> bool:
    """Opens an incident and returns True; one that is open already gets the newer summary and details.

    unless_resolved: not where one with the same details was resolved. For an incident whose cause lasts on after somebody
    has looked at it: the details tell one state of the item from another.

    details: anything that JSON has a form for, and Decimal, datetime and timedelta besides. Raises TypeError for others.
    """
    row = conn.execute(
        load("operations", "incident_open"),
        {
            "kind": kind,
            "item": item,
            "summary": one_line(summary),
            "details": Jsonb(storable(details)),
            "unless_resolved": unless_resolved,
        },
    ).fetchone()
    return row == (True,)


def close(conn: psycopg.Connection, kinds: Sequence[str], items: Sequence[str], by: str, reason: str) -> int:
    """Resolves the open incidents of any of these kinds about any of these items; returns how many there were."""
    done = conn.execute(
        "UPDATE incidents SET resolved_at = statement_timestamp(), resolved_by = %s, reason = %s"
        " WHERE kind = ANY (%s) AND item = ANY (%s) AND resolved_at IS NULL",
        [one_line(by), one_line(reason), list(kinds), list(items)],
    )
    return done.rowcount


def resolve(conn: psycopg.Connection, number: int, *, by: str, reason: str) -> bool:
    """Resolves the incident with that id; False when it isn't open, or doesn't exist."""
    done = conn.execute(
        "UPDATE incidents SET resolved_at = statement_timestamp(), resolved_by = %s, reason = %s"
        " WHERE id = %s AND resolved_at IS NULL",
        [one_line(by), one_line(reason), number],
    )
    return done.rowcount == 1


def listed(conn: psycopg.Connection, *, kind: str | None = None, everything: bool = False) -> list[Incident]:
    """Open incidents, with `everything` also resolved ones, oldest first."""
    cursor = conn.cursor(row_factory=dict_row)
    cursor.execute(load("operations", "incidents_list"), {"kind": kind, "everything": everything})
    return [_incident(row) for row in cursor]


def find(conn: psycopg.Connection, number: int) -> Incident | None:
    """The incident with that id."""
    cursor = conn.cursor(row_factory=dict_row)
    row = cursor.execute("SELECT * FROM incidents WHERE id = %s", [number]).fetchone()
    return _incident(row) if row else None


def _incident(row: dict[str, Any]) -> Incident:
    return Incident(**{name: in_utc(value) for name, value in row.items()})
