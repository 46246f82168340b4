"""Mapped classes of the queue. Rows are written by named statements only (`queries.sql`); these serve the migrations and reads.

No foreign keys on the path of a call, and no index on `requests` that mentions a column which changes: updates stay HOT
(docs/decisions/0003-queue-in-postgres.md).
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt, Id

SCHEMA = "fusillade"


class State(StrEnum):
    """What a request row is doing."""

    PENDING = "pending"
    CLAIMED = "claimed"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


class File(Base):
    """A container of request templates. Single requests share one row for each owner and day (`single`).

    An output or error file of a batch has neither templates nor size of its own. purged_at: since when nothing is left of its lines.
    """

    __tablename__ = "files"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    size_finalized: Mapped[bool] = mapped_column(server_default="false")
    status: Mapped[str] = mapped_column(Text, server_default="processed")
    error_message: Mapped[str | None] = mapped_column(Text)
    purpose: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    uploaded_by: Mapped[str | None] = mapped_column(Text)
    api_key_id: Mapped[UUID | None]
    source_connection_id: Mapped[UUID | None]
    source_external_key: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    single: Mapped[bool] = mapped_column(server_default="false")
    purged_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("size_bytes >= 0", name="size_bytes"),
        CheckConstraint("status IN ('processed', 'error', 'deleted', 'expired')", name="status"),
        CheckConstraint("purpose IN ('batch', 'batch_output', 'batch_error')", name="purpose"),
        Index(
            "files_uploaded_by_idx",
            "uploaded_by",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("NOT single AND deleted_at IS NULL"),
        ),
        Index(
            "files_created_at_idx",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("NOT single AND deleted_at IS NULL"),
        ),
        Index(
            "files_expires_at_idx",
            "expires_at",
            postgresql_where=text("NOT single AND deleted_at IS NULL"),
        ),
        Index(
            "files_unpurged_idx",
            "deleted_at",
            postgresql_where=text("NOT single AND deleted_at IS NOT NULL AND purged_at IS NULL"),
        ),
        {"schema": SCHEMA},
    )


class RequestTemplate(Base):
    """What is to be sent. `endpoint` is written for readers only: the worker uses `path`."""

    __tablename__ = "request_templates"

    id: Mapped[Id]
    file_id: Mapped[UUID | None]
    custom_id: Mapped[str | None] = mapped_column(Text)
    endpoint: Mapped[str] = mapped_column(Text)
    method: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text, server_default="")
    model: Mapped[str] = mapped_column(Text)
    api_key: Mapped[str] = mapped_column(Text, server_default="")
    line_number: Mapped[int] = mapped_column(server_default="0")
    body_byte_size: Mapped[int] = mapped_column(BigInteger, server_default="0")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSONB)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    single: Mapped[bool] = mapped_column(server_default="false")

    __table_args__ = (
        # Single requests, which are the many on the hot path, are not in it.
        Index(
            "request_templates_file_id_idx",
            "file_id",
            "line_number",
            postgresql_where=text("NOT single"),
        ),
        {"schema": SCHEMA},
    )


class FileModel(Base):
    """How many of a file's lines go to one model on one path, and how many bytes their bodies have."""

    __tablename__ = "file_models"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        CheckConstraint("requests > 0 AND bytes >= 0", name="counts"),
        {"schema": SCHEMA},
    )


class Upload(Base):
    """A file whose lines are still coming: it has no row in `files` yet. abandoned: what is there of it is to be purged."""

    __tablename__ = "uploads"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    touched_at: Mapped[CreatedAt]
    abandoned: Mapped[bool] = mapped_column(server_default="false")

    __table_args__ = (
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )


