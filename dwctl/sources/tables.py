"""Mapped classes of connections, their synchronisations, and the objects that these found."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt, Id


class SyncStatus(StrEnum):
    """What a synchronisation is doing."""

    PENDING = "pending"
    LISTING = "listing"
    INGESTING = "ingesting"
    """Its objects are read and run as batches."""
    COMPLETED = "completed"
    FAILED = "failed"
    DELETED = "deleted"


class EntryStatus(StrEnum):
    """What is done with one object. `ingesting` and `activating` have a claim, or wait for another try (`due_at`)."""

    PENDING = "pending"
    INGESTING = "ingesting"
    INGESTED = "ingested"
    """It is a file."""
    ACTIVATING = "activating"
    ACTIVATED = "activated"
    """Its file is run as a batch."""
    FAILED = "failed"
    SKIPPED = "skipped"
    DELETED = "deleted"


def _one_of(words: type[StrEnum]) -> str:
    return f"status IN ({', '.join(repr(word.value) for word in words)})"


class SourceConnection(Base):
    """Where an account's files are, and what lets us in (`config_sealed`: JSON, sealed; gone with the connection). Made by `created_by`."""

    __tablename__ = "connections"

    id: Mapped[Id]
    owner_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text, server_default="source")
    provider: Mapped[str] = mapped_column(Text)
    name: Mapped[str] = mapped_column(Text)
    config_sealed: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("kind = 'source'", name="kind"),
        CheckConstraint("provider = 's3'", name="provider"),
        CheckConstraint("char_length(name) BETWEEN 1 AND 255", name="name"),
        CheckConstraint("(deleted_at IS NULL) = (config_sealed IS NOT NULL)", name="config"),
        Index(
            "connections_owner_id_idx",
            "owner_id",
            text("created_at DESC"),
            text("id DESC"),
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )


class SyncOperation(Base):
    """One synchronisation. It is over when each object that was found was skipped, has failed or has its batch.

    listed_to: the last key that was listed, or how many of `file_keys` were looked up. claim: what its worker holds until `claimed_until`.
    served_at: when an object of it was taken the last time, so that synchronisations take turns. api_key_id: the hidden key of whoever asked
    for it, by which files and batches are theirs. any_window: who asked is bound to no windows.
    """

    __tablename__ = "sync_operations"

    id: Mapped[Id]
    connection_id: Mapped[UUID] = mapped_column(ForeignKey("connections.id", ondelete="CASCADE"))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(Text, server_default="pending")
    strategy: Mapped[str] = mapped_column(Text)
    file_keys: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    force: Mapped[bool] = mapped_column(server_default="false")
    endpoint: Mapped[str] = mapped_column(Text)
    completion_window: Mapped[str] = mapped_column(Text)
    any_window: Mapped[bool] = mapped_column(server_default="false")
    api_key_id: Mapped[UUID | None]
    files_found: Mapped[int] = mapped_column(server_default="0")
    files_skipped: Mapped[int] = mapped_column(server_default="0")
    files_ingested: Mapped[int] = mapped_column(server_default="0")
    files_failed: Mapped[int] = mapped_column(server_default="0")
    batches_created: Mapped[int] = mapped_column(server_default="0")
    error: Mapped[str | None] = mapped_column(Text)
    listed_to: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[CreatedAt]
    claim: Mapped[UUID | None]
    claimed_until: Mapped[datetime | None]
    served_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(_one_of(SyncStatus), name="status"),
        CheckConstraint("strategy IN ('snapshot', 'select')", name="strategy"),
        CheckConstraint("(strategy = 'select') = (file_keys IS NOT NULL)", name="file_keys"),
        Index(
            "sync_operations_connection_id_idx",
            "connection_id",
            text("created_at DESC"),
            text("id DESC"),
        ),
        Index(
            "sync_operations_open_idx",
            "status",
            "served_at",
            postgresql_where=text("status IN ('pending', 'listing', 'ingesting')"),
        ),
        {"postgresql_with": {"fillfactor": "50"}},
    )


class SyncEntry(Base):
    """One object of a synchronisation.

    batch_id is chosen before the batch is made, so that a second try finds the first one's. invalid_lines: how many lines were left out;
    line_errors are the first of them ({"line", "error"}). error: why it failed, or what it waits for.
    """

    __tablename__ = "sync_entries"

    id: Mapped[Id]
    sync_id: Mapped[UUID] = mapped_column(ForeignKey("sync_operations.id", ondelete="CASCADE"))
    connection_id: Mapped[UUID] = mapped_column(ForeignKey("connections.id", ondelete="CASCADE"))
    external_key: Mapped[str] = mapped_column(Text)
    external_last_modified: Mapped[datetime | None]
    external_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    external_etag: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default="pending")
    file_id: Mapped[UUID | None]
    batch_id: Mapped[UUID | None]
    template_count: Mapped[int | None] = mapped_column(BigInteger)
    invalid_lines: Mapped[int] = mapped_column(BigInteger, server_default="0")
    line_errors: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB)
    error: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[CreatedAt]
    claim: Mapped[UUID | None]
    claimed_until: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint(_one_of(EntryStatus), name="status"),
        UniqueConstraint("sync_id", "external_key"),
        # What has been taken in, or is being: the next synchronisation skips it.
        Index(
            "sync_entries_taken_idx",
            "connection_id",
            "external_key",
            "external_last_modified",
            postgresql_where=text("status NOT IN ('skipped', 'deleted')"),
        ),
        Index(
            "sync_entries_open_idx",
            "sync_id",
            "due_at",
            postgresql_where=text("status IN ('pending', 'ingesting')"),
        ),
        Index(
            "sync_entries_ingested_idx",
            "due_at",
            postgresql_where=text("status IN ('ingested', 'activating')"),
        ),
        Index("sync_entries_claim_idx", "claim", postgresql_where=text("claim IS NOT NULL")),
    )
