"""What the id of a file or a batch leads to: whether the caller may read it, and where its lines are."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.access.caller import Caller
from dwctl.access.ownership import may_reach
from dwctl.access.permissions import Operation, Resource
from dwctl.downloads.pages import LAST, NIL, Source
from dwctl.errors import Invalid, NotFound
from dwctl.queue import identifiers
from dwctl.queue.tables import State
from dwctl.web.pagination import substring

_QUERIES = sql.load("dwctl.downloads")
_LINES = 2**32

STATES: dict[str, tuple[State, ...]] = {
    "completed": (State.COMPLETED,),
    "failed": (State.FAILED,),
    "pending": (State.PENDING,),
    "in_progress": (State.CLAIMED, State.PROCESSING),
    "canceled": (State.CANCELED,),
}
"""The words for what a line of results is doing."""


def of_file(
    connection: psycopg.Connection[Any],
    caller: Caller,
    file_id: UUID,
    *,
    skip: int,
    search: str | None,
) -> Source:
    """The lines of a file. Raises NotFound, also for what is another's."""
    found = _one(connection, "find_file", {"id": file_id})
    if found is None or not may_reach(caller, Resource.FILES, Operation.READ, found.uploaded_by):
        raise NotFound(f"File with ID {file_id} not found")
    if found.purpose in ("batch_output", "batch_error"):
        if found.batch_id is None:
            raise NotFound(f"File with ID {file_id} not found")
        return _finished(found, skip, search)
    return _input(connection, file_id, skip, search)


def of_batch(
    connection: psycopg.Connection[Any],
    caller: Caller,
    batch_id: UUID,
    *,
    skip: int,
    search: str | None,
    status: str | None,
) -> Source:
    """The lines of a batch with their results. Raises NotFound, Invalid for a status that does not exist."""
    states = _states(status)
    first, last = identifiers.line_id(batch_id, 0), identifiers.line_id(batch_id, _LINES - 1)
    found = _one(connection, "find_batch", {"id": batch_id, "first": first, "last": last})
    if found is None or not may_reach(caller, Resource.BATCHES, Operation.READ, found.created_by):
        raise NotFound(f"Batch with ID {batch_id} not found")
    lines = found.populated_lines
    is_populated = lines > 0
    has_places = is_populated and found.last_id == identifiers.line_id(batch_id, lines - 1)
    is_sought = has_places and states is None and not search and skip < _LINES
    begin = first.int + (skip if is_sought else 0) - 1
    return Source(
        "result" if is_populated else "result_by_hand",
        {
            "batch": batch_id,
            "last": last,
            "states": states,
            "search": substring(search),
        },
        (0 if is_populated else -1, UUID(int=begin) if is_populated else NIL),
        skip=0 if is_sought else skip,
        line=skip,
        total=None if search else _count(connection, found, states),
        is_growing=not found.is_over,
        is_filtered=bool(search or states),
    )


def _finished(found: Any, skip: int, search: str | None) -> Source:
    return Source(
        "error" if found.purpose == "batch_error" else "output",
        {
            "batch": found.batch_id,
            "until": found.lines,
            "search": substring(search),
        },
        (-1 if search else skip - 1, NIL),
        skip=skip if search else 0,
        line=skip,
        are_places=not search,
        total=None if search else found.lines,
        is_growing=not found.is_over,
        is_filtered=bool(search),
    )


def _input(
    connection: psycopg.Connection[Any], file_id: UUID, skip: int, search: str | None
) -> Source:
    known = _one(connection, "lines_of_file", {"file": file_id})
    # Otherwise numbers may be missing or stand twice, and only counting finds the line that was meant.
    has_places = known.lines is not None and known.lines == (known.last_line or 0) + 1
    is_sought = has_places and not search
    return Source(
        "input",
        {"file": file_id, "search": substring(search)},
        (min(skip, _LINES) - 1, LAST) if is_sought and skip else (-1, NIL),
        skip=0 if is_sought else skip,
        line=skip,
        is_filtered=bool(search),
    )


def _states(status: str | None) -> list[str] | None:
    if not status:
        return None
    if status not in STATES:
        raise Invalid(f"Unknown status '{status[:64]}'. Use one of: {', '.join(STATES)}")
    return [str(state) for state in STATES[status]]


def _count(connection: psycopg.Connection[Any], found: Any, states: list[str] | None) -> int:
    """How many lines are wanted: by the batch's counters where it has them."""
    counters = {
        State.COMPLETED: found.completed_requests,
        State.FAILED: found.failed_requests,
        State.CANCELED: found.canceled_requests,
    }
    if found.populated_lines and states is None:
        return int(found.populated_lines)
    if found.populated_lines and states and len(states) == 1 and states[0] in counters:
        return int(counters[State(states[0])])
    counted = _one(connection, "count_results", {"batch": found.id, "states": states})
    return int(counted.count)


def _one(connection: psycopg.Connection[Any], name: str, values: dict[str, Any]) -> Any:
    with connection.cursor(row_factory=namedtuple_row) as cursor:
        return cursor.execute(_QUERIES[name], values).fetchone()
