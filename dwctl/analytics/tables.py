"""Mapped classes of the request log and of what it adds to the sums. Rows are written by named statements only (`queries.sql`)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    Numeric,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, Sum


class CallLog(Base):
    """One call on an inference route, whatever its outcome. `timestamp` is its arrival.

    Bodies stand on the tracking row; here are those of calls that have none. `bodies` says why they are not shown (null: they are).
    """

    __tablename__ = "http_analytics"

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[int] = mapped_column(BigInteger, Identity())
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))
    method: Mapped[str] = mapped_column(Text)
    uri: Mapped[str] = mapped_column(Text)
    model: Mapped[str | None] = mapped_column(Text)
    status_code: Mapped[int] = mapped_column(Integer)
    duration_ms: Mapped[int] = mapped_column(BigInteger)
    duration_to_first_byte_ms: Mapped[int | None] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    completion_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    cached_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    total_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    usage_source: Mapped[str] = mapped_column(Text, server_default="none")
    response_type: Mapped[str] = mapped_column(Text, server_default="other")
    user_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    access_source: Mapped[str] = mapped_column(Text, server_default="unauthenticated")
    input_price_per_token: Mapped[Decimal | None]
    output_price_per_token: Mapped[Decimal | None]
    total_cost: Mapped[Decimal | None]
    fusillade_batch_id: Mapped[UUID | None]
    fusillade_request_id: Mapped[UUID | None]
    custom_id: Mapped[str | None] = mapped_column(Text)
    request_origin: Mapped[str] = mapped_column(Text, server_default="api")
    batch_sla: Mapped[str] = mapped_column(Text, server_default="")
    batch_request_source: Mapped[str] = mapped_column(Text, server_default="")
    served_by: Mapped[str | None] = mapped_column(Text)
    error_code: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    trace_id: Mapped[str | None] = mapped_column(Text)
    cached_input_price_per_token: Mapped[Decimal | None]
    reasoning_price_per_token: Mapped[Decimal | None]
    tariff_id: Mapped[UUID | None]
    provider_cost: Mapped[Decimal | None]
    finish_reason: Mapped[str | None] = mapped_column(Text)
    user_agent: Mapped[str | None] = mapped_column(Text)
    bodies: Mapped[str | None] = mapped_column(Text)
    request_headers: Mapped[str | None] = mapped_column(Text)
    response_headers: Mapped[str | None] = mapped_column(Text)
    request_body: Mapped[str | None] = mapped_column(Text)
    response_body: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("http_analytics_timestamp_idx", "timestamp", "request_id"),
        Index(
            "http_analytics_user_id_idx",
            "user_id",
            "timestamp",
            "request_id",
            postgresql_where=text("user_id IS NOT NULL"),
        ),
        Index(
            "http_analytics_created_at_idx",
            "created_at",
            postgresql_using="brin",
            postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
        ),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )


usage_deltas = Table(
    "usage_deltas",
    Base.metadata,
    Column("at", DateTime(timezone=True), nullable=False),
    Column("model", Text, nullable=False),
    Column("user_id", Uuid, nullable=False),
    Column("api_key_id", Uuid, nullable=False),
    Column("status_code", Integer, nullable=False),
    *(
        Column(name, BigInteger, nullable=False)
        for name in (
            "calls",
            "prompt_tokens",
            "completion_tokens",
            "reasoning_tokens",
            "cached_tokens",
            "total_tokens",
        )
    ),
    Column("cost", Numeric(24, 15), nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("ttfb_ms", BigInteger),
    CheckConstraint("calls <> 0", name="calls"),
    CheckConstraint("octet_length(model) <= 2048", name="model"),
)
"""What each call adds to the sums of the room `usage`, until it has been added there. A heap without key or index: every call writes to it.

`user_id`, `api_key_id` nil: nobody, no key; `model` empty: no model, or a name that none has. `calls` is 1, or -1 for what is taken back.
"""


class FormerRollup(Base):
    """Sums by ten minutes as the release before migration 0029 keeps them; a duty of the room `usage` makes deltas of them."""

    __tablename__ = "usage_rollups"

    bucket: Mapped[datetime] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    succeeded: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    duration_ms: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Decimal]
    last_at: Mapped[datetime]

    __table_args__ = (
        Index("usage_rollups_model_bucket_idx", "model", "bucket"),
        {"postgresql_with": {"fillfactor": "50"}},
    )


class BatchUsage(Base):
    """Sums over a batch's successful calls, one delta a group of records: they outlive the log. `timed` counts those with a first byte."""

    __tablename__ = "batch_usage"

    batch_id: Mapped[UUID] = mapped_column(primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    total_tokens: Mapped[int] = mapped_column(BigInteger)
    duration_ms: Mapped[int] = mapped_column(BigInteger)
    ttfb_ms: Mapped[int] = mapped_column(BigInteger)
    timed: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Sum]
    cached_tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)
