"""`dwctl keys`: API keys, from the command line."""

from __future__ import annotations

import click
from flask.cli import AppGroup

from dwctl.commands import output
from dwctl.commands.users import find
from dwctl.db import db
from dwctl.errors import Invalid
from dwctl.identity import api_keys

group = AppGroup("keys", help="API keys.")


@group.command("create")
@click.argument("email")
@click.argument("name")
@click.option(
    "--purpose",
    type=click.Choice(["realtime", "platform"]),
    default="realtime",
    show_default=True,
    help="realtime: for inference; platform: for the admin API.",
)
@click.option("--description")
@output.as_json
@output.one_line_errors
def create(email: str, name: str, purpose: str, description: str | None, as_json: bool) -> None:
    """Create a key for a user and print its secret, which nobody can show again."""
    if not name.strip():
        raise Invalid("API key name cannot be empty")
    session = db.session()
    owner = find(session, email)
    key, secret = api_keys.create(
        session,
        owner_id=owner.id,
        creator_id=owner.id,
        name=name,
        description=description,
        purpose=purpose,
    )
    session.commit()
    shown = {"id": key.id, "name": key.name, "purpose": key.purpose, "user": owner.email}
    output.show_one({**shown, "key": secret}, as_json=as_json)