class Batch(Base):
    """One execution of a file's templates, or (`single`) of a single request, which has the same id.

    The counters of a file's batch are changed by one delta a group of records, and counted anew once at its end (`counts_frozen_at`). `*_lines`
    number the lines of its output and error files; they only grow. `*_bytes` are what those files hold. populated_lines: how many of the file's
    lines have their requests. purged_at: since when nothing is left of a deleted batch's requests.
    """

    __tablename__ = "batches"

    id: Mapped[Id]
    file_id: Mapped[UUID | None]
    endpoint: Mapped[str] = mapped_column(Text, server_default="/v1/chat/completions")
    completion_window: Mapped[str] = mapped_column(Text, server_default="24h")
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSONB, server_default="{}")
    output_file_id: Mapped[UUID | None]
    error_file_id: Mapped[UUID | None]
    created_by: Mapped[str] = mapped_column(Text, server_default="")
    api_key_id: Mapped[UUID | None]
    api_key: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    total_requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    requests_started_at: Mapped[datetime | None]
    cancelling_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    finalizing_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    notification_sent_at: Mapped[datetime | None]
    errors: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    single: Mapped[bool] = mapped_column(server_default="false")
    expired_at: Mapped[datetime | None]
    populated_lines: Mapped[int] = mapped_column(BigInteger, server_default="0")
    completed_requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed_requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    canceled_requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    output_lines: Mapped[int] = mapped_column(BigInteger, server_default="0")
    error_lines: Mapped[int] = mapped_column(BigInteger, server_default="0")
    output_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    error_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    counts_frozen_at: Mapped[datetime | None]
    purged_at: Mapped[datetime | None]

    __table_args__ = (
        # No index mentions a counter: their updates stay HOT. Single requests are in none of these.
        Index(
            "batches_created_by_idx",
            "created_by",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("NOT single AND deleted_at IS NULL"),
        ),
        Index(
            "batches_created_at_idx",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("NOT single AND deleted_at IS NULL"),
        ),
        Index(
            "batches_open_idx",
            "expires_at",
            postgresql_where=text(
                "NOT single AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL"
            ),
        ),
        Index(
            "batches_active_idx",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text(
                "NOT single AND deleted_at IS NULL AND completed_at IS NULL AND failed_at IS NULL AND cancelling_at IS NULL"
                " AND cancelled_at IS NULL AND expired_at IS NULL"
            ),
        ),
        Index("batches_file_id_idx", "file_id", postgresql_where=text("NOT single")),
        Index(
            "batches_unpurged_idx",
            "deleted_at",
            postgresql_where=text("NOT single AND deleted_at IS NOT NULL AND purged_at IS NULL"),
        ),
        Index("batches_unkept_idx", "id", postgresql_where=text("metadata ? 'unkept'")),
        Index(
            "batches_output_file_id_unique",
            "output_file_id",
            unique=True,
            postgresql_where=text("output_file_id IS NOT NULL"),
        ),
        Index(
            "batches_error_file_id_unique",
            "error_file_id",
            unique=True,
            postgresql_where=text("error_file_id IS NOT NULL"),
        ),
        {"schema": SCHEMA},
    )


class BatchModel(Base):
    """What of a file's batch goes to one model, and what has ended of it."""

    __tablename__ = "batch_models"

    batch_id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger, server_default="0")
    completed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    canceled: Mapped[int] = mapped_column(BigInteger, server_default="0")

    __table_args__ = ({"schema": SCHEMA, "postgresql_with": {"fillfactor": "50"}},)


class FinishedLine(Base):
    """A line of a batch's output file, or (`failed`) of its error file, by its position there from 0 on.

    Never moved, so offsets stay valid; a failed line that is retried leaves a gap.
    """

    __tablename__ = "finished_lines"

    batch_id: Mapped[UUID] = mapped_column(primary_key=True)
    failed: Mapped[bool] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    request_id: Mapped[UUID]

    __table_args__ = ({"schema": SCHEMA},)


class Sweep(Base):
    """How far a batch is that has been cancelled or is past its deadline, or (`retries`) whose failed lines are run again.

    position: the line that is next, or the place in the error file (`until`: where that ended when it began). ended: how many lines its
    deadline has ended. done_at: all have been looked at, and what is still in flight ends by itself.
    """

    __tablename__ = "sweeps"

    batch_id: Mapped[UUID] = mapped_column(primary_key=True)
    retries: Mapped[bool] = mapped_column(server_default="false")
    position: Mapped[int] = mapped_column(BigInteger, server_default="0")
    until: Mapped[int | None] = mapped_column(BigInteger)
    ended: Mapped[int] = mapped_column(BigInteger, server_default="0")
    done_at: Mapped[datetime | None]

    __table_args__ = ({"schema": SCHEMA},)


class Recount(Base):
    """A batch whose counters are to be counted anew: it is over, or its requests were changed by hand."""

    __tablename__ = "recounts"

    batch_id: Mapped[UUID] = mapped_column(primary_key=True)

    __table_args__ = ({"schema": SCHEMA},)


