"""The components of composite models: standard models that serve under the composite one's name. A deleted model is no component any more."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session, contains_eager

from dwctl import sql
from dwctl.catalog import models
from dwctl.catalog.tables import Component, DeployedModel
from dwctl.errors import Invalid, NotFound

WEIGHTS = range(1, 101)

_QUERIES = sql.load("dwctl.catalog", "includes.sql")


class EndpointOfPart(NamedTuple):
    """Where a component runs."""

    id: str
    name: str


class ModelOfPart(NamedTuple):
    """What a component shows of its model."""

    endpoint: EndpointOfPart | None
    id: str
    alias: str
    model_name: str
    description: str | None
    type: str | None
    status: str
    trusted: bool
    open_responses_adapter: bool | None


class Part(NamedTuple):
    """A component with what is shown of its model, as `Component` has it. Ids are texts."""

    weight: int
    enabled: bool
    sort_order: int
    created_at: datetime
    model: ModelOfPart


def of(session: Session, composite_id: UUID) -> Sequence[Part]:
    """The components of a composite model, in the order of priority. Raises as `add` does for the composite."""
    _composite(session, composite_id)
    return of_models(session, [composite_id]).get(composite_id, [])


def of_models(session: Session, composite_ids: Collection[UUID]) -> dict[UUID, list[Part]]:
    """The components of each of these models, in the order of priority."""
    rows = session.connection().exec_driver_sql(_QUERIES["components_of_models"], {"ids": list(composite_ids)})  # fmt: skip
    found: dict[UUID, list[Part]] = {}
    for composite_id, weight, enabled, place, created_at, endpoint_id, name, *model in rows:
        endpoint = EndpointOfPart(endpoint_id, name) if endpoint_id else None
        part = Part(weight, enabled, place, created_at, ModelOfPart(endpoint, *model))
        found.setdefault(composite_id, []).append(part)
    return found


def get(session: Session, composite_id: UUID, model_id: UUID) -> Component:
    """One component with its model; locked until the end of the transaction. Raises NotFound."""
    found = session.scalar(
        select(Component)
        .join(Component.model)
        .outerjoin(DeployedModel.endpoint)
        .options(contains_eager(Component.model).contains_eager(DeployedModel.endpoint))
        .where(
            ~DeployedModel.deleted,
            Component.composite_model_id == composite_id,
            Component.deployed_model_id == model_id,
        )
        .with_for_update(of=Component)
        .execution_options(populate_existing=True)
    )
    if found is None:
        raise NotFound(f"component with ID {composite_id}/{model_id} not found")
    return found


def add(
    session: Session, composite_id: UUID, model_id: UUID, fields: Mapping[str, Any]
) -> Component:
    """Make a standard model a component. `fields`: weight, enabled, sort_order; None or absent: as the table has it.

    Raises: NotFound when either is unknown or deleted; Invalid for models of the wrong kind and a weight that is none; one that is
    there already breaks a constraint (409).
    """
    _composite(session, composite_id)
    model = session.get(DeployedModel, model_id)
    if model is None or model.deleted:
        raise NotFound(f"component model with ID {model_id} not found")
    if model.is_composite:
        raise Invalid("Cannot add a composite model as a component")
    given = _checked(fields)
    session.add(Component(composite_model_id=composite_id, deployed_model_id=model_id, **given))
    session.flush()
    return get(session, composite_id, model_id)


def update(component: Component, changes: Mapping[str, Any]) -> None:
    """Change the fields that are given and not None. Raises Invalid for a weight that is none."""
    for name, value in _checked(changes).items():
        setattr(component, name, value)


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in fields.items() if value is not None}
    if given.get("weight", 1) not in WEIGHTS:
        raise Invalid("Weight must be between 1 and 100", param="weight")
    return given


def _composite(session: Session, model_id: UUID) -> None:
    model = models.load(session, model_id)
    if model.deleted:
        raise NotFound(f"Deployment with ID {model_id} not found")
    if not model.is_composite:
        raise Invalid("Model is not a composite model")
