"""The ledger with less work: checks by statement, locks that end at once, events that are sealed where they are written.

The statements stand in the .sql file beside this one, which belongs to this revision and never changes again.

Revision ID: 0003
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

HERE = Path(__file__).parent


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # As in 0001: the functions take this path over, and a temporary table can't stand in for ours.
    op.execute("SELECT set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)")
    # As in 0002: neither text() nor parameters.
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(
        (HERE / "0003_less_work.sql").read_text(encoding="utf-8")
    )
