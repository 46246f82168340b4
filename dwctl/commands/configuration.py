"""`dwctl config`: what is in force, where it is written, and whether processes would start with it. Needs no database."""

from __future__ import annotations

import json
import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from dwctl import config
from dwctl.commands import output
from dwctl.config import ConfigError, Loaded
from dwctl.operations import written
from dwctl.settings import example

_file = click.option(
    "--file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="In place of what DWCTL_CONFIG names, or config.yaml.",
)


@click.group("config")
def group() -> None:
    """Settings: check, show, example."""


@group.command("check")
@_file
@click.option("--set", "only_set", is_flag=True, help="List only what is set, no defaults.")
@click.option("--quiet", is_flag=True, help="List nothing; the exit code says it.")
@click.option(
    "--serving", is_flag=True, help="Fail, too, without what web and worker cannot do without."
)
@output.as_json
def check(file: Path | None, only_set: bool, quiet: bool, serving: bool, as_json: bool) -> None:
    """Check the settings, and print what is in force and where each value is written.

    Reads the file and the environment as a process would that starts here and now. Exit code 1 where it would not start; each problem
    is a line on standard error.

    \b
    Examples:
      dwctl config check --set
      dwctl config check --quiet --serving
      DWCTL_LOG_LEVEL=debug dwctl config check --file new.yaml --json
    """
    loaded = _load(file, serving=serving)
    rows = [written.row(loaded, name) for name in config.names()]
    if only_set:
        rows = [row for row in rows if row["source"] != written.DEFAULT]
    if not quiet:
        _print(rows, as_json=as_json)


@group.command("show")
@click.argument("name")
@_file
@output.as_json
@output.one_line_errors
def show(name: str, file: Path | None, as_json: bool) -> None:
    """Show a setting: what is in force, where it is written, what it may be. Of a section, what is in it.

    \b
    Examples:
      dwctl config show auth.native.password.min_length
      dwctl config show limits.requests
    """
    loaded = _load(file)
    inside = [each for each in config.names() if each.startswith(f"{name}.")]
    if inside:
        _print([written.row(loaded, each) for each in inside], as_json=as_json)
    elif name in config.names():
        output.show_one(written.described(loaded, name), as_json=as_json)
    else:
        raise click.ClickException(output.shown(_unknown(name)))


@group.command("example")
def print_example() -> None:
    """Print a configuration file with every setting, its default and what it means.

    \b
    Example:
      dwctl config example > config.yaml
    """
    document = Path(__file__).resolve().parents[2] / "docs/configuration.md"
    click.echo(example.text(config.Settings(), example.meanings(document)), nl=False)


def _load(file: Path | None, *, serving: bool = False) -> Loaded:
    try:
        loaded = config.read(file=file)
        if serving:
            config.require_serving(loaded.settings)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(f"dwctl: {output.shown(problem)}", err=True)
        raise click.exceptions.Exit(1) from error
    for remark in loaded.remarks:
        level = logging.getLevelName(remark.level).lower()
        text = f"{level}: {remark.setting}: {remark.event}: {remark.reason} ({remark.origin})"
        click.echo(output.shown(text), err=True)
    return loaded


def _print(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """JSON keeps the kinds of values; people see them as they would write them."""
    if not as_json:
        rows = [row | {"value": _written(row["value"])} for row in rows]
    output.show_list(rows, as_json=as_json)


def _written(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | dict) else value


def _unknown(name: str) -> str:
    if name in config.OBSOLETE:
        return f"{name} has no meaning here: {config.OBSOLETE[name]}"
    near = get_close_matches(name, config.names(), n=1)
    return f"There is no setting {name}" + (f"; is {near[0]} meant?" if near else "")
