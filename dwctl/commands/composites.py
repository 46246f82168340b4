"""`dwctl composites`: models that are served by several others, from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.catalog import access, components, models
from dwctl.catalog.components import WEIGHTS, Part
from dwctl.catalog.routing import Strategy
from dwctl.catalog.tables import Component, DeployedModel
from dwctl.commands import output
from dwctl.commands.models import realtime_tariffs, usd
from dwctl.db import db
from dwctl.errors import NotFound
from dwctl.identity.tables import NIL
from dwctl.web import current

group = AppGroup("composites", help="Models that are served by others.")

_WEIGHT = click.IntRange(WEIGHTS.start, WEIGHTS.stop - 1)


@group.command("add")
@click.argument("alias")
@click.option(
    "--component",
    "parts",
    multiple=True,
    type=(str, _WEIGHT),
    metavar="ALIAS WEIGHT",
    help="A model that serves, and its share (1 to 100). May be repeated; the first has priority.",
)
@click.option(
    "--strategy",
    type=click.Choice([each.value for each in Strategy]),
    default=Strategy.WEIGHTED_RANDOM.value,
    show_default=True,
    help="By weight, or always the first that can answer.",
)
@click.option("--everyone", is_flag=True, help="Open it to everyone.")
@click.option("--input-price", type=usd, help="USD per million input tokens, realtime.")
@click.option("--output-price", type=usd, help="USD per million output tokens, realtime.")
@output.as_json
@output.one_line_errors
def add(
    alias: str,
    parts: tuple[tuple[str, int], ...],
    strategy: str,
    everyone: bool,
    input_price: Decimal | None,
    output_price: Decimal | None,
    as_json: bool,
) -> None:
    """Make a model that is served by others callable as ALIAS. Its own prices hold, not theirs; without prices it is free."""
    session = db.session()
    fields = {
        "is_composite": True,
        "model_name": alias,
        "lb_strategy": strategy,
        "tariffs": realtime_tariffs(input_price, output_price),
    }
    windows = current.settings().batches.allowed_completion_windows
    made = models.create(session, fields, created_by=NIL, windows=windows)
    for place, (name, weight) in enumerate(parts):
        wanted = {"weight": weight, "sort_order": place}
        components.add(session, made.id, _id_of(session, name), wanted)
    if everyone:
        access.grant(session, group_id=NIL, model_id=made.id, granted_by=NIL)
    session.commit()
    output.show_one(
        {
            "id": made.id,
            "alias": made.alias,
            "strategy": made.lb_strategy,
            "everyone": everyone,
            "components": [name for name, _ in parts],
        },
        as_json=as_json,
    )


@group.command("list")
@output.limit
@output.as_json
@output.one_line_errors
def list_composites(limit: int, as_json: bool) -> None:
    """List models that are served by others, by alias."""
    session = db.session()
    living = select(DeployedModel).where(DeployedModel.is_composite, ~DeployedModel.deleted)
    found = session.scalars(
        living.order_by(DeployedModel.alias, DeployedModel.id).limit(limit)
    ).all()
    serving = components.of_models(session, [model.id for model in found])
    rows = [
        {
            "id": model.id,
            "alias": model.alias,
            "strategy": model.lb_strategy,
            "components": [part.model.alias for part in serving.get(model.id, [])],
        }
        for model in found
    ]
    output.show_list(rows, as_json=as_json)


@group.command("show")
@click.argument("alias")
@output.as_json
@output.one_line_errors
def show(alias: str, as_json: bool) -> None:
    """List the models that serve under ALIAS, in the order of priority.

    One that is not active has vanished from its server's list, and is not called.
    """
    session = db.session()
    found = components.of(session, _id_of(session, alias))
    output.show_list(_rows(found), as_json=as_json)


@group.command("add-component")
@click.argument("alias")
@click.argument("model")
@click.option("--weight", type=_WEIGHT, default=1, show_default=True, help="Its share of calls.")
@click.option("--place", default=0, show_default=True, help="The lowest has priority.")
@output.as_json
@output.one_line_errors
def add_component(alias: str, model: str, weight: int, place: int, as_json: bool) -> None:
    """Let MODEL, a standard model's alias, serve under ALIAS."""
    session = db.session()
    fields = {"weight": weight, "sort_order": place}
    added = components.add(session, _id_of(session, alias), _id_of(session, model), fields)
    (row,) = _rows([added])
    session.commit()
    output.show_one(row, as_json=as_json)


@group.command("remove-component")
@click.argument("alias")
@click.argument("model")
@output.as_json
@output.one_line_errors
def remove_component(alias: str, model: str, as_json: bool) -> None:
    """Let MODEL no longer serve under ALIAS."""
    session = db.session()
    session.delete(_component(session, alias, model))
    session.commit()
    output.show_one({"alias": alias, "removed": model}, as_json=as_json)


@group.command("set-component")
@click.argument("alias")
@click.argument("model")
@click.option("--weight", type=_WEIGHT, help="Its share of calls.")
@click.option("--place", type=int, help="The lowest has priority.")
@click.option("--enable/--disable", "enabled", default=None, help="Whether it is called.")
@output.as_json
@output.one_line_errors
def set_component(
    alias: str, model: str, weight: int | None, place: int | None, enabled: bool | None, as_json: bool
) -> None:  # fmt: skip
    """Change how MODEL serves under ALIAS. Strategy and fallback: dwctl models set ALIAS lb_strategy=priority fallback_on_status=429,5"""
    session = db.session()
    component = _component(session, alias, model)
    components.update(component, {"weight": weight, "sort_order": place, "enabled": enabled})
    session.flush()
    (row,) = _rows([component])
    session.commit()
    output.show_one(row, as_json=as_json)


def _component(session: Session, alias: str, model: str) -> Component:
    ids = (_id_of(session, alias), _id_of(session, model))
    try:
        return components.get(session, *ids)
    except NotFound:
        raise NotFound(f"{model} does not serve under {alias}") from None


def _id_of(session: Session, alias: str) -> UUID:
    return models.living(session, alias).id


def _rows(found: Sequence[Part | Component]) -> list[dict[str, Any]]:
    return [
        {
            "alias": component.model.alias,
            "endpoint": component.model.endpoint.name if component.model.endpoint else None,
            "weight": component.weight,
            "place": component.sort_order,
            "enabled": component.enabled,
            "active": component.model.status == "active",
        }
        for component in found
    ]
