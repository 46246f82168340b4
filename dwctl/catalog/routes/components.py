"""`/models/{id}/components`: what a composite model is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.catalog import components
from dwctl.catalog.components import Part
from dwctl.catalog.schemas import ComponentFields, ComponentSchema
from dwctl.catalog.tables import Component
from dwctl.db import db
from dwctl.web import described
from dwctl.web.schemas import Blueprint

blueprint = Blueprint(
    "components", __name__, description="The standard models that a composite model is made of."
)
guard.protect(blueprint)

_ONE = "/models/<id:id>/components/<id:model_id>"


@blueprint.route("/models/<id:id>/components", methods=["GET"])
@guard.requires(Resource.COMPOSITE_MODELS, Operation.READ)
@blueprint.response(200, ComponentSchema(many=True))
def list_components(id: UUID) -> Sequence[Part]:
    """List a composite model's components in the order of priority."""
    return components.of(db.session(), id)


@blueprint.route(_ONE, methods=["POST"])
@guard.requires(Resource.COMPOSITE_MODELS, Operation.UPDATE)
@blueprint.arguments(ComponentFields)
@blueprint.response(200, ComponentSchema)
def add_component(new: dict[str, Any], id: UUID, model_id: UUID) -> Component:
    """Make a standard model a component."""
    added = components.add(db.session(), id, model_id, new)
    return _committed(added)


@blueprint.route(_ONE, methods=["PATCH"])
@guard.requires(Resource.COMPOSITE_MODELS, Operation.UPDATE)
@blueprint.arguments(ComponentFields)
@blueprint.response(200, ComponentSchema)
def update_component(changes: dict[str, Any], id: UUID, model_id: UUID) -> Component:
    """Change a component's weight or place, or switch it on or off."""
    component = components.get(db.session(), id, model_id)
    components.update(component, changes)
    return _committed(component)


@blueprint.route(_ONE, methods=["DELETE"])
@guard.requires(Resource.COMPOSITE_MODELS, Operation.UPDATE)
@blueprint.response(200)
@described.says(body={"type": "string"}, example="Component removed")
def remove_component(id: UUID, model_id: UUID) -> str:
    """Take a model out of a composite one."""
    session = db.session()
    session.delete(components.get(session, id, model_id))
    session.commit()
    return "Component removed"


def _committed(component: Component) -> Component:
    """The component as it was written, to be shown after the commit."""
    session = db.session()
    session.flush()
    session.expunge_all()
    session.commit()
    return component
