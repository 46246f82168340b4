"""Who belongs to which organisation, for those who ask whether somebody may: the room `dwctl.organizations` changes it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from dwctl.access.caller import Membership
from dwctl.identity.tables import OrganizationMembership, User


def memberships_of(session: Session, user_id: UUID) -> tuple[Membership, ...]:
    """Active memberships in organisations that exist, the oldest first."""
    return tuple(
        Membership(row.id, row.name, row.role) for row in session.execute(_memberships(user_id))
    )


def role_of(session: Session, user_id: UUID, organization_id: UUID) -> str | None:
    """The user's role in an organisation that exists; None for who is no active member."""
    memberships = memberships_of(session, user_id)
    return next((m.role for m in memberships if m.organization_id == organization_id), None)


def holds_membership(session: Session, user_id: UUID, organization_id: UUID) -> bool:
    """Whether the user is an active member, and stays one until the transaction ends: who removes them waits, and then sees what it has made."""
    held = select(OrganizationMembership.id).where(
        OrganizationMembership.user_id == user_id,
        OrganizationMembership.organization_id == organization_id,
        OrganizationMembership.status == "active",
    )
    return session.scalar(held.with_for_update(read=True)) is not None


def _memberships(user_id: UUID) -> Select[UUID, str, str]:
    return (
        select(
            User.id,
            func.coalesce(User.display_name, User.username).label("name"),
            OrganizationMembership.role,
        )
        .join(User, User.id == OrganizationMembership.organization_id)
        .where(
            OrganizationMembership.user_id == user_id,
            OrganizationMembership.status == "active",
            User.is_deleted.is_(False),
        )
        .order_by(OrganizationMembership.created_at, OrganizationMembership.id)
    )
