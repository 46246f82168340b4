"""`dwctl requests`: the log of calls, from the command line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import wraps
from typing import Any, TypeVar
from uuid import UUID

import click
import psycopg
from flask.cli import AppGroup
from rich.text import Text

from dwctl.commands import output
from dwctl.commands.users import find
from dwctl.db import DatabaseAway, db
from dwctl.errors import Invalid
from dwctl.request_log import detail, schemas
from dwctl.request_log.filters import EVERYBODYS, Filters, conditions, within_an_hour
from dwctl.request_log.lookout import Lookout, fitting
from dwctl.request_log.pages import Reader, Row, Words, most_shown
from dwctl.web import current, exporting

F = TypeVar("F", bound=Callable[..., Any])

group = AppGroup("requests", help="The log of calls: list, show, watch, export.")

_EVERY_S = 1.0
_PAGE = 500
_OPTIONS = (
    click.option("--user", metavar="EMAIL|ID", help="Calls of this account."),
    click.option("--key", metavar="ID", type=click.UUID, help="Calls with this API key."),
    click.option("--model", help="The model that was asked for."),
    click.option("--status", metavar="STATUS", help="404, 5xx, or 400-499."),
    click.option("--error", metavar="CODE", help="Calls that ended with this error."),
    click.option("--batch", metavar="ID", type=click.UUID, help="Lines of this batch."),
    click.option("--custom-id", help="Part of the line's custom id."),
    click.option("--endpoint", metavar="NAME", help="Calls that this endpoint served."),
    click.option("--min-cost", metavar="USD", help="Calls that cost so much or more."),
    click.option("--min-ms", type=int, help="Calls that took so long or longer."),
    click.option("--since", metavar="TIME", help="2026-01-31, or 2026-01-31T10:20Z."),
    click.option("--until", metavar="TIME", help="Until this time."),
)


def _filtered(command: F) -> F:
    """Give a command the filters as options; it is called with a `Filters`."""

    @wraps(command)
    def with_filters(
        *,
        user: str | None,
        key: UUID | None,
        model: str | None,
        status: str | None,
        error: str | None,
        batch: UUID | None,
        custom_id: str | None,
        endpoint: str | None,
        min_cost: str | None,
        min_ms: int | None,
        since: str | None,
        until: str | None,
        **more: Any,
    ) -> Any:
        least, most = _statuses(status)
        filters = Filters(
            user_id=None if user is None else _account(user),
            api_key_id=key,
            model=model,
            status_code_min=least,
            status_code_max=most,
            error_code=error,
            fusillade_batch_id=batch,
            custom_id=custom_id,
            served_by=endpoint,
            min_cost=_amount(min_cost),
            min_duration_ms=min_ms,
            timestamp_after=output.time_in(since),
            timestamp_before=output.time_in(until),
        )
        return command(filters=filters, **more)

    decorated: Any = output.one_line_errors(with_filters)
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@group.command("list")
@_filtered
@click.option("--containing", metavar="WORDS", help="Words in bodies; of the last hour, or --since.")  # fmt: skip
@output.limit
@output.as_json
def list_requests(filters: Filters, containing: str | None, limit: int, as_json: bool) -> None:
    """List calls, newest first."""
    words = None
    if containing is not None:
        filters, words = (
            within_an_hour(filters, datetime.now(UTC)),
            Words.of(containing, most_shown(current.settings())),
        )
    found = _first(Reader(current.parts().connections, EVERYBODYS, filters, words=words), limit)
    rows = schemas.shown(found) if as_json else [_columns(row) for row in found]
    output.show_list(rows, as_json=as_json)


@group.command("show")
@click.argument("id", type=click.UUID)
@output.as_json
@output.one_line_errors
def show(id: UUID, as_json: bool) -> None:
    """Show one call: how it was served, what it cost, its headers and bodies."""
    found = detail.find(
        current.parts().connections, EVERYBODYS, id, shown=most_shown(current.settings())
    )
    output.show_one(schemas.LoggedDetailSchema().dump(found), as_json=as_json)


@group.command("export")
@_filtered
@click.option("--format", type=click.Choice(list(exporting.CONTENT_TYPES)), default="jsonl", show_default=True)  # fmt: skip
def export(filters: Filters, format: str) -> None:
    """Print calls as JSON lines or CSV, newest first, all of them."""
    pages = Reader(current.parts().connections, EVERYBODYS, filters).pages(_PAGE)
    for lines in exporting.lines(map(schemas.shown, pages), schemas.COLUMNS, format=format):
        sys.stdout.buffer.write(lines)
        sys.stdout.buffer.flush()


@group.command("tail")
@_filtered
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with new ones.")
@click.option("-n", "count", default=20, show_default=True, help="Begin with this many.")
@output.as_json
def tail(filters: Filters, follow: bool, count: int, as_json: bool) -> None:
    """Show calls as they finish.

    One a line: when, status, model, tokens in and out, cost in USD, duration, whose.
    """
    console = output.console()
    try:
        for call in _calls(filters, count, follow=follow):
            if as_json:
                click.echo(output.as_line(schemas.shown([call])[0]))
            else:
                console.print(_line(call), soft_wrap=True)
    except KeyboardInterrupt:
        return


def _calls(filters: Filters, count: int, *, follow: bool) -> Iterator[Row]:
    connections, lookout = current.parts().connections, Lookout()
    lookout.look(connections)
    latest = _first(Reader(connections, EVERYBODYS, filters), count)
    yield from sorted(latest, key=lambda call: call["created_at"])
    # What ended between the first look and the list is in both.
    shown = {call["id"] for call in latest}
    narrow = conditions(EVERYBODYS, filters)
    while follow:
        time.sleep(_EVERY_S)
        try:
            written = lookout.look(connections)
            for rows in fitting(connections, written, narrow):
                yield from (row for row in rows if row["id"] not in shown)
        except (DatabaseAway, psycopg.Error):
            continue


def _first(reader: Reader, count: int) -> list[Row]:
    found: list[Row] = []
    for page in reader.pages(min(count, _PAGE)):
        found += page
        if len(found) >= count:
            break
    return found[:count]


def _account(text: str) -> UUID:
    return output.id_in(text) or find(db.session(), text).id


def _statuses(text: str | None) -> tuple[int | None, int | None]:
    """404, 5xx and 400-499 as bounds."""
    if text is None:
        return None, None
    least, _, most = text.lower().partition("-")
    bounds = (least.replace("x", "0"), (most or least).replace("x", "9"))
    if not all(bound.isascii() and bound.isdigit() and len(bound) == 3 for bound in bounds):
        raise Invalid(f"{text} is no status such as 404, 5xx or 400-499")
    return int(bounds[0]), int(bounds[1])


def _amount(text: str | None) -> Decimal | None:
    try:
        amount = None if text is None else Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount is not None and not amount.is_finite():
        raise Invalid(f"{text} is no amount such as 0.05")
    return amount


def _columns(call: Row) -> Row:
    return {
        "request_id": call["request_id"],
        "at": call["timestamp"],
        "status": call["status_code"],
        "model": call["model"],
        "in": call["prompt_tokens"],
        "out": call["completion_tokens"],
        "cost": _money(call["total_cost"]),
        "ms": call["duration_ms"],
        "who": call["user_email"],
        "error": call["error_code"],
    }


def _line(call: Row) -> Text:
    status = call["status_code"]
    colour = "green" if status < 400 else "yellow" if status < 500 else "red"
    line = Text(f"{call['created_at'].astimezone():%H:%M:%S}  ")
    line.append(f"{status:<4}", colour)
    line.append(f"{output.shown(call['model']) or '-':<24} ")
    line.append(f"{call['prompt_tokens']:>7} in {call['completion_tokens']:>7} out  ")
    line.append(f"{_money(call['total_cost']):>12}  {call['duration_ms']:>7} ms  ")
    line.append(output.shown(call["user_email"]) or "-", "dim")
    if call["error_code"]:
        line.append(f"  {output.shown(call['error_code'])}", colour)
    return line


def _money(cost: Decimal | None) -> str:
    return "-" if cost is None else f"${cost:.6f}"
