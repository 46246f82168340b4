"""Batches of an account that is deleted: those that run are cancelled. (Single requests end when a worker looks at their owner.)"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from dwctl.identity import users

_CANCEL = text(
    """
    SELECT fusillade.cancel_batch(id) FROM fusillade.batches
     WHERE created_by = :owner AND NOT single AND deleted_at IS NULL
       AND completed_at IS NULL AND failed_at IS NULL AND cancelled_at IS NULL AND expired_at IS NULL AND cancelling_at IS NULL
     ORDER BY id
    """
)


@users.before_deletion
def cancel_unfinished(session: Session, account_id: UUID) -> None:
    """Nothing of them is begun any more; what is in flight is stopped."""
    session.execute(_CANCEL, {"owner": str(account_id)})
