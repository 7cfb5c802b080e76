"""The example of the chains file's page is what it says."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import psycopg

from maven_cli.deposits import config
from maven_cli.deposits.config import Written, read_file, write

PAGE = Path(__file__).parent.parent.parent / "docs" / "reference" / "chains-file.md"


def test_the_documented_example_loads_and_changes_nothing_again(
    conn: psycopg.Connection, tmp_path: Path
) -> None:
    [example] = re.findall(r"^```toml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    path = tmp_path / "chains.toml"
    path.write_text(example)
    assert write(conn, read_file(path)) == Written(chains=3, endpoints=4, tokens=5, addresses=3, internal=1)
    assert write(conn, read_file(path)) == Written(0, 0, 0, 0, 0)
    chains = conn.execute(
        "SELECT name, identity, confirmations, finality, start_height FROM chains ORDER BY name"
    ).fetchall()
    assert chains == [
        (
            "bitcoin",
            "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
            6,
            "confirmations",
            None,
        ),
        ("ethereum", "1", 12, "finalized", 21_000_000),
        ("solana", "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d", 32, "finalized", None),
    ]
    minima = conn.execute("SELECT minimum FROM tokens WHERE minimum > 0 ORDER BY minimum").fetchall()
    assert minima == [(Decimal("0.0001"),), (Decimal("0.005"),), (Decimal(5),)]


def test_the_page_has_every_key() -> None:
    text = PAGE.read_text()
    for heading, keys in (
        ("chains", set(config._CHAIN) - {"endpoints", "tokens", "addresses", "internal"}),
        ("chains.endpoints", set(config._ENDPOINT)),
        ("chains.tokens", set(config._TOKEN)),
        ("chains.addresses", set(config._ADDRESS)),
        ("chains.internal", set(config._INTERNAL)),
    ):
        section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        cells = "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
        assert set(re.findall(r"`(\w+)`", cells)) == keys, heading
