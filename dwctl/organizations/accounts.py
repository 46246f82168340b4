"""Organisations themselves: made, found, counted, changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.config import Settings
from dwctl.errors import Invalid, NotFound
from dwctl.identity import users
from dwctl.identity.tables import OrganizationMembership, User
from dwctl.organizations import locks


class TooManyMemberships(Invalid):
    """This person is a member of as many organizations as one may be. They must leave one first."""

    code = "too_many_organizations"


def create(
    session: Session,
    settings: Settings,
    *,
    name: str,
    email: str,
    owner_id: UUID,
    display_name: str | None = None,
) -> User:
    """A new organisation and its owner. A name that is taken breaks a constraint (409). Raises NotFound and TooManyMemberships of the owner."""
    owner = locks.person(session, owner_id)
    insist_on_room(session, owner.id, settings)
    return found(
        session, name=name, email=email, owner=owner, settings=settings, display_name=display_name
    )


def found(
    session: Session,
    *,
    name: str,
    email: str,
    owner: User,
    settings: Settings,
    display_name: str | None = None,
) -> User:
    """The same without a look at how many the owner has; the owner is locked, or as new as the organisation."""
    organization = users.create(
        session,
        username=name,
        email=email,
        display_name=display_name,
        roles=settings.auth.default_user_roles,
        auth_source="organization",
        user_type="organization",
    )
    add_membership(session, organization, owner, "owner")
    return organization


def add_membership(
    session: Session, organization: User, user: User, role: str
) -> OrganizationMembership:
    """An active membership; both are locked, or new."""
    member = OrganizationMembership(
        user_id=user.id, organization_id=organization.id, role=role, status="active"
    )
    session.add(member)
    session.flush()
    return member


def insist_on_room(session: Session, user_id: UUID, settings: Settings) -> None:
    """Whether the person, who is locked, may become a member of one more. Raises TooManyMemberships."""
    most = settings.organizations.max_per_user
    if (session.scalar(select(func.count()).select_from(own(user_id).subquery())) or 0) >= most:
        raise TooManyMemberships(
            f"A user can be a member of at most {most} organizations: one of them must be left first"
        )


def get(session: Session, organization_id: UUID) -> User:
    """The organisation. Raises NotFound."""
    found = session.scalar(users.organizations().where(User.id == organization_id))
    if found is None:
        raise NotFound(f"Organization with ID {organization_id} not found")
    return found


def listed(search: str | None) -> Select[User]:
    """All organisations, newest first, narrowed to names and e-mails that contain the text."""
    return users.newest_first(users.organizations(), search)


def own(user_id: UUID) -> Select[User]:
    """The organisations of which a person is an active member, oldest membership first."""
    return (
        users.organizations()
        .join(OrganizationMembership, OrganizationMembership.organization_id == User.id)
        .where(OrganizationMembership.user_id == user_id, OrganizationMembership.status == "active")
        .order_by(OrganizationMembership.created_at, OrganizationMembership.id)
    )


def member_counts(session: Session, ids: Iterable[UUID]) -> dict[UUID, int]:
    """How many members each organisation has, invitations that can still be accepted among them."""
    wanted = list(ids)
    if not wanted:
        return {}
    counted = (
        select(OrganizationMembership.organization_id, func.count().label("entries"))
        .where(
            OrganizationMembership.organization_id.in_(wanted),
            or_(
                OrganizationMembership.status == "active",
                OrganizationMembership.expires_at.is_(None),
                OrganizationMembership.expires_at > func.now(),
            ),
        )
        .group_by(OrganizationMembership.organization_id)
    )
    return {row.organization_id: row.entries for row in session.execute(counted)}


def change(organization: User, changes: dict[str, Any]) -> None:
    """Set what is named; a new threshold is a new occasion to be told."""
    for name, value in changes.items():
        setattr(organization, name, value)
    if "low_balance_threshold" in changes:
        organization.low_balance_notification_sent = False
    if changes:
        organization.updated_at = clock.now()
