"""Mapped class of mails that wait to be sent."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Text
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt, Id


class OutgoingMail(Base):
    """One mail to one recipient; deleted when it has been sent, or given up. `values_sealed`: JSON of what its template is filled with."""

    __tablename__ = "outgoing_mails"

    id: Mapped[Id]
    template: Mapped[str] = mapped_column(Text)
    recipient: Mapped[str] = mapped_column(Text)
    reply_to: Mapped[str | None] = mapped_column(Text)
    values_sealed: Mapped[str] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
    due_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    attempts: Mapped[int] = mapped_column(server_default="0")

    __table_args__ = (
        CheckConstraint("attempts >= 0", name="attempts"),
        Index("outgoing_mails_due_at_idx", "due_at"),
    )
