"""Who belongs to which organisation, and the organisation that a business e-mail domain stands for."""

from __future__ import annotations

import logging
import re
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dwctl.access.caller import Membership
from dwctl.config import Settings
from dwctl.identity import users
from dwctl.identity.tables import OrganizationMembership, User

log = logging.getLogger(__name__)

_DOMAIN = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)+")

_PERSONAL = (
    "gmail.com googlemail.com outlook.com hotmail.com hotmail.co.uk live.com live.co.uk msn.com yahoo.com yahoo.co.uk yahoo.fr "
    "yahoo.de ymail.com rocketmail.com icloud.com me.com mac.com aol.com proton.me protonmail.com pm.me gmx.com gmx.de gmx.net "
    "web.de t-online.de mail.com mail.ru yandex.com yandex.ru zoho.com fastmail.com hey.com tutanota.com tuta.io qq.com 163.com "
    "126.com naver.com orange.fr free.fr laposte.net libero.it comcast.net verizon.net btinternet.com"
)
PERSONAL_DOMAINS = frozenset(_PERSONAL.split())
"""Domains whose users have nothing to do with each other."""


def memberships_of(session: Session, user_id: UUID) -> tuple[Membership, ...]:
    """Active memberships in organisations that exist, the oldest first."""
    return tuple(
        Membership(row.id, row.name, row.role) for row in session.execute(_memberships(user_id))
    )


def is_member(session: Session, user_id: UUID, organization_id: UUID) -> bool:
    """Whether the user is an active member."""
    memberships = memberships_of(session, user_id)
    return any(membership.organization_id == organization_id for membership in memberships)


def join_by_domain(session: Session, user: User, settings: Settings) -> None:
    """Make a new person a member of the organisation named after their e-mail's domain, or the owner of a new one.

    A failure is logged and leaves the person without an organisation: it must not keep anybody from signing in.
    """
    domain = user.email.rpartition("@")[2].lower()
    if domain in PERSONAL_DOMAINS or not _DOMAIN.fullmatch(domain):
        return
    try:
        with session.begin_nested():
            _join(session, user, domain, settings)
    except SQLAlchemyError:
        log.exception("joining by e-mail domain failed", extra={"user_id": str(user.id)})


def _join(session: Session, user: User, domain: str, settings: Settings) -> None:
    users.lock(session, f"organization {domain}")
    taken = session.scalar(select(User).where(User.username == domain))
    if taken is not None and taken.user_type != "organization":
        return
    organization = taken or users.create(
        session,
        username=domain,
        email=user.email,
        roles=settings.auth.default_user_roles,
        auth_source="organization",
        user_type="organization",
    )
    role = "member" if taken else "owner"
    session.add(OrganizationMembership(user_id=user.id, organization_id=organization.id, role=role))


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
