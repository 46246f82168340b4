"""`dwctl secrets`: what is sealed at rest, and under which key; and how a secret is replaced."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click
from flask.cli import AppGroup

from dwctl.commands import output, resealing
from dwctl.db import db
from dwctl.errors import Invalid
from dwctl.web import current

group = AppGroup("secrets", help="What is sealed at rest, and under which key: status, rotate.")


@group.command("status")
@output.as_json
@output.one_line_errors
def status(as_json: bool) -> None:
    """Say how many credentials and mails each key has sealed.

    newest: by the key that seals now. previous: by a former one that is configured still. not configured: nobody can open these.
    """
    parts = current.parts()
    found = [
        asdict(share)
        for place in resealing.places(parts.settings, parts.sealer)
        for share in resealing.shares(db.session(), place)
    ]
    output.show_list(found, as_json=as_json)


@group.command("rotate")
@click.option("--dry-run", is_flag=True, help="Open everything, change nothing.")
@output.as_json
@output.one_line_errors
def rotate(dry_run: bool, as_json: bool) -> None:
    """Seal everything anew under the newest secret_key (connections: connections.encryption_key, where that is set).

    Set the new secret_key and put the old one into secret_key_previous, restart, run this, then take the old one away. It may be
    interrupted and run again. Exit code 1: something cannot be opened; its rows are named.
    """
    parts = current.parts()
    places = resealing.places(parts.settings, parts.sealer)
    if any(place.sealer.newest is None for place in places):
        raise Invalid("secret_key is not set")
    done = [resealing.reseal(db.session(), place, dry_run=dry_run) for place in places]
    output.show_list([asdict(one) for one in done], as_json=as_json)
    if any(one.failed for one in done):
        click.echo("Some texts cannot be opened with any configured key.", err=True)
        sys.exit(1)
