"""`dwctl audit`: who changed what, from the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

import click
from flask.cli import AppGroup

from dwctl.audit import exporting, reading
from dwctl.audit.reading import Filters, Row, Scope
from dwctl.commands import output
from dwctl.commands.users import find
from dwctl.db import db
from dwctl.web.exporting import CONTENT_TYPES

F = TypeVar("F", bound=Callable[..., Any])

group = AppGroup("audit", help="Who changed what: list, show, export.")

_EVERYTHING = Scope()
_OPTIONS = (
    click.option("--actor", metavar="EMAIL|ID", help="Changes by this user."),
    click.option("--action", help="How the action begins: user., api_key.deleted."),
    click.option("--resource-type", help="The kind of what was changed: user, model, group, ..."),
    click.option("--resource", metavar="ID", help="What was changed, or its other side."),
    click.option("--organization", metavar="ID", type=click.UUID),
    click.option("--request", metavar="ID", type=click.UUID, help="What one request changed."),
    click.option("--since", metavar="TIME", help="2026-01-31, or 2026-01-31T10:20Z."),
    click.option("--until", metavar="TIME", help="Before this time."),
    click.option("--search", help="Part of the actor's name, of the resource's or of the action."),
)


def _filtered(command: F) -> F:
    """Give a command the filters as options; it is called with a `Filters`."""

    @wraps(command)
    def with_filters(
        *,
        actor: str | None,
        action: str | None,
        resource_type: str | None,
        resource: str | None,
        organization: UUID | None,
        request: UUID | None,
        since: str | None,
        until: str | None,
        search: str | None,
        **more: Any,
    ) -> Any:
        filters = Filters(
            actor_id=None if actor is None else _actor(actor),
            action=action,
            resource_type=resource_type,
            resource_id=resource,
            organization_id=organization,
            request_id=request,
            since=output.time_in(since),
            until=output.time_in(until),
            search=search,
        )
        return command(filters=filters, **more)

    decorated: Any = output.one_line_errors(with_filters)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@group.command("list")
@_filtered
@output.limit
@output.as_json
def list_entries(filters: Filters, limit: int, as_json: bool) -> None:
    """List changes, newest first."""
    session = db.session()
    found = session.scalars(reading.newest_first(_EVERYTHING, filters).limit(limit)).all()
    rows = reading.as_rows(session, _EVERYTHING, found)
    output.show_list(rows if as_json else [_line(row) for row in rows], as_json=as_json)


@group.command("show")
@click.argument("id", type=int)
@output.as_json
@output.one_line_errors
def show(id: int, as_json: bool) -> None:
    """Show one change: what it was before, and what it is now."""
    session = db.session()
    entry = reading.get(session, _EVERYTHING, id)
    (row,) = reading.as_rows(session, _EVERYTHING, [entry])
    output.show_one(row, as_json=as_json)


@group.command("export")
@_filtered
@click.option(
    "--format",
    type=click.Choice(list(CONTENT_TYPES)),
    default="jsonl",
    show_default=True,
)
def export(filters: Filters, format: str) -> None:
    """Print changes as JSON lines or CSV, newest first, all of them."""
    wanted = reading.newest_first(_EVERYTHING, filters)
    for lines in exporting.stream(db.engine, _EVERYTHING, wanted, format=format):
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()


def _actor(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return find(db.session(), text).id


def _line(row: Row) -> Row:
    return {
        "id": row["id"],
        "at": row["at"],
        "action": row["action"],
        "what": row["resource_name"] or row["resource_id"],
        "who": row["actor_name"],
        "through": row["through"],
        "from": row["address"],
    }
