"""Mapped class of the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Identity, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.audit.actors import WAYS
from dwctl.db import Base


class AuditEntry(Base):
    """One change of one row. Names are as they were then; nothing refers to what may be deleted.

    through: how the actor was known (`actors`). related_id: the other side of what changed, such as a group's member or a key's owner.
    before, after: the members that changed; what was made has no before, what was deleted no after.
    """

    __tablename__ = "audit_log"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    action: Mapped[str] = mapped_column(Text)
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str | None] = mapped_column(Text)
    through: Mapped[str] = mapped_column(Text)
    api_key_id: Mapped[UUID | None]
    address: Mapped[str | None] = mapped_column(Text)
    request_id: Mapped[UUID | None]
    method: Mapped[str | None] = mapped_column(Text)
    route: Mapped[str | None] = mapped_column(Text)
    resource_type: Mapped[str] = mapped_column(Text)
    resource_id: Mapped[str] = mapped_column(Text)
    resource_name: Mapped[str | None] = mapped_column(Text)
    related_id: Mapped[str | None] = mapped_column(Text)
    organization_id: Mapped[UUID | None]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    after: Mapped[dict[str, Any] | None] = mapped_column(JSONB)

    __table_args__ = (
        CheckConstraint(f"through IN ({', '.join(map(repr, WAYS))})", name="through"),
        CheckConstraint("starts_with(action, resource_type || '.')", name="action"),
        Index("audit_log_at_idx", "at"),
        Index(
            "audit_log_action_idx", "action", "id", postgresql_ops={"action": "text_pattern_ops"}
        ),
        Index(
            "audit_log_actor_id_idx",
            "actor_id",
            "id",
            postgresql_where=text("actor_id IS NOT NULL"),
        ),
        Index("audit_log_resource_id_idx", "resource_id", "id"),
        Index(
            "audit_log_related_id_idx",
            "related_id",
            "id",
            postgresql_where=text("related_id IS NOT NULL"),
        ),
        Index(
            "audit_log_organization_id_idx",
            "organization_id",
            "id",
            postgresql_where=text("organization_id IS NOT NULL"),
        ),
        Index("audit_log_request_id_idx", "request_id"),
    )
