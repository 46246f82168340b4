"""Mapped classes of the ledger, the balances and the tariffs."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt, Id


class Transaction(Base):
    """One entry of the ledger. For usage, id and source_id are the request's id."""

    __tablename__ = "credits_transactions"

    id: Mapped[Id]
    user_id: Mapped[UUID]
    transaction_type: Mapped[str] = mapped_column(Text)
    amount: Mapped[Decimal]
    source_id: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    seq: Mapped[int] = mapped_column(BigInteger, Identity())
    fusillade_batch_id: Mapped[UUID | None]
    api_key_id: Mapped[UUID | None]
    created_by: Mapped[UUID | None]

    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint(
            "transaction_type IN ('purchase', 'admin_grant', 'admin_removal', 'usage')",
            name="transaction_type",
        ),
        Index("credits_transactions_source_id_unique", "source_id", unique=True),
        Index("credits_transactions_user_id_seq_idx", "user_id", "seq"),
    )


class Balance(Base):
    """The balance of an account: made on demand, so no row means zero. `checkpoint_seq` is the newest ledger row in it."""

    __tablename__ = "user_balance_checkpoints"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    checkpoint_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    balance: Mapped[Decimal] = mapped_column(server_default="0")
    updated_at: Mapped[CreatedAt]

    __table_args__ = ({"postgresql_with": {"fillfactor": "20"}},)


class Tariff(Base):
    """What a model's tokens cost, from `valid_from` until `valid_until` (null: still in force)."""

    __tablename__ = "model_tariffs"

    id: Mapped[Id]
    deployed_model_id: Mapped[UUID] = mapped_column(
        ForeignKey("deployed_models.id", ondelete="CASCADE")
    )
    name: Mapped[str] = mapped_column(Text)
    input_price_per_token: Mapped[Decimal] = mapped_column(server_default="0")
    output_price_per_token: Mapped[Decimal] = mapped_column(server_default="0")
    valid_from: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    valid_until: Mapped[datetime | None]
    api_key_purpose: Mapped[str | None] = mapped_column(Text)
    completion_window: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (
        CheckConstraint(
            "api_key_purpose IN ('platform', 'realtime', 'batch', 'playground')", name="purpose"
        ),
        CheckConstraint(
            "api_key_purpose <> 'batch' OR completion_window IS NOT NULL", name="window"
        ),
        CheckConstraint(
            "input_price_per_token >= 0 AND output_price_per_token >= 0", name="prices"
        ),
        Index("model_tariffs_deployed_model_id_idx", "deployed_model_id"),
        Index(
            "model_tariffs_current_unique",
            "deployed_model_id",
            "api_key_purpose",
            unique=True,
            postgresql_where=text(
                "valid_until IS NULL AND api_key_purpose IN ('realtime', 'playground', 'platform')"
            ),
        ),
        Index(
            "model_tariffs_current_batch_unique",
            "deployed_model_id",
            "completion_window",
            unique=True,
            postgresql_where=text("valid_until IS NULL AND api_key_purpose = 'batch'"),
        ),
    )
