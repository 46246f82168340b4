"""API keys, whichever account's they are: found among all that the caller may see, or by their id alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import joinedload, selectinload

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.db import db
from dwctl.errors import NotFound
from dwctl.identity import api_keys, users
from dwctl.identity.schemas import FoundApiKey, FoundApiKeyPage, FoundApiKeysQuery
from dwctl.identity.tables import ApiKey
from dwctl.web import pagination
from dwctl.web.dumping import Extended
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("found_api_keys", __name__, description="API keys of all accounts")
guard.protect(blueprint)


@blueprint.route("/api-keys", methods=["GET"])
@guard.requires_own(Resource.API_KEYS, Operation.READ)
@blueprint.arguments(FoundApiKeysQuery, location="query")
@blueprint.response(200, FoundApiKeyPage)
def find_api_keys(query: dict[str, Any]) -> dict[str, Any]:
    """Find keys, newest first

    Everybody's for those who may read them; else those that one has made, for oneself and for organizations. Hidden and deleted keys are left out.
    """
    session = db.session()
    paging = {name: query.pop(name) for name in ("skip", "limit")}
    visible = api_keys.visible(query.pop("user_id"), created_by=_only_of_the_caller())
    wanted = api_keys.matching(visible, **query).options(
        selectinload(ApiKey.living_retired_secrets)
    )
    found, total = pagination.page(session, wanted, **paging)
    return pagination.envelope(_with_people(found), total, **paging)


@blueprint.route("/api-keys/<id:key_id>", methods=["GET"])
@guard.requires_own(Resource.API_KEYS, Operation.READ)
@blueprint.response(200, FoundApiKey)
def find_api_key(key_id: UUID) -> Extended:
    """Show one key, whoever's it is"""
    visible = api_keys.visible(None, created_by=_only_of_the_caller())
    wanted = visible.where(ApiKey.id == key_id).options(joinedload(ApiKey.living_retired_secrets))
    found = db.session().scalars(wanted).unique().one_or_none()
    if found is None:
        raise NotFound(f"API key with ID {key_id} not found")
    return _with_people([found])[0]


def _only_of_the_caller() -> UUID | None:
    """Whose keys the caller is kept to; None for nobody's."""
    caller = guard.identify()
    return None if may_all(caller, Resource.API_KEYS, Operation.READ) else caller.user_id


def _with_people(found: Sequence[ApiKey]) -> list[Extended]:
    session = db.session()
    spending = api_keys.spending(session, found)
    people = users.named(session, {id for key in found for id in (key.user_id, key.created_by)})
    shown = []
    for key in found:
        spend, resets_at = spending.get(key.id, (None, None))
        shown.append(
            Extended(
                key,
                spend=spend,
                spend_resets_at=resets_at,
                owner=people.get(key.user_id),
                creator=people.get(key.created_by),
            )
        )
    return shown
