"""Compares a database with the reference schema: what is missing or different, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from maven_cli.db.connection import connect
from maven_cli.db.revision import VERSION_TABLE
from maven_cli.db.schema import metadata

TRIGGERS = ("maven_trades_deleted", "maven_trades_updated", "maven_trades_truncated")


def differences(url: str) -> list[str]:
    """What the database lacks or has otherwise than the reference. Tables that aren't ours are nobody's business."""
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: connect(url, "db check"), poolclass=NullPool
    )
    try:
        with engine.connect() as connection:
            context = MigrationContext.configure(
                connection,
                opts={
                    "compare_type": True,
                    "version_table": VERSION_TABLE,
                    "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
                },
            )
            found = [_words(item) for item in compare_metadata(context, metadata)]
            enabled = set(
                connection.execute(
                    text(
                        "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('trades') AND tgenabled <> 'D'"
                    )
                ).scalars()
            )
            found += [
                f"trigger {name} on trades is missing or disabled" for name in TRIGGERS if name not in enabled
            ]
            return found
    finally:
        engine.dispose()


def _words(item: Any) -> str:
    """One of Alembic's difference tuples as a phrase, seen from the database."""
    if isinstance(item, list):
        return "; ".join(_words(part) for part in item)
    operation, *rest = item
    verb = {"add": "is missing", "remove": "is not in the reference", "modify": "differs"}[
        operation.partition("_")[0]
    ]
    return f"{operation.partition('_')[2]} {_name(rest)} {verb}"


def _name(parts: Sequence[Any]) -> str:
    names = []
    for part in parts:
        if isinstance(part, str):
            names.append(part)
        elif part is not None and getattr(part, "name", None):
            owner = getattr(part, "table", None)
            names.append(f"{owner.name}.{part.name}" if owner is not None else str(part.name))
    return ".".join(names[:2])
