"""`dwctl models`: models under their public names, from the command line."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.billing import price_list
from dwctl.billing.price_list import InForce
from dwctl.billing.tables import Tariff
from dwctl.billing.tariffs import BATCH, REALTIME
from dwctl.catalog import access, details, endpoints, models, search
from dwctl.catalog.details import Sight
from dwctl.catalog.schemas import MODEL_TYPES, ModelSchema, ModelUpdate
from dwctl.catalog.search import Criteria
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.commands import assignments, output
from dwctl.commands.assignments import read
from dwctl.commands.groups import find as find_group
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.identity.tables import NIL
from dwctl.web import current
from dwctl.web.pagination import substring

group = AppGroup("models", help="Models, and who may call them.")

_PER = Decimal(1_000_000)


def usd(text: str) -> Decimal:
    """A price as an exact decimal; ValueError, which click turns into a usage error, where it is none."""
    try:
        price = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not price.is_finite() or price < 0:
        raise ValueError(text)
    return price


@group.command("add")
@click.argument("alias")
@click.option("--endpoint", required=True, help="The name of the endpoint that serves it.")
@click.option("--model-name", help="Its name there. Default: the alias.")
@click.option("--type", "model_type", type=click.Choice(MODEL_TYPES))
@click.option("--everyone", is_flag=True, help="Open it to everyone.")
@click.option("--input-price", type=usd, help="USD per million input tokens, realtime.")
@click.option("--output-price", type=usd, help="USD per million output tokens, realtime.")
@click.option("--cached-input-price", type=usd, help="The same for input from a cache.")
@click.option("--reasoning-price", type=usd, help="The same for reasoning tokens.")
@click.option(
    "--batch-price",
    "batch_prices",
    multiple=True,
    type=(str, usd, usd),
    metavar="WINDOW INPUT OUTPUT",
    help="The same two prices for batches within WINDOW, such as 24h. May be repeated.",
)
@output.as_json
@output.one_line_errors
def add(
    alias: str,
    endpoint: str,
    model_name: str | None,
    model_type: str | None,
    everyone: bool,
    input_price: Decimal | None,
    output_price: Decimal | None,
    cached_input_price: Decimal | None,
    reasoning_price: Decimal | None,
    batch_prices: tuple[tuple[str, Decimal, Decimal], ...],
    as_json: bool,
) -> None:
    """Make a model of an endpoint callable as ALIAS. Without prices it is free."""
    session = db.session()
    batch = [_tariff(BATCH, *prices) for prices in batch_prices]
    fields = {
        "model_name": model_name or alias,
        "alias": alias,
        "model_type": model_type,
        "hosted_on": endpoints.named(session, endpoint).id,
        "tariffs": [
            *realtime_tariffs(input_price, output_price, cached_input_price, reasoning_price),
            *batch,
        ],
    }
    windows = current.settings().batches.allowed_completion_windows
    made = models.create(session, fields, created_by=NIL, windows=windows)
    if everyone:
        access.grant(session, group_id=NIL, model_id=made.id, granted_by=NIL)
    session.commit()
    output.show_one(_rows(session, [made])[0], as_json=as_json)


def realtime_tariffs(
    input: Decimal | None,
    output: Decimal | None,
    cached_input: Decimal | None = None,
    reasoning: Decimal | None = None,
) -> list[dict[str, Any]]:
    """The tariff of these prices in USD per million tokens; none without any."""
    if input is output is cached_input is reasoning is None:
        return []
    tariff = _tariff(REALTIME, None, input or Decimal(0), output or Decimal(0))
    if cached_input is not None:
        tariff["cached_input_price_per_token"] = cached_input / _PER
    if reasoning is not None:
        tariff["reasoning_price_per_token"] = reasoning / _PER
    return [tariff]


@group.command("list")
@click.option("--search", "text", help="Part of an alias, a model name or an endpoint's name.")
@output.limit
@output.as_json
@output.one_line_errors
def list_models(text: str | None, limit: int, as_json: bool) -> None:
    """List models by alias."""
    session = db.session()
    criteria = Criteria(search=substring(text))
    found, _total = search.page(
        session, criteria, sort="alias", direction=None, skip=0, limit=limit
    )
    output.show_list(_rows(session, found), as_json=as_json)


@group.command("show")
@click.argument("alias")
@output.as_json
@output.one_line_errors
def show(alias: str, as_json: bool) -> None:
    """Show all of the model ALIAS: limits, prices, rules, and the groups that may call it."""
    session = db.session()
    output.show_one(_whole(session, models.living(session, alias)), as_json=as_json)


@group.command("tariffs")
@click.argument("alias")
@output.limit
@output.as_json
@output.one_line_errors
def tariffs(alias: str, limit: int, as_json: bool) -> None:
    """List the tariffs of the model ALIAS: scheduled, in force and over, the one that begins last first."""
    session = db.session()
    model = models.living(session, alias)
    rows = session.scalars(price_list.history(model.id).limit(limit))
    output.show_list([_period(tariff) for tariff in rows], as_json=as_json)


@group.command("set")
@click.argument("alias")
@assignments.argument
@output.as_json
@output.one_line_errors
def set_fields(alias: str, assignments: tuple[str, ...], as_json: bool) -> None:
    """Change fields of the model ALIAS, as the admin API's PATCH does: requests_per_second=5 display_name=null alias=new-name."""
    session = db.session()
    changes = read(ModelUpdate(), assignments)
    model = models.living(session, alias, lock=True)
    models.update(session, model, changes, windows=current.settings().batches.allowed_completion_windows)  # fmt: skip
    session.commit()
    output.show_one(_whole(session, model), as_json=as_json)