class Request(Base):
    """One request; the public response id is `resp_<id>`. For a single request the template and the batch have the same id.

    retried: how often a line of a batch was run again by its owner after it had failed.
    """

    __tablename__ = "requests"

    id: Mapped[Id]
    batch_id: Mapped[UUID | None]
    template_id: Mapped[UUID | None]
    model: Mapped[str] = mapped_column(Text)
    custom_id: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(Text, server_default="pending")
    service_tier: Mapped[str | None] = mapped_column(Text)
    retry_attempt: Mapped[int] = mapped_column(Integer, server_default="0")
    not_before: Mapped[datetime | None]
    daemon_id: Mapped[UUID | None]
    claimed_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    response_status: Mapped[int | None] = mapped_column(SmallInteger)
    response_body: Mapped[str | None] = mapped_column(Text)
    response_size: Mapped[int] = mapped_column(BigInteger, server_default="0")
    routed_model: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    completed_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]
    canceled_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    times_lost: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    retried: Mapped[int] = mapped_column(SmallInteger, server_default="0")

    __table_args__ = (
        CheckConstraint(
            "state IN ('pending', 'claimed', 'processing', 'completed', 'failed', 'canceled')",
            name="state",
        ),
        CheckConstraint(
            "service_tier IN ('auto', 'default', 'flex', 'priority')", name="service_tier"
        ),
        CheckConstraint(
            "state <> 'pending' OR (daemon_id IS NULL AND claimed_at IS NULL AND started_at IS NULL)",
            name="pending_fields",
        ),
        CheckConstraint(
            "state <> 'claimed' OR (daemon_id IS NOT NULL AND claimed_at IS NOT NULL AND started_at IS NULL)",
            name="claimed_fields",
        ),
        CheckConstraint(
            "state <> 'processing' OR (daemon_id IS NOT NULL AND claimed_at IS NOT NULL AND started_at IS NOT NULL)",
            name="processing_fields",
        ),
        CheckConstraint(
            "state <> 'completed' OR (response_status IS NOT NULL AND response_body IS NOT NULL AND completed_at IS NOT NULL)",
            name="completed_fields",
        ),
        CheckConstraint(
            "state <> 'failed' OR (error IS NOT NULL AND failed_at IS NOT NULL)",
            name="failed_fields",
        ),
        CheckConstraint("state <> 'canceled' OR canceled_at IS NOT NULL", name="canceled_fields"),
        Index("requests_batch_id_idx", "batch_id"),
        {"schema": SCHEMA, "postgresql_with": {"fillfactor": "90"}},
    )


class Daemon(Base):
    """A web or worker process and its signs of life."""

    __tablename__ = "daemons"

    id: Mapped[Id]
    status: Mapped[str] = mapped_column(Text)
    hostname: Mapped[str] = mapped_column(Text)
    pid: Mapped[int]
    version: Mapped[str] = mapped_column(Text)
    config_snapshot: Mapped[dict[str, Any]] = mapped_column(JSONB)
    started_at: Mapped[datetime]
    last_heartbeat: Mapped[datetime | None]
    stopped_at: Mapped[datetime | None]
    requests_processed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    requests_failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    requests_in_flight: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint("status IN ('initializing', 'running', 'dead')", name="status"),
        CheckConstraint("status <> 'running' OR last_heartbeat IS NOT NULL", name="running_fields"),
        CheckConstraint("status <> 'dead' OR stopped_at IS NOT NULL", name="dead_fields"),
        {"schema": SCHEMA, "postgresql_with": {"fillfactor": "50"}},
    )


class Ready(Base):
    """A pending request that is due; the row goes when it is claimed."""

    __tablename__ = "ready"

    model: Mapped[str] = mapped_column(Text, primary_key=True)
    created_by: Mapped[str] = mapped_column(Text, primary_key=True)
    deadline: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    batch_id: Mapped[UUID | None]

    __table_args__ = (
        # For `queued_of`; entries of batches, which are the many, are not in it.
        Index("ready_created_by_idx", "created_by", postgresql_where=text("batch_id = id")),
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "autovacuum_vacuum_threshold": "5000",
                "autovacuum_vacuum_scale_factor": "0.01",
            },
        },
    )


class Delayed(Base):
    """A pending request that waits for its `not_before`; a duty moves it to `ready`."""

    __tablename__ = "delayed"

    not_before: Mapped[datetime] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)

    __table_args__ = ({"schema": SCHEMA},)


