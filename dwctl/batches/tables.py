"""Mapped classes of what batches reserve of their models' capacity, and of accounts whose work is being ended; batches themselves are rows of the queue (`queue/tables.py`)."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt, Id


class CapacityReservation(Base):
    """Room that a batch has at a model until its requests are there (`released_at`), or `expires_at` has come."""

    __tablename__ = "batch_capacity_reservations"

    id: Mapped[Id]
    model_id: Mapped[UUID] = mapped_column(ForeignKey("deployed_models.id", ondelete="CASCADE"))
    completion_window: Mapped[str] = mapped_column(Text)
    reserved_requests: Mapped[int] = mapped_column(BigInteger)
    batch_id: Mapped[UUID | None]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    released_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint("reserved_requests > 0", name="reserved_requests"),
        Index(
            "batch_capacity_reservations_held_idx",
            "model_id",
            "completion_window",
            "expires_at",
            postgresql_where=text("released_at IS NULL"),
        ),
    )


class Leaver(Base):
    """An account that was deleted, until nothing of it can be on its way any more. `looked_at`: when its work was last ended."""

    __tablename__ = "leavers"

    account_id: Mapped[UUID] = mapped_column(primary_key=True)
    left_at: Mapped[CreatedAt]
    looked_at: Mapped[datetime | None]
