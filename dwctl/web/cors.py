"""Cross-origin calls from browsers, for exactly the configured origins. In WSGI, because the hot routes do not pass through Flask."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from dwctl.config import Cors

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")
_HEADERS = frozenset(
    [
        "content-type",
        "authorization",
        "accept",
        "x-organization-id",
        "x-api-key",
        "api-key",
        "idempotency-key",
        "x-request-id",
        "x-client-request-id",
        "user-agent",
        "model-override",
        "traceparent",
        "tracestate",
        "http-referer",
        "x-title",
    ]
)
# What SDKs send beside those: which SDK it is, for which organisation, which beta.
_FAMILIES = ("x-stainless-", "openai-", "anthropic-")
_EXPOSED = (
    "location",
    "x-request-id",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-should-retry",
    "x-ignored-fields",
    "idempotent-replayed",
    "link",
    "x-total-count",
    "www-authenticate",
    "openai-processing-ms",
    "openai-model",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
)
"""What answers of ours say in headers; pages of allowed origins may always read it."""
_NAME = re.compile(r"[a-z0-9-]{1,64}")
_MOST_NAMES = 64

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]


class CrossOrigin:
    """Adds the headers of the Fetch standard to answers for allowed origins, and answers their preflights."""

    def __init__(self, settings: Cors, behind: Wsgi) -> None:
        self._behind = behind
        self._origins = frozenset(origin.rstrip("/") for origin in settings.allowed_origins)
        self._credentials = settings.allow_credentials
        self._max_age = str(settings.max_age)
        also = (name.lower() for name in settings.exposed_headers)
        self._exposed = ", ".join(dict.fromkeys([*also, *_EXPOSED]))

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        origin = environ.get("HTTP_ORIGIN")
        headers = self.headers_for(origin)
        if origin is not None and len(headers) > 1 and _is_preflight(environ):
            asked = environ.get("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "")
            start_response("204 No Content", [*headers, *self._preflight(asked)])
            return []

        def start(status: str, found: Headers, *more: Any) -> Any:
            return start_response(status, [*found, *headers], *more)

        return self._behind(environ, start)

    def headers_for(self, origin: str | None) -> Headers:
        """What an answer to a page of that origin carries; a cache must know that others get another."""
        vary = [("vary", "Origin")]
        if origin is None or not ("*" in self._origins or origin in self._origins):
            return vary
        # Settings refuse `*` together with credentials.
        shown = "*" if "*" in self._origins else origin
        headers = [*vary, ("access-control-allow-origin", shown)]
        headers.append(("access-control-expose-headers", self._exposed))
        if self._credentials:
            headers.append(("access-control-allow-credentials", "true"))
        return headers

    def _preflight(self, asked: str) -> Headers:
        return [
            ("access-control-allow-methods", ", ".join(_METHODS)),
            ("access-control-allow-headers", ", ".join(sorted(_HEADERS | _known_in(asked)))),
            ("access-control-max-age", self._max_age),
            ("content-length", "0"),
        ]


def _known_in(asked: str) -> set[str]:
    names = (name.strip().lower() for name in asked.split(",")[:_MOST_NAMES])
    return {name for name in names if name.startswith(_FAMILIES) and _NAME.fullmatch(name)}


def _is_preflight(environ: dict[str, Any]) -> bool:
    asks = environ.get("HTTP_ACCESS_CONTROL_REQUEST_METHOD") in _METHODS
    return environ["REQUEST_METHOD"] == "OPTIONS" and asks
