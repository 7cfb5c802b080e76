"""Deposits: chains, their endpoints and tokens, deposit addresses, how far each chain was read, deposits.

The statements stand in the .sql files beside this one, which belong to this revision and never change again.

Revision ID: 0004
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

HERE = Path(__file__).parent


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # As in 0001: the functions take this path over, and a temporary table can't stand in for ours.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    for name in ("0004_deposits", "0004_deposits_functions"):
        # As in 0002: neither text() nor parameters.
        op.get_bind().execution_options(no_parameters=True).exec_driver_sql(
            (HERE / f"{name}.sql").read_text(encoding="utf-8")
        )
