"""Users: list, create, show, change, delete; and the groups of one user."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from dwctl import clock
from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import ledger
from dwctl.db import db
from dwctl.errors import Forbidden, Invalid
from dwctl.identity import groups, organizations, profiles, users
from dwctl.identity.schemas import (
    GroupSchema,
    IncludeQuery,
    UserCreate,
    UserPage,
    UserSchema,
    UsersQuery,
    UserUpdate,
)
from dwctl.identity.tables import Group, User
from dwctl.web import current, pagination
from dwctl.web.dumping import Extended, WrittenRows, written
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("users", __name__, description="Users and their groups")
guard.protect(blueprint)

_GROUP = GroupSchema(exclude=("users", "models"))

NEW_FOR = timedelta(seconds=10)
"""Whoever signed in first so soon after being made is new here, and is sent through the onboarding."""


def may_read_account(caller: Caller, user_id: UUID | str, **_path: Any) -> None:
    """Oneself, an organisation that one is a member of, and anybody for those who may read all users."""
    target = target_of(caller, user_id)
    allowed = guard.may_for(caller, Resource.USERS, Operation.READ, target)
    if not allowed and caller.role_in(target) is None:
        raise Forbidden(f"Insufficient permissions to Read user data for user {target}")


def _may_update(caller: Caller, user_id: UUID) -> None:
    if not guard.may_for(caller, Resource.USERS, Operation.UPDATE, user_id):
        raise Forbidden(f"Insufficient permissions to Update user data for user {user_id}")


def target_of(caller: Caller, user_id: UUID | str) -> UUID:
    """Whom a path is about: the id in it, or the caller for `current`."""
    return user_id if isinstance(user_id, UUID) else caller.user_id


@blueprint.route("/users", methods=["GET"])
@guard.requires(Resource.USERS, Operation.READ)
@blueprint.arguments(UsersQuery, location="query")
@blueprint.response(200, UserPage)
def list_users(query: dict[str, Any]) -> dict[str, Any]:
    """List users, newest first"""
    session, caller = db.session(), guard.identify()
    skip, limit = query["skip"], query["limit"]
    wanted = users.newest_first(users.people(), query["search"])
    found, total = pagination.page(session, wanted, skip=skip, limit=limit)
    included = pagination.includes(query["include"]) & {"groups", "billing"}
    if not may_all(caller, Resource.CREDITS, Operation.READ):
        included -= {"billing"}
    return pagination.envelope(_extended(found, included), total, skip=skip, limit=limit)


@blueprint.route("/users", methods=["POST"])
@guard.requires(Resource.USERS, Operation.CREATE)
@blueprint.arguments(UserCreate)
@blueprint.response(201, UserSchema)
def create_user(wanted: dict[str, Any]) -> User:
    """Create a user, who signs in by trusted header

    Name and e-mail are taken in every spelling of their case. `StandardUser` is added to the roles.
    """
    session = db.session()
    users.insist_on_free(session, username=wanted["username"], email=wanted["email"])
    user = users.create(session, auth_source="proxy-header", **wanted)
    session.commit()
    return user


@blueprint.route("/users/<user:user_id>", methods=["GET"])
@guard.checks(may_read_account)
@blueprint.arguments(IncludeQuery, location="query")
@blueprint.response(200, UserSchema)
def get_user(query: dict[str, Any], user_id: UUID | str) -> Extended:
    """Show one user, or oneself as `current`"""
    caller = guard.identify()
    user = users.shown(db.session(), target_of(caller, user_id))
    included = pagination.includes(query["include"])
    if not _may_read_balance(caller, user.id):
        included -= {"billing"}
    (shown,) = _extended([user], included)
    more = _about_oneself(caller, user) if user_id == "current" else {}
    return Extended(shown, **more)


@blueprint.route("/users/<id:user_id>", methods=["PATCH"])
@guard.checks(_may_update)
@blueprint.arguments(UserUpdate)
@blueprint.response(200, UserSchema)
def update_user(changes: dict[str, Any], user_id: UUID) -> User:
    """Change a user

    Null clears `low_balance_threshold`, `log_sample` and the three `auto_topup_*` members; elsewhere it means unchanged, as leaving the member
    out does.
    Roles are changed by administrators. The last account that may manage the platform stays one.
    """
    _check_roles(guard.identify(), user_id, changes.get("roles"))
    user = users.get(db.session(), user_id)
    profiles.change(db.session(), user, changes)
    db.session.commit()
    return user


@blueprint.route("/users/<id:user_id>", methods=["DELETE"])
@guard.requires(Resource.USERS, Operation.DELETE)
@blueprint.response(204)
def delete_user(user_id: UUID) -> None:
    """Delete a user or an organisation

    Keys, sessions, memberships and connections end, unfinished batches and queued requests are cancelled. The row stays without what was
    personal in it, for what it is mentioned in (the ledger, the log).
    """
    if user_id == guard.identify().user_id:
        raise Invalid("You cannot delete your own account")
    session = db.session()
    users.delete_account(session, users.get(session, user_id))
    session.commit()


@blueprint.route("/users/<user:user_id>/groups", methods=["GET"])
@guard.checks(may_read_account)
@blueprint.response(200, GroupSchema(many=True))
def list_user_groups(user_id: UUID | str) -> Sequence[Any]:
    """List a user's groups by name, Everyone last"""
    caller, session = guard.identify(), db.session()
    user = users.shown(session, target_of(caller, user_id))
    return _masked(caller, groups.of_accounts(session, [user.id])[user.id])


