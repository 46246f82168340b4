"""`dwctl tools`: tool sources, from the command line."""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.catalog import models
from dwctl.commands import assignments, output
from dwctl.commands.assignments import read
from dwctl.commands.given import checked
from dwctl.commands.groups import find as find_group
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.tools import attachments, sources
from dwctl.tools.schemas import ToolSourceCreate, ToolSourceSchema, ToolSourceUpdate
from dwctl.tools.tables import ToolSource
from dwctl.upstream.addresses import Policy, Purpose, policy_for
from dwctl.web import current

group = AppGroup("tools", help="Tool sources, for models and groups.")


@group.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--description", help="Tells models when to call the tool.")
@click.option(
    "--api-key-stdin", is_flag=True, help="Read the server's key for us from standard input."
)
@output.as_json
@output.one_line_errors
def add(name: str, url: str, description: str | None, api_key_stdin: bool, as_json: bool) -> None:
    """Add the tool NAME, which the server at URL runs. What it takes: dwctl tools set NAME parameters='{"type": "object", ...}'"""
    given = {"name": name, "url": url, "description": description}
    if api_key_stdin:
        given["api_key"] = sys.stdin.readline().rstrip("\r\n") or None
    session = db.session()
    new = checked(ToolSourceCreate(), given)
    made = sources.create(session, new, sealer=current.parts().sealer, policy=_policy())
    session.commit()
    output.show_one(_row(made), as_json=as_json)


@group.command("list")
@output.as_json
@output.one_line_errors
def list_tools(as_json: bool) -> None:
    """List tool sources by name."""
    rows = [_row(source) for source in sources.by_name(db.session())]
    if not as_json:
        rows = [
            {name: value for name, value in row.items() if name != "parameters"} for row in rows
        ]
    output.show_list(rows, as_json=as_json)


@group.command("set")
@click.argument("name")
@assignments.argument
@output.as_json
@output.one_line_errors
def set_fields(name: str, assignments: tuple[str, ...], as_json: bool) -> None:
    """Change fields of the tool NAME, as the admin API's PATCH does: timeout_secs=10 description=null."""
    session = db.session()
    source, changes = _named(session, name, lock=True), read(ToolSourceUpdate(), assignments)
    sources.update(session, source, changes, sealer=current.parts().sealer, policy=_policy())
    session.commit()
    output.show_one(_row(source), as_json=as_json)


@group.command("remove")
@click.argument("name")
@output.yes
@output.as_json
@output.one_line_errors
def remove(name: str, yes: bool, as_json: bool) -> None:
    """Delete the tool NAME with its attachments."""
    session = db.session()
    found = _named(session, name)
    id, name = found.id, found.name
    output.confirm(f"Deleting the tool {name}", yes=yes)
    session.delete(_named(session, name, lock=True))
    session.commit()
    output.show_one({"id": id, "name": name, "deleted": True}, as_json=as_json)


_to_model = click.option("--model", "alias", help="The alias or id of a model.")
_to_group = click.option("--group", "group_name", help="The name or id of a group.")


@group.command("attach")
@click.argument("name")
@_to_model
@_to_group
@output.as_json
@output.one_line_errors
def attach(name: str, alias: str | None, group_name: str | None, as_json: bool) -> None:
    """Attach the tool NAME to a model, a group, or both; calls are offered it where it is attached to both of theirs."""
    session = db.session()
    source, model_id, group_id = _ends(session, name, alias, group_name)
    if model_id is not None:
        attachments.attach_to_model(session, model_id, source)
    if group_id is not None:
        attachments.attach_to_group(session, group_id, source)
    session.commit()
    output.show_one(
        {"name": name, "model": alias, "group": group_name, "tool": "attached"}, as_json=as_json
    )


@group.command("detach")
@click.argument("name")
@_to_model
@_to_group
@output.as_json
@output.one_line_errors
def detach(name: str, alias: str | None, group_name: str | None, as_json: bool) -> None:
    """Take the tool NAME from a model, a group, or both."""
    session = db.session()
    source, model_id, group_id = _ends(session, name, alias, group_name)
    if model_id is not None:
        attachments.detach_from_model(session, model_id, source)
    if group_id is not None:
        attachments.detach_from_group(session, group_id, source)
    session.commit()
    output.show_one(
        {"name": name, "model": alias, "group": group_name, "tool": "detached"}, as_json=as_json
    )


def _ends(
    session: Session, name: str, alias: str | None, group_name: str | None
) -> tuple[UUID, UUID | None, UUID | None]:
    if alias is None and group_name is None:
        raise Invalid("Say --model, --group or both")
    model_id = None if alias is None else models.living(session, alias).id
    group_id = None if group_name is None else find_group(session, group_name).id
    return _named(session, name).id, model_id, group_id


def _named(session: Session, name: str, *, lock: bool = False) -> ToolSource:
    query = select(ToolSource).where(ToolSource.name == name)
    found = session.scalar(query.with_for_update() if lock else query)
    if found is None:
        raise NotFound(f"There is no tool with the name {name}")
    return found


def _policy() -> Policy:
    return policy_for(current.settings().outbound, Purpose.TOOLS)


def _row(source: ToolSource) -> dict[str, Any]:
    shown: dict[str, Any] = ToolSourceSchema().dump(source)
    return shown
