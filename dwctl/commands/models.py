"""`dwctl models`: models under their public names, from the command line."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.billing import price_list
from dwctl.billing.tables import Tariff
from dwctl.billing.tariffs import BATCH, REALTIME
from dwctl.catalog import access, models, search
from dwctl.catalog.schemas import MODEL_TYPES, ModelUpdate
from dwctl.catalog.search import Criteria
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.commands import endpoints, output
from dwctl.commands.given import OrNone, changes, checked
from dwctl.db import db
from dwctl.errors import NotFound
from dwctl.identity.tables import NIL
from dwctl.web import current
from dwctl.web.pagination import substring

group = AppGroup("models", help="Models, and who may call them: add, list, limits.")

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
@click.option("--endpoint", required=True, help="Name or id of the endpoint that serves it.")
@click.option("--model-name", help="Its name there. Default: the alias.")
@click.option("--type", "model_type", type=click.Choice(MODEL_TYPES))
@click.option("--everyone", is_flag=True, help="Open it to everyone.")
@click.option("--input-price", type=usd, help="USD per million input tokens, realtime.")
@click.option("--output-price", type=usd, help="USD per million output tokens, realtime.")
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
        "hosted_on": endpoints.find(session, endpoint).id,
        "tariffs": [*realtime_tariffs(input_price, output_price), *batch],
    }
    windows = current.settings().batches.allowed_completion_windows
    made = models.create(session, fields, created_by=NIL, windows=windows)
    if everyone:
        access.grant(session, group_id=NIL, model_id=made.id, granted_by=NIL)
    session.commit()
    output.show_one(_rows(session, [made])[0], as_json=as_json)


def realtime_tariffs(input: Decimal | None, output: Decimal | None) -> list[dict[str, Any]]:
    """The tariff of these prices in USD per million tokens; none without either."""
    if input is None and output is None:
        return []
    return [_tariff(REALTIME, None, input or Decimal(0), output or Decimal(0))]


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


@group.command("limits")
@click.argument("model", metavar="ALIAS|ID")
@click.option("--requests-per-second", type=OrNone(float))
@click.option("--burst-size", type=OrNone(int), help="Requests at once, beyond that rate.")
@click.option("--tokens-per-minute", type=OrNone(int))
@click.option("--capacity", type=OrNone(int), help="Calls at once.")
@click.option("--batch-capacity", type=OrNone(int), help="Queued requests at once.")
@click.option("--throughput", type=OrNone(float), help="Requests a second that it can do.")
@output.as_json
@output.one_line_errors
def limits(model: str, as_json: bool, **given: Any) -> None:
    """Show the limits of a model, or change those that are named; "none" takes one away.

    \b
    Examples:
      dwctl models limits gpt-4
      dwctl models limits gpt-4 --requests-per-second 20 --capacity none
    """
    session = db.session()
    found = find(session, model)
    if wanted := changes(given):
        windows = current.settings().batches.allowed_completion_windows
        models.update(session, found, checked(ModelUpdate(), wanted), windows=windows)
        session.commit()
    shown = {name: getattr(found, name) for name in models.LIMITS}
    output.show_one({"id": found.id, "alias": found.alias, **shown}, as_json=as_json)


def find(session: Session, which: str) -> DeployedModel:
    """The living model with this alias or id."""
    same = DeployedModel.alias == which
    if id := output.id_in(which):
        same |= DeployedModel.id == id
    living = select(DeployedModel).where(same, ~DeployedModel.deleted)
    found = session.scalar(living.order_by(DeployedModel.alias == which))
    if found is None:
        raise NotFound(f"There is no model with the {'ID' if id else 'alias'} {which}")
    return found


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


def _price(tariff: Tariff) -> str:
    purpose = " ".join(filter(None, (tariff.api_key_purpose, tariff.completion_window)))
    prices = (tariff.input_price_per_token * _PER, tariff.output_price_per_token * _PER)
    return f"{purpose or tariff.name} {' / '.join(f'{p.normalize():f}' for p in prices)}"
