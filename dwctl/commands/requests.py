"""`dwctl requests`: the log of calls, from the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import click
from flask.cli import AppGroup
from psycopg.rows import dict_row
from rich.text import Text

from dwctl import sql
from dwctl.clock import uuid7
from dwctl.commands import output
from dwctl.db import DatabaseAway
from dwctl.web import current

group = AppGroup("requests", help="The log of calls.")

_QUERIES = sql.load("dwctl.commands")
_EVERY_S = 1.0
_KNOWN = 50_000
# Rows become visible when their transaction ends, a moment after the time they bear.
_OVERLAP = timedelta(seconds=10)

Call = dict[str, Any]


@dataclass(slots=True)
class _Window:
    """Calls that arrived within so many seconds, looked at in every so manieth poll. `since` is when it was looked at last."""

    seconds: float
    every: int
    since: datetime


@group.command("tail")
@click.option("--follow/--no-follow", default=True, show_default=True, help="Go on with new ones.")
@click.option("-n", "count", default=20, show_default=True, help="Begin with this many.")
@output.as_json
@output.one_line_errors
def tail(follow: bool, count: int, as_json: bool) -> None:
    """Show calls as they finish.

    One a line: when, status, model, tokens in and out, cost in USD, duration, whose.
    """
    console = output.console()
    try:
        for call in _calls(count, follow=follow):
            if as_json:
                click.echo(output.as_line(call))
            else:
                console.print(_line(call), soft_wrap=True)
    except KeyboardInterrupt:
        return


def _calls(count: int, *, follow: bool) -> Iterator[Call]:
    began = _now()
    latest = sorted(_ask("latest_calls", limit=count), key=lambda call: call["created_at"])
    yield from latest
    if follow:
        yield from _new_calls(began, {call["request_id"] for call in latest})


def _new_calls(began: datetime, shown: set[UUID]) -> Iterator[Call]:
    """For ever. Most calls are short, but a queued one may end an hour after it arrived: those are looked for less often."""
    windows = (_Window(120, 1, began), _Window(2 * 3600, 15, began))
    known = dict.fromkeys(shown)
    for poll in range(1, 1 << 62):
        time.sleep(_EVERY_S)
        for window in windows:
            if poll % window.every == 0:
                fresh = [call for call in _look(window) if call["request_id"] not in known]
                known |= dict.fromkeys(call["request_id"] for call in fresh)
                yield from fresh
        for id in list(known)[: len(known) - _KNOWN]:
            del known[id]


def _look(window: _Window) -> list[Call]:
    try:
        now = _now()
        oldest = UUID(int=uuid7(time.time() - window.seconds).int >> 80 << 80)
        found = _ask("calls_since", oldest=oldest, since=window.since)
    except DatabaseAway:
        return []
    window.since = now - _OVERLAP
    return found


def _now() -> datetime:
    found: datetime = _ask("moment")[0]["now"]
    return found


def _ask(query: str, **values: Any) -> list[Call]:
    with current.parts().connections.transaction() as connection:
        return connection.cursor(row_factory=dict_row).execute(_QUERIES[query], values).fetchall()


def _line(call: Call) -> Text:
    status = call["status_code"]
    colour = "green" if status < 400 else "yellow" if status < 500 else "red"
    line = Text(f"{call['created_at'].astimezone():%H:%M:%S}  ")
    line.append(f"{status:<4}", colour)
    line.append(f"{output.shown(call['model']) or '-':<24} ")
    line.append(f"{call['prompt_tokens']:>7} in {call['completion_tokens']:>7} out  ")
    line.append(f"{_money(call['total_cost']):>12}  {call['duration_ms']:>7} ms  ")
    line.append(output.shown(call["email"]) or "-", "dim")
    if call["error_code"]:
        line.append(f"  {output.shown(call['error_code'])}", colour)
    return line


def _money(cost: Decimal | None) -> str:
    return "-" if cost is None else f"${cost:.6f}"