class InFlight(Base):
    """A request that a worker has claimed. Its lease is its owner's heartbeat. last_words: as in `OpenCall`, of a stream."""

    __tablename__ = "inflight"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(Text)
    created_by: Mapped[str] = mapped_column(Text)
    daemon_id: Mapped[UUID]
    last_words: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("inflight_model_idx", "model"),
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )


class Queue(Base):
    """One account's line at one model: `vtime` counts what it was served, `head_deadline` is its most urgent.

    paused_until: nothing of it is claimed before (its account has no credit, say); NULL again once that has passed. needs: how much credit
    ends a pause for want of it (USD; NULL: any).
    """

    __tablename__ = "queues"

    model: Mapped[str] = mapped_column(Text, primary_key=True)
    created_by: Mapped[str] = mapped_column(Text, primary_key=True)
    vtime: Mapped[int] = mapped_column(BigInteger, server_default="0")
    head_deadline: Mapped[datetime]
    paused_until: Mapped[datetime | None]
    pause_reason: Mapped[str | None] = mapped_column(Text)
    needs: Mapped[Decimal | None]

    __table_args__ = (
        # What is paused is in none that a claim reads.
        Index(
            "queues_model_vtime_idx",
            "model",
            "vtime",
            postgresql_where=text("paused_until IS NULL"),
        ),
        Index(
            "queues_model_head_deadline_idx",
            "model",
            "head_deadline",
            postgresql_where=text("paused_until IS NULL"),
        ),
        Index(
            "queues_head_deadline_idx",
            "head_deadline",
            "model",
            postgresql_where=text("paused_until IS NULL"),
        ),
        Index(
            "queues_paused_until_idx",
            "paused_until",
            postgresql_where=text("paused_until IS NOT NULL"),
        ),
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "autovacuum_vacuum_threshold": "500",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )


class ModelSlot(Base):
    """The row that a claim locks for a model, so that the count of what is in flight is exact.

    served: when it was served last, in microseconds since 1970. paused_until: nothing of it is claimed before, by anybody (its upstream asked for a pause).
    """

    __tablename__ = "model_slots"

    model: Mapped[str] = mapped_column(Text, primary_key=True)
    served: Mapped[int] = mapped_column(BigInteger, server_default="0")
    paused_until: Mapped[datetime | None]
    pause_reason: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "fillfactor": "20",
                "autovacuum_vacuum_threshold": "200",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )


class Duty(Base):
    """A chore that runs now and then in one worker at a time: the row is its lock and its memory."""

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    due_at: Mapped[CreatedAt]
    observed_since: Mapped[CreatedAt]
    last_ran_at: Mapped[datetime | None]

    __table_args__ = ({"schema": SCHEMA, "postgresql_with": {"fillfactor": "50"}},)


class OpenCall(Base):
    """A realtime call that lasts, and the process that works on it.

    repeatable: it may be started again when that process dies. last_words: else this record is written (JSON, `analytics.records.Record`).
    """

    __tablename__ = "open_calls"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    daemon_id: Mapped[UUID]
    repeatable: Mapped[bool] = mapped_column(server_default="false")
    last_words: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        Index("open_calls_daemon_id_idx", "daemon_id"),
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )


class ResponseChunk(Base):
    """Some of a stream's events, as they were sent, with the numbers of the first and the last; without gaps from 0 on."""

    __tablename__ = "response_chunks"

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    first_sequence: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    last_sequence: Mapped[int] = mapped_column(Integer)
    events: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint("first_sequence >= 0 AND last_sequence >= first_sequence", name="sequence"),
        Index(
            "response_chunks_created_at_idx",
            "created_at",
            postgresql_where=text("first_sequence = 0"),
        ),
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "autovacuum_vacuum_insert_scale_factor": "0.05",
                "autovacuum_vacuum_scale_factor": "0.02",
            },
        },
    )


class Unrecorded(Base):
    """A request that the queue itself has ended: its row is final, and a duty of `analytics` is still to record it."""

    __tablename__ = "unrecorded"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    error_code: Mapped[str] = mapped_column(Text)
    last_words: Mapped[str | None] = mapped_column(Text)
    ended_at: Mapped[CreatedAt]

    __table_args__ = (
        {
            "schema": SCHEMA,
            "postgresql_with": {
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )
