"""The order in which memberships are changed: the organisation is locked, then the person, then is looked.

What is locked stands still for other changes of memberships only: calls, sign-ins and new keys of the account do not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Select
from sqlalchemy.orm import Session

from dwctl.errors import NotFound
from dwctl.identity import users
from dwctl.identity.tables import User


def organization(session: Session, organization_id: UUID) -> User:
    """The organisation, locked until the transaction ends. Raises NotFound."""
    wanted = users.organizations().where(User.id == organization_id)
    found = session.scalar(_locking(wanted))
    if found is None:
        raise NotFound(f"Organization with ID {organization_id} not found")
    return found


def organizations(session: Session, ids: Iterable[UUID]) -> None:
    """Lock several, in one order."""
    wanted = users.organizations().where(User.id.in_(list(ids))).order_by(User.id)
    session.scalars(_locking(wanted)).all()


def person(session: Session, user_id: UUID) -> User:
    """The person, locked until the transaction ends. Raises NotFound, also for an organisation."""
    found = session.scalar(_locking(users.people().where(User.id == user_id)))
    if found is None:
        raise NotFound(f"User with ID {user_id} not found")
    return found


def _locking(wanted: Select[User]) -> Select[User]:
    # NO KEY UPDATE: rows that refer to the account (keys, calls' entries) can still be made.
    return wanted.with_for_update(key_share=True).execution_options(populate_existing=True)
