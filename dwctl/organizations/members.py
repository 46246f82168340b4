"""Members of an organisation: listed, added, given a role, removed. The organisation is locked by who calls (`locks`), but for the list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from dwctl.config import Settings
from dwctl.errors import Conflict, Invalid
from dwctl.identity import api_keys, users
from dwctl.identity.tables import OrganizationMembership, User
from dwctl.organizations import accounts, invitations, locks
from dwctl.organizations.rights import no_member

ROLES = ("owner", "admin", "member")


class LastOwner(Invalid):
    """An organization needs an owner. Assign another owner first."""

    code = "last_owner"


@dataclass(frozen=True, slots=True)
class Member:
    """A membership or an invitation with the person behind it; None where nobody has the address."""

    row: OrganizationMembership
    user: User | None


def check_role(role: str) -> str:
    """The role, if it is one. Raises Invalid."""
    if role not in ROLES:
        raise Invalid(f"Invalid role '{role}'. Must be one of: {', '.join(ROLES)}", param="role")
    return role


def listed(organization_id: UUID) -> Select[OrganizationMembership]:
    """Active members first, then invitations, each by age."""
    mine = select(OrganizationMembership).where(
        OrganizationMembership.organization_id == organization_id
    )
    return mine.order_by(
        OrganizationMembership.status,
        OrganizationMembership.created_at,
        OrganizationMembership.id,
    )


def with_people(session: Session, rows: Sequence[OrganizationMembership]) -> list[Member]:
    """The rows with who is behind them."""
    people = _people(session, rows)
    return [Member(row, people.get(row.user_id or row.invite_email)) for row in rows]


def get(session: Session, organization_id: UUID, user_id: UUID) -> OrganizationMembership:
    """An active membership. Raises NotFound."""
    found = session.scalar(
        _active(organization_id)
        .where(OrganizationMembership.user_id == user_id)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise no_member(organization_id, user_id)
    return found


def add(
    session: Session,
    organization: User,
    user_id: UUID,
    role: str,
    settings: Settings,
    *,
    colleague: UUID | None = None,
) -> Member:
    """Make somebody a member without asking them: a colleague does, or an administrator (None). Raises NotFound, Conflict and TooManyMemberships."""
    known = users.get(session, user_id)
    refuse_member(session, organization.id, known.id)
    if invitations.is_invited(session, organization.id, known.email):
        raise Conflict(
            "This person has been invited already: they can accept, or the invitation can be taken back",
            members={"resource": "unknown"},
        )
    user = locks.person(session, user_id)
    accounts.insist_on_room(session, user.id, settings)
    row = accounts.add_membership(session, organization, user, role)
    # It stays, and says that neither they nor an administrator had a part in it (`domains`).
    row.invited_by = colleague
    session.flush()
    return Member(row, user)


def refuse_member(session: Session, organization_id: UUID, user_id: UUID) -> None:
    """Conflict for who is a member already. (Nobody else is locked, see `departures`.)"""
    if session.scalar(_of(organization_id, user_id)) is not None:
        raise Conflict("This person is a member already", members={"resource": "unknown"})


def change_role(session: Session, member: OrganizationMembership, role: str) -> None:
    """Give a member another role. Raises LastOwner."""
    if role != "owner":
        _insist_on_another_owner(
            session, member, "Cannot demote the last owner. Assign another owner first."
        )
    member.role = role
    session.flush()


def remove(session: Session, member: OrganizationMembership) -> None:
    """End a membership, and the keys that this person has made for the organisation. Raises LastOwner."""
    text = "Cannot remove the last owner of an organization. Transfer ownership first."
    _insist_on_another_owner(session, member, text)
    _end(session, member)


def leave(session: Session, member: OrganizationMembership) -> None:
    """The same by oneself."""
    text = "Cannot leave as the last owner. Transfer ownership first."
    _insist_on_another_owner(session, member, text)
    _end(session, member)


def others(session: Session, member: OrganizationMembership, *roles: str) -> int:
    """How many other active members the organisation has; `roles` narrows it to those."""
    rest = (
        _active(member.organization_id)
        .join(User, User.id == OrganizationMembership.user_id)
        .where(OrganizationMembership.id != member.id, ~User.is_deleted)
    )
    if roles:
        rest = rest.where(OrganizationMembership.role.in_(roles))
    return session.scalar(select(func.count()).select_from(rest.subquery())) or 0


def _insist_on_another_owner(session: Session, member: OrganizationMembership, text: str) -> None:
    if member.role == "owner" and not others(session, member, "owner"):
        raise LastOwner(text)


def _end(session: Session, member: OrganizationMembership) -> None:
    assert member.user_id
    organization_id, user_id = member.organization_id, member.user_id
    # The membership first: whoever makes a key by it at this moment holds it, so that the key is there to be revoked afterwards.
    session.delete(member)
    session.flush()
    api_keys.revoke(session, organization_id, user_id)


def _active(organization_id: UUID) -> Select[OrganizationMembership]:
    return select(OrganizationMembership).where(
        OrganizationMembership.organization_id == organization_id,
        OrganizationMembership.status == "active",
    )


def _of(organization_id: UUID, user_id: UUID) -> Select[OrganizationMembership]:
    return select(OrganizationMembership).where(
        OrganizationMembership.organization_id == organization_id,
        OrganizationMembership.user_id == user_id,
    )


def _people(
    session: Session, rows: Sequence[OrganizationMembership]
) -> dict[UUID | str | None, User]:
    """The people of memberships by their id; those of invitations by the address as it was written."""
    ids = [row.user_id for row in rows if row.user_id]
    invited = {row.invite_email: row.invite_email.lower() for row in rows if not row.user_id and row.invite_email}  # fmt: skip
    found: dict[UUID | str | None, User] = {
        user.id: user for user in session.scalars(users.people().where(User.id.in_(ids)))
    }
    if invited:
        same = users.people().where(func.lower(User.email).in_(set(invited.values())))
        eldest = {
            u.email.lower(): u for u in session.scalars(same.order_by(User.created_at.desc()))
        }
        found |= {written: eldest[plain] for written, plain in invited.items() if plain in eldest}
    return found
