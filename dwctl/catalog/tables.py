"""Mapped classes of endpoints, models, their components, grants and traffic rules."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Numeric,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column, query_expression, relationship

from dwctl.db import Base, CreatedAt, Id

RATE = "requests_per_second > 0 AND requests_per_second < 'Infinity'"
"""A rate that is one. (To PostgreSQL NaN is larger than infinity.)"""

TIMEOUTS = (
    "connect_timeout_seconds",
    "first_byte_timeout_seconds",
    "idle_timeout_seconds",
    "total_timeout_seconds",
)
"""An endpoint's own time-outs; where one is null, the setting holds."""
LONGEST_TIMEOUT_S = 86_400


class Endpoint(Base):
    """An upstream inference server. `api_key_sealed` is what `encryption.Sealer` made of its credential."""

    __tablename__ = "inference_endpoints"

    id: Mapped[Id]
    name: Mapped[str] = mapped_column(Text, unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    url: Mapped[str] = mapped_column(Text)
    api_key_sealed: Mapped[str | None] = mapped_column(Text)
    model_filter: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    auth_header_name: Mapped[str] = mapped_column(Text, server_default="Authorization")
    auth_header_prefix: Mapped[str] = mapped_column(Text, server_default="Bearer ")
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    connect_timeout_seconds: Mapped[float | None]
    first_byte_timeout_seconds: Mapped[float | None]
    idle_timeout_seconds: Mapped[float | None]
    total_timeout_seconds: Mapped[float | None]

    __table_args__ = tuple(
        CheckConstraint(f"{name} > 0 AND {name} <= {LONGEST_TIMEOUT_S}", name=name)
        for name in TIMEOUTS
    )


class DeployedModel(Base):
    """A model under its public name (`alias`): standard, on one endpoint, or composite, over several standard ones."""

    __tablename__ = "deployed_models"

    id: Mapped[Id]
    model_name: Mapped[str] = mapped_column(Text)
    alias: Mapped[str] = mapped_column(Text)
    display_name: Mapped[str | None] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    type: Mapped[str | None] = mapped_column(Text)
    capabilities: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    hosted_on: Mapped[UUID | None] = mapped_column(
        ForeignKey("inference_endpoints.id", ondelete="CASCADE")
    )
    status: Mapped[str] = mapped_column(Text, server_default="active")
    last_sync: Mapped[datetime | None]
    deleted: Mapped[bool] = mapped_column(server_default="false")
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]
    requests_per_second: Mapped[float | None]
    burst_size: Mapped[int | None]
    capacity: Mapped[int | None]
    batch_capacity: Mapped[int | None]
    tokens_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    throughput: Mapped[float | None]
    downstream_pricing_mode: Mapped[str | None] = mapped_column(Text)
    downstream_input_price_per_token: Mapped[Decimal | None] = mapped_column(Numeric(24, 15))
    downstream_output_price_per_token: Mapped[Decimal | None] = mapped_column(Numeric(24, 15))
    downstream_hourly_rate: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    downstream_input_token_cost_ratio: Mapped[Decimal | None] = mapped_column(Numeric(3, 2))
    is_composite: Mapped[bool] = mapped_column(server_default="false")
    lb_strategy: Mapped[str] = mapped_column(Text, server_default="weighted_random")
    fallback_enabled: Mapped[bool] = mapped_column(server_default="true")
    fallback_on_rate_limit: Mapped[bool] = mapped_column(server_default="true")
    fallback_on_status: Mapped[list[int]] = mapped_column(
        ARRAY(Integer), server_default="{429,500,502,503,504}"
    )
    fallback_with_replacement: Mapped[bool] = mapped_column(server_default="false")
    fallback_max_attempts: Mapped[int | None]
    sanitize_responses: Mapped[bool] = mapped_column(server_default="false")
    trusted: Mapped[bool] = mapped_column(server_default="false")
    open_responses_adapter: Mapped[bool | None] = mapped_column(server_default=text("true"))
    forward_service_tier: Mapped[bool] = mapped_column(server_default="false")
    refuse_unrunnable_tools: Mapped[bool] = mapped_column(server_default="false")
    allowed_batch_completion_windows: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    # "metadata" is taken by SQLAlchemy's declarative classes.
    info: Mapped[dict[str, Any]] = mapped_column("metadata", JSONB, server_default="{}")

    endpoint: Mapped[Endpoint | None] = relationship(lazy="raise_on_sql")

    rules: Mapped[list[tuple[str, str, str | None]] | None] = query_expression()
    """What a query with `rules.BROUGHT` has brought: of each traffic rule its purpose, its action and the alias that serves instead."""

    __table_args__ = (
        CheckConstraint("(hosted_on IS NULL) = is_composite", name="hosted_on"),
        CheckConstraint("status IN ('active', 'inactive')", name="status"),
        CheckConstraint("type IN ('CHAT', 'EMBEDDINGS', 'RERANKER')", name="type"),
        CheckConstraint(
            "downstream_input_token_cost_ratio BETWEEN 0 AND 1", name="input_token_cost_ratio"
        ),
        CheckConstraint(RATE, name="requests_per_second"),
        CheckConstraint("burst_size >= 1", name="burst_size"),
        CheckConstraint("capacity >= 1", name="capacity"),
        CheckConstraint("batch_capacity >= 1", name="batch_capacity"),
        CheckConstraint("tokens_per_minute >= 1", name="tokens_per_minute"),
        CheckConstraint("lb_strategy IN ('weighted_random', 'priority')", name="lb_strategy"),
        CheckConstraint("fallback_max_attempts >= 1", name="fallback_max_attempts"),
        CheckConstraint(
            "array_position(fallback_on_status, NULL) IS NULL"
            " AND 1 <= ALL (fallback_on_status) AND 599 >= ALL (fallback_on_status)",
            name="fallback_on_status",
        ),
        # For the components' foreign keys, which name the kind of model.
        UniqueConstraint("id", "is_composite"),
        Index(
            "deployed_models_alias_unique",
            "alias",
            unique=True,
            postgresql_where=text("NOT deleted"),
        ),
        Index("deployed_models_hosted_on_idx", "hosted_on"),
    )


