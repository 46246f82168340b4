"""`/tool-sources`, and which models and groups they are attached to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource
from dwctl.db import db
from dwctl.tools import attachments, sources
from dwctl.tools.schemas import ToolSourceCreate, ToolSourceSchema, ToolSourceUpdate
from dwctl.tools.tables import ToolSource
from dwctl.upstream.addresses import Policy, Purpose, policy_for
from dwctl.web import current
from dwctl.web.schemas import Blueprint

blueprint = Blueprint(
    "tool sources", __name__, description="Tools that models are offered, and the servers behind them."
)  # fmt: skip
guard.protect(blueprint)

_OF_MODEL = "/deployments/<id:deployment_id>/tool-sources"
_OF_GROUP = "/groups/<id:group_id>/tool-sources"


@blueprint.route("/tool-sources", methods=["GET"])
@guard.requires(Resource.TOOL_SOURCES, Operation.READ)
@blueprint.response(200, ToolSourceSchema(many=True))
def list_tool_sources() -> Sequence[ToolSource]:
    """List tool sources by name."""
    return sources.by_name(db.session())


@blueprint.route("/tool-sources", methods=["POST"])
@guard.requires(Resource.TOOL_SOURCES, Operation.CREATE)
@blueprint.arguments(ToolSourceCreate)
@blueprint.response(201, ToolSourceSchema)
def create_tool_source(new: dict[str, Any]) -> ToolSource:
    """Add a tool source.

    Nothing is called or resolved. A model is offered the tool once it is attached to the model **and** to a group of the caller.
    """
    made = sources.create(db.session(), new, sealer=current.parts().sealer, policy=_policy())
    db.session.commit()
    return made


@blueprint.route("/tool-sources/<id:id>", methods=["GET"])
@guard.requires(Resource.TOOL_SOURCES, Operation.READ)
@blueprint.response(200, ToolSourceSchema)
def get_tool_source(id: UUID) -> ToolSource:
    """Read one tool source."""
    return sources.load(db.session(), id)


@blueprint.route("/tool-sources/<id:id>", methods=["PATCH"])
@guard.requires(Resource.TOOL_SOURCES, Operation.UPDATE)
@blueprint.arguments(ToolSourceUpdate)
@blueprint.response(200, ToolSourceSchema)
def update_tool_source(changes: dict[str, Any], id: UUID) -> ToolSource:
    """Change a tool source."""
    session = db.session()
    source = sources.load(session, id, lock=True)
    sources.update(session, source, changes, sealer=current.parts().sealer, policy=_policy())
    session.commit()
    return source


@blueprint.route("/tool-sources/<id:id>", methods=["DELETE"])
@guard.requires(Resource.TOOL_SOURCES, Operation.DELETE)
@blueprint.response(204)
def delete_tool_source(id: UUID) -> None:
    """Delete a tool source with its attachments."""
    db.session.delete(sources.load(db.session(), id, lock=True))
    db.session.commit()


@blueprint.route(_OF_MODEL, methods=["GET"])
@guard.requires(Resource.TOOL_SOURCES, Operation.READ)
@blueprint.response(200, ToolSourceSchema(many=True))
def list_tool_sources_of_model(deployment_id: UUID) -> Sequence[ToolSource]:
    """List the tool sources of a model by name."""
    return attachments.of_model(db.session(), deployment_id)


@blueprint.route(f"{_OF_MODEL}/<id:id>", methods=["PUT"])
@guard.requires(Resource.TOOL_SOURCES, Operation.UPDATE)
@blueprint.response(204)
def attach_tool_source_to_model(deployment_id: UUID, id: UUID) -> None:
    """Attach a tool source to a model; again changes nothing."""
    attachments.attach_to_model(db.session(), deployment_id, id)
    db.session.commit()


@blueprint.route(f"{_OF_MODEL}/<id:id>", methods=["DELETE"])
@guard.requires(Resource.TOOL_SOURCES, Operation.UPDATE)
@blueprint.response(204)
def detach_tool_source_from_model(deployment_id: UUID, id: UUID) -> None:
    """Take a tool source from a model."""
    attachments.detach_from_model(db.session(), deployment_id, id)
    db.session.commit()


@blueprint.route(_OF_GROUP, methods=["GET"])
@guard.requires(Resource.TOOL_SOURCES, Operation.READ)
@blueprint.response(200, ToolSourceSchema(many=True))
def list_tool_sources_of_group(group_id: UUID) -> Sequence[ToolSource]:
    """List the tool sources of a group by name."""
    return attachments.of_group(db.session(), group_id)


@blueprint.route(f"{_OF_GROUP}/<id:id>", methods=["PUT"])
@guard.requires(Resource.TOOL_SOURCES, Operation.UPDATE)
@blueprint.response(204)
def attach_tool_source_to_group(group_id: UUID, id: UUID) -> None:
    """Attach a tool source to a group; again changes nothing."""
    attachments.attach_to_group(db.session(), group_id, id)
    db.session.commit()


@blueprint.route(f"{_OF_GROUP}/<id:id>", methods=["DELETE"])
@guard.requires(Resource.TOOL_SOURCES, Operation.UPDATE)
@blueprint.response(204)
def detach_tool_source_from_group(group_id: UUID, id: UUID) -> None:
    """Take a tool source from a group."""
    attachments.detach_from_group(db.session(), group_id, id)
    db.session.commit()


def _policy() -> Policy:
    return policy_for(current.settings().outbound, Purpose.TOOLS)
