"""`/groups/{id}/models` and `/models/{id}/groups`: which groups may use which model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource
from dwctl.catalog import access, details
from dwctl.catalog.details import Sight
from dwctl.catalog.schemas import ModelSchema
from dwctl.db import db
from dwctl.identity.routes import groups
from dwctl.web import described
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("model access", __name__, description="Which groups may use which model.")
guard.protect(blueprint)


@blueprint.route("/groups/<id:group_id>/models", methods=["GET"])
@guard.requires(Resource.GROUPS, Operation.READ)
@blueprint.response(200)
@described.ids()
def list_models_of_group(group_id: UUID) -> Sequence[UUID]:
    """List the ids of a group's models, oldest grant first."""
    return access.models_of_group(db.session(), group_id)


@blueprint.route("/groups/<id:group_id>/models/<id:deployment_id>", methods=["POST"])
@guard.requires(Resource.GROUPS, Operation.UPDATE)
@blueprint.response(204)
def grant_model(group_id: UUID, deployment_id: UUID) -> None:
    """Open a model to a group."""
    access.grant(
        db.session(),
        group_id=group_id,
        model_id=deployment_id,
        granted_by=guard.identify().user_id,
    )
    db.session.commit()


@blueprint.route("/groups/<id:group_id>/models/<id:deployment_id>", methods=["DELETE"])
@guard.requires(Resource.GROUPS, Operation.UPDATE)
@blueprint.response(204)
def revoke_model(group_id: UUID, deployment_id: UUID) -> None:
    """Take a model from a group."""
    access.revoke(db.session(), group_id=group_id, model_id=deployment_id)
    db.session.commit()


@blueprint.route("/models/<id:deployment_id>/groups", methods=["GET"])
@guard.requires(Resource.GROUPS, Operation.READ)
@blueprint.response(200)
@described.ids()
def list_groups_of_model(deployment_id: UUID) -> Sequence[UUID]:
    """List the ids of the groups that may use a model."""
    return access.groups_of_model(db.session(), deployment_id)


@groups.show_models_with
def models_as_json(
    session: Session, caller: Caller, group_ids: Sequence[UUID]
) -> dict[UUID, list[dict[str, Any]]]:
    """The models of several groups, as `include=models` shows them to the caller."""
    granted = access.granted_to(session, group_ids)
    models = list({model.id: model for found in granted.values() for model in found}.values())
    shown = ModelSchema(many=True).dump(details.describe(session, models, Sight.of(caller)))
    by_id = {model.id: one for model, one in zip(models, shown, strict=True)}
    return {group: [by_id[model.id] for model in found] for group, found in granted.items()}
