"""A thin WSGI dispatch in front of Flask for the hot POST routes: they cost half of what they cost inside Flask.

The same routes are declared in Flask (`routes.py`) and answered by the same function; a test runs both doors.
"""

from __future__ import annotations

from collections.abc import Iterable

from dwctl.ai import http, lifecycle
from dwctl.ai.calls import Answer
from dwctl.ai.gateway import Gateway
from dwctl.clock import uuid7
from dwctl.protocols.surfaces import SURFACES, Surface
from dwctl.web.envelope import openai_error

PREFIX = "/ai/v1/"


class Front:
    """Answers the hot routes itself and hands everything else on."""

    def __init__(self, gateway: Gateway, behind: http.StartResponse) -> None:
        self._gateway = gateway
        self._behind = behind
        self._surfaces = {PREFIX + path: surface for path, surface in SURFACES.items()}

    def __call__(
        self, environ: http.Environ, start_response: http.StartResponse
    ) -> Iterable[bytes]:
        surface = self._surfaces.get(environ["PATH_INFO"])
        if surface is None or environ["REQUEST_METHOD"] != "POST":
            found: Iterable[bytes] = self._behind(environ, start_response)
            return found
        return http.write(respond(self._gateway, environ, surface), start_response)


def respond(gateway: Gateway, environ: http.Environ, surface: Surface) -> Answer:
    """The answer to a call in a WSGI environment."""
    if not gateway.started:
        gateway.start()
    try:
        incoming = http.read(environ, surface, gateway.settings.limits.requests.max_body_size)
    except http.TooLarge as error:
        body = openai_error(error.message, error.code, error.status)
        headers = [("content-type", "application/json"), (lifecycle.REQUEST_ID, str(uuid7()))]
        return Answer(error.status, [*headers, ("connection", "close")], body)
    return lifecycle.answer(gateway, incoming)
