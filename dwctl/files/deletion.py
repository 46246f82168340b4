"""Deleting a file: it is gone at once, with the batches that run it; its lines are purged by a duty."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from dwctl.errors import NotFound

_DELETE = text("SELECT fusillade.delete_file(:id)")
_EXPIRE = text("SELECT fusillade.expire_file(:id)")


def delete(session: Session, file_id: UUID) -> None:
    """Delete a file that the caller may delete. Raises NotFound where somebody else was quicker."""
    if not session.scalar(_DELETE, {"id": file_id}):
        raise NotFound(f"File with ID {file_id} not found")


def note_expiry(session: Session, file_id: UUID) -> None:
    """Have the row say what a reader has seen: that the file is past its time."""
    session.execute(_EXPIRE, {"id": file_id})
