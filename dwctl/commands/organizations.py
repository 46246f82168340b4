"""`dwctl orgs`: organisations and their members, from the command line. An operator is held to no role, but to what no organisation can be without."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy.orm import Session

from dwctl.billing import ledger
from dwctl.commands import output
from dwctl.commands.given import checked
from dwctl.commands.users import find
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.identity import users
from dwctl.identity.tables import User
from dwctl.organizations import accounts, locks, members
from dwctl.organizations.members import ROLES, Member
from dwctl.organizations.schemas import OrganizationCreate
from dwctl.web import current

group = AppGroup("orgs", help="Organizations, and who is in them.")

_organization = click.argument("organization", metavar="ORGANIZATION")
_person = click.argument("email")
_role = click.option(
    "--role", type=click.Choice(ROLES), default="member", show_default=True, help="As what."
)


@group.command("list")
@click.option("--search", help="Part of a name or e-mail.")
@output.limit
@output.as_json
@output.one_line_errors
def list_organizations(search: str | None, limit: int, as_json: bool) -> None:
    """List organizations, newest first."""
    found = db.session().scalars(accounts.listed(search).limit(limit)).all()
    output.show_list(_rows(list(found)), as_json=as_json)


@group.command("show")
@_organization
@output.as_json
@output.one_line_errors
def show(organization: str, as_json: bool) -> None:
    """Show an organization, by its name or id."""
    session = db.session()
    found = _found(session, organization)
    owners = [member["email"] for member in _members(session, found) if member["role"] == "owner"]
    balance = ledger.balances(session, [found.id])[found.id]
    shown = {**_rows([found])[0], "balance": balance, "owners": owners}
    output.show_one(shown, as_json=as_json)


@group.command("members")
@_organization
@output.as_json
@output.one_line_errors
def list_members(organization: str, as_json: bool) -> None:
    """List the members of an organization, then who is invited."""
    session = db.session()
    output.show_list(_members(session, _found(session, organization)), as_json=as_json)


@group.command("create")
@click.argument("name")
@_person
@click.option("--owner", required=True, metavar="EMAIL", help="Who shall own it.")
@click.option("--display-name")
@output.as_json
@output.one_line_errors
def create(name: str, email: str, owner: str, display_name: str | None, as_json: bool) -> None:
    """Create an organization. EMAIL is whom to write to about it."""
    given = {"name": name, "email": email, "display_name": display_name}
    wanted = checked(OrganizationCreate(), given)
    if not wanted["name"]:
        raise Invalid("Organization name cannot be empty")
    session = db.session()
    wanted["owner_id"] = find(session, owner).id
    made = accounts.create(session, current.settings(), **wanted)
    session.commit()
    output.show_one(_rows([made])[0], as_json=as_json)


@group.command("add-member")
@_organization
@_person
@_role
@output.as_json
@output.one_line_errors
def add_member(organization: str, email: str, role: str, as_json: bool) -> None:
    """Make a person a member, without asking them."""
    session = db.session()
    found = locks.organization(session, _found(session, organization).id)
    member = members.add(session, found, find(session, email).id, role, current.settings())
    session.commit()
    output.show_one(_member(member), as_json=as_json)


@group.command("set-role")
@_organization
@_person
@click.argument("role", type=click.Choice(ROLES))
@output.as_json
@output.one_line_errors
def set_role(organization: str, email: str, role: str, as_json: bool) -> None:
    """Give a member another role."""
    session = db.session()
    found = locks.organization(session, _found(session, organization).id)
    user = find(session, email)
    member = members.get(session, found.id, user.id)
    members.change_role(session, member, role)
    session.commit()
    output.show_one(_member(Member(member, user)), as_json=as_json)


@group.command("remove-member")
@_organization
@_person
@output.as_json
@output.one_line_errors
def remove_member(organization: str, email: str, as_json: bool) -> None:
    """Remove a member. The keys that they made for the organization stop working."""
    session = db.session()
    found = locks.organization(session, _found(session, organization).id)
    user = find(session, email)
    members.remove(session, members.get(session, found.id, user.id))
    session.commit()
    output.show_one({"email": user.email, "membership": "ended"}, as_json=as_json)


@group.command("delete")
@_organization
@output.yes
@output.as_json
@output.one_line_errors
def delete(organization: str, yes: bool, as_json: bool) -> None:
    """Delete an organization: keys and batches of it end, and all memberships."""
    session = db.session()
    found = _found(session, organization)
    id, name = found.id, found.username
    output.confirm(f"Deleting the organization {name}", yes=yes)
    users.delete_account(session, locks.organization(session, id))
    session.commit()
    output.show_one({"id": id, "name": name, "deleted": True}, as_json=as_json)


def _found(session: Session, named: str) -> User:
    for same in (User.id == output.id_in(named), User.username == named):
        if found := session.scalar(users.organizations().where(same)):
            return found
    raise NotFound(f"There is no organization {named}. `dwctl orgs list` shows them.")


def _rows(found: list[User]) -> list[dict[str, Any]]:
    counts = accounts.member_counts(db.session(), [account.id for account in found])
    return [
        {
            "id": account.id,
            "name": account.username,
            "display_name": account.display_name,
            "email": account.email,
            "members": counts.get(account.id, 0),
            "created": account.created_at,
        }
        for account in found
    ]


def _members(session: Session, organization: User) -> list[dict[str, Any]]:
    rows = session.scalars(members.listed(organization.id)).all()
    return [_member(member) for member in members.with_people(session, rows)]


def _member(member: Member) -> dict[str, Any]:
    row, user = member.row, member.user
    return {
        "email": row.invite_email or (user and user.email),
        "role": row.role,
        "status": row.status,
        "since": row.created_at,
        "user": row.user_id,
    }
