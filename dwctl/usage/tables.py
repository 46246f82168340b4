"""Mapped classes of the sums. Rows are written by named statements only (`queries.sql`).

`grain` is the length of a bucket in seconds, 0 that of all time. Sums may be below zero for a moment: what is taken back can come before it.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, Sum

_WITH = {"postgresql_with": {"fillfactor": "70"}}


class RollupGrain(Base):
    """Since when the sums of a grain are kept, always a midnight; those of before are being deleted, and are not read."""

    __tablename__ = "rollup_grains"

    grain: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    since: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("grain IN (0, 60, 3600, 86400)", name="grain"),
        CheckConstraint("since = date_bin('1 day', since, 'epoch')", name="since"),
    )


class AccountRollup(Base):
    """Calls of one account by one key on one model with one status. Status 0: it failed before migration 0029, nobody knows with which."""

    __tablename__ = "account_rollups"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    grain: Mapped[int] = mapped_column(Integer, primary_key=True)
    bucket: Mapped[datetime] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    api_key_id: Mapped[UUID] = mapped_column(primary_key=True)
    status_code: Mapped[int] = mapped_column(Integer, primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    total_tokens: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Sum]
    duration_ms: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("grain IN (0, 60, 3600, 86400)", name="grain"),
        # Who called a model is read from it alone: a page of the table has one row of hundreds.
        Index(
            "account_rollups_model_callers_idx",
            *("model", "grain", "bucket", "user_id"),
            postgresql_include=[
                "api_key_id",
                "status_code",
                "reasoning_tokens",
                "cached_tokens",
                "duration_ms",
                "calls",
                "prompt_tokens",
                "completion_tokens",
                "total_tokens",
                "cost",
                "last_at",
            ],
        ),
        Index("account_rollups_grain_idx", "grain", "bucket"),
        # Reading an index alone needs pages that a vacuum has seen.
        {
            "postgresql_with": {
                "fillfactor": "70",
                "autovacuum_vacuum_scale_factor": "0.01",
                "autovacuum_vacuum_insert_scale_factor": "0.01",
            }
        },
    )


class CallerRollup(Base):
    """Calls of one account by one key on any model: what triggers on `account_rollups` make of it (migration 0038). `errors` had a status beyond 200 to 299."""

    __tablename__ = "caller_rollups"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    grain: Mapped[int] = mapped_column(Integer, primary_key=True)
    bucket: Mapped[datetime] = mapped_column(primary_key=True)
    api_key_id: Mapped[UUID] = mapped_column(primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    total_tokens: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Sum]
    duration_ms: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint("grain IN (60, 3600, 86400)", name="grain"),
        Index("caller_rollups_grain_idx", "grain", "bucket"),
        Index("caller_rollups_key_idx", "api_key_id", "grain", "bucket"),
        _WITH,
    )


class ModelRollup(Base):
    """Calls of everybody on one model, or on all of them together (`of_all`), with one status. `timed` counts those with a first byte, `ttfb_ms` is the sum of when that came."""

    __tablename__ = "model_rollups"

    of_all: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    grain: Mapped[int] = mapped_column(Integer, primary_key=True)
    bucket: Mapped[datetime] = mapped_column(primary_key=True)
    status_code: Mapped[int] = mapped_column(Integer, primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)
    prompt_tokens: Mapped[int] = mapped_column(BigInteger)
    completion_tokens: Mapped[int] = mapped_column(BigInteger)
    reasoning_tokens: Mapped[int] = mapped_column(BigInteger)
    cached_tokens: Mapped[int] = mapped_column(BigInteger)
    total_tokens: Mapped[int] = mapped_column(BigInteger)
    cost: Mapped[Sum]
    duration_ms: Mapped[int] = mapped_column(BigInteger)
    ttfb_ms: Mapped[int] = mapped_column(BigInteger)
    timed: Mapped[int] = mapped_column(BigInteger)
    last_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("grain IN (0, 60, 3600, 86400)", name="grain"),
        CheckConstraint("NOT of_all OR model = ''", name="of_all"),
        Index("model_rollups_grain_idx", "grain", "bucket"),
        _WITH,
    )


class LatencyHistogram(Base):
    """How many calls took how long: of one model, and again of all of them together (`of_all`). Each is one number (`latencies`)."""

    __tablename__ = "latency_histograms"

    of_all: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    grain: Mapped[int] = mapped_column(Integer, primary_key=True)
    bucket: Mapped[datetime] = mapped_column(primary_key=True)
    durations: Mapped[Decimal] = mapped_column(Numeric)
    ttfbs: Mapped[Decimal] = mapped_column(Numeric)

    __table_args__ = (
        CheckConstraint("grain IN (60, 3600, 86400)", name="grain"),
        CheckConstraint("NOT of_all OR model = ''", name="of_all"),
        Index("latency_histograms_grain_idx", "grain", "bucket"),
        _WITH,
    )


class LatencyRollup(Base):
    """The same as a row for each slot, as the release before writes it; `carry_latencies` empties it. The view `latencies` has both."""

    __tablename__ = "latency_rollups"

    of_all: Mapped[bool] = mapped_column(Boolean, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    grain: Mapped[int] = mapped_column(Integer, primary_key=True)
    bucket: Mapped[datetime] = mapped_column(primary_key=True)
    measure: Mapped[str] = mapped_column(Text, primary_key=True)
    slot: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    calls: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint("grain IN (60, 3600, 86400)", name="grain"),
        CheckConstraint("measure IN ('duration', 'ttfb')", name="measure"),
        CheckConstraint("NOT of_all OR model = ''", name="of_all"),
        Index("latency_rollups_grain_idx", "grain", "bucket"),
        _WITH,
    )
