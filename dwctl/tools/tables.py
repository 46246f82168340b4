"""Mapped classes of tool sources and their attachments."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt, Id

KINDS = ("http",)


class ToolSource(Base):
    """A tool under the name that models call it by. `parameters` is a JSON Schema, `api_key_sealed` what `encryption.Sealer` made of the credential."""

    __tablename__ = "tool_sources"

    id: Mapped[Id]
    kind: Mapped[str] = mapped_column(Text, server_default=KINDS[0])
    name: Mapped[str] = mapped_column(Text, unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    parameters: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    url: Mapped[str] = mapped_column(Text)
    api_key_sealed: Mapped[str | None] = mapped_column(Text)
    timeout_secs: Mapped[int] = mapped_column(server_default=text("30"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint("kind = 'http'", name="kind"),
        CheckConstraint("btrim(name) <> ''", name="name"),
        CheckConstraint("jsonb_typeof(parameters) = 'object'", name="parameters"),
        CheckConstraint("timeout_secs > 0", name="timeout_secs"),
    )


class ModelTool(Base):
    """A tool source attached to a model."""

    __tablename__ = "deployment_tool_sources"

    deployment_id: Mapped[UUID] = mapped_column(
        ForeignKey("deployed_models.id", ondelete="CASCADE"), primary_key=True
    )
    tool_source_id: Mapped[UUID] = mapped_column(
        ForeignKey("tool_sources.id", ondelete="CASCADE"), primary_key=True
    )

    __table_args__ = (Index("deployment_tool_sources_tool_source_id_idx", "tool_source_id"),)


class GroupTool(Base):
    """A tool source attached to a group."""

    __tablename__ = "group_tool_sources"

    group_id: Mapped[UUID] = mapped_column(
        ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True
    )
    tool_source_id: Mapped[UUID] = mapped_column(
        ForeignKey("tool_sources.id", ondelete="CASCADE"), primary_key=True
    )

    __table_args__ = (Index("group_tool_sources_tool_source_id_idx", "tool_source_id"),)
