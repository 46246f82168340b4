"""Mapped classes of the ledger, the balances and the tariffs."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, Text, func, text
from sqlalchemy.orm import Mapped, column_property, mapped_column

from dwctl.billing.tariffs import CurrentTariff
from dwctl.db import Base, CreatedAt, Id, Sum


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
    """The balance of an account: made on demand, so no row means zero. `checkpoint_seq` is the newest ledger row in it.

    reserved: what calls that run hold of it, the sum of the account's `Reservation`s of its balance. counts_spend: one of its keys has, or had, a
    cap. That stands here because whoever charges an account sees the latest version of this row.
    """

    __tablename__ = "user_balance_checkpoints"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    checkpoint_seq: Mapped[int] = mapped_column(BigInteger, server_default="0")
    balance: Mapped[Sum] = mapped_column(server_default="0")
    updated_at: Mapped[CreatedAt]
    reserved: Mapped[Sum] = mapped_column(server_default="0")
    counts_spend: Mapped[bool] = mapped_column(server_default="false")

    __table_args__ = (
        CheckConstraint("reserved >= 0", name="reserved"),
        {"postgresql_with": {"fillfactor": "20"}},
    )


class Reservation(Base):
    """What a call that runs may cost at most, held for it: of its account's balance (`of_balance`), of what its capped key may spend in a window, or
    of both. `process_id`: who runs it. Written by the functions of `functions.sql` only.
    """

    __tablename__ = "credit_reservations"

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    amount: Mapped[Decimal]
    of_balance: Mapped[bool]
    api_key_id: Mapped[UUID | None]
    window_start: Mapped[datetime | None]
    process_id: Mapped[UUID]
    made_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    expires_at: Mapped[datetime]

    __table_args__ = (
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("of_balance OR api_key_id IS NOT NULL", name="of_what"),
        CheckConstraint("(api_key_id IS NULL) = (window_start IS NULL)", name="window"),
        {
            "postgresql_with": {
                "fillfactor": "50",
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_scale_factor": "0",
            }
        },
    )


class Spend(Base):
    """What a capped key has spent since `window_start`, and what calls that run hold of its cap. Kept while the key has a cap (`functions.sql`)."""

    __tablename__ = "api_key_spend"

    api_key_id: Mapped[UUID] = mapped_column(
        ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True
    )
    window_start: Mapped[datetime] = mapped_column(primary_key=True)
    spent: Mapped[Sum] = mapped_column(server_default="0")
    reserved: Mapped[Sum] = mapped_column(server_default="0")

    __table_args__ = (
        CheckConstraint("spent >= 0", name="spent"),
        CheckConstraint("reserved >= 0", name="reserved"),
        {"postgresql_with": {"fillfactor": "20"}},
    )


_PRICES = (
    "input_price_per_token",
    "output_price_per_token",
    "cached_input_price_per_token",
    "reasoning_price_per_token",
)


class Tariff(Base):
    """What a model's tokens cost, from `valid_from` (which may be still to come) until `valid_until` (null: no end is known).

    Prices of cached input and of reasoning are null where they are those of the others. `is_active`: it is in force now.
    """

    __tablename__ = "model_tariffs"

    id: Mapped[Id]
    deployed_model_id: Mapped[UUID] = mapped_column(
        ForeignKey("deployed_models.id", ondelete="CASCADE")
    )
    name: Mapped[str] = mapped_column(Text)
    input_price_per_token: Mapped[Decimal] = mapped_column(server_default="0")
    output_price_per_token: Mapped[Decimal] = mapped_column(server_default="0")
    valid_from: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    valid_until: Mapped[datetime | None] = mapped_column()
    api_key_purpose: Mapped[str | None] = mapped_column(Text)
    completion_window: Mapped[str | None] = mapped_column(Text)
    cached_input_price_per_token: Mapped[Decimal | None]
    reasoning_price_per_token: Mapped[Decimal | None]
    # By the clock that sets the times; rows of this transaction count, too.
    is_active: Mapped[bool] = column_property(
        (valid_from <= func.statement_timestamp())
        & (valid_until.is_(None) | (valid_until > func.statement_timestamp()))
    )

    @property
    def as_value(self) -> CurrentTariff:
        """The tariff as calls are priced by it."""
        return CurrentTariff(
            self.input_price_per_token,
            self.output_price_per_token,
            self.api_key_purpose,
            self.completion_window,
            self.valid_from,
            self.valid_until,
            self.cached_input_price_per_token,
            self.reasoning_price_per_token,
            self.id,
        )

    __table_args__ = (
        CheckConstraint(
            "api_key_purpose IN ('platform', 'realtime', 'batch', 'playground')", name="purpose"
        ),
        CheckConstraint(
            "api_key_purpose <> 'batch' OR completion_window IS NOT NULL", name="window"
        ),
        # NaN is larger than everything.
        CheckConstraint(
            " AND ".join(f"{price} >= 0 AND {price} < 'NaN'" for price in _PRICES), name="prices"
        ),
        CheckConstraint(
            "valid_until >= valid_from AND isfinite(valid_from) AND isfinite(valid_until)",
            name="period",
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
