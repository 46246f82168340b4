"""What commands print: a table for people, JSON for programs.

Names, models and errors come from outside: whatever they hold, nothing of it moves the cursor of a terminal (`shown`). JSON escapes it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import click
import psycopg
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import DBAPIError, IntegrityError

from dwctl.db import db
from dwctl.errors import DwctlError, Invalid
from dwctl.logs import reason_of
from dwctl.printable import printable
from dwctl.web.errors import integrity_error
from dwctl.web.schemas import rfc3339

P = ParamSpec("P")
R = TypeVar("R")

Row = Mapping[str, Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

limit = click.option(
    "--limit",
    default=100,
    show_default=True,
    type=click.IntRange(1, 100_000),
    help="Print at most so many.",
)

yes = click.option("--yes", is_flag=True, help="Do it without asking.")

_TAKEN = {
    "api_keys_name_unique": "This user has a key with that name already: choose another, or give that one a new secret (dwctl keys rotate)",
    "groups_name_unique": "There is a group with that name already",
    "deployed_model_components_pair_unique": "That model serves there already",
}
"""What the admin API calls `Resource already exists`, by the constraint that was hit."""

WIDE = 200
"""Columns where the output is no terminal, so that ids are not cut."""


def show_list(rows: Sequence[Row], *, as_json: bool) -> None:
    """One line a row under the names of their members, or a JSON array."""
    if as_json:
        click.echo(json.dumps([_plain(row) for row in rows], indent=2))
    elif rows:
        table = Table(*rows[0], box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(shown, row.values()))
        console().print(table)


def show_one(row: Row, *, as_json: bool) -> None:
    """One line a member, or a JSON object."""
    if as_json:
        click.echo(json.dumps(_plain(row), indent=2))
    else:
        # No table: it would break a key into lines on a narrow terminal.
        width = max(map(len, row))
        for name, value in row.items():
            click.echo(f"{name:<{width}}  {shown(value)}".rstrip())


def confirm(what: str, *, yes: bool) -> None:
    """Ask before what cannot be undone. Without a terminal nobody can answer: it is refused unless `yes` says it all.

    Ends the transaction, for nothing is held while somebody thinks: what is to be done is looked up again.
    """
    db.session.rollback()
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException(f"{shown(what)} cannot be undone. Say --yes to do it")
    click.confirm(f"{shown(what)} cannot be undone. Go on?", abort=True, err=True)


def one_line_errors(command: Callable[P, R]) -> Callable[P, R]:
    """What dwctl refuses is one line on stderr and exit code 1, not a traceback."""

    @wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except DwctlError as error:
            raise click.ClickException(shown(error.message)) from error
        except UnicodeEncodeError as error:
            # What the system hands over as an argument, and is no text.
            raise click.ClickException("The command line must be UTF-8") from error
        except IntegrityError as error:
            raise click.ClickException(_taken(error) or integrity_error(error).message) from error
        except (DBAPIError, psycopg.Error) as error:
            cause = getattr(error, "orig", None) or error
            raise click.ClickException(
                f"The database does not answer: {reason_of(cause)}"
            ) from error

    return guarded


def _taken(error: IntegrityError) -> str | None:
    constraint = getattr(getattr(error.orig, "diag", None), "constraint_name", None)
    return _TAKEN.get(constraint or "")


def console() -> Console:
    """For lines of several colours; give it texts that are `shown`."""
    width = None if sys.stdout.isatty() else WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


def shown(value: Any) -> str:
    """A value as people read it, on one line; objects as JSON, which `FIELD=VALUE` takes again."""
    if value is None:
        return ""
    if isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(one, dict) for one in value)
    ):
        return printable(json.dumps(value, default=_json))
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value.strftime("%Y-%m-%d %H:%M") if isinstance(value, datetime) else str(value)
    return printable(text)


def id_in(text: str) -> UUID | None:
    """The id that an argument is, where names and ids are both taken."""
    try:
        return UUID(text)
    except ValueError:
        return None


def time_in(text: str | None) -> datetime | None:
    """The time that an argument is: ISO 8601; without an offset it is UTC."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{text} is no time such as 2026-01-31 or 2026-01-31T10:20Z") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def as_line(row: Row) -> str:
    """A row as one line of JSON."""
    return json.dumps(_plain(row))


def _plain(row: Row) -> dict[str, Any]:
    return {name: _json(value) for name, value in row.items()}


def _json(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value) if isinstance(value, UUID) else value
