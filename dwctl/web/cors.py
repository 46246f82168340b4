"""Cross-origin calls from browsers, for exactly the configured origins. In WSGI, because the hot routes do not pass through Flask."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dwctl.config import Cors

_METHODS = "GET, POST, PUT, DELETE, PATCH, OPTIONS"
_HEADERS = "content-type, authorization, accept, x-organization-id"
_EXPOSED = "location, x-request-id, retry-after"

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class CrossOrigin:
    """Adds the headers of the Fetch standard to answers for allowed origins, and answers their preflights."""

    def __init__(self, settings: Cors, behind: Wsgi) -> None:
        self._behind = behind
        self._origins = frozenset(origin.rstrip("/") for origin in settings.allowed_origins)
        self._headers = [("vary", "Origin"), ("access-control-expose-headers", _EXPOSED)]
        if settings.allow_credentials:
            self._headers.append(("access-control-allow-credentials", "true"))
        self._preflight = [
            ("access-control-allow-methods", _METHODS),
            ("access-control-allow-headers", _HEADERS),
            ("access-control-max-age", str(settings.max_age)),
            ("content-length", "0"),
        ]

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        if origin is None or not self._allows(origin):
            return self._behind(environ, start_response)
        headers = [("access-control-allow-origin", origin), *self._headers]
        if _is_preflight(environ):
            start_response("204 No Content", [*headers, *self._preflight])
            return []

        def start(status: str, found: list[tuple[str, str]], *more: Any) -> Any:
            return start_response(status, [*found, *headers], *more)

        return self._behind(environ, start)

    def _allows(self, origin: str) -> bool:
        return "*" in self._origins or origin in self._origins


def _is_preflight(environ: dict[str, Any]) -> bool:
    asks = "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
    return environ["REQUEST_METHOD"] == "OPTIONS" and asks
