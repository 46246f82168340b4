"""`dwctl keys`: API keys, from the command line."""

from __future__ import annotations

from typing import Any

import click
from flask.cli import AppGroup
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from dwctl.billing import caps
from dwctl.billing.money import short_text
from dwctl.commands import output
from dwctl.commands.given import OrNone, changes, checked, log_sample, zero_retention
from dwctl.commands.users import find
from dwctl.db import db
from dwctl.errors import Conflict, Invalid, NotFound
from dwctl.identity import api_keys, people, users
from dwctl.identity.schemas import ApiKeyCreate, ApiKeyUpdate
from dwctl.identity.tables import ApiKey, RetiredSecret

group = AppGroup("keys", help="API keys: create, list, show, update, rotate, revoke.")

_which = click.argument("which", metavar="KEY")
_PURPOSES = click.Choice(["realtime", "platform"])
_expires_at = click.option("--expires-at", metavar="TIME", help="Its end, such as 2027-06-30T00:00:00Z.")  # fmt: skip

_spend_limit = click.option("--spend-limit", metavar="USD", help="What it may spend at most.")
_spend_limit_interval = click.option(
    "--spend-limit-interval",
    type=click.Choice([*caps.INTERVALS, "none"]),
    help="When that begins anew, in UTC.",
)


@group.command("create")
@click.argument("email", metavar="EMAIL|ID")
@click.argument("name")
@click.option(
    "--purpose",
    type=_PURPOSES,
    default="realtime",
    show_default=True,
    help="realtime: for inference; platform: for the admin API.",
)
@click.option("--description")
@_expires_at
@_spend_limit
@_spend_limit_interval
@zero_retention
@log_sample
@output.as_json
@output.one_line_errors
def create(email: str, as_json: bool, **given: Any) -> None:
    """Create a key for a user and print its secret, which nobody can show again."""
    session = db.session()
    wanted = checked(ApiKeyCreate(), changes(given))
    if not wanted["name"].strip():
        raise Invalid("API key name cannot be empty")
    del wanted["member_id"]
    owner = find(session, email)
    key, secret = api_keys.create(session, owner_id=owner.id, creator_id=owner.id, **wanted)
    session.commit()
    shown = {"id": key.id, "name": key.name, "purpose": key.purpose, "user": owner.email}
    output.show_one({**shown, "expires_at": key.expires_at, "key": secret}, as_json=as_json)


@group.command("list")
@click.argument("who", metavar="EMAIL|ID", required=False)
@click.option("--search", help="Part of a name, description or prefix.")
@click.option("--purpose", type=_PURPOSES)
@output.limit
@output.as_json
@output.one_line_errors
def list_keys(
    who: str | None, search: str | None, purpose: str | None, limit: int, as_json: bool
) -> None:
    """List keys, newest first: those of a user, or everybody's."""
    session = db.session()
    owner = None if who is None else find(session, who)
    visible = api_keys.visible(owner.id if owner else None, created_by=None)
    wanted = api_keys.matching(visible, search=search, purpose=purpose, created_by=None)
    output.show_list(_rows(session, list(session.scalars(wanted.limit(limit)))), as_json=as_json)


@group.command("show")
@_which
@output.as_json
@output.one_line_errors
def show(which: str, as_json: bool) -> None:
    """Show a key, by its id, its prefix, or a secret that was found somewhere."""
    session = db.session()
    output.show_one(_described(session, _find_key(session, which)), as_json=as_json)


@group.command("update")
@_which
@click.option("--name")
@click.option("--description")
@click.option("--requests-per-second", type=OrNone(float))
@click.option(
    "--burst-size",
    type=OrNone(int),
    help="Requests at once after a rest; without a rate, so many a second.",
)
@click.option("--tokens-per-minute", type=OrNone(int))
@click.option("--capacity", type=OrNone(int), help="Calls at once.")
@_expires_at
@_spend_limit
@_spend_limit_interval
@zero_retention
@log_sample
@output.as_json
@output.one_line_errors
def update(which: str, as_json: bool, **given: Any) -> None:
    """Change what is named of a key; "none" takes a limit, the description or the end away.

    \b
    Examples:
      dwctl keys update sk-4fTzc9Q --requests-per-second 2.5
      dwctl keys update sk-4fTzc9Q --expires-at none
    """
    session = db.session()
    key = _find_key(session, which)
    wanted = checked(ApiKeyUpdate(), changes(given))
    if not (wanted.get("name") or key.name).strip():
        raise Invalid("API key name cannot be empty")
    api_keys.change(key, wanted)
    session.commit()
    output.show_one(_described(session, key), as_json=as_json)


