"""Market data: assets, pairs, trades, and the candles made of them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from maven_cli.db.schema.base import Amount, Instant, PgSnapshot, Xid8, metadata, now
from maven_cli.intervals import INTERVALS

assets = Table(
    "assets",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("symbol", Text, nullable=False, unique=True),
    Column("created_at", Instant, nullable=False, server_default=now),
    CheckConstraint("symbol ~ '^[A-Z0-9][A-Z0-9._-]{0,19}$'", name="symbol"),
)

trading_pairs = Table(
    "trading_pairs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("symbol", Text, nullable=False, unique=True),
    Column("base_asset_id", ForeignKey("assets.id"), nullable=False),
    Column("quote_asset_id", ForeignKey("assets.id"), nullable=False),
    Column("status", Text, nullable=False, server_default="ACTIVE"),
    # Trades before this instant may be gone: nothing recomputes or verifies below it.
    Column("trades_retained_from", Instant),
    Column("created_at", Instant, nullable=False, server_default=now),
    CheckConstraint("status IN ('ACTIVE', 'HALTED')", name="status"),
    CheckConstraint("base_asset_id <> quote_asset_id", name="assets_differ"),
)

# A pair's trades are ordered by (executed_at, id): ids follow match order within a pair, and different pairs may
# use the same ids, as exchanges' public dumps do.
trades = Table(
    "trades",
    metadata,
    Column("trading_pair_id", ForeignKey("trading_pairs.id"), nullable=False),
    Column("id", BigInteger, Identity(), nullable=False),
    Column("executed_at", Instant, nullable=False),
    Column("price", Amount, nullable=False),
    Column("quantity", Amount, nullable=False),
    Column("side", Text),  # the taker's side
    Column("created_at", Instant, nullable=False, server_default=now),
    # The inserting transaction: how a pass finds what became visible since the last one, however late it committed.
    Column("xid", Xid8, nullable=False, server_default=text("pg_current_xact_id()")),
    # Which orders it filled; the settlement fence looks at them. Without either it is nobody's fill: an import.
    Column("buy_order_id", BigInteger),
    Column("sell_order_id", BigInteger),
    PrimaryKeyConstraint("trading_pair_id", "id"),
    # What every client's date type can hold, with room for windows around it.
    CheckConstraint("executed_at >= '1970-01-01Z' AND executed_at < '9999-01-01Z'", name="executed_at"),
    CheckConstraint("price > 0 AND price <> 'NaN'", name="price"),
    CheckConstraint("quantity > 0 AND quantity <> 'NaN'", name="quantity"),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    Index("ix_trades_pair_time", "trading_pair_id", "executed_at", "id"),
    Index("ix_trades_executed_at", "executed_at"),
    Index("ix_trades_xid", "xid"),
)

candles = Table(
    "candles",
    metadata,
    # No foreign key: it would be checked for every row of a backfill, and every pair that has candles has a row in
    # candle_progress, whose foreign key keeps the pair.
    Column("trading_pair_id", BigInteger, nullable=False),
    Column("interval", Text(collation="C"), nullable=False),
    Column("start_at", Instant, nullable=False),
    Column("open", Amount, nullable=False),
    Column("high", Amount, nullable=False),
    Column("low", Amount, nullable=False),
    Column("close", Amount, nullable=False),
    Column("base_volume", Numeric, nullable=False),
    Column("quote_volume", Numeric, nullable=False),
    Column("trade_count", BigInteger, nullable=False),
    Column("first_trade_id", BigInteger, nullable=False),
    Column("last_trade_id", BigInteger, nullable=False),
    # 0 when first closed; one more each time a closed candle really changed.
    Column("revision", Integer, nullable=False, server_default="0"),
    PrimaryKeyConstraint("trading_pair_id", "interval", "start_at"),
    CheckConstraint(f"interval IN ({', '.join(repr(name) for name in INTERVALS)})", name="interval"),
    Index("ix_candles_interval_start", "interval", "start_at"),
)

# Up to where a pair's candles are closed, in all nine intervals at once: a window is closed when it ends at or
# before this minute.
candle_progress = Table(
    "candle_progress",
    metadata,
    Column("trading_pair_id", ForeignKey("trading_pairs.id"), primary_key=True),
    Column("closed_until", Instant, nullable=False),
    # Every pass updates every row: room on the page keeps those updates heap-only.
    postgresql_with={"fillfactor": 50},
)

# Closed ranges that must be recomputed. Append-only, deleted by id: two marks on one range are two rows, so that
# a mark set while its range is being recomputed is never lost.
candle_marks = Table(
    "candle_marks",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("trading_pair_id", BigInteger, nullable=False),
    Column("from_at", Instant, nullable=False),
    Column("to_at", Instant, nullable=False),
    CheckConstraint("from_at < to_at", name="range"),
)

# One row: what the last ingest could see, and in which cluster. Transaction ids mean nothing in another cluster.
ingest_state = Table(
    "ingest_state",
    metadata,
    Column("id", Boolean, primary_key=True, server_default=text("true")),
    Column("snapshot", PgSnapshot, nullable=False),
    Column("system_identifier", BigInteger, nullable=False),
    Column("updated_at", Instant, nullable=False),
    CheckConstraint("id", name="one_row"),
)
