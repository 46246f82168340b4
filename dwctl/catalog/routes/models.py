"""`/models`: models under their public names, with prices, limits and traffic rules."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.catalog import details, models, search
from dwctl.catalog.details import Sight
from dwctl.catalog.schemas import (
    ModelCreate,
    ModelPage,
    ModelQuery,
    ModelSchema,
    ModelUpdate,
    SightQuery,
)
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.web import current, described
from dwctl.web.pagination import envelope, includes, substring
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("models", __name__, description="Models under their public names.")
guard.protect(blueprint)


@blueprint.route("/models", methods=["GET"])
@blueprint.arguments(ModelQuery, location="query")
@blueprint.response(200, ModelPage)
@described.says(refusals=(404,))
def list_models(query: dict[str, Any]) -> dict[str, Any]:
    """List the models that the caller may see; without Models:Read those that the caller's account may use."""
    session, caller = db.session(), guard.identify()
    sight = Sight.of(caller, includes(query["include"]))
    criteria = _criteria(query, caller, sight)
    rows, total = search.page(
        session,
        criteria,
        sort=query["sort"],
        direction=query["sort_direction"],
        skip=query["skip"],
        limit=query["limit"],
    )
    shown = details.describe(session, rows, sight)
    body = envelope(shown, total, skip=query["skip"], limit=query["limit"])
    if "facets" in sight.include:
        body["facets"] = search.facets(session, criteria)
    return body


@blueprint.route("/models", methods=["POST"])
@guard.requires(Resource.MODELS, Operation.CREATE)
@blueprint.arguments(ModelCreate)
@blueprint.response(200, ModelSchema)
def create_model(new: dict[str, Any]) -> dict[str, Any]:
    """Add a model."""
    made = models.create(db.session(), new, created_by=guard.identify().user_id, windows=_windows())
    db.session.commit()
    return _after_change(made)


@blueprint.route("/models/<id:id>", methods=["GET"])
@blueprint.arguments(SightQuery, location="query")
@blueprint.response(200, ModelSchema)
def get_model(query: dict[str, Any], id: UUID) -> dict[str, Any]:
    """Read one model."""
    session, caller = db.session(), guard.identify()
    sight = Sight.of(caller, includes(query["include"]))
    found = search.one(
        session,
        id,
        usable_by=_usable_by(caller),
        deleted=query["deleted"] and sight.lifecycle,
        inactive=query["inactive"] and sight.lifecycle,
    )
    return details.describe(session, [found], sight)[0]


@blueprint.route("/models/<id:id>", methods=["PATCH"])
@guard.requires(Resource.MODELS, Operation.UPDATE)
@blueprint.arguments(ModelUpdate)
@blueprint.response(200, ModelSchema)
def update_model(changes: dict[str, Any], id: UUID) -> dict[str, Any]:
    """Change a model."""
    session = db.session()
    model = models.load(session, id, lock=True)
    models.update(session, model, changes, windows=_windows())
    session.commit()
    return _after_change(model)


@blueprint.route("/models/<id:id>", methods=["DELETE"])
@guard.requires(Resource.MODELS, Operation.DELETE)
@blueprint.response(200)
@described.says(body={"type": "string", "format": "uuid"})
def delete_model(id: UUID) -> str:
    """Delete a model; its alias becomes free. The answer is its id."""
    models.delete(db.session(), id)
    db.session.commit()
    return str(id)


def _after_change(model: DeployedModel) -> dict[str, Any]:
    return details.changed(db.session(), [model], Sight.of(guard.identify()))[0]


def _criteria(query: dict[str, Any], caller: Caller, sight: Sight) -> search.Criteria:
    endpoint = query["endpoint"]
    if endpoint is not None and db.session.get(Endpoint, endpoint) is None:
        raise NotFound(f"endpoint with ID {endpoint} not found")
    return search.Criteria(
        usable_by=caller.owner_id if query["accessible"] else _usable_by(caller),
        endpoint=endpoint,
        groups=_groups(query["group"]),
        search=substring(query["search"]),
        is_composite=query["is_composite"],
        provider=query["provider"],
        model_type=query["model_type"],
        capability=query["capability"],
        deleted=query["deleted"] and sight.lifecycle,
        inactive=query["inactive"] and sight.lifecycle,
    )


def _usable_by(caller: Caller) -> UUID | None:
    """The account whose models the caller is kept to; None for those who read all models."""
    return None if may_all(caller, Resource.MODELS, Operation.READ) else caller.owner_id


def _groups(text: str | None) -> tuple[UUID, ...] | None:
    parts = [part.strip() for part in (text or "").split(",") if part.strip()]
    try:
        return tuple(map(UUID, parts)) or None
    except ValueError:
        raise Invalid(
            "Invalid group ID format. Expected comma-separated UUIDs.", param="group"
        ) from None


def _windows() -> tuple[str, ...]:
    return current.settings().batches.allowed_completion_windows
