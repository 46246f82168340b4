"""Invitations by mail: a link with a token, of which the hash is kept. Whoever has the link and the address may accept or decline, for some days.

An invitation is a row of `user_organizations` without a user: who it is for is known by the address alone, so that an answer cannot tell which
addresses have an account. The organisation is locked by who calls (`locks`), but for a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, select
from sqlalchemy.orm import Session, aliased

from dwctl.config import Settings
from dwctl.errors import Conflict, Invalid, NotFound
from dwctl.identity import tokens
from dwctl.identity.tables import OrganizationMembership, User
from dwctl.mail import outbox


class Expired(Invalid):
    """This invitation has expired. Ask for another one."""

    code = "invitation_expired"


class WrongAddress(Invalid):
    """This invitation was sent to another e-mail address. Sign in with that one, or ask for an invitation to yours."""

    code = "invitation_for_another_address"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What an invitation says to who has the link."""

    id: UUID
    organization_id: UUID
    email: str
    role: str
    org_name: str
    inviter_name: str
    expires_at: datetime


def invite(
    session: Session,
    settings: Settings,
    *,
    organization: User,
    email: str,
    role: str,
    inviter: User,
) -> OrganizationMembership:
    """Invite whoever has this address, and have the mail sent. Raises Conflict for members, and where an invitation waits already."""
    session.execute(delete(OrganizationMembership).where(*_to(organization.id, email), _is_over()))
    if session.scalar(_member_with(organization.id, email)) is not None:
        raise Conflict("This person is a member already", members={"resource": "unknown"})
    if is_invited(session, organization.id, email):
        raise Conflict(
            "This address has been invited already: the invitation can be sent again, or taken back",
            members={"resource": "unknown"},
        )
    row = OrganizationMembership(
        organization_id=organization.id, invite_email=email, role=role, status="pending"
    )
    session.add(row)
    send(session, settings, row, organization, inviter)
    return row


def send(
    session: Session,
    settings: Settings,
    row: OrganizationMembership,
    organization: User,
    inviter: User,
) -> None:
    """Have a mail with a new link sent; an earlier link works no more, and time begins anew."""
    token = tokens.new()
    row.invite_token_hash = tokens.fingerprint(token)
    row.invited_by = inviter.id
    lasting = timedelta(seconds=settings.organizations.invitation_expiry)
    row.expires_at = func.now() + lasting
    session.flush()
    session.refresh(row)
    assert row.invite_email
    assert row.expires_at
    values = {
        "link": f"{settings.dashboard_url.rstrip('/')}/org-invite?token={token}",
        "organization": _name(organization),
        "role": row.role,
        "inviter": _name(inviter),
        "expires_at": row.expires_at.strftime("%Y-%m-%d %H:%M UTC"),
    }
    mail = outbox.Mail("org_invite", row.invite_email, values, row.expires_at)
    outbox.put(session, mail)


def is_invited(session: Session, organization_id: UUID, email: str) -> bool:
    """Whether an invitation to this address can be accepted."""
    waiting = select(OrganizationMembership.id).where(*_to(organization_id, email), ~_is_over())
    return session.scalar(waiting) is not None


def get(session: Session, organization_id: UUID, invitation_id: UUID) -> OrganizationMembership:
    """One that waits, or has run out. Raises NotFound."""
    found = session.scalar(
        _pending()
        .where(OrganizationMembership.id == invitation_id)
        .where(OrganizationMembership.organization_id == organization_id)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound(
            f"Pending invite with ID {invitation_id} in organization {organization_id} not found"
        )
    return found


def by_token(session: Session, token: str) -> Invitation:
    """What the link with this token leads to. Raises NotFound and Expired."""
    organization, inviter = aliased(User), aliased(User)
    found = session.execute(
        _pending()
        .join(organization, organization.id == OrganizationMembership.organization_id)
        .outerjoin(inviter, inviter.id == OrganizationMembership.invited_by)
        .where(OrganizationMembership.invite_token_hash == tokens.fingerprint(token))
        .where(~organization.is_deleted)
        .add_columns(organization, inviter, _is_over())
        .execution_options(populate_existing=True)
    ).one_or_none()
    if found is None:
        raise NotFound("Invite with ID invalid or expired token not found")
    row, of, by, is_over = found
    if is_over:
        raise Expired
    inviter_name = _name(of if by is None or by.is_deleted else by)
    return Invitation(
        row.id, of.id, row.invite_email, row.role, _name(of), inviter_name, row.expires_at
    )


def check_address(invitation: Invitation, email: str) -> None:
    """Only who has the address answers. Raises WrongAddress."""
    if not is_for(invitation, email):
        raise WrongAddress


def is_for(invitation: Invitation, email: str) -> bool:
    """Whether it was sent to this address, in any spelling of its case."""
    return invitation.email.lower() == email.lower()


def accept(session: Session, row: OrganizationMembership, user_id: UUID) -> None:
    """Make the invitation the membership of a person who is locked."""
    row.user_id = user_id
    row.status = "active"
    row.created_at = func.now()
    row.invite_token_hash = row.invite_email = row.expires_at = row.invited_by = None
    session.flush()


def _name(account: User) -> str:
    return account.display_name or account.username


def _pending() -> Select[OrganizationMembership]:
    return select(OrganizationMembership).where(
        OrganizationMembership.status == "pending", OrganizationMembership.user_id.is_(None)
    )


def _to(organization_id: UUID, email: str) -> tuple[ColumnElement[bool], ...]:
    return (
        OrganizationMembership.status == "pending",
        func.lower(OrganizationMembership.invite_email) == func.lower(email),
        OrganizationMembership.organization_id == organization_id,
    )


def _is_over() -> ColumnElement[bool]:
    return func.coalesce(OrganizationMembership.expires_at <= func.now(), False)


def _member_with(organization_id: UUID, email: str) -> Select[UUID]:
    return (
        select(OrganizationMembership.id)
        .join(User, User.id == OrganizationMembership.user_id)
        .where(OrganizationMembership.organization_id == organization_id)
        .where(func.lower(User.email) == func.lower(email), ~User.is_deleted)
        .limit(1)
    )
