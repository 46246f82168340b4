"""Mapped class of who is still to be given sample files; files themselves are rows of the queue (`queue/tables.py`)."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.orm import Mapped, mapped_column

from dwctl.db import Base, CreatedAt


class Newcomer(Base):
    """A person who has registered and waits for sample files, which are made with that (hidden) key."""

    __tablename__ = "newcomers"

    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    api_key_id: Mapped[UUID]
    created_at: Mapped[CreatedAt]
