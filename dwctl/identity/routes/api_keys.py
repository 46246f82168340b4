"""API keys of a user or an organisation: create, list, show, change, rotate, delete."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy.orm import selectinload

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.audit import noting
from dwctl.db import db
from dwctl.errors import Forbidden, Invalid
from dwctl.identity import api_keys, authentication, organizations, users
from dwctl.identity.api_keys import Spending
from dwctl.identity.routes.users import target_of
from dwctl.identity.schemas import (
    ApiKeyCreate,
    ApiKeyPage,
    ApiKeyRotation,
    ApiKeySchema,
    ApiKeysQuery,
    ApiKeyUpdate,
    ApiKeyWithSecret,
)
from dwctl.identity.tables import ApiKey, User
from dwctl.web import pagination
from dwctl.web.dumping import Extended
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
    """Create a key; its secret is shown this once

    `name` is unique among the keys that one person has made for one account. `expires_at` ends the key without anybody doing anything.
    Everybody makes keys for themselves and for their organisations; `member_id` (administrators only) says for whom in an organisation.
    """
    _check_name(wanted["name"])
    _check_purpose(wanted["purpose"])
    session, caller = db.session(), guard.identify()
    authentication.confirm(session, caller)
    owner = users.get(session, target_of(caller, user_id))
    creator_id = _creator(caller, owner, wanted.pop("member_id"))
    _confirm_membership(caller, owner)
    # After the membership, as whoever ends both takes them in that order.
    users.get(session, owner.id, stays=True)
    _check_rank(caller, owner, users.get(session, creator_id))
    key, secret = api_keys.create(session, owner_id=owner.id, creator_id=creator_id, **wanted)
    session.commit()
    return _shown(key, key=secret)


@blueprint.route("/users/<user:user_id>/api-keys", methods=["GET"])
@guard.checks(_may(Operation.READ))
@blueprint.arguments(ApiKeysQuery, location="query")
@blueprint.response(200, ApiKeyPage)
def list_api_keys(query: dict[str, Any], user_id: UUID | str) -> dict[str, Any]:
    """List keys, newest first

    Whoever may not read everybody's keys sees those that they have made themselves. Hidden and deleted keys are left out.
    """
    session, caller = db.session(), guard.identify()
    owner_id = target_of(caller, user_id)
    filters = {name: query.pop(name) for name in ("search", "purpose", "created_by")}
    visible = api_keys.visible(owner_id, created_by=_only_of(caller, Operation.READ))
    wanted = api_keys.matching(visible, **filters).options(
        selectinload(ApiKey.living_retired_secrets)
    )
    found, total = pagination.page(session, wanted, **query)
    models = [str(model_id) for model_id in api_keys.models_of(session, owner_id)]
    spending = api_keys.spending(session, found)
    shown = [_extended(key, spending, model_access=models) for key in found]
    return pagination.envelope(shown, total, **query)


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>", methods=["GET"])
@guard.checks(_may(Operation.READ))
@blueprint.response(200, ApiKeySchema)
def get_api_key(user_id: UUID | str, key_id: UUID) -> Extended:
    """Show one key"""
    return _shown(_load(user_id, key_id, Operation.READ))


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>", methods=["PATCH"])
@guard.checks(_may(Operation.UPDATE))
@blueprint.arguments(ApiKeyUpdate)
@blueprint.response(200, ApiKeySchema)
def update_api_key(changes: dict[str, Any], user_id: UUID | str, key_id: UUID) -> Extended:
    """Change a key's name, description, limits and end, and what is kept of its calls

    What is left out stays as it is. Null clears the description, the limits, `log_sample` and `expires_at`. What the key has spent already counts
    for a new `spend_limit`: since the beginning of the day, week or month that `spend_limit_interval` names, or ever.
    """
    session = db.session()
    if changes.get("name") is not None:
        _check_name(changes["name"])
    authentication.confirm(session, guard.identify())
    key = _load(user_id, key_id, Operation.UPDATE)
    api_keys.change(key, changes)
    session.commit()
    return _shown(key)


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>/rotate", methods=["POST"])
@guard.checks(_may(Operation.UPDATE))
@blueprint.arguments(ApiKeyRotation, required=False)
@blueprint.response(200, ApiKeyWithSecret)
def rotate_api_key(wanted: dict[str, int], user_id: UUID | str, key_id: UUID) -> Extended:
    """Give a key a new secret, which is shown this once

    Id, limits and what the key was used for stay. Earlier secrets work on for `overlap_seconds` (a day where it is not said, 0 ends them
    now), so that clients can be changed one after the other; at most five of them at once.
    """
    session, caller = db.session(), guard.identify()
    key = _settled(user_id, key_id, Operation.UPDATE)
    authentication.confirm(session, caller)
    _check_rank(caller, users.get(session, key.user_id), users.get(session, key.created_by))
    secret = api_keys.rotate(session, key, overlap_s=wanted["overlap_seconds"])
    session.commit()
    return _shown(key, key=secret)


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>/retired-secrets", methods=["DELETE"])
@guard.checks(_may(Operation.UPDATE))
@blueprint.response(204)
def end_retired_secrets(user_id: UUID | str, key_id: UUID) -> None:
    """End the earlier secrets of a key that was rotated

    The present one goes on. Nothing happens where no earlier one still works.
    """
    session = db.session()
    key = _settled(user_id, key_id, Operation.UPDATE)
    if ended := api_keys.end_retired(session, key):
        connection = session.connection().connection.driver_connection
        noting.note(connection, "api_key", "secrets_ended", str(key.id), related=str(key.user_id), after={"secrets": ended})  # type: ignore[arg-type]  # fmt: skip
    session.commit()


@blueprint.route("/users/<user:user_id>/api-keys/<id:key_id>", methods=["DELETE"])
@guard.checks(_may(Operation.DELETE))
@blueprint.response(204)
def delete_api_key(user_id: UUID | str, key_id: UUID) -> None:
    """Delete a key; what it was used for stays attributed to it"""
    _settled(user_id, key_id, Operation.DELETE).is_deleted = True
    db.session.commit()


def _shown(found: ApiKey, **more: Any) -> Extended:
    session = db.session()
    models = api_keys.models_of(session, found.user_id)
    return _extended(found, api_keys.spending(session, [found]), model_access=models, **more)


def _extended(found: ApiKey, spending: Spending, **more: Any) -> Extended:
    spend, resets_at = spending.get(found.id, (None, None))
    return Extended(found, spend=spend, spend_resets_at=resets_at, **more)


def _settled(user_id: UUID | str, key_id: UUID, operation: Operation) -> ApiKey:
    """The key, for a change that takes a secret away: what that secret is just making (`authentication.confirm`) is there already, or will not be."""
    creator_id = _load(user_id, key_id, operation).created_by
    users.hold(db.session(), creator_id, guard.identify().user_id)
    return _load(user_id, key_id, operation)


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
