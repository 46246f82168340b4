"""The console script `dwctl`: the Flask CLI of our application (`flask --app wsgi ...` does the same)."""

from __future__ import annotations

import sys

from flask.cli import FlaskGroup

from dwctl.app import create_app
from dwctl.commands import keys, users
from dwctl.config import ConfigError

cli = FlaskGroup(
    name="dwctl",
    create_app=create_app,
    add_version_option=False,
    help="dwctl: a control layer for LLM inference that teams host themselves.",
)
for group in (users.group, keys.group):
    cli.add_command(group)


def main() -> None:
    """Run the command line; a bad setting is one line, not a traceback."""
    try:
        cli.main(prog_name="dwctl")
    except ConfigError as error:
        sys.exit(f"dwctl: {error}")
