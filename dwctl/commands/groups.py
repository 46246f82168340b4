"""`dwctl groups`: groups, their members and the models that they may use, from the command line."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl.catalog import access, models
from dwctl.commands import output
from dwctl.commands.given import changes, checked
from dwctl.commands.users import find as find_user
from dwctl.commands.users import group_row
from dwctl.db import db
from dwctl.errors import NotFound
from dwctl.identity import groups, users
from dwctl.identity.schemas import GroupCreate, GroupUpdate
from dwctl.identity.tables import NIL, Group, User
from dwctl.web import current

group = AppGroup("groups", help="Groups: members, and the models that they may use.")

_which = click.argument("which", metavar="GROUP")
_who = click.argument("who", metavar="EMAIL|ID")
_model = click.argument("alias", metavar="ALIAS|ID")


@group.command("list")
@click.option("--search", help="Part of a name or description.")
@output.limit
@output.as_json
@output.one_line_errors
def list_groups(search: str | None, limit: int, as_json: bool) -> None:
    """List groups by name."""
    found = db.session().scalars(groups.by_name(search).limit(limit))
    output.show_list([group_row(one) for one in found], as_json=as_json)


@group.command("create")
@click.argument("name")
@click.option("--description")
@output.as_json
@output.one_line_errors
def create(name: str, description: str | None, as_json: bool) -> None:
    """Create a group."""
    session = db.session()
    wanted = checked(GroupCreate(), {"name": name, "description": description})
    made = groups.create(session, created_by=NIL, **wanted)
    session.commit()
    output.show_one(group_row(made), as_json=as_json)


@group.command("update")
@_which
@click.option("--name")
@click.option("--description")
@output.as_json
@output.one_line_errors
def update(which: str, as_json: bool, **given: Any) -> None:
    """Rename or describe a group (its name or id)."""
    session = db.session()
    wanted = checked(GroupUpdate(), changes(given))
    found = groups.get(session, find(session, which).id, lock=True)
    groups.change(found, **wanted, settings=current.settings())
    session.commit()
    output.show_one(group_row(found), as_json=as_json)


@group.command("delete")
@_which
@output.yes
@output.as_json
@output.one_line_errors
def delete(which: str, yes: bool, as_json: bool) -> None:
    """Delete a group with its memberships and grants."""
    session = db.session()
    found = find(session, which)
    id, name = found.id, found.name
    output.confirm(f"Deleting the group {name}", yes=yes)
    groups.remove(session, groups.get(session, id, lock=True))
    session.commit()
    output.show_one({"id": id, "name": name, "deleted": True}, as_json=as_json)


@group.command("members")
@_which
@output.as_json
@output.one_line_errors
def members(which: str, as_json: bool) -> None:
    """List the members of a group, oldest membership first."""
    session = db.session()
    ids = groups.member_ids(session, find(session, which))
    found = {one.id: one for one in session.scalars(users.accounts().where(User.id.in_(ids)))}
    rows = [
        {"id": id, "email": found[id].email, "type": found[id].user_type}
        for id in ids
        if id in found
    ]
    output.show_list(rows, as_json=as_json)


@group.command("models")
@_which
@output.as_json
@output.one_line_errors
def list_models(which: str, as_json: bool) -> None:
    """List the models that a group may use, oldest grant first."""
    session = db.session()
    found = find(session, which)
    granted = access.granted_to(session, [found.id]).get(found.id, [])
    output.show_list([{"id": one.id, "alias": one.alias} for one in granted], as_json=as_json)


@group.command("add")
@_which
@_who
@output.as_json
@output.one_line_errors
def add(which: str, who: str, as_json: bool) -> None:
    """Put a user into a group."""
    session = db.session()
    found, user = find(session, which), find_user(session, who)
    groups.add(session, found.id, user.id, current.settings())
    session.commit()
    output.show_one({"group": found.name, "added": user.email}, as_json=as_json)


@group.command("remove")
@_which
@_who
@output.as_json
@output.one_line_errors
def remove(which: str, who: str, as_json: bool) -> None:
    """Take a user out of a group."""
    session = db.session()
    found, user = find(session, which), find_user(session, who)
    try:
        groups.drop(session, found.id, user.id, current.settings())
    except NotFound:
        raise NotFound(f"{user.email} is not in the group {found.name}") from None
    session.commit()
    output.show_one({"group": found.name, "removed": user.email}, as_json=as_json)


@group.command("grant")
@_which
@_model
@output.as_json
@output.one_line_errors
def grant(which: str, alias: str, as_json: bool) -> None:
    """Open a model to a group; to everyone by the group Everyone."""
    session = db.session()
    found, model = find(session, which), models.living(session, alias)
    access.grant(session, group_id=found.id, model_id=model.id, granted_by=NIL)
    session.commit()
    output.show_one({"group": found.name, "granted": model.alias}, as_json=as_json)


@group.command("revoke")
@_which
@_model
@output.as_json
@output.one_line_errors
def revoke(which: str, alias: str, as_json: bool) -> None:
    """Take a model from a group."""
    session = db.session()
    found, model = find(session, which), models.living(session, alias)
    try:
        access.revoke(session, group_id=found.id, model_id=model.id)
    except NotFound:
        raise NotFound(f"{model.alias} is not granted to the group {found.name}") from None
    session.commit()
    output.show_one({"group": found.name, "revoked": model.alias}, as_json=as_json)


def find(session: Session, which: str) -> Group:
    """The group with this name or id."""
    same = Group.name == which
    if id := output.id_in(which):
        same |= Group.id == id
    found = session.scalar(select(Group).where(same).order_by(Group.name != which))
    if found is None:
        raise NotFound(f"There is no group with the name or ID {which}")
    return found
