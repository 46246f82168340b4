"""Who is behind files and batches, for all that are shown at once: at most two statements, however many they are.

What is shown names its owner by an account's id as text (rows that were written by hand may have any), and its maker by a hidden key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.identity.tables import ApiKey, User


@dataclass(frozen=True, slots=True)
class Owner:
    """An account as it is shown."""

    email: str
    name: str | None
    is_organization: bool

    @property
    def context(self) -> dict[str, str]:
        """Whether it is somebody's own, or the organisation's."""
        if self.is_organization:
            return {"context_name": self.name or self.email, "context_type": "organization"}
        return {"context_name": "Personal", "context_type": "personal"}


@dataclass(frozen=True, slots=True)
class People:
    """Owners by their id; e-mail addresses of those who made something, by their hidden key."""

    owners: Mapping[UUID, Owner]
    makers: Mapping[UUID, str]

    def owner(self, written: str | None) -> Owner | None:
        """The account of an owner."""
        id = _uuid(written)
        return None if id is None else self.owners.get(id)

    def maker(self, key_id: UUID | None) -> str | None:
        """The e-mail address of the person with that key."""
        return None if key_id is None else self.makers.get(key_id)


def behind(session: Session, owners: Iterable[str | None], keys: Iterable[UUID | None]) -> People:
    """Those behind what has these owners and keys."""
    ids = {id for written in owners if (id := _uuid(written))}
    users = select(User.id, User.email, User.display_name, User.user_type)
    found = {
        row.id: Owner(row.email, row.display_name, row.user_type == "organization")
        for row in (session.execute(users.where(User.id.in_(ids))) if ids else ())
    }
    wanted = {key for key in keys if key}
    makers = select(ApiKey.id, User.email).join(User, User.id == ApiKey.created_by)
    rows = session.execute(makers.where(ApiKey.id.in_(wanted))) if wanted else ()
    return People(found, {row.id: row.email for row in rows})


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
