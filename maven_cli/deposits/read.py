"""What there is to see of chains and deposits, for the commands that only look."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from maven_cli.db.queries import load


def chains(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """Every chain with its progress and what is configured for it, by name."""
    return conn.cursor(row_factory=dict_row).execute(load("deposits", "chains_list")).fetchall()
