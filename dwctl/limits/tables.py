"""What is left of limits now, and who holds what. Unlogged: a crash of the database empties both, and everything is full again."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt

_C = Text(collation="C")


class LimitState(Base):
    """One key, model or component. `calls` and `tokens` are what was in its buckets `at` that time (null: full); `held` calls run.

    full_at: when the buckets are full if nobody takes anything. looked_at: when holds of dead processes were last looked for.
    """

    __tablename__ = "limit_states"

    subject: Mapped[str] = mapped_column(_C, primary_key=True)
    calls: Mapped[float | None]
    tokens: Mapped[float | None]
    held: Mapped[int] = mapped_column(server_default="0")
    at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    full_at: Mapped[CreatedAt]
    looked_at: Mapped[datetime] = mapped_column(server_default=text("'-infinity'"))

    __table_args__ = (
        CheckConstraint("held >= 0", name="held"),
        {
            "prefixes": ["UNLOGGED"],
            # Rows change all the time: room for their next versions on their own page, and old ones are taken away soon.
            "postgresql_with": {
                "fillfactor": "20",
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )


class LimitHold(Base):
    """What a process holds for one of its calls: a place (`slots` 1), LLM tokens by estimate. It ends with the call."""

    __tablename__ = "limit_holds"

    subject: Mapped[str] = mapped_column(_C, primary_key=True)
    owner: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    slots: Mapped[int]
    tokens: Mapped[float]

    __table_args__ = (
        CheckConstraint("slots IN (0, 1)", name="slots"),
        CheckConstraint("tokens >= 0", name="tokens"),
        {
            "prefixes": ["UNLOGGED"],
            "postgresql_with": {
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_scale_factor": "0",
            },
        },
    )
