"""`/models`: models under their public names, with prices, limits and traffic rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import price_list
from dwctl.catalog import details, models, search
from dwctl.catalog.details import Sight
from dwctl.catalog.schemas import (
    ModelCreate,
    ModelPage,
    ModelQuery,
    ModelSchema,
    ModelUpdate,
    SightQuery,
    TariffCreate,
    TariffPage,
)
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.web import current, described
from dwctl.web.pagination import PageQuery, envelope, includes, page, substring
from dwctl.web.schemas import Blueprint

WARNINGS = "x-dwctl-warnings"
_WARNED = {WARNINGS: "Where tariffs were set: of which calls the price is not the one that may be expected, in sentences."}  # fmt: skip

Changed = tuple[dict[str, Any], dict[str, str]]
"""A model as it is now, and headers."""

blueprint = Blueprint("models", __name__, description="Models under their public names.")
guard.protect(blueprint)


@blueprint.route("/models", methods=["GET"])
@blueprint.arguments(ModelQuery, location="query")
@blueprint.response(200, ModelPage)
@described.says(refusals=(404,))
def list_models(query: dict[str, Any]) -> dict[str, Any]:
    """List the models that the caller may see; without Models:Read those that the caller's account may use."""
    session, caller = db.session(), guard.identify()
    sight = Sight.of(caller, includes(query["include"]), since=query["since"], until=query["until"])
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
@described.says(headers=_WARNED)
def create_model(new: dict[str, Any]) -> Changed:
    """Add a model."""
    made = models.create(db.session(), new, created_by=guard.identify().user_id, windows=_windows())
    db.session.commit()
    return _after_change(made, new)


@blueprint.route("/models/<id:id>", methods=["GET"])
@blueprint.arguments(SightQuery, location="query")
@blueprint.response(200, ModelSchema)
def get_model(query: dict[str, Any], id: UUID) -> dict[str, Any]:
    """Read one model."""
    session, caller = db.session(), guard.identify()
    sight = Sight.of(caller, includes(query["include"]), since=query["since"], until=query["until"])
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
@described.says(headers=_WARNED)
def update_model(changes: dict[str, Any], id: UUID) -> Changed:
    """Change a model."""
    session = db.session()
    model = models.load(session, id, lock=True)
    models.update(session, model, changes, windows=_windows())
    session.commit()
    return _after_change(model, changes)


@blueprint.route("/models/<id:id>", methods=["DELETE"])
@guard.requires(Resource.MODELS, Operation.DELETE)
@blueprint.response(200)
@described.says(body={"type": "string", "format": "uuid"})
def delete_model(id: UUID) -> str:
    """Delete a model; its alias becomes free. The answer is its id."""
    models.delete(db.session(), id)
    db.session.commit()
    return str(id)


@blueprint.route("/models/<id:id>/tariffs", methods=["GET"])
@guard.requires(Resource.PRICING, Operation.READ)
@blueprint.arguments(PageQuery, location="query")
@blueprint.response(200, TariffPage)
def list_tariffs(query: dict[str, Any], id: UUID) -> dict[str, Any]:
    """List the tariffs of a model: scheduled, in force and over, the one that begins last first.

    What a call costs follows from the tariff that was in force when it began, or its batch was made.
    """
    session = db.session()
    model = models.load(session, id)
    skip, limit = query["skip"], query["limit"]
    rows, total = page(session, price_list.history(id), skip=skip, limit=limit)
    warnings = price_list.gaps(session, id, _windows_of(model))
    return {**envelope(rows, total, skip=skip, limit=limit), "warnings": warnings}


@blueprint.route("/models/<id:id>/tariffs", methods=["POST"])
@guard.requires(Resource.MODELS, Operation.UPDATE)
@blueprint.arguments(TariffCreate)
@blueprint.response(200, ModelSchema)
@described.says(headers=_WARNED)
def add_tariff(new: dict[str, Any], id: UUID) -> Changed:
    """Set one tariff of a model, now or from a moment on; the one of its purpose and window that is in force then ends."""
    session = db.session()
    model = models.load(session, id, lock=True)
    price_list.add(session, id, price_list.NewTariff(**new))
    session.commit()
    return _after_change(model, {"tariffs": [new]})


@blueprint.route("/models/<id:id>/tariffs/<id:tariff_id>", methods=["DELETE"])
@guard.requires(Resource.MODELS, Operation.UPDATE)
@blueprint.response(204)
def withdraw_tariff(id: UUID, tariff_id: UUID) -> None:
    """End a tariff that is in force, or take back one that is scheduled."""
    session = db.session()
    models.load(session, id, lock=True)
    price_list.withdraw(session, id, tariff_id)
    session.commit()


def _after_change(model: DeployedModel, changes: Mapping[str, Any]) -> Changed:
    session = db.session()
    shown = details.changed(session, [model], Sight.of(guard.identify()))[0]
    found = price_list.gaps(session, model.id, _windows_of(model)) if changes.get("tariffs") else []
    return shown, {WARNINGS: " ".join(found)} if found else {}


def _windows_of(model: DeployedModel) -> Sequence[str]:
    """The completion windows that batches on the model may have."""
    own = model.allowed_batch_completion_windows
    return _windows() if own is None else own


def _criteria(query: dict[str, Any], caller: Caller, sight: Sight) -> search.Criteria:
    endpoint = query["endpoint"]
    if endpoint is not None and db.session.get(Endpoint, endpoint) is None:
        raise NotFound(f"endpoint with ID {endpoint} not found")
    return search.Criteria(
        usable_by=caller.owner_id if query["accessible"] else _usable_by(caller),
        alias=query["alias"],
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
