"""Who is calling, as a value that outlives the database session."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

MANAGERS = ("owner", "admin")
"""The roles in an organisation that manage it."""


@dataclass(frozen=True, slots=True)
class Membership:
    """An active membership in an organisation; `role` is owner, admin or member."""

    organization_id: UUID
    name: str
    role: str


@dataclass(frozen=True, slots=True)
class Caller:
    """A signed-in person, by session, trusted header or platform key.

    `active_organization_id` is the organisation in whose name the person acts; it changes what is theirs, never what they may do.
    """

    user_id: UUID
    username: str
    email: str
    roles: frozenset[str]
    is_admin: bool
    source: str
    memberships: tuple[Membership, ...] = field(default=())
    active_organization_id: UUID | None = None
    api_key_id: UUID | None = None
    login_session_id: UUID | None = None
    secret_hash: bytes | None = field(default=None, repr=False)
    """SHA-256 of the API key's secret that was shown."""

    @property
    def owner_id(self) -> UUID:
        """The account that owns what the caller makes: the active organisation, else the person."""
        return self.active_organization_id or self.user_id

    def role_in(self, organization_id: UUID) -> str | None:
        """The caller's role in an organisation, None for a stranger."""
        for membership in self.memberships:
            if membership.organization_id == organization_id:
                return membership.role
        return None
