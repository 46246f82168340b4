"""Mapped classes of the request log and its roll-up. Rows are written by named statements only (`queries.sql`)."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Integer, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base


class CallLog(Base):
    """One call on an inference route, whatever its outcome. `timestamp` is its arrival; bodies stand on the tracking row."""

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

    __table_args__ = ({"postgresql_partition_by": "RANGE (timestamp)"},)


class UsageRollup(Base):
    """Sums of one account on one model within ten minutes; `user_id` nil: callers without an account. Reads never touch the log."""

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
    cost: Mapped[Decimal]

    __table_args__ = ({"postgresql_with": {"fillfactor": "50"}},)
