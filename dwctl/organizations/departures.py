"""What ends in organisations when an account is deleted: all of it with an organisation, the memberships with a person.

The person is locked before the organisations of which they are one; everywhere else a person is locked after an organisation of which they are
none. So nobody waits in a circle.
"""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from dwctl.billing import ledger
from dwctl.identity import users
from dwctl.identity.tables import OrganizationMembership, User
from dwctl.organizations import locks, members
from dwctl.organizations.members import LastOwner


@users.before_deletion
def depart(session: Session, account_id: UUID) -> None:
    """Raises LastOwner where others would be left without an owner, or credit without anybody."""
    if users.get(session, account_id).user_type == "organization":
        _dissolve(session, account_id)
    else:
        _withdraw(session, account_id)


def _dissolve(session: Session, organization_id: UUID) -> None:
    locks.organization(session, organization_id)
    # Before the organisation's own row is changed, for which whoever makes a key of it waits, holding a membership.
    mine = OrganizationMembership.organization_id == organization_id
    session.execute(delete(OrganizationMembership).where(mine))


def _withdraw(session: Session, user_id: UUID) -> None:
    locks.person(session, user_id)
    active = select(OrganizationMembership).where(
        OrganizationMembership.user_id == user_id, OrganizationMembership.status == "active"
    )
    locks.organizations(session, [row.organization_id for row in session.scalars(active)])
    for member in session.scalars(active.execution_options(populate_existing=True)).all():
        _step_down(session, member)


def _step_down(session: Session, member: OrganizationMembership) -> None:
    """Leave an organisation to its other owners. One that nobody else is in goes with its last member, unless it has credit."""
    if member.role != "owner" or members.others(session, member, "owner"):
        return
    organization = session.scalar(users.organizations().where(User.id == member.organization_id))
    if organization is None:
        return
    name = organization.display_name or organization.username
    if members.others(session, member):
        raise LastOwner(
            f"This person is the last owner of the organization {name}. Make another member its owner, or delete it, first."
        )
    if ledger.balances(session, [organization.id]).get(organization.id, 0) > 0:
        raise LastOwner(
            f"This person is the only member of the organization {name}, which has credit left. Add another owner, or delete it, first."
        )
    users.delete_account(session, organization)
