"""Which models and which groups a tool source is attached to."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import ForUpdateArg

from dwctl.catalog.access import STAYS
from dwctl.catalog.tables import DeployedModel
from dwctl.errors import NotFound
from dwctl.identity.tables import Group
from dwctl.tools import sources
from dwctl.tools.tables import GroupTool, ModelTool, ToolSource


def of_model(session: Session, model_id: UUID) -> Sequence[ToolSource]:
    """The tools of a model, by name. Raises NotFound for an unknown or deleted model."""
    _living_model(session, model_id)
    return session.scalars(
        select(ToolSource)
        .join(ModelTool, ModelTool.tool_source_id == ToolSource.id)
        .where(ModelTool.deployment_id == model_id)
        .order_by(ToolSource.name, ToolSource.id)
    ).all()


def of_group(session: Session, group_id: UUID) -> Sequence[ToolSource]:
    """The tools of a group, by name. Raises NotFound for an unknown group."""
    _group(session, group_id)
    return session.scalars(
        select(ToolSource)
        .join(GroupTool, GroupTool.tool_source_id == ToolSource.id)
        .where(GroupTool.group_id == group_id)
        .order_by(ToolSource.name, ToolSource.id)
    ).all()


def attach_to_model(session: Session, model_id: UUID, source_id: UUID) -> None:
    """Offer a tool to a model; again changes nothing. Raises NotFound when either is unknown or the model is deleted."""
    _living_model(session, model_id, lock=STAYS)
    sources.load(session, source_id, lock=STAYS)
    session.execute(
        insert(ModelTool)
        .values(deployment_id=model_id, tool_source_id=source_id)
        .on_conflict_do_nothing()
    )


def attach_to_group(session: Session, group_id: UUID, source_id: UUID) -> None:
    """Offer a tool to a group; again changes nothing. Raises NotFound when either is unknown."""
    _group(session, group_id, lock=STAYS)
    sources.load(session, source_id, lock=STAYS)
    session.execute(
        insert(GroupTool)
        .values(group_id=group_id, tool_source_id=source_id)
        .on_conflict_do_nothing()
    )


def detach_from_model(session: Session, model_id: UUID, source_id: UUID) -> None:
    """Take a tool from a model. Raises NotFound where it is not attached."""
    gone = session.execute(
        delete(ModelTool)
        .where(ModelTool.deployment_id == model_id, ModelTool.tool_source_id == source_id)
        .returning(ModelTool.tool_source_id)
    )
    if gone.first() is None:
        raise NotFound(f"DeploymentToolSource with ID {model_id}/{source_id} not found")


def detach_from_group(session: Session, group_id: UUID, source_id: UUID) -> None:
    """Take a tool from a group. Raises NotFound where it is not attached."""
    gone = session.execute(
        delete(GroupTool)
        .where(GroupTool.group_id == group_id, GroupTool.tool_source_id == source_id)
        .returning(GroupTool.tool_source_id)
    )
    if gone.first() is None:
        raise NotFound(f"GroupToolSource with ID {group_id}/{source_id} not found")


def _living_model(session: Session, model_id: UUID, lock: ForUpdateArg | None = None) -> None:
    found = session.get(DeployedModel, model_id, with_for_update=lock)
    if found is None or found.deleted:
        raise NotFound(f"Deployment with ID {model_id} not found")


def _group(session: Session, group_id: UUID, lock: ForUpdateArg | None = None) -> None:
    if session.get(Group, group_id, with_for_update=lock) is None:
        raise NotFound(f"Group with ID {group_id} not found")
