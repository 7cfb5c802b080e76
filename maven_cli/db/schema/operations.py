"""What keeps the workers honest: run records, events on their way out, dead letters, circuits, incidents."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from maven_cli.db.schema.base import Instant, metadata, now

worker_runs = Table(
    "worker_runs",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("worker", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("as_of", Instant),
    Column("started_at", Instant, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("counts", JSONB, nullable=False),
    Column("error", Text),
    CheckConstraint("outcome IN ('success', 'partial', 'error', 'skipped', 'stopped')", name="outcome"),
    Index("ix_worker_runs_worker_started", "worker", "started_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Text, nullable=False, unique=True),
    Column("type", Text, nullable=False),
    Column("aggregate", Text, nullable=False),
    Column("event", JSONB, nullable=False),
    Column("created_at", Instant, nullable=False, server_default=now),
    Column("delivered_at", Instant),
    Column("digest", LargeBinary, nullable=False),
    Index("ix_outbox_pending", "id", postgresql_where=text("delivered_at IS NULL")),
    Index("ix_outbox_delivered_at", "delivered_at", postgresql_where=text("delivered_at IS NOT NULL")),
    Index("ix_outbox_aggregate", "aggregate", "id"),
)

outbox_state = Table(
    "outbox_state",
    metadata,
    Column("id", Boolean, primary_key=True, server_default=text("true")),
    Column("pruned_until", Instant, nullable=False, server_default="-infinity"),
    CheckConstraint("id", name="one_row"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("worker", Text, nullable=False),
    Column("item", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="1"),
    Column("first_failed_at", Instant, nullable=False, server_default=now),
    Column("last_failed_at", Instant, nullable=False, server_default=now),
    Column("next_attempt_at", Instant, nullable=False),
    Column("state", Text, nullable=False, server_default="OPEN"),
    Column("closed_at", Instant),
    Column("closed_by", Text),
    Column("reason", Text),
    UniqueConstraint("worker", "item"),
    CheckConstraint("state IN ('OPEN', 'RESOLVED', 'DISCARDED')", name="state"),
    CheckConstraint("(state = 'OPEN') = (closed_at IS NULL)", name="closed"),
    Index("ix_dead_letters_state", "state", "worker"),
)

circuits = Table(
    "circuits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False, server_default="closed"),
    Column("failures", Integer, nullable=False, server_default="0"),
    Column("opened_at", Instant),
    Column("retry_at", Instant),
    Column("last_error", Text),
    Column("updated_at", Instant, nullable=False, server_default=now),
    CheckConstraint("state IN ('closed', 'open', 'half_open')", name="state"),
    CheckConstraint("(state = 'closed') = (retry_at IS NULL)", name="retry"),
)

incidents = Table(
    "incidents",
    metadata,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("item", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("details", JSONB, nullable=False, server_default="{}"),
    Column("opened_at", Instant, nullable=False, server_default=now),
    Column("last_seen_at", Instant, nullable=False, server_default=now),
    Column("resolved_at", Instant),
    Column("resolved_by", Text),
    Column("reason", Text),
    CheckConstraint(
        "(resolved_at IS NULL) = (resolved_by IS NULL) AND (resolved_at IS NULL) = (reason IS NULL)",
        name="resolved",
    ),
    Index("ix_incidents_open", "kind", "item", unique=True, postgresql_where=text("resolved_at IS NULL")),
)