@group.command("rotate")
@_which
@click.option(
    "--overlap-seconds",
    default=api_keys.DAY_S,
    show_default=True,
    type=click.IntRange(0, api_keys.MOST_OVERLAP_S),
    help="For how long earlier secrets go on working; 0 ends them now.",
)
@output.as_json
@output.one_line_errors
def rotate(which: str, overlap_seconds: int, as_json: bool) -> None:
    """Give a key a new secret and print it; nobody can show it again. Limits and history stay."""
    session = db.session()
    key = _find_key(session, which)
    users.hold(session, key.created_by)
    secret = api_keys.rotate(session, key, overlap_s=overlap_seconds)
    session.commit()
    output.show_one({**_described(session, key), "key": secret}, as_json=as_json)


@group.command("revoke")
@_which
@output.yes
@output.as_json
@output.one_line_errors
def revoke(which: str, yes: bool, as_json: bool) -> None:
    """Delete a key; what it was used for stays attributed to it."""
    session = db.session()
    key = _find_key(session, which)
    id, name = key.id, key.name
    output.confirm(f"Revoking the key {name} ({key.secret_prefix or id})", yes=yes)
    key = _find_key(session, str(id))
    users.hold(session, key.created_by)
    key.is_deleted = True
    session.commit()
    output.show_one({"id": id, "name": name, "revoked": True}, as_json=as_json)


def _find_key(session: Session, which: str) -> ApiKey:
    """By id, by the prefix that is shown, or by a secret, the present one or an earlier one."""
    visible = api_keys.visible(None, created_by=None)
    if id := output.id_in(which):
        found = session.scalars(visible.where(ApiKey.id == id)).all()
    else:
        digest = api_keys.fingerprint(which)
        earlier = select(RetiredSecret.api_key_id).where(
            or_(RetiredSecret.secret_hash == digest, RetiredSecret.secret_prefix == which)
        )
        same = or_(
            ApiKey.secret_hash == digest, ApiKey.secret_prefix == which, ApiKey.id.in_(earlier)
        )
        found = session.scalars(visible.where(same).limit(2)).all()
    if len(found) > 1:
        raise Conflict("Several keys begin like that: name one by its ID (dwctl keys list)")
    if not found:
        # It may be a secret: what is printed is no more than what is shown of one anyway.
        is_secret = which.startswith(api_keys.PREFIX)
        named = which[: api_keys.SHOWN_LETTERS] if is_secret else which
        raise NotFound(f"There is no key with the ID or prefix {named}")
    return found[0]


def _rows(session: Session, keys: list[ApiKey]) -> list[dict[str, Any]]:
    known = people.behind(session, (str(key.user_id) for key in keys), (key.id for key in keys))
    return [
        {
            "id": key.id,
            "name": key.name,
            "prefix": key.secret_prefix,
            "purpose": key.purpose,
            "owner": owner.email if (owner := known.owner(str(key.user_id))) else key.user_id,
            "created_by": known.maker(key.id),
            "created": key.created_at,
            "last_used": key.last_used,
            "expires_at": key.expires_at,
        }
        for key in keys
    ]


def _described(session: Session, key: ApiKey) -> dict[str, Any]:
    spend, resets_at = api_keys.spending(session, [key]).get(key.id, (None, None))
    return {
        **_rows(session, [key])[0],
        "description": key.description,
        "requests_per_second": key.requests_per_second,
        "burst_size": key.burst_size,
        "tokens_per_minute": key.tokens_per_minute,
        "capacity": key.capacity,
        "spend_limit": None if key.spend_limit is None else short_text(key.spend_limit),
        "spend_limit_interval": key.spend_limit_interval,
        "spend": None if spend is None else short_text(spend),
        "spend_resets_at": resets_at,
        "zero_data_retention": key.zero_data_retention,
        "log_sample": key.log_sample,
        "models": len(api_keys.models_of(session, key.user_id)),
        "earlier_secrets": [
            f"{one.secret_prefix} until {output.shown(one.expires_at)}"
            for one in key.living_retired_secrets
        ],
    }
