"""Who belongs to which organisation, for those who ask whether somebody may: the room `dwctl.organizations` changes it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, with_expression
from sqlalchemy.orm.interfaces import ORMOption

from dwctl.access.caller import Membership
from dwctl.identity.tables import OrganizationMembership, User

_M = OrganizationMembership
_ORGANIZATION = aliased(User)
_NAME = func.coalesce(_ORGANIZATION.display_name, _ORGANIZATION.username)


def memberships_of(session: Session, user_id: UUID) -> tuple[Membership, ...]:
    """Active memberships in organisations that exist, the oldest first."""
    found = _active(select(_ORGANIZATION.id, _NAME, _M.role), user_id)
    rows = session.execute(found.order_by(_M.created_at, _M.id))
    return tuple(Membership(*row) for row in rows)


def memberships_with(session: Session, user: User) -> tuple[Membership, ...]:
    """The same of somebody whose query may have BROUGHT them."""
    if user.memberships is None:
        return memberships_of(session, user.id)
    return tuple(Membership(UUID(id), name, role) for id, name, role in user.memberships)


def _brought() -> ORMOption:
    shown = func.json_build_array(_ORGANIZATION.id, _NAME, _M.role)
    ordered = aggregate_order_by(shown, _M.created_at, _M.id)
    every = func.coalesce(func.json_agg(ordered), func.json_build_array())
    found = _active(select(every), User.id).correlate(User)
    return with_expression(User.memberships, found.scalar_subquery())


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


def _active(
    query: Select[*tuple[Any, ...]], user_id: UUID | InstrumentedAttribute[UUID]
) -> Select[*tuple[Any, ...]]:
    """A query over somebody's active memberships in organisations that exist."""
    return (
        query.select_from(_M)
        .join(_ORGANIZATION, _ORGANIZATION.id == _M.organization_id)
        .where(_M.user_id == user_id, _M.status == "active", ~_ORGANIZATION.is_deleted)
    )


BROUGHT = _brought()
"""For a query for people: the memberships of each come with it."""
