"""Organisations: create, list, show, change, delete; and those of one user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import ledger
from dwctl.db import db
from dwctl.errors import Forbidden, Invalid
from dwctl.identity import organizations, users
from dwctl.identity.tables import User
from dwctl.organizations import accounts, locks, rights
from dwctl.organizations.schemas import (
    OrganizationCreate,
    OrganizationPage,
    OrganizationSchema,
    OrganizationsQuery,
    OrganizationUpdate,
    OwnOrganization,
)
from dwctl.web import current, pagination
from dwctl.web.dumping import Extended
from dwctl.web.schemas import Blueprint

blueprint = Blueprint(
    "organizations", __name__, description="Organizations: accounts of several people"
)
guard.protect(blueprint)

_CLEARABLE = ("display_name", "low_balance_threshold", "log_sample")


@blueprint.route("/organizations", methods=["POST"])
@guard.requires_own(Resource.ORGANIZATIONS, Operation.CREATE)
@blueprint.arguments(OrganizationCreate)
@blueprint.response(201, OrganizationSchema)
def create_organization(wanted: dict[str, Any]) -> Extended:
    """Create an organization

    The caller becomes its owner, or whom `owner_id` names. A name that any account has is 409, an owner who is a member of as many organizations as one may be is 400.
    """
    if not wanted["name"]:
        raise Invalid("Organization name cannot be empty", param="name")
    session, caller = db.session(), guard.identify()
    owner_id = wanted.pop("owner_id")
    if owner_id and not may_all(caller, Resource.ORGANIZATIONS, Operation.CREATE):
        raise Forbidden("Insufficient permissions to Create Organization owner assignment")
    made = accounts.create(
        session, current.settings(), owner_id=owner_id or caller.user_id, **wanted
    )
    session.commit()
    return Extended(made, member_count=1)


@blueprint.route("/organizations", methods=["GET"])
@guard.checks(rights.may_list)
@blueprint.arguments(OrganizationsQuery, location="query")
@blueprint.response(200, OrganizationPage)
def list_organizations(query: dict[str, Any]) -> dict[str, Any]:
    """List organizations

    All of them, newest first, for who may read all; else the caller's own, oldest membership first, at once unless `limit` says otherwise.
    """
    session, caller = db.session(), guard.identify()
    skip, limit = query["skip"], query["limit"]
    if may_all(caller, Resource.ORGANIZATIONS, Operation.READ):
        limit = limit or 10
        wanted = accounts.listed(query["search"])
    else:
        wanted = accounts.own(caller.user_id)
    found, total = pagination.page(session, wanted, skip=skip, limit=limit or pagination.MAX_LIMIT)
    counts = accounts.member_counts(session, [organization.id for organization in found])
    shown = [Extended(account, member_count=counts.get(account.id, 0)) for account in found]
    return pagination.envelope(shown, total, skip=skip, limit=limit or len(found))


@blueprint.route("/organizations/<id:organization_id>", methods=["GET"])
@guard.checks(rights.may_see)
@blueprint.response(200, OrganizationSchema)
def get_organization(organization_id: UUID) -> Extended:
    """Show one organization

    `credit_balance` and `credit_balance_exact` are there for its members, and for who may read all credits.
    """
    session, caller = db.session(), guard.identify()
    shown = _shown(accounts.get(session, organization_id))
    may_all_credits = may_all(caller, Resource.CREDITS, Operation.READ)
    if not may_all_credits and caller.role_in(organization_id) is None:
        return shown
    balance = ledger.balances(session, [organization_id])[organization_id]
    return Extended(shown, credit_balance=balance, credit_balance_exact=balance)


@blueprint.route("/organizations/<id:organization_id>", methods=["PATCH"])
@guard.checks(rights.may_change)
@blueprint.arguments(OrganizationUpdate)
@blueprint.response(200, OrganizationSchema)
def update_organization(changes: dict[str, Any], organization_id: UUID) -> Extended:
    """Change an organization

    Null clears `display_name`, `low_balance_threshold` and `log_sample`.
    """
    session = db.session()
    organization = locks.organization(session, organization_id)
    rights.confirm(session, guard.identify(), organization_id)
    told = {k: v for k, v in changes.items() if v is not None or k in _CLEARABLE}
    accounts.change(organization, told)
    session.commit()
    return _shown(organization)


@blueprint.route("/organizations/<id:organization_id>", methods=["DELETE"])
@guard.checks(rights.may_delete)
@blueprint.response(204)
def delete_organization(organization_id: UUID) -> None:
    """Delete an organization

    Its keys stop working, its batches are cancelled, memberships and invitations end. The account stays in the ledger, without its name.
    """
    session = db.session()
    users.delete_account(session, locks.organization(session, organization_id))
    session.commit()


@blueprint.route("/users/<user:user_id>/organizations", methods=["GET"])
@guard.checks(rights.may_list_of_user)
@blueprint.response(200, OwnOrganization(many=True))
def list_user_organizations(user_id: UUID | str) -> Sequence[Any]:
    """List a user's organizations, oldest membership first"""
    session, caller = db.session(), guard.identify()
    user = users.get(session, user_id if isinstance(user_id, UUID) else caller.user_id)
    roles = {m.organization_id: m.role for m in organizations.memberships_of(session, user.id)}
    return [
        {
            "id": organization.id,
            "name": organization.username,
            "display_name": organization.display_name,
            "role": roles.get(organization.id),
        }
        for organization in session.scalars(accounts.own(user.id))
    ]


def _shown(organization: User) -> Extended:
    counts = accounts.member_counts(db.session(), [organization.id])
    return Extended(organization, member_count=counts.get(organization.id, 0))
