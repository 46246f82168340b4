"""Members of an organisation: list, add, give a role, remove; leave it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource
from dwctl.db import db
from dwctl.identity import users
from dwctl.organizations import accounts, locks, members, rights
from dwctl.organizations.members import Member
from dwctl.organizations.schemas import MemberCreate, MemberSchema, MembersQuery, MemberUpdate
from dwctl.web import current, pagination
from dwctl.web.dumping import Extended
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("organization_members", __name__, description="Members of organizations")
guard.protect(blueprint)

# What is between a colleague, the identity provider and the payment provider.
_PRIVATE: dict[str, Any] = dict.fromkeys(
    (
        "external_user_id",
        "low_balance_threshold",
        "auto_topup_amount",
        "auto_topup_threshold",
        "auto_topup_monthly_limit",
        "zero_data_retention",
        "log_sample",
    )
)


@blueprint.route("/organizations/<id:organization_id>/members", methods=["GET"])
@guard.checks(rights.may_see)
@blueprint.arguments(MembersQuery, location="query")
@blueprint.response(200, MemberSchema(many=True))
def list_members(query: dict[str, int], organization_id: UUID) -> Any:
    """List members, then invitations, each by age

    The header `X-Total-Count` says how many there are.
    """
    session, caller = db.session(), guard.identify()
    organization = accounts.get(session, organization_id)
    rows, total = pagination.page(session, members.listed(organization.id), **query)
    found = members.with_people(session, rows)
    shown = [_shown(caller, member) for member in found]
    return shown, {"X-Total-Count": str(total)}


@blueprint.route("/organizations/<id:organization_id>/members", methods=["POST"])
@guard.checks(rights.may_manage_members)
@blueprint.arguments(MemberCreate)
@blueprint.response(201, MemberSchema)
def add_member(wanted: dict[str, Any], organization_id: UUID) -> dict[str, Any]:
    """Add a member

    Who is a member already, or invited, is 409. Only owners make owners.
    """
    session, caller = db.session(), guard.identify()
    role = members.check_role(wanted["role"])
    organization = locks.organization(session, organization_id)
    rights.confirm(session, caller, organization_id, owners=role == "owner")
    colleague = None if rights.administers(caller) else caller.user_id
    member = members.add(
        session, organization, wanted["user_id"], role, current.settings(), colleague=colleague
    )
    session.commit()
    return _shown(caller, member)


@blueprint.route("/organizations/<id:organization_id>/members/<id:user_id>", methods=["PATCH"])
@guard.checks(rights.may_manage_members)
@blueprint.arguments(MemberUpdate)
@blueprint.response(200, MemberSchema)
def change_member_role(
    wanted: dict[str, str], organization_id: UUID, user_id: UUID
) -> dict[str, Any]:
    """Give a member another role

    Only owners make or change owners, and the last one stays one.
    """
    session, caller = db.session(), guard.identify()
    role = members.check_role(wanted["role"])
    locks.organization(session, organization_id)
    member = members.get(session, organization_id, user_id)
    rights.confirm(session, caller, organization_id, owners="owner" in (role, member.role))
    members.change_role(session, member, role)
    user = users.get(session, user_id)
    session.commit()
    return _shown(caller, Member(member, user))


@blueprint.route("/organizations/<id:organization_id>/members/<id:user_id>", methods=["DELETE"])
@guard.checks(rights.may_manage_members)
@blueprint.response(204)
def remove_member(organization_id: UUID, user_id: UUID) -> None:
    """Remove a member

    The keys that they have made for the organization stop working. Only owners remove owners, and the last one stays.
    """
    session, caller = db.session(), guard.identify()
    locks.organization(session, organization_id)
    member = members.get(session, organization_id, user_id)
    rights.confirm(session, caller, organization_id, owners=member.role == "owner")
    members.remove(session, member)
    session.commit()


@blueprint.route("/organizations/<id:organization_id>/leave", methods=["POST"])
@guard.checks(rights.may_leave)
@blueprint.response(204)
def leave_organization(organization_id: UUID) -> None:
    """Leave an organization

    The keys that the caller has made for it stop working. The last owner cannot leave.
    """
    session, caller = db.session(), guard.identify()
    locks.organization(session, organization_id)
    members.leave(session, members.get(session, organization_id, caller.user_id))
    session.commit()


def _shown(caller: Caller, member: Member) -> dict[str, Any]:
    row = member.row
    shown = {
        "id": row.id,
        "user": _person(caller, member),
        "role": row.role,
        "status": row.status,
        "created_at": row.created_at,
    }
    if row.status == "pending":
        shown |= {"invite_email": row.invite_email, "expires_at": row.expires_at}
    return shown


def _person(caller: Caller, member: Member) -> Any:
    """Who it is, without what is nobody's business. Whether an invited address has an account is told to those who have invited it."""
    user = member.user
    if member.row.status == "pending" and not rights.manages(caller, member.row.organization_id):
        return None
    if user is None or guard.may_for(caller, Resource.USERS, Operation.READ, user.id):
        return user
    return Extended(user, **_PRIVATE)
