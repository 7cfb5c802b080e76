"""What the tables share: their metadata with its naming convention, and the column types that PostgreSQL alone has."""

from __future__ import annotations

from sqlalchemy import DateTime, MetaData, Numeric, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[int]):
    """PostgreSQL's 64-bit transaction id, which never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "xid8"


class PgSnapshot(UserDefinedType[str]):
    """Which transactions a statement could see."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        return "pg_snapshot"


# Reflection (`maven db check`) recognises them by these names.
ischema_names.update({"xid8": Xid8, "pg_snapshot": PgSnapshot})

Amount = Numeric(36, 18)
Instant = DateTime(timezone=True)
now = text("now()")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)