@group.command("remove")
@click.argument("alias")
@output.yes
@output.as_json
@output.one_line_errors
def remove(alias: str, yes: bool, as_json: bool) -> None:
    """Delete the model ALIAS. The alias becomes free; what was called stays recorded."""
    session = db.session()
    found = models.living(session, alias)
    id, alias = found.id, found.alias
    output.confirm(f"Deleting the model {alias}", yes=yes)
    models.delete(session, id)
    session.commit()
    output.show_one({"id": id, "alias": alias, "deleted": True}, as_json=as_json)


_for_everyone = click.option("--everyone", is_flag=True, help="Everyone, instead of a group.")


@group.command("grant")
@click.argument("alias")
@click.argument("group_name", metavar="GROUP", required=False)
@_for_everyone
@output.as_json
@output.one_line_errors
def grant(alias: str, group_name: str | None, everyone: bool, as_json: bool) -> None:
    """Open the model ALIAS to the members of GROUP; again changes nothing."""
    session = db.session()
    model, group_id = models.living(session, alias), _group_id(session, group_name, everyone)
    access.grant(session, group_id=group_id, model_id=model.id, granted_by=NIL)
    session.commit()
    output.show_one({"alias": model.alias, "granted": group_name or "everyone"}, as_json=as_json)


@group.command("revoke")
@click.argument("alias")
@click.argument("group_name", metavar="GROUP", required=False)
@_for_everyone
@output.as_json
@output.one_line_errors
def revoke(alias: str, group_name: str | None, everyone: bool, as_json: bool) -> None:
    """Take the model ALIAS from GROUP."""
    session = db.session()
    model, group_id = models.living(session, alias), _group_id(session, group_name, everyone)
    try:
        access.revoke(session, group_id=group_id, model_id=model.id)
    except NotFound:
        raise NotFound(f"{alias} is not granted to {group_name or 'everyone'}") from None
    session.commit()
    output.show_one({"alias": model.alias, "revoked": group_name or "everyone"}, as_json=as_json)


def _group_id(session: Session, name: str | None, everyone: bool) -> UUID:
    if everyone == (name is not None):
        raise Invalid("Name a group, or say --everyone")
    return NIL if name is None else find_group(session, name).id


def _whole(session: Session, model: DeployedModel) -> dict[str, Any]:
    """What an administrator sees of it."""
    include = frozenset({"groups", "pricing", "components"})
    sight = Sight(limits=True, author=True, routing=True, prices=True, lifecycle=True, include=include)  # fmt: skip
    shown: dict[str, Any] = ModelSchema().dump(details.describe(session, [model], sight)[0])
    shown["groups"] = [group["name"] for group in shown["groups"]]
    return shown


def _tariff(purpose: str, window: str | None, input: Decimal, output: Decimal) -> dict[str, Any]:
    return {
        "name": " ".join(filter(None, (purpose, window))),
        "input_price_per_token": input / _PER,
        "output_price_per_token": output / _PER,
        "api_key_purpose": purpose,
        "completion_window": window,
    }


def _rows(session: Session, found: list[DeployedModel]) -> list[dict[str, Any]]:
    tariffs = price_list.current(session, [model.id for model in found])
    names = {row.id: row.name for row in session.execute(select(Endpoint.id, Endpoint.name))}
    public = {model.id for model in access.granted_to(session, [NIL]).get(NIL, [])}
    return [
        {
            "id": model.id,
            "alias": model.alias,
            "model_name": model.model_name,
            "endpoint": names.get(model.hosted_on) if model.hosted_on else None,
            "type": model.type,
            "everyone": model.id in public,
            "usd_per_mtok": [_price(tariff) for tariff in tariffs.get(model.id, [])],
        }
        for model in found
    ]


def _price(tariff: Tariff | InForce) -> str:
    purpose = " ".join(filter(None, (tariff.api_key_purpose, tariff.completion_window)))
    prices = (tariff.input_price_per_token, tariff.output_price_per_token)
    return f"{purpose or tariff.name} {' / '.join(map(_per_million, prices))}"


def _period(tariff: Tariff) -> dict[str, Any]:
    cached, reasoning = tariff.cached_input_price_per_token, tariff.reasoning_price_per_token
    return {
        "id": tariff.id,
        "name": tariff.name,
        "usd_per_mtok": _price(tariff),
        "cached_input": None if cached is None else _per_million(cached),
        "reasoning": None if reasoning is None else _per_million(reasoning),
        "valid_from": tariff.valid_from,
        "valid_until": tariff.valid_until,
        "in_force": tariff.is_active,
    }


def _per_million(price: Decimal) -> str:
    return f"{(price * _PER).normalize():f}"
