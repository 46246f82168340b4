"""Which organisation a person belongs to by the domain of their e-mail address, when they first come by trusted header."""

from __future__ import annotations

import logging
import re

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dwctl.config import Settings
from dwctl.errors import NotFound
from dwctl.identity import users
from dwctl.identity.tables import OrganizationMembership, User
from dwctl.organizations import accounts, locks

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


@users.on_arrival
def join_by_domain(session: Session, user: User, settings: Settings) -> None:
    """Make a new person a member of the organisation named after their e-mail's domain, or the owner of a new one, where the setting wants it.

    A failure is logged and leaves the person without an organisation: it must not keep anybody from signing in.
    """
    domain = user.email.rpartition("@")[2].lower()
    wanted = settings.auth.proxy_header.auto_create_organizations
    if not wanted or domain in PERSONAL_DOMAINS or not _DOMAIN.fullmatch(domain):
        return
    try:
        with session.begin_nested():
            _join(session, user, domain, settings)
    except (SQLAlchemyError, NotFound):
        log.exception("joining by e-mail domain failed", extra={"user_id": str(user.id)})


def _join(session: Session, user: User, domain: str, settings: Settings) -> None:
    users.lock(session, f"organization {domain}")
    named = session.scalar(select(User).where(User.username == domain))
    if named is None:
        accounts.found(session, name=domain, email=user.email, owner=user, settings=settings)
    elif named.user_type == "organization":
        locks.organization(session, named.id)
        if _speaks_for(session, named, domain):
            accounts.add_membership(session, named, user, "member")


def _speaks_for(session: Session, organization: User, domain: str) -> bool:
    """Whether an owner is known to be of that domain. Anybody may give an organisation any free name: nobody shall gather strangers by that."""
    owner = (
        select(OrganizationMembership.id)
        .join(User, User.id == OrganizationMembership.user_id)
        .where(
            OrganizationMembership.organization_id == organization.id,
            OrganizationMembership.status == "active",
            OrganizationMembership.role == "owner",
            # Who was made one unasked, by a colleague, knows nothing of it.
            OrganizationMembership.invited_by.is_(None),
            ~User.is_deleted,
            # Who registered by password may have written any address.
            User.auth_source != "native",
            func.lower(func.split_part(User.email, "@", -1)) == domain,
        )
    )
    return session.scalar(owner.limit(1)) is not None
