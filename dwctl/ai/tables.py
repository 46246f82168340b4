"""Mapped classes of the AI surface's own tables. Rows are written by named statements only (`queries.sql`)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, LargeBinary, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base


class IdempotencyKey(Base):
    """What a caller's key stands for on one path: the request that was made for it, and of what (a SHA-256)."""

    __tablename__ = "idempotency_keys"

    owner_id: Mapped[UUID] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(Text, primary_key=True)
    key: Mapped[str] = mapped_column(Text, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    request_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=text("now()"))

    __table_args__ = (
        CheckConstraint("char_length(key) BETWEEN 1 AND 255", name="length"),
        CheckConstraint("octet_length(fingerprint) = 32", name="sha256"),
        Index("idempotency_keys_created_at_idx", "created_at"),
    )
