"""API keys of a user or an organisation: create, list, show, change, delete."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.db import db
from dwctl.errors import Forbidden, Invalid
from dwctl.identity import api_keys, authentication, organizations, users
from dwctl.identity.routes.users import target_of
from dwctl.identity.schemas import (
    ApiKeyCreate,
    ApiKeyPage,
    ApiKeySchema,
    ApiKeyUpdate,
    ApiKeyWithSecret,
    Extended,
)
from dwctl.identity.tables import ApiKey, User
from dwctl.web import pagination
from dwctl.web.pagination import PageQuery
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("api_keys", __name__, description="API keys")
guard.protect(blueprint)


def _may(operation: Operation) -> Any:
    """Everybody's with All, one's own with Own, an organisation's as its member."""

    def rule(caller: Caller, user_id: UUID | str, **_path: Any) -> None:
        target = target_of(caller, user_id)
        allowed = guard.may_for(caller, Resource.API_KEYS, operation, target)
        is_member = caller.role_in(target) is not None
        guard.insist(allowed or is_member, Resource.API_KEYS, operation, target)

    return rule


@blueprint.route("/users/<user:user_id>/api-keys", methods=["POST"])
@guard.checks(_may(Operation.CREATE))
@blueprint.arguments(ApiKeyCreate)
@blueprint.response(201, ApiKeyWithSecret)
def create_api_key(wanted: dict[str, Any], user_id: UUID | str) -> Extended:
    """Create a key; its secret is shown this once"""
    _check_name(wanted["name"])
    _check_purpose(wanted["purpose"])
    session, caller = db.session(), guard.identify()
    authentication.confirm(session, caller)
    owner = users.get(session, target_of(caller, user_id))
    creator_id = _creator(caller, owner, wanted.pop("member_id"))
    _confirm_membership(caller, owner)
    _check_rank(caller, owner, users.get(session, creator_id))
    key, secret = api_keys.create(session, owner_id=owner.id, creator_id=creator_id, **wanted)
    session.commit()
    return Extended(key, key=secret, model_access=api_keys.models_of(session, owner.id))


@blueprint.route("/users/<user:user_id>/api-keys", methods=["GET"])
@guard.checks(_may(Operation.READ))
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, ApiKeyPage)
def list_api_keys(query: dict[str, int], user_id: UUID | str) -> dict[str, Any]:
    """List keys, newest first"""
    session, caller = db.session(), guard.identify()
    owner_id = target_of(caller, user_id)
    wanted = api_keys.visible(owner_id, created_by=_only_of(caller, Operation.READ))
    found, total = pagination.page(session, wanted, **query)
    models = api_keys.models_of(session, owner_id)
    shown = [Extended(key, model_access=models) for key in found]
    return pagination.envelope(shown, total, **query)


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>", methods=["GET"])
@guard.checks(_may(Operation.READ))
@blueprint.response(200, ApiKeySchema)
def get_api_key(user_id: UUID | str, key_id: UUID) -> Extended:
    """Show one key"""
    key = _load(user_id, key_id, Operation.READ)
    return Extended(key, model_access=api_keys.models_of(db.session(), key.user_id))


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>", methods=["PATCH"])
@guard.checks(_may(Operation.UPDATE))
@blueprint.arguments(ApiKeyUpdate)
@blueprint.response(200, ApiKeySchema)
def update_api_key(changes: dict[str, Any], user_id: UUID | str, key_id: UUID) -> Extended:
    """Change a key's name, description and limits"""
    session = db.session()
    key = _load(user_id, key_id, Operation.UPDATE)
    if changes.get("name") is None:
        changes.pop("name", None)
    else:
        _check_name(changes["name"])
    for name, value in changes.items():
        setattr(key, name, value)
    session.commit()
    return Extended(key, model_access=api_keys.models_of(session, key.user_id))


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>", methods=["DELETE"])
@guard.checks(_may(Operation.DELETE))
@blueprint.response(204)
def delete_api_key(user_id: UUID | str, key_id: UUID) -> None:
    """Delete a key; what it was used for stays attributed to it"""
    _load(user_id, key_id, Operation.DELETE).is_deleted = True
    db.session.commit()


def _load(user_id: UUID | str, key_id: UUID, operation: Operation) -> ApiKey:
    caller = guard.identify()
    only_of = _only_of(caller, operation)
    return api_keys.get(db.session(), key_id, target_of(caller, user_id), created_by=only_of)


def _only_of(caller: Caller, operation: Operation) -> UUID | None:
    """Whose keys the caller is kept to; None for nobody's."""
    return None if may_all(caller, Resource.API_KEYS, operation) else caller.user_id


def _check_name(name: str) -> None:
    if not name.strip():
        raise Invalid("API key name cannot be empty", param="name")


def _check_purpose(purpose: str) -> None:
    if purpose in api_keys.RESERVED_PURPOSES:
        raise Invalid(
            "Cannot manually create API keys with 'batch' or 'playground' purpose. "
            "These are reserved for internal system use.",
            param="purpose",
        )


def _creator(caller: Caller, owner: User, member_id: UUID | None) -> UUID:
    """The person whose key it is: the named member or the caller for an organisation, else the owner."""
    if member_id is not None:
        _check_member(caller, owner, member_id)
        return member_id
    return owner.id if owner.user_type == "individual" else caller.user_id


def _confirm_membership(caller: Caller, owner: User) -> None:
    """The caller is still the member that they were when the request came in, where that is why they may. Held, like the credential."""
    if owner.user_type == "organization" and not may_all(
        caller, Resource.API_KEYS, Operation.CREATE
    ):
        still = organizations.holds_membership(db.session(), caller.user_id, owner.id)
        guard.insist(still, Resource.API_KEYS, Operation.CREATE, owner.id)


def _check_rank(caller: Caller, *whose: User) -> None:
    """A key passes every check that its account does, so those of administrators are made by administrators."""
    if not caller.is_admin and any(account.is_admin for account in whose):
        raise Forbidden("Insufficient permissions to Create API keys for an administrator")


def _check_member(caller: Caller, owner: User, member_id: UUID) -> None:
    if not may_all(caller, Resource.API_KEYS, Operation.CREATE):
        raise Forbidden("Insufficient permissions to Create API keys for other members")
    if owner.user_type != "organization":
        raise Invalid("member_id is for keys of an organization", param="member_id")
    if not organizations.holds_membership(db.session(), member_id, owner.id):
        raise Invalid("This user is not a member of the organization", param="member_id")
