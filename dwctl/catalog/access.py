"""Which accounts may use which models: by group, and by Everyone for all of them. Never by role."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import ColumnElement, delete, exists, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session
from sqlalchemy.sql.selectable import ForUpdateArg

from dwctl.catalog.tables import DeployedModel, ModelAccess
from dwctl.errors import NotFound
from dwctl.identity.tables import NIL, Group, GroupMembership

STAYS = ForUpdateArg(read=True, key_share=True)
"""A lock on what another row is about to refer to: it is not deleted meanwhile."""


def may_use(account_id: UUID) -> ColumnElement[bool]:
    """A condition on DeployedModel: granted to Everyone or to a group of the account (a person or an organisation)."""
    own = select(GroupMembership.group_id).where(GroupMembership.user_id == account_id)
    return exists().where(
        ModelAccess.deployment_id == DeployedModel.id,
        or_(ModelAccess.group_id == NIL, ModelAccess.group_id.in_(own)),
    )


def in_groups(group_ids: Sequence[UUID]) -> ColumnElement[bool]:
    """A condition on DeployedModel: granted to any of these groups."""
    return exists().where(
        ModelAccess.deployment_id == DeployedModel.id, ModelAccess.group_id.in_(group_ids)
    )


def grant(session: Session, *, group_id: UUID, model_id: UUID, granted_by: UUID) -> None:
    """Open a model to a group; again changes nothing. Raises NotFound when either is unknown."""
    _require(session, group_id=group_id, model_id=model_id, lock=STAYS)
    session.execute(
        insert(ModelAccess)
        .values(group_id=group_id, deployment_id=model_id, granted_by=granted_by)
        .on_conflict_do_nothing()
    )


def revoke(session: Session, *, group_id: UUID, model_id: UUID) -> None:
    """Take a model from a group. Raises NotFound when it was not granted."""
    gone = session.execute(
        delete(ModelAccess)
        .where(ModelAccess.group_id == group_id, ModelAccess.deployment_id == model_id)
        .returning(ModelAccess.id)
    )
    if gone.first() is None:
        raise NotFound


def models_of_group(session: Session, group_id: UUID) -> Sequence[UUID]:
    """The living models of a group, oldest grant first. Raises NotFound for an unknown group."""
    _require(session, group_id=group_id)
    return session.scalars(
        select(ModelAccess.deployment_id)
        .join(DeployedModel, DeployedModel.id == ModelAccess.deployment_id)
        .where(ModelAccess.group_id == group_id, ~DeployedModel.deleted)
        .order_by(ModelAccess.granted_at, ModelAccess.id)
    ).all()


def granted_to(session: Session, group_ids: Sequence[UUID]) -> dict[UUID, list[DeployedModel]]:
    """The living models of each group, oldest grant first."""
    rows = session.execute(
        select(ModelAccess.group_id, DeployedModel)
        .join(DeployedModel, DeployedModel.id == ModelAccess.deployment_id)
        .where(ModelAccess.group_id.in_(group_ids), ~DeployedModel.deleted)
        .order_by(ModelAccess.granted_at, ModelAccess.id)
    )
    found: dict[UUID, list[DeployedModel]] = {}
    for group_id, model in rows:
        found.setdefault(group_id, []).append(model)
    return found


def why(
    session: Session, account_id: UUID, model_ids: Sequence[UUID]
) -> dict[UUID, list[tuple[UUID, str]]]:
    """By which groups an account may use each model: ids and names, Everyone last. A model is missing where none opens it."""
    own = select(GroupMembership.group_id).where(GroupMembership.user_id == account_id)
    rows = session.execute(
        select(ModelAccess.deployment_id, Group.id, Group.name)
        .join(Group, Group.id == ModelAccess.group_id)
        .where(ModelAccess.deployment_id.in_(model_ids))
        .where(or_(Group.id == NIL, Group.id.in_(own)))
        .order_by(Group.id == NIL, Group.name, Group.id)
    )
    found: dict[UUID, list[tuple[UUID, str]]] = {}
    for model_id, group_id, name in rows:
        found.setdefault(model_id, []).append((group_id, name))
    return found


def groups_of_model(session: Session, model_id: UUID) -> Sequence[UUID]:
    """The groups of a model, oldest grant first. Raises NotFound for an unknown or deleted model."""
    _require(session, model_id=model_id)
    return session.scalars(
        select(ModelAccess.group_id)
        .where(ModelAccess.deployment_id == model_id)
        .order_by(ModelAccess.granted_at, ModelAccess.id)
    ).all()


def _require(
    session: Session,
    *,
    group_id: UUID | None = None,
    model_id: UUID | None = None,
    lock: ForUpdateArg | None = None,
) -> None:
    if group_id is not None and session.get(Group, group_id, with_for_update=lock) is None:
        raise NotFound(f"Group with ID {group_id} not found")
    model = (
        session.get(DeployedModel, model_id, with_for_update=lock) if model_id is not None else None
    )
    if model_id is not None and (model is None or model.deleted):
        raise NotFound(f"Deployment with ID {model_id} not found")
