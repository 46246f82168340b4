"""Every answer carries `x-request-id`, so that a call can be found again in the log."""

from __future__ import annotations

from uuid import UUID

from flask import Flask, Response, g

from dwctl import logs
from dwctl.clock import uuid7

HEADER = "x-request-id"


def current() -> UUID:
    """The id of the request at hand; minted on first use."""
    if "request_id" not in g:
        g.request_id = uuid7()
        logs.about(g.request_id)
    found: UUID = g.request_id
    return found


def init_app(app: Flask) -> None:
    """Put the id on every answer that does not carry one of its own."""

    @app.before_request
    def name_it() -> None:
        current()

    @app.after_request
    def add_request_id(response: Response) -> Response:
        response.headers.setdefault(HEADER, str(current()))
        return response
