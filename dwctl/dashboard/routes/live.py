"""The live view of calls: the log's own stream, with each call as the row that the list would show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from flask import Response, request, stream_with_context

from dwctl.dashboard import call_columns, calls, operations, pages
from dwctl.dashboard.call_rows import Rows
from dwctl.dashboard.routes.requests import kept

blueprint = pages.screen("live")

MOST = 20
"""Calls of a second; of more it is a sample: people cannot read more."""


@blueprint.get("/requests/live")
def watch() -> Response:
    """Server-sent events: `row` with the HTML of a row, `skipped` with how many calls of a second were left out.

    A reader who comes back with the id of the last event (`Last-Event-ID`) gets what was written meanwhile.
    """
    asked = calls.asked()
    query = asked.narrowed | {"most": MOST}
    stream: Response = operations.run(calls.watching(), query=query, **asked.path)
    if request.method != "HEAD":
        rows = Rows.of(call_columns.chosen(operator=calls.reads_all()), kept())
        stream.response = stream_with_context(_in_rows(stream.response, rows))
    stream.headers["Cache-Control"] = "no-store"
    return stream


def _in_rows(events: Any, rows: Rows) -> Iterator[bytes]:
    """The operation's stream, with the row of each call in place of its data. Its pieces are whole events."""
    try:
        for piece in events:
            yield b"".join(_in_row(event, rows) for event in _split(piece))
    finally:
        events.close()


def _split(piece: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in piece.split(b"\n\n") if event]


def _in_row(event: bytes, rows: Rows) -> bytes:
    head, is_call, data = event.partition(b"event: request\ndata: ")
    if not is_call:
        return event
    row = rows.row(orjson.loads(data))
    return (
        head
        + b"event: row\n"
        + b"".join(b"data: %s\n" % line.encode() for line in row.splitlines())
        + b"\n"
    )
