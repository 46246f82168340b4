"""The console script `dwctl`. A command's module is imported when the command is wanted: `dwctl --help` must not wait for all of them."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup, FlaskGroup

from dwctl import __version__
from dwctl.config import ConfigError
from dwctl.printable import printable

COMMANDS = {
    "up": ("dwctl.commands.up:command", "Start everything on this machine."),
    "db": (
        "dwctl.identity.releasing:migration_commands",
        "Bring the database's tables up to date.",
    ),
    "users": (
        "dwctl.commands.users:group",
        "People: create, list, show, update, delete, roles, password.",
    ),
    "groups": ("dwctl.commands.groups:group", "Groups: members, and the models that they may use."),
    "keys": (
        "dwctl.commands.keys:group",
        "API keys: create, list, show, update, rotate, revoke.",
    ),
    "orgs": ("dwctl.commands.organizations:group", "Organizations, and who is in them."),
    "endpoints": (
        "dwctl.commands.endpoints:group",
        "Upstream inference servers: add, change, synchronise, remove.",
    ),
    "models": ("dwctl.commands.models:group", "Models, and who may call them."),
    "composites": ("dwctl.commands.composites:group", "Models that are served by others."),
    "tools": ("dwctl.commands.tools:group", "Tool sources, for models and groups."),
    "credits": ("dwctl.commands.credits:group", "Balances and grants: grant, balance, verify."),
    "batches": (
        "dwctl.commands.batches:group",
        "Batches, whosever they are: list, show, cancel, retry.",
    ),
    "secrets": (
        "dwctl.commands.secrets:group",
        "What is sealed at rest, and under which key: status, rotate.",
    ),
    "requests": ("dwctl.commands.requests:group", "The log of calls: list, show, watch, export."),
    "usage": ("dwctl.commands.usage:group", "What was called and used: show."),
    "audit": ("dwctl.commands.audit:group", "Who changed what: list, show, export."),
    "assets": ("dwctl.commands.assets:group", "What the dashboard's pages load: check, fetch."),
    "config": ("dwctl.commands.configuration:group", "Settings: check, show, example."),
}
"""Where each command is, and what it is for in a line."""

_FLASK_OPTIONS = frozenset({"env_file", "app", "debug"})


class Commands(FlaskGroup):
    """Finds commands by the table above. Which application they work in is no question here, so it has none of Flask's options for that."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            add_default_commands=False, add_version_option=False, set_debug_flag=False, **options
        )
        self.params = [option for option in self.params if option.name not in _FLASK_OPTIONS]

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, member = COMMANDS[name][0].partition(":")
        found: click.Command = getattr(import_module(module), member)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


class _OfTheApplication(AppGroup):
    """The same commands for `flask --app wsgi`, imported when they are wanted: a web process never wants them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(dict.fromkeys([*super().list_commands(ctx), *COMMANDS]))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if registered := super().get_command(ctx, name):
            return registered
        return cli.get_command(ctx, name) if name in self.list_commands(ctx) else None


def register(app: Flask) -> None:
    """Give the application its commands beside those that it has."""
    app.cli = _OfTheApplication(name=app.cli.name, commands=app.cli.commands)


def create_app() -> Flask:
    """The application that commands work in; without DATABASE_URL, on the database that `dwctl up` runs.

    Raises ConfigError where no database is named, or two.
    """
    from dwctl import app, config
    from dwctl.local.home import Home
    from dwctl.local.postgres import default_data_dir

    settings = config.load()
    folder = click.get_current_context().find_root().params.get("data_dir")
    if folder and settings.database.url is not None:
        raise ConfigError(
            "two databases are named, by --data-dir and by DATABASE_URL (or database.url): leave out one"
        )
    if settings.database.url is None:
        found = Home(folder or default_data_dir()).running_environment()
        if settings.secret_key is not None:
            found.pop("DWCTL_SECRET_KEY", None)
        os.environ.update(found)
        settings = config.load()
    if settings.database.url is None:
        raise ConfigError(
            "no database: set DATABASE_URL, start one with `dwctl up`, or name its folder with --data-dir before the command"
        )
    return app.create_app(settings)


cli = Commands(
    name="dwctl",
    create_app=create_app,
    help="A control layer for LLM inference that teams host themselves.",
    params=[
        click.Option(
            ["--data-dir"],
            type=click.Path(path_type=Path, file_okay=False),
            help="The data folder of `dwctl up`, where DATABASE_URL is not set.",
        ),
    ],
)
click.version_option(__version__, prog_name="dwctl", message="%(prog)s %(version)s")(cli)


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; a bad setting is one line, not a traceback."""
    try:
        return cli.main(args=arguments, prog_name="dwctl")
    except ConfigError as error:
        sys.exit("\n".join(f"dwctl: {printable(problem)}" for problem in error.problems))
