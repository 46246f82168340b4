"""Who is behind batches, for all that are shown at once: two statements, however many they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.identity.tables import ApiKey, User
from dwctl.queue.tables import Batch


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
    """Owners by their id as text; e-mail addresses of those who made something, by their hidden key."""

    owners: Mapping[str, Owner]
    makers: Mapping[UUID, str]

    def about(self, batch: Batch) -> dict[str, str]:
        """What a batch's metadata says of its maker and its owner."""
        owner = self.owners.get(batch.created_by)
        maker = self.makers.get(batch.api_key_id) if batch.api_key_id else None
        email = maker or (owner.email if owner else None)
        said = {"created_by_email": email} if email else {}
        return said | (owner.context if owner else {})

    def email_of_owner(self, batch: Batch) -> dict[str, str]:
        """The same for the answers that name the owner only."""
        owner = self.owners.get(batch.created_by)
        return {"created_by_email": owner.email} if owner else {}


def behind(session: Session, batches: Iterable[Batch]) -> People:
    """Those behind these batches."""
    shown = list(batches)
    owners = {id for id in (_uuid(batch.created_by) for batch in shown) if id}
    keys = {batch.api_key_id for batch in shown if batch.api_key_id}
    users = select(User.id, User.email, User.display_name, User.user_type)
    makers = select(ApiKey.id, User.email).join(User, User.id == ApiKey.created_by)
    return People(
        {
            str(row.id): Owner(row.email, row.display_name, row.user_type == "organization")
            for row in session.execute(users.where(User.id.in_(owners)))
        },
        {row.id: row.email for row in session.execute(makers.where(ApiKey.id.in_(keys)))},
    )


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
