"""docs/reference/ledger.md: every SQL example runs, in order, and gives what the page says."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from maven_cli.market.pairs import add_pair
from tests.integration.test_audit import wrong

PAGE = Path(__file__).resolve().parents[2] / "docs/reference/ledger.md"
FENCES = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of SQL and what the page shows below it, if anything. line: where it stands."""

    line: int
    statements: str
    shown: str | None


def examples(text: str) -> list[Example]:
    found: list[Example] = []
    for match in FENCES.finditer(text):
        if match[1] == "sql":
            found.append(Example(text.count("\n", 0, match.start()) + 1, match[2], None))
        else:
            assert match[1] == "text", f"a block of {match[1] or 'nothing'}"
            last = found.pop()
            assert last.shown is None, f"line {last.line} has two results"
            found.append(Example(last.line, last.statements, match[2]))
    return found


def cell(value: Any) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def run(conn: psycopg.Connection, statements: str) -> str:
    """What the last statement that returns rows gives, as the page writes it; or the error."""
    try:
        cursor = conn.execute(statements.encode())
    except psycopg.Error as error:
        return f"ERROR {error.sqlstate}\n"
    told = ""
    while True:
        if cursor.description:
            rows = [[column.name for column in cursor.description], *cursor.fetchall()]
            told = "".join(" | ".join(map(cell, row)) + "\n" for row in rows)
        if not cursor.nextset():
            return told


def test_every_example_gives_what_the_page_says(conn: psycopg.Connection) -> None:
    add_pair(conn, "BTC/USDT")
    blocks = examples(PAGE.read_text())
    assert len(blocks) > 20
    for example in blocks:
        # The tests' login can't make roles; this one has no rights here either, and the login may become it.
        told = run(conn, example.statements.replace("platform", "pg_monitor"))
        if example.shown is None:
            assert not told.startswith("ERROR"), f"line {example.line}: {told}"
        else:
            assert told == example.shown, f"line {example.line}"
    assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
    # And when all is done, the books are in order.
    assert wrong(conn) == []


def test_the_functions_of_the_page_have_the_arguments_that_it_names(conn: psycopg.Connection) -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| `(maven_\w+)\(([^`]*)\)` \|", text, re.MULTILINE)
    assert len(rows) == 8
    for name, arguments in rows:
        row = conn.execute("SELECT proargnames, pronargs FROM pg_proc WHERE proname = %s", [name]).fetchone()
        assert row is not None, name
        assert [part.split()[0] for part in arguments.split(", ")] == row[0][: row[1]], name


def test_every_state_of_the_functions_is_on_the_page() -> None:
    source = PAGE.parents[2] / "maven_cli/db/migrations/versions/0002_money_functions.sql"
    raised = set(re.findall(r"ERRCODE = '(\w+)'", source.read_text()))
    assert raised == set(re.findall(r"^\| (MV\w+) \|", PAGE.read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT 1 AS a, 2.50 AS b", "a | b\n1 | 2.50\n"),
        ("SELECT 1; SELECT 'x' AS c; SET search_path FROM CURRENT", "c\nx\n"),
        ("SELECT 1/0", "ERROR 22012\n"),
    ],
)
def test_results_are_written_as_on_the_page(conn: psycopg.Connection, text: str, expected: str) -> None:
    assert run(conn, text) == expected
