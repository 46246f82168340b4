"""`dwctl endpoints`: upstream inference servers, from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dwctl.catalog import discovery, endpoints
from dwctl.catalog.discovery import Server
from dwctl.catalog.endpoints import AliasConflict
from dwctl.catalog.schemas import EndpointCreate, EndpointUpdate
from dwctl.catalog.tables import TIMEOUTS, DeployedModel, Endpoint
from dwctl.commands import output
from dwctl.commands.given import OrNone, changes, checked
from dwctl.db import db
from dwctl.errors import Conflict, NotFound
from dwctl.identity.tables import NIL
from dwctl.web import current

group = AppGroup("endpoints", help="Upstream inference servers: add, list, time-outs.")


def _timeout(name: str, what: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    field = f"{name.replace('-', '_')}_timeout_seconds"
    return click.option(f"--{name}", field, type=OrNone(float), help=f"{what}, in seconds.")


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
    fields: dict[str, Any] = {"name": name, "url": discovery.normalise_url(url), "api_key": api_key}
    checked(EndpointCreate(), fields)
    names: list[str] = []
    if sync:
        settings = current.settings()
        server = Server(fields["url"], fields["api_key"])
        listed = discovery.list_models(
            server, timeout_s=settings.upstream.models_timeout, outbound=settings.outbound
        )
        names = [model.id for model in listed]
    choices = endpoints.choose(names, None, {})
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
@output.limit
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


@group.command("timeouts")
@click.argument("endpoint", metavar="NAME|ID")
@_timeout("connect", "For connecting")
@_timeout("first-byte", "Until the first byte of an answer")
@_timeout("idle", "For silence in an answer that has begun")
@_timeout("total", "For the whole of a call")
@output.as_json
@output.one_line_errors
def timeouts(endpoint: str, as_json: bool, **given: Any) -> None:
    """Show the time-outs of calls to a server, or change those that are named.

    What is not set here is as upstream.* in the settings says.

    \b
    Examples:
      dwctl endpoints timeouts vllm
      dwctl endpoints timeouts vllm --first-byte 30 --total none
    """
    session = db.session()
    found = find(session, endpoint)
    if wanted := changes(given):
        sealer = current.parts().sealer
        endpoints.update(session, sealer, found, checked(EndpointUpdate(), wanted))
        session.commit()
    shown = {name: getattr(found, name) for name in TIMEOUTS}
    output.show_one({"id": found.id, "name": found.name, **shown}, as_json=as_json)


def find(session: Session, which: str) -> Endpoint:
    """The endpoint with this name or id."""
    same = Endpoint.id == id if (id := output.id_in(which)) else Endpoint.name == which
    found = session.scalar(select(Endpoint).where(same))
    if found is None:
        raise NotFound(f"There is no endpoint with the {'ID' if id else 'name'} {which}")
    return found


def _row(endpoint: Endpoint, models: int) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "api_key": endpoint.api_key_sealed is not None,
        "models": models,
    }
