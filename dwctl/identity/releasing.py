"""Releases: Flask-Migrate for whoever runs migrations, and the bootstrap at their end.

Importing this module makes `flask db upgrade` end with the bootstrap, so that a release leaves behind a database that somebody can sign in to.
Web and worker processes never come here.
"""

from __future__ import annotations

import logging
from typing import Any

import click
from flask import Flask
from flask.cli import with_appcontext
from flask_migrate import Migrate
from flask_migrate.cli import db as migration_commands

from dwctl import revisions
from dwctl.db import db
from dwctl.identity.bootstrap import bootstrap
from dwctl.web import current

log = logging.getLogger(__name__)


def init_app(app: Flask) -> object:
    """Give the application Flask-Migrate; returns what Flask-Migrate finds in `app.extensions`."""
    Migrate(app, db, directory=str(revisions.FOLDER))
    return app.extensions["migrate"]


@migration_commands.result_callback()  # type: ignore[untyped-decorator]
@with_appcontext
def _after_command(_result: Any, **_options: Any) -> None:
    if click.get_current_context().invoked_subcommand == "upgrade":
        done = bootstrap(current.settings())
        if done.created:
            log.info("first administrator made", extra={"email": done.email})