class Component(Base):
    """A standard model within a composite one. The constant columns let foreign keys see to which is which."""

    __tablename__ = "deployed_model_components"

    id: Mapped[Id]
    composite_model_id: Mapped[UUID]
    deployed_model_id: Mapped[UUID]
    weight: Mapped[int] = mapped_column(server_default="1")
    enabled: Mapped[bool] = mapped_column(server_default="true")
    sort_order: Mapped[int] = mapped_column(server_default="0")
    created_at: Mapped[CreatedAt]
    composite_is_composite: Mapped[bool] = mapped_column(Computed("true", persisted=True))
    component_is_composite: Mapped[bool] = mapped_column(Computed("false", persisted=True))

    model: Mapped[DeployedModel] = relationship(
        primaryjoin="DeployedModel.id == foreign(Component.deployed_model_id)",
        viewonly=True,
        lazy="raise_on_sql",
    )

    __table_args__ = (
        ForeignKeyConstraint(
            ["composite_model_id", "composite_is_composite"],
            ["deployed_models.id", "deployed_models.is_composite"],
            name="deployed_model_components_composite_fkey",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["deployed_model_id", "component_is_composite"],
            ["deployed_models.id", "deployed_models.is_composite"],
            name="deployed_model_components_component_fkey",
            ondelete="CASCADE",
        ),
        UniqueConstraint(
            "composite_model_id",
            "deployed_model_id",
            name="deployed_model_components_pair_unique",
        ),
        CheckConstraint("weight BETWEEN 1 AND 100", name="weight"),
        Index("deployed_model_components_deployed_model_id_idx", "deployed_model_id"),
    )


class ModelAccess(Base):
    """A model granted to a group."""

    __tablename__ = "deployment_groups"

    id: Mapped[Id]
    deployment_id: Mapped[UUID] = mapped_column(
        ForeignKey("deployed_models.id", ondelete="CASCADE")
    )
    group_id: Mapped[UUID] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"))
    granted_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    granted_at: Mapped[CreatedAt]

    __table_args__ = (
        UniqueConstraint("deployment_id", "group_id"),
        Index("deployment_groups_group_id_idx", "group_id"),
    )


class TrafficRule(Base):
    """What happens to calls on a model by keys of one purpose: refused, or served by another model."""

    __tablename__ = "model_traffic_rules"

    id: Mapped[Id]
    deployed_model_id: Mapped[UUID] = mapped_column(
        ForeignKey("deployed_models.id", ondelete="CASCADE")
    )
    redirect_target_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("deployed_models.id", ondelete="CASCADE")
    )
    api_key_purpose: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(Text)
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        UniqueConstraint("deployed_model_id", "api_key_purpose"),
        CheckConstraint("action IN ('deny', 'redirect')", name="action"),
        CheckConstraint("(action = 'redirect') = (redirect_target_id IS NOT NULL)", name="target"),
    )


class ProviderDisplay(Base):
    """How a provider, as models' metadata names it, is shown to people. The key is in lower case."""

    __tablename__ = "provider_display_configs"

    provider_key: Mapped[str] = mapped_column(Text, primary_key=True)
    display_name: Mapped[str] = mapped_column(Text)
    icon: Mapped[str | None] = mapped_column(Text)
    created_by: Mapped[UUID | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint("btrim(provider_key) <> ''", name="provider_key"),
        CheckConstraint("btrim(display_name) <> ''", name="display_name"),
    )


class RoutingChange(Base):
    """A row that routing snapshots must read again, written by triggers; without `row_id` all of its table.

    `xid` is the transaction: a process knows by it what it has not seen (`snapshot_changes` in queries.sql).
    """

    __tablename__ = "routing_changes"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    xid: Mapped[int] = mapped_column(
        BigInteger, server_default=text("pg_current_xact_id()::text::bigint")
    )
    at: Mapped[CreatedAt]
    table_name: Mapped[str] = mapped_column(Text)
    row_id: Mapped[UUID | None]

    __table_args__ = (
        Index("routing_changes_xid_idx", "xid"),
        Index("routing_changes_at_idx", "at"),
    )
