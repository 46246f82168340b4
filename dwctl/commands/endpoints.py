"""`dwctl endpoints`: upstream inference servers, from the command line."""

from __future__ import annotations

import sys
from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy import func, select

from dwctl.catalog import discovery, endpoints, listing
from dwctl.catalog.discovery import ListedModel, Server
from dwctl.catalog.endpoint_schemas import (
    EndpointCreate,
    EndpointSchema,
    EndpointUpdate,
    SynchronisedSchema,
)
from dwctl.catalog.listing import AliasConflict
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.commands import assignments, output
from dwctl.commands.assignments import read
from dwctl.commands.given import checked
from dwctl.db import db
from dwctl.errors import Conflict
from dwctl.identity.tables import NIL
from dwctl.web import current

group = AppGroup("endpoints", help="Upstream inference servers: add, change, synchronise, remove.")


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
        names = [model.id for model in _ask(Server(fields["url"], fields["api_key"]))]
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


@group.command("show")
@click.argument("name")
@output.as_json
@output.one_line_errors
def show(name: str, as_json: bool) -> None:
    """Show the endpoint NAME. Its key is never shown."""
    shown = EndpointSchema().dump(endpoints.named(db.session(), name))
    output.show_one(shown, as_json=as_json)


@group.command("set")
@click.argument("name")
@assignments.argument
@output.as_json
@output.one_line_errors
def set_fields(name: str, assignments: tuple[str, ...], as_json: bool) -> None:
    """Change fields of the endpoint NAME, as the admin API's PATCH does: url=http://gpu-2:8000/v1 description=null.

    With alias_mapping its models follow at once; else `dwctl endpoints sync` has them follow the server's list.
    """
    session = db.session()
    changes = read(EndpointUpdate(), assignments)
    if changes.get("url") is not None:
        changes["url"] = discovery.normalise_url(changes["url"])
    aliases = changes.pop("alias_mapping", None)
    endpoint = endpoints.named(session, name, lock=True)
    endpoints.update(session, current.parts().sealer, endpoint, changes)
    if aliases is not None:
        listing.remap(session, endpoint, aliases)
    session.commit()
    output.show_one(EndpointSchema().dump(endpoint), as_json=as_json)


@group.command("set-api-key")
@click.argument("name")
@output.as_json
@output.one_line_errors
def set_api_key(name: str, as_json: bool) -> None:
    """Store the key that the first line of standard input says as ours at the endpoint NAME; an empty line forgets it."""
    session = db.session()
    given = {"api_key": sys.stdin.readline().rstrip("\r\n") or None}
    changes = checked(EndpointUpdate(), given)
    endpoint = endpoints.named(session, name, lock=True)
    endpoints.update(session, current.parts().sealer, endpoint, changes)
    session.commit()
    shown = {"id": endpoint.id, "name": endpoint.name}
    output.show_one({**shown, "api_key": endpoint.api_key_sealed is not None}, as_json=as_json)


@group.command("sync")
@click.argument("name")
@output.as_json
@output.one_line_errors
def sync(name: str, as_json: bool) -> None:
    """Bring the models of the endpoint NAME in line with its server's list."""
    session = db.session()
    endpoint = endpoints.named(session, name)
    id, server = endpoint.id, endpoints.server_of(endpoint, current.parts().sealer)
    session.rollback()
    names = [model.id for model in _ask(server)]
    done = endpoints.synchronise(session, id, server, names)
    session.commit()
    shown = SynchronisedSchema().dump(done)
    conflicts = [each["attempted_alias"] for each in shown.pop("conflicts")]
    output.show_one({**shown, "aliases_taken": conflicts}, as_json=as_json)


@group.command("validate")
@click.argument("name")
@output.as_json
@output.one_line_errors
def validate(name: str, as_json: bool) -> None:
    """Ask the server of the endpoint NAME for its list of models, and change nothing."""
    session = db.session()
    server = endpoints.server_of(endpoints.named(session, name), current.parts().sealer)
    session.rollback()
    rows = [{"model": model.id, "owned_by": model.owned_by} for model in _ask(server)]
    output.show_list(rows, as_json=as_json)


@group.command("remove")
@click.argument("name")
@output.yes
@output.as_json
@output.one_line_errors
def remove(name: str, yes: bool, as_json: bool) -> None:
    """Delete the endpoint NAME with its models."""
    session = db.session()
    found = endpoints.named(session, name)
    id, name = found.id, found.name
    output.confirm(f"Deleting the endpoint {name}, its models, their grants and prices", yes=yes)
    session.delete(endpoints.load(session, id, lock=True))
    session.commit()
    output.show_one({"id": id, "name": name, "deleted": True}, as_json=as_json)


def _ask(server: Server) -> list[ListedModel]:
    settings = current.settings()
    return discovery.list_models(
        server, timeout_s=settings.upstream.models_timeout, outbound=settings.outbound
    )


def _row(endpoint: Endpoint, models: int) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "name": endpoint.name,
        "url": endpoint.url,
        "api_key": endpoint.api_key_sealed is not None,
        "models": models,
    }
