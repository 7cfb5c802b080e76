"""Compares a database with the reference schema: what is missing or different, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import (
    CheckConstraint,
    Connection,
    DefaultClause,
    Numeric,
    PrimaryKeyConstraint,
    create_engine,
    text,
)
from sqlalchemy.pool import NullPool

from maven_cli.db.connection import connect
from maven_cli.db.revision import VERSION_TABLE
from maven_cli.db.schema import metadata

TRIGGERS = {
    "maven_trades_deleted": "trades",
    "maven_trades_updated": "trades",
    "maven_trades_truncated": "trades",
    "maven_trades_fence": "trades",
    "maven_trades_fence_update": "trades",
    "maven_ledger_no_change": "ledger_entries",
    "maven_ledger_no_truncate": "ledger_entries",
    "maven_entries_match": "ledger_entries",
    "maven_wallets_match": "wallets",
    "maven_wallets_keep": "wallets",
    "maven_wallets_keep_id": "wallets",
    "maven_wallets_no_truncate": "wallets",
    "maven_locks_keep": "locks",
    "maven_locks_keep_id": "locks",
    "maven_locks_no_truncate": "locks",
    "maven_orders_changed": "orders",
    "maven_adjustments_guard": "ledger_adjustments",
    "maven_adjustments_no_truncate": "ledger_adjustments",
    "maven_outbox_sealed": "outbox",
    "maven_deposits_made": "deposits",
    "maven_deposits_changed": "deposits",
    "maven_deposits_guard": "deposits",
    "maven_deposits_no_delete": "deposits",
}


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
                    "compare_type": _other_type,
                    "version_table": VERSION_TABLE,
                    "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
                },
            )
            found = [_words(item) for item in compare_metadata(context, metadata)]
            found += _other_defaults(connection)
            there = set(
                connection.execute(text("SELECT conname FROM pg_constraint WHERE convalidated")).scalars()
            )
            found += [
                f"constraint {constraint.name} of {table.name} is missing or not valid"
                for table in metadata.sorted_tables
                for constraint in sorted(table.constraints, key=lambda item: str(item.name))
                if isinstance(constraint, CheckConstraint | PrimaryKeyConstraint)
                and constraint.name not in there
            ]
            enabled = set(
                connection.execute(
                    text(
                        "SELECT tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
                        " WHERE pg_table_is_visible(c.oid) AND tgenabled IN ('O', 'A')"
                    )
                ).scalars()
            )
            found += [
                f"trigger {name} on {table} is missing or disabled"
                for name, table in TRIGGERS.items()
                if name not in enabled
            ]
            return found
    finally:
        engine.dispose()


def _other_type(_: Any, __: Any, ___: Any, found: Any, wanted: Any) -> bool | None:
    """Alembic takes NUMERIC and NUMERIC(36,18) for the same; the latter rounds. None: Alembic's own comparison."""
    if isinstance(found, Numeric) and isinstance(wanted, Numeric):
        return (found.precision, found.scale) != (wanted.precision, wanted.scale)
    return None


def _other_defaults(connection: Connection) -> list[str]:
    """Columns whose default isn't the reference's. Alembic would stumble over our identity columns."""
    rows = connection.execute(
        text(
            "SELECT c.relname, a.attname, pg_get_expr(d.adbin, d.adrelid) FROM pg_attribute a"
            "  JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum"
            " WHERE pg_table_is_visible(c.oid) AND c.relname = ANY (:tables) AND a.attnum > 0 AND NOT a.attisdropped"
        ),
        {"tables": list(metadata.tables)},
    )
    found = {(table, column): default for table, column, default in rows}
    other = []
    for table in metadata.sorted_tables:
        for column in table.columns:
            if column.computed is not None:
                continue  # its expression is stored as if it were a default
            wanted = column.server_default.arg if isinstance(column.server_default, DefaultClause) else None
            default = found.get((table.name, column.name), "")
            # A column that isn't there is missing, not its default. A constant is stored with quotes and a cast.
            if default != "" and _bare(default) != _bare(None if wanted is None else str(wanted)):
                other.append(f"default of {table.name}.{column.name} differs: {default}")
    return other


def _bare(default: str | None) -> str | None:
    return default and default.partition("::")[0].strip("'")


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
    """``candles.revision``: of an object that knows its table, else of the table and column named."""
    names = []
    for part in parts:
        if isinstance(part, str):
            names.append(part)
        elif part is not None and getattr(part, "name", None):
            owner = getattr(part, "table", None)
            if owner is not None:
                return f"{owner.name}.{part.name}"
            names.append(str(part.name))
    return ".".join(names[:2])
