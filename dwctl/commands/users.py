"""`dwctl users`: people, from the command line."""

from __future__ import annotations

import sys
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dwctl.ai import forgetting
from dwctl.billing import ledger
from dwctl.billing.money import amount_text
from dwctl.commands import output
from dwctl.commands.given import OrNone, changes, checked, log_sample, zero_retention
from dwctl.db import db
from dwctl.errors import Invalid, NotFound
from dwctl.identity import api_keys, groups, native, organizations, passwords, profiles, users
from dwctl.identity.schemas import UserCreate, UserUpdate
from dwctl.identity.tables import Group, User
from dwctl.roles import ROLES
from dwctl.web import current

group = AppGroup(
    "users",
    help="People: create, list, show, update, delete, roles, password.",
)

_from_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)


@group.command("create")
@click.argument("email")
@click.option("--username", help="Default: the e-mail.")
@click.option("--display-name")
@click.option("--role", "roles", multiple=True, type=click.Choice(ROLES), help="May be repeated.")
@click.option("--admin", is_flag=True, help="Passes every check; implies PlatformManager.")
@_from_stdin
@output.as_json
@output.one_line_errors
def create(
    email: str,
    username: str | None,
    display_name: str | None,
    roles: tuple[str, ...],
    admin: bool,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Create a user.

    Without a password the user signs in by trusted header, or gets one later (set-password).
    """
    given = {
        "username": username or email,
        "email": email,
        "roles": [users.MANAGER, *roles] if admin else list(roles),
        "display_name": display_name,
    }
    wanted = checked(UserCreate(), given)
    password_hash = _hash(_read_password()) if password_stdin else None
    session = db.session()
    users.insist_on_free(session, username=wanted["username"], email=wanted["email"])
    user = users.create(
        session,
        auth_source="native" if password_hash else "proxy-header",
        password_hash=password_hash,
        **wanted,
    )
    user.is_admin = admin
    session.commit()
    output.show_one(_row(user), as_json=as_json)


@group.command("list")
@click.option("--search", help="Part of a name or e-mail.")
@output.limit
@output.as_json
@output.one_line_errors
def list_users(search: str | None, limit: int, as_json: bool) -> None:
    """List users, newest first."""
    wanted = users.newest_first(users.people(), search).limit(limit)
    found = db.session().scalars(wanted).all()
    output.show_list([_row(user) for user in found], as_json=as_json)


@group.command("set-roles")
@click.argument("email")
@click.argument("roles", nargs=-1, type=click.Choice(ROLES))
@output.as_json
@output.one_line_errors
def set_roles(email: str, roles: tuple[str, ...], as_json: bool) -> None:
    """Replace the roles of a user. StandardUser stays, named or not."""
    session = db.session()
    user = find(session, email)
    users.change_roles(session, user, roles)
    session.commit()
    output.show_one(_row(user), as_json=as_json)


@group.command("set-password")
@click.argument("email")
@_from_stdin
@output.as_json
@output.one_line_errors
def set_password(email: str, password_stdin: bool, as_json: bool) -> None:
    """Give a user a new password and end their sessions."""
    session = db.session()
    user = find(session, email)
    password = _read_password() if password_stdin else _ask_password()
    passwords.check_length(password, current.settings().auth.native.password)
    native.set_password(session, user, password, current.settings())
    session.commit()
    output.show_one({"email": email, "password": "changed"}, as_json=as_json)


@group.command("show")
@click.argument("who", metavar="EMAIL|ID")
@output.as_json
@output.one_line_errors
def show(who: str, as_json: bool) -> None:
    """Show a user: roles, balance, groups, organisations, keys."""
    session = db.session()
    output.show_one(_described(session, find(session, who)), as_json=as_json)


@group.command("update")
@click.argument("who", metavar="EMAIL|ID")
@click.option("--display-name")
@click.option("--avatar-url")
@click.option("--batch-notifications", "batch_notifications_enabled", type=bool)
@click.option("--low-balance-threshold", type=OrNone(float))
@click.option("--auto-topup-amount", type=OrNone(float))
@click.option("--auto-topup-threshold", type=OrNone(float))
@click.option("--auto-topup-monthly-limit", type=OrNone(float))
@zero_retention
@log_sample
@output.as_json
@output.one_line_errors
def update(who: str, as_json: bool, **given: Any) -> None:
    """Change what is named of a user; "none" takes a limit away.

    \b
    Examples:
      dwctl users update ada@example.com --display-name "Ada"
      dwctl users update ada@example.com --low-balance-threshold none
    """
    session = db.session()
    user = find(session, who)
    profiles.change(session, user, checked(UserUpdate(), changes(given)))
    session.commit()
    output.show_one(_described(session, user), as_json=as_json)


@group.command("delete")
@click.argument("who", metavar="EMAIL|ID")
@output.yes
@output.as_json
@output.one_line_errors
def delete(who: str, yes: bool, as_json: bool) -> None:
    """Delete a user with keys, sessions and memberships; what runs for them is cancelled.

    The row stays without what was personal in it, for what it is mentioned in.
    """
    session = db.session()
    user = find(session, who)
    id, email = user.id, user.email
    output.confirm(f"Deleting {email}", yes=yes)
    users.delete_account(session, _with_id(session, id))
    session.commit()
    output.show_one({"id": id, "email": email, "deleted": True}, as_json=as_json)


@group.command("forget")
@click.argument("account", metavar="EMAIL|ID")
@output.yes
@output.as_json
@output.one_line_errors
def forget(account: str, yes: bool, as_json: bool) -> None:
    """Delete what the calls of an account have said: requests that are over, answers, headers.

    What they cost and their figures stay, and so do files and batches. An id may be that of an organization, or of an account that was deleted.
    """
    session = db.session()
    id = _account_id(session, account)
    output.confirm(f"Deleting what the calls of {account} have said", yes=yes)
    done = forgetting.forget(current.parts().connections, id)
    output.show_one(
        {"id": id, "requests": done.requests, "log_rows": done.log_rows}, as_json=as_json
    )


def _account_id(session: Session, account: str) -> UUID:
    id = output.id_in(account)
    if id is None:
        return find(session, account).id
    if session.get(User, id) is None:
        raise NotFound(f"There is no account with the ID {id}")
    return id


@group.command("groups")
@click.argument("who", metavar="EMAIL|ID")
@output.as_json
@output.one_line_errors
def list_groups(who: str, as_json: bool) -> None:
    """List the groups of a user by name, Everyone last."""
    session = db.session()
    user = find(session, who)
    found = groups.of_accounts(session, [user.id])[user.id]
    output.show_list([group_row(one) for one in found], as_json=as_json)


def group_row(group: Group) -> dict[str, Any]:
    """A group on one line."""
    return {
        "id": group.id,
        "name": group.name,
        "description": group.description,
        "source": group.source,
    }


def _described(session: Session, user: User) -> dict[str, Any]:
    keys = api_keys.visible(user.id, created_by=None)
    return {
        **_row(user),
        "display_name": user.display_name,
        "external_user_id": user.external_user_id,
        "password": user.password_hash is not None,
        "created": user.created_at,
        "balance": amount_text(ledger.balances(session, [user.id])[user.id]),
        "groups": [one.name for one in groups.of_accounts(session, [user.id])[user.id]],
        "organizations": [
            f"{one.name} ({one.role})" for one in organizations.memberships_of(session, user.id)
        ],
        "keys": session.scalar(select(func.count()).select_from(keys.order_by(None).subquery())),
        "low_balance_threshold": user.low_balance_threshold,
        "auto_topup_amount": user.auto_topup_amount,
        "auto_topup_threshold": user.auto_topup_threshold,
        "auto_topup_monthly_limit": user.auto_topup_monthly_limit,
        "zero_data_retention": user.zero_data_retention,
        "log_sample": user.log_sample,
    }


def find(session: Session, who: str) -> User:
    """The person with this e-mail or id. Several may have one e-mail (trusted headers); which of them is meant, nobody guesses: Invalid."""
    if id := output.id_in(who):
        return _with_id(session, id)
    found = users.with_email(session, who)
    if not found:
        raise NotFound(f"There is no user with the e-mail {who}")
    if len(found) > 1:
        ids = ", ".join(str(user.id) for user in found)
        raise Invalid(f"Several users have the e-mail {who}. Name one by its id: {ids}")
    return found[0]


def _with_id(session: Session, id: UUID) -> User:
    found = session.scalar(users.people().where(User.id == id))
    if found is None:
        raise NotFound(f"There is no user with the ID {id}")
    return found


def _ask_password() -> str:
    answer: str = click.prompt("New password", hide_input=True, confirmation_prompt=True, err=True)
    return answer


def _read_password() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _hash(password: str) -> str:
    rule = current.settings().auth.native.password
    passwords.check_length(password, rule)
    return passwords.hash_password(password, rule)


def _row(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "email": user.email,
        "username": user.username,
        "roles": user.role_names,
        "admin": user.is_admin,
        "source": user.auth_source,
        "last_login": user.last_login,
    }
