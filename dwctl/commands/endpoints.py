"""`dwctl endpoints`: upstream inference servers, from the command line."""

from __future__ import annotations

import sys
from typing import Any

import click
from flask.cli import AppGroup
from marshmallow import ValidationError
from sqlalchemy import func, select

from dwctl.catalog import discovery, endpoints, listing
from dwctl.catalog.discovery import Server
from dwctl.catalog.endpoint_schemas import EndpointCreate
from dwctl.catalog.listing import AliasConflict
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.commands import output
from dwctl.db import db
from dwctl.errors import Conflict, Invalid
from dwctl.identity.tables import NIL
from dwctl.web import current

group = AppGroup("endpoints", help="Upstream inference servers: add, list.")


@group.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--api-key", help="The server's key for us. Others on this machine may see it.")
@click.option("--api-key-stdin", is_flag=True, help="Read that key from standard input.")
@click.option("--sync/--no-sync", default=True, show_default=True, help="Add the server's models.")
@output.as_json
@output.one_line_errors
def add(
    name: str, url: str, api_key: str | None, api_key_stdin: bool, sync: bool, as_json: bool
) -> None:
    """Add the OpenAI-compatible server at URL, and the models that it lists."""
    if api_key_stdin:
        api_key = sys.stdin.readline().rstrip("\r\n")
    fields = _checked({"name": name, "url": discovery.normalise_url(url), "api_key": api_key})
    names: list[str] = []
    if sync:
        settings = current.settings()
        server = Server(fields["url"], fields["api_key"])
        listed = discovery.list_models(
            server, timeout_s=settings.upstream.models_timeout, outbound=settings.outbound
        )
        names = [model.id for model in listed]
    choices = listing.choose(names, None, {})
    session = db.session()
    try:
        made = endpoints.create(session, current.parts().sealer, fields, choices, created_by=NIL)
    except AliasConflict as error:
        raise Conflict(
            f"There are models already with these aliases: {', '.join(error.aliases)}. Add the server with --no-sync, "
            "and its models under other names: dwctl models add ALIAS --endpoint NAME --model-name THEIRS"
        ) from error
    session.commit()
    output.show_one(_row(made, len(choices)), as_json=as_json)


@group.command("list")
@click.option("--limit", default=100, show_default=True)
@output.as_json
@output.one_line_errors
def list_endpoints(limit: int, as_json: bool) -> None:
    """List endpoints by name."""
    living = (
        select(func.count())
        .where(DeployedModel.hosted_on == Endpoint.id, ~DeployedModel.deleted)
        .scalar_subquery()
    )
    rows = db.session().execute(select(Endpoint, living).order_by(Endpoint.name).limit(limit))
    output.show_list([_row(endpoint, models) for endpoint, models in rows], as_json=as_json)


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """What the admin API would accept."""
    try:
        EndpointCreate().load(fields)
    except ValidationError as error:
        problems = [f"{name}: {' '.join(texts)}" for name, texts in error.messages_dict.items()]
        raise Invalid("; ".join(problems)) from error
    return fields


def _row(endpoint: Endpoint, models: int) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "api_key": endpoint.api_key_sealed is not None,
        "models": models,
    }
