"""Named SQL: each statement of a pass is a file that says what it does; Python only names it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

# Not importlib.resources: a pass starts every five seconds, and that import alone costs as much as its SQL.
_ROOT = Path(__file__).parent.parent


@cache
def load(domain: str, name: str, **parts: str) -> str:
    """The text of ``maven_cli/<domain>/sql/<name>.sql``.

    `parts` replace ``{name}`` placeholders: expressions of ours, such as an interval's window function. Values never
    travel this way; they are parameters.
    """
    text = (_ROOT / domain / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    for key, value in parts.items():
        text = text.replace("{" + key + "}", value)
    return text
