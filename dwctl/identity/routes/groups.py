"""Groups and their members. Grants of models to groups are routes of the catalog."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource
from dwctl.db import db
from dwctl.identity import groups
from dwctl.identity.schemas import (
    GroupCreate,
    GroupMembersQuery,
    GroupPage,
    GroupSchema,
    GroupUpdate,
    UserPage,
    UsersQuery,
)
from dwctl.identity.tables import Group
from dwctl.web import current, described, pagination
from dwctl.web.dumping import Extended
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("groups", __name__, description="Groups and their members")
guard.protect(blueprint)

ModelLister = Callable[[Session, Caller, Sequence[UUID]], dict[UUID, list[dict[str, Any]]]]

_MODEL_LISTERS: list[ModelLister] = []


def show_models_with(lister: ModelLister) -> ModelLister:
    """Have `lister` say which models `include=models` shows, as JSON by group id: the catalog knows them, this room does not."""
    _MODEL_LISTERS[:] = [lister]
    return lister


@blueprint.route("/groups", methods=["GET"])
@guard.requires(Resource.GROUPS, Operation.READ)
@blueprint.arguments(UsersQuery, location="query")
@blueprint.response(200, GroupPage)
def list_groups(query: dict[str, Any]) -> dict[str, Any]:
    """List groups by name

    `include=users,models` shows members and models with each, as far as there are any.
    """
    skip, limit = query["skip"], query["limit"]
    wanted = groups.by_name(query["search"])
    found, total = pagination.page(db.session(), wanted, skip=skip, limit=limit)
    shown = _extended(found, pagination.includes(query["include"]))
    return pagination.envelope(shown, total, skip=skip, limit=limit)


@blueprint.route("/groups", methods=["POST"])
@guard.requires(Resource.GROUPS, Operation.CREATE)
@blueprint.arguments(GroupCreate)
@blueprint.response(201, GroupSchema)
def create_group(wanted: dict[str, Any]) -> Group:
    """Create a group"""
    group = groups.create(db.session(), created_by=guard.identify().user_id, **wanted)
    db.session.commit()
    return group


@blueprint.route("/groups/<id:group_id>", methods=["GET"])
@guard.requires(Resource.GROUPS, Operation.READ)
@blueprint.response(200, GroupSchema)
def get_group(group_id: UUID) -> Group:
    """Show one group"""
    return groups.get(db.session(), group_id)


@blueprint.route("/groups/<id:group_id>", methods=["PATCH"])
@guard.requires(Resource.GROUPS, Operation.UPDATE)
@blueprint.arguments(GroupUpdate)
@blueprint.response(200, GroupSchema)
def update_group(changes: dict[str, Any], group_id: UUID) -> Group:
    """Rename or describe a group

    Null and what is left out mean unchanged. The name of a group that an identity provider brings is the provider's, while
    `auth.proxy_header.import_idp_groups` is on (403).
    """
    group = groups.get(db.session(), group_id, lock=True)
    groups.change(group, **changes, settings=current.settings())
    db.session.commit()
    return group


@blueprint.route("/groups/<id:group_id>", methods=["DELETE"])
@guard.requires(Resource.GROUPS, Operation.DELETE)
@blueprint.response(204)
def delete_group(group_id: UUID) -> None:
    """Delete a group with its memberships and grants"""
    session = db.session()
    groups.remove(session, groups.get(session, group_id, lock=True))
    session.commit()


@blueprint.route("/groups/<id:group_id>/users", methods=["GET"])
@guard.requires(Resource.USERS, Operation.READ)
@blueprint.response(200, description="Ids of its users")
@described.ids()
def list_group_users(group_id: UUID) -> list[str]:
    """List the ids of a group's users"""
    session = db.session()
    return [str(user_id) for user_id in groups.member_ids(session, groups.get(session, group_id))]


@blueprint.route("/groups/<id:group_id>/members", methods=["GET"])
@guard.requires(Resource.USERS, Operation.READ)
@blueprint.arguments(GroupMembersQuery, location="query")
@blueprint.response(200, UserPage)
def list_group_members(query: dict[str, Any], group_id: UUID) -> dict[str, Any]:
    """List the people and organizations in a group, newest first; all of them for Everyone"""
    session, search = db.session(), query.pop("search")
    wanted = groups.members(groups.get(session, group_id), search)
    found, total = pagination.page(session, wanted, **query)
    return pagination.envelope(found, total, **query)


@blueprint.route("/groups/<id:group_id>/users/<id:user_id>", methods=["POST"])
@guard.requires(Resource.GROUPS, Operation.UPDATE)
@blueprint.response(204)
def add_group_user(group_id: UUID, user_id: UUID) -> None:
    """Put a user into a group

    Nothing happens where they are in it. The members of a group that an identity provider brings are the provider's, while
    `auth.proxy_header.import_idp_groups` is on (403).
    """
    groups.add(db.session(), group_id, user_id, current.settings())
    db.session.commit()


@blueprint.route("/groups/<id:group_id>/users/<id:user_id>", methods=["DELETE"])
@guard.requires(Resource.GROUPS, Operation.UPDATE)
@blueprint.response(204)
def remove_group_user(group_id: UUID, user_id: UUID) -> None:
    """Take a user out of a group"""
    groups.drop(db.session(), group_id, user_id, current.settings())
    db.session.commit()


def _extended(found: Sequence[Group], included: frozenset[str]) -> list[Extended]:
    session, ids = db.session(), [group.id for group in found]
    members = groups.members_of(session, ids) if "users" in included else {}
    models: dict[UUID, list[dict[str, Any]]] = {}
    for lister in _MODEL_LISTERS if "models" in included else ():
        models = lister(session, guard.identify(), ids)
    return [
        Extended(group, users=members.get(group.id) or None, models=models.get(group.id) or None)
        for group in found
    ]