@blueprint.route("/users/<id:user_id>/groups/<id:group_id>", methods=["POST"])
@guard.requires(Resource.USERS, Operation.UPDATE)
@blueprint.response(204)
def add_user_group(user_id: UUID, group_id: UUID) -> None:
    """Put a user into a group"""
    groups.add(db.session(), group_id, user_id, current.settings())
    db.session.commit()


@blueprint.route("/users/<id:user_id>/groups/<id:group_id>", methods=["DELETE"])
@guard.requires(Resource.USERS, Operation.UPDATE)
@blueprint.response(204)
def remove_user_group(user_id: UUID, group_id: UUID) -> None:
    """Take a user out of a group"""
    groups.drop(db.session(), group_id, user_id, current.settings())
    db.session.commit()


def _may_read_balance(caller: Caller, account_id: UUID) -> bool:
    own = guard.may_for(caller, Resource.CREDITS, Operation.READ, account_id)
    return own or caller.role_in(account_id) is not None


def _extended(found: Sequence[User], included: frozenset[str]) -> list[Extended]:
    """The users with what is shown beside them. Only one's own groups are masked, which need no permission to be read."""
    session, caller = db.session(), guard.identify()
    ids = [user.id for user in found]
    more: dict[UUID, dict[str, Any]] = {user_id: {} for user_id in ids}
    if "groups" in included:
        found_groups = {
            id: _masked(caller, of) for id, of in groups.of_accounts(session, ids).items()
        }
        known = {group.id: group for of_user in found_groups.values() for group in of_user}
        shown = {group_id: written(_GROUP, group) for group_id, group in known.items()}
        for user_id, of_user in found_groups.items():
            more[user_id]["groups"] = WrittenRows(shown[group.id] for group in of_user)
    if "billing" in included:
        for user_id, balance in ledger.balances(session, ids).items():
            more[user_id] |= {"credit_balance": balance, "credit_balance_exact": balance}
    if "organizations" in included:
        for user in found:
            more[user.id]["organizations"] = organizations.memberships_with(session, user)
    return [Extended(user, **more[user.id]) for user in found]


def _masked(caller: Caller, found: Sequence[Group]) -> Sequence[Any]:
    if may_all(caller, Resource.USERS, Operation.READ):
        return found
    return [Extended(group, created_by=None) for group in found]


def _about_oneself(caller: Caller, user: User) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if caller.active_organization_id:
        more["active_organization_id"] = caller.active_organization_id
    onboarding_url = current.settings().onboarding_url
    first_seen = user.last_login or clock.now()
    if onboarding_url and first_seen - user.created_at <= NEW_FOR:
        more["onboarding_redirect_url"] = onboarding_url
    return more


def _check_roles(caller: Caller, user_id: UUID, roles: list[str] | None) -> None:
    if roles is None:
        return
    if not may_all(caller, Resource.USERS, Operation.UPDATE):
        raise Forbidden("Insufficient permissions to Update user roles")
    leaving = users.MANAGER in caller.roles and users.MANAGER not in roles
    if user_id == caller.user_id and leaving and not caller.is_admin:
        raise Invalid("You cannot give up your own PlatformManager role")
