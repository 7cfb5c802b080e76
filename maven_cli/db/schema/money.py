"""Money: wallets, their locks and their ledger; orders, and what the engine was asked about them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)

from maven_cli.db.schema.base import Amount, Instant, metadata, now

wallets = Table(
    "wallets",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("asset_id", ForeignKey("assets.id"), nullable=False),
    Column("available", Amount, nullable=False, server_default="0"),
    Column("locked", Amount, nullable=False, server_default="0"),
    Column("seq", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("user_id", "asset_id"),
    CheckConstraint("available >= 0 AND available <> 'NaN'", name="available"),
    CheckConstraint("locked >= 0 AND locked <> 'NaN'", name="locked"),
    postgresql_with={"fillfactor": 80},
)

locks = Table(
    "locks",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("wallet_id", ForeignKey("wallets.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("amount", Amount, nullable=False),
    Column("remaining", Amount, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=now),
    Column("ended_at", Instant),
    UniqueConstraint("kind", "reference"),
    CheckConstraint("amount > 0 AND amount <> 'NaN'", name="amount"),
    CheckConstraint("remaining >= 0 AND remaining <= amount", name="remaining"),
    CheckConstraint("ended_at IS NULL OR remaining = 0", name="ended"),
    Index("ix_locks_wallet_id", "wallet_id", postgresql_where=text("ended_at IS NULL")),
    postgresql_with={"fillfactor": 80},
)

ledger_entries = Table(
    "ledger_entries",
    metadata,
    Column("wallet_id", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("available_delta", Amount, nullable=False),
    Column("locked_delta", Amount, nullable=False),
    Column("available_after", Amount, nullable=False),
    Column("locked_after", Amount, nullable=False),
    Column("lock_id", BigInteger),
    Column("created_at", Instant, nullable=False, server_default=now),
    Column("digest", LargeBinary, nullable=False),
    PrimaryKeyConstraint("wallet_id", "seq"),
    UniqueConstraint("kind", "reference"),
    CheckConstraint("seq > 0", name="seq"),
    CheckConstraint("available_after >= 0 AND locked_after >= 0", name="balance"),
    CheckConstraint("available_delta <> 0 OR locked_delta <> 0", name="delta"),
    Index("ix_ledger_entries_lock_id", "lock_id", postgresql_where=text("lock_id IS NOT NULL")),
)

ledger_state = Table(
    "ledger_state",
    metadata,
    Column("id", Boolean, primary_key=True, server_default=text("true")),
    Column("mode", Text, nullable=False),
    Column("changed_at", Instant, nullable=False, server_default=now),
    Column("changed_by", Text, nullable=False),
    CheckConstraint("id", name="one_row"),
    CheckConstraint("mode IN ('enforced', 'observed')", name="mode"),
)

ledger_adjustments = Table(
    "ledger_adjustments",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("wallet_id", ForeignKey("wallets.id"), nullable=False),
    Column("amount", Amount, nullable=False),
    Column("reason", Text, nullable=False),
    Column("proposed_by", Text, nullable=False),
    Column("proposed_at", Instant, nullable=False, server_default=now),
    Column("state", Text, nullable=False, server_default="PROPOSED"),
    Column("decided_by", Text),
    Column("decided_at", Instant),
    Column("rejection", Text),
    Column("digest", LargeBinary, nullable=False),
    CheckConstraint("amount <> 0 AND amount <> 'NaN'", name="amount"),
    CheckConstraint("btrim(reason) <> ''", name="reason"),
    CheckConstraint("state IN ('PROPOSED', 'APPROVED', 'REJECTED')", name="state"),
    CheckConstraint(
        "(state = 'PROPOSED') = (decided_by IS NULL) AND (decided_by IS NULL) = (decided_at IS NULL)",
        name="decided",
    ),
    CheckConstraint(
        "(state = 'REJECTED') = (rejection IS NOT NULL) AND btrim(rejection) <> ''", name="rejection"
    ),
    CheckConstraint(
        "btrim(proposed_by) <> '' AND btrim(decided_by) <> ''"
        " AND (state <> 'APPROVED' OR lower(btrim(decided_by)) <> lower(btrim(proposed_by)))",
        name="two_people",
    ),
)

ledger_checkpoints = Table(
    "ledger_checkpoints",
    metadata,
    Column("wallet_id", ForeignKey("wallets.id"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("available", Amount, nullable=False),
    Column("locked", Amount, nullable=False),
    Column("made_at", Instant, nullable=False, server_default=now),
)

orders = Table(
    "orders",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("user_id", BigInteger, nullable=False),
    Column("trading_pair_id", ForeignKey("trading_pairs.id"), nullable=False),
    Column("side", Text, nullable=False),
    Column("type", Text, nullable=False, server_default="limit"),
    Column("status", Text, nullable=False, server_default="OPEN"),
    Column("price", Amount),
    Column("stop_price", Amount),
    Column("triggered_at", Instant),
    Column("quantity", Amount),
    Column("filled_quantity", Amount, nullable=False, server_default="0"),
    Column("quote_quantity", Amount),
    Column("filled_quote_quantity", Amount, nullable=False, server_default="0"),
    Column(
        "remaining_quantity",
        Amount,
        Computed(
            "coalesce(quantity - filled_quantity, quote_quantity - filled_quote_quantity)", persisted=True
        ),
    ),
    Column("fee_asset_id", ForeignKey("assets.id")),
    Column("fee_reserve", Amount, nullable=False, server_default="0"),
    Column("fee_paid", Amount, nullable=False, server_default="0"),
    Column("lock_id", ForeignKey("locks.id")),
    Column("expires_at", Instant),
    Column("created_at", Instant, nullable=False, server_default=now),
    Column("updated_at", Instant, nullable=False, server_default=now),
    CheckConstraint("side IN ('buy', 'sell')", name="side"),
    CheckConstraint("type IN ('limit', 'market', 'stop_limit', 'stop_market')", name="type"),
    CheckConstraint(
        "status IN ('OPEN', 'PARTIALLY_FILLED', 'FILLED', 'CANCELED', 'EXPIRED', 'REJECTED')", name="status"
    ),
    CheckConstraint("quantity IS NOT NULL OR quote_quantity IS NOT NULL", name="amount"),
    Index(
        "ix_orders_expiring",
        "expires_at",
        "id",
        postgresql_where=text("status IN ('OPEN', 'PARTIALLY_FILLED')"),
    ),
    Index("ix_orders_lock_id", "lock_id", postgresql_where=text("lock_id IS NOT NULL")),
    Index("ix_orders_user_id", "user_id"),
    postgresql_with={"fillfactor": 80},
)

engine_removals = Table(
    "engine_removals",
    metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("request_key", Text, nullable=False, unique=True),
    Column("requested_at", Instant, nullable=False, server_default=now),
    Column("engine_remaining", Amount),
    Column("engine_seq", Text),
    Column("answered_at", Instant),
    Column("not_found_at", Instant),
    Column("failed_at", Instant),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("last_error", Text),
    Column("settled_at", Instant),
    CheckConstraint("(answered_at IS NULL) = (engine_remaining IS NULL)", name="answer"),
    Index("ix_engine_removals_open", "requested_at", "order_id", postgresql_where=text("settled_at IS NULL")),
)

rejected_trades = Table(
    "rejected_trades",
    metadata,
    Column("trading_pair_id", ForeignKey("trading_pairs.id"), nullable=False),
    Column("trade_id", BigInteger, nullable=False),
    Column("executed_at", Instant, nullable=False),
    Column("price", Amount, nullable=False),
    Column("quantity", Amount, nullable=False),
    Column("buy_order_id", BigInteger),
    Column("sell_order_id", BigInteger),
    Column("reason", Text, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=now),
    PrimaryKeyConstraint("trading_pair_id", "trade_id"),
)
