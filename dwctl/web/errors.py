"""Errors as JSON, always: OpenAI's envelope under `/ai` and in the playground tunnel, the admin form elsewhere.

/ai      {"error": {"message", "type", "param", "code"}}
others   {"code", "message", "request_id", "details"?, ...members of the error}
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any
from uuid import UUID

import orjson
from flask import Flask, Response, current_app, request
from sqlalchemy.exc import DBAPIError, IntegrityError, TimeoutError
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from dwctl.clock import uuid7
from dwctl.db import DatabaseAway, PoolExhausted
from dwctl.errors import Conflict, DwctlError, Invalid, NotFound, Unavailable
from dwctl.web import request_id
from dwctl.web.envelope import openai_error

log = logging.getLogger(__name__)

_OPENAI_SURFACES = ("/ai/", "/admin/api/v1/ai/")

_CODES = {400: "bad_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found",
          405: "method_not_allowed", 413: "payload_too_large", 415: "unsupported_media_type",
          422: "unprocessable_request", 429: "rate_limit", 503: "service_unavailable"}  # fmt: skip

UNIQUE_MESSAGES: dict[str, tuple[str, str]] = {
    "users_username_unique": ("This username is already taken", "user"),
    "users_email_unique": ("An account with this email address already exists", "user"),
    "users_external_user_id_unique": ("An account with this email address already exists", "user"),
    "deployed_models_alias_unique": (
        "The specified alias is already in use. Please choose a different alias.",
        "deployment",
    ),
    "inference_endpoints_name_unique": ("An endpoint with this name already exists", "endpoint"),
}
"""Message and resource of a 409, by the constraint that was hit."""


class NoWebSockets(DwctlError):
    """WebSockets are not spoken here: send the request by POST; with `stream` it is answered event by event."""

    # By this status alone clients that try WebSockets first (Codex on /responses) go over to HTTP at once; others they try again, for ten seconds or for good.
    code = "websockets_not_supported"
    status = 426


def headers_of(error: DwctlError) -> dict[str, str]:
    """Headers that go with an error, whatever its body's form."""
    found = dict(error.headers)
    if error.status == 401:
        found["WWW-Authenticate"] = _challenge(error.code)
    if error.retry_after_s is not None:
        found["Retry-After"] = str(error.retry_after_s)
    return found


def _challenge(code: str) -> str:
    """What RFC 6750 has a 401 say; browsers ask for no password because of it. `error` only where something was shown that does not hold."""
    if code == "unauthenticated":
        return 'Bearer realm="dwctl"'
    return f'Bearer realm="dwctl", error="invalid_token", error_description="{code}"'


def init_app(app: Flask) -> None:
    """Register the handlers; the most general one logs what it does not know and never shows its text."""
    app.register_error_handler(DwctlError, _answer)
    app.register_error_handler(HTTPException, _http_exception)
    app.register_error_handler(IntegrityError, lambda error: _answer(integrity_error(error)))
    app.register_error_handler(DBAPIError, _database_error)
    # Changed, and gone before it was shown.
    app.register_error_handler(ObjectDeletedError, lambda _error: _answer(NotFound()))
    app.register_error_handler(StaleDataError, lambda _error: _answer(_outrun()))
    app.register_error_handler(TimeoutError, lambda _error: _answer(PoolExhausted()))
    app.register_error_handler(Exception, _unknown)


def integrity_error(error: IntegrityError) -> DwctlError:
    """The refusal that a broken database constraint stands for."""
    cause = error.orig
    sqlstate = getattr(cause, "sqlstate", None)
    constraint = getattr(getattr(cause, "diag", None), "constraint_name", None) or ""
    if sqlstate == "23505":
        message, resource = UNIQUE_MESSAGES.get(constraint, ("Resource already exists", "unknown"))
        return Conflict(message, members={"resource": resource})
    if sqlstate == "23503":
        return Invalid("Invalid reference to related resource", code="invalid_reference")
    return Invalid("Invalid data provided", code="invalid_data")


def body_of(error: DwctlError, path: str, id: UUID, details: Any = None) -> bytes:
    """The JSON of an error, in the form of the surface that the path belongs to. `id` is the request's."""
    if path.startswith(_OPENAI_SURFACES):
        return openai_error(error.message, error.code, error.status, error.param, error.members)
    members: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "request_id": str(id),
        **error.members,
    }
    if isinstance(error, PoolExhausted):
        # By this clients of the Rust product know it.
        members["error"] = "service_unavailable"
    if error.retry_after_s is not None:
        members["retry_after_seconds"] = error.retry_after_s
    if details is not None:
        members["details"] = details
    # marshmallow names the items of a list by their number.
    return orjson.dumps(members, option=orjson.OPT_NON_STR_KEYS)


def answer_wsgi(
    error: DwctlError, path: str, start_response: Callable[..., Any]
) -> Iterable[bytes]:
    """The same answer where Flask has not seen the request."""
    id = uuid7()
    body = body_of(error, path, id)
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
        (request_id.HEADER, str(id)),
        *headers_of(error).items(),
    ]
    start_response(f"{error.status} {HTTPStatus(error.status).phrase}", headers)
    return [body]


def _answer(error: DwctlError, details: Any = None, headers: Mapping[str, str] = {}) -> Response:
    body = body_of(error, request.path, request_id.current(), details)
    response = Response(body, error.status, mimetype="application/json")
    response.headers.update({**headers_of(error), **headers})
    return response


def _http_exception(error: HTTPException) -> Response:
    status = error.code or 500
    if error.response is not None:
        return error.response  # type: ignore[return-value]
    if status < 400:
        return error.get_response()  # type: ignore[return-value]
    if status in (400, 405) and request.headers.get("Upgrade", "").lower() == "websocket":
        return _answer(NoWebSockets())
    data = getattr(error, "data", None) or {}
    details = data.get("messages")
    message = first_problem(details) or _said(error)
    code = _CODES.get(status, f"http_{status}")
    kind = NotFound(message) if status == 404 else DwctlError(message, code=code, status=status)
    headers = (
        {"Allow": ", ".join(sorted(error.valid_methods))}
        if isinstance(error, MethodNotAllowed) and error.valid_methods
        else {}
    )
    return _answer(kind, details, headers)


def _said(error: HTTPException) -> str:
    """What werkzeug says where nobody has written anything is for people who type addresses into browsers."""
    if error.code == 404 and error.description == type(error).description:
        return "There is nothing under this path."
    return error.description or error.name


def first_problem(messages: Any, path: str = "") -> str | None:
    """`field: what is wrong` of the first entry in marshmallow's nested messages (their outermost key is the location)."""
    if isinstance(messages, dict):
        for key, value in messages.items():
            inner = "" if not path and key in ("json", "query", "path") else f"{path}{key}."
            found = first_problem(value, inner or " ")
            if found:
                return found
    elif isinstance(messages, list) and messages:
        name = path.strip().rstrip(".").removesuffix("._schema")
        return f"{name}: {messages[0]}" if name and name != "_schema" else str(messages[0])
    return None


def _database_error(error: DBAPIError) -> Response:
    sqlstate = getattr(error.orig, "sqlstate", None) or ""
    # 25006: it is read-only, as the one is that a fail-over leaves behind.
    if error.connection_invalidated or not sqlstate or sqlstate.startswith(("08", "57", "53", "25006")):  # fmt: skip
        log.warning("database away", extra={"request_id": str(request_id.current())})
        return _answer(DatabaseAway())
    if sqlstate[:2] == "40" or sqlstate == "55P03":
        return _answer(_outrun())
    if sqlstate[:2] in ("22", "23"):
        return _answer(Invalid("Invalid data provided", code="invalid_data"))
    return _unknown(error)


def _outrun() -> DwctlError:
    text = "Somebody else changed the same at the same time, and nothing was changed. Try again."
    return Unavailable(text, code="busy", retry_after_s=1)


def _unknown(error: Exception) -> Response:
    if current_app.config.get("PROPAGATE_EXCEPTIONS"):
        raise error
    log.exception("unexpected error", extra={"request_id": str(request_id.current())})
    return _answer(DwctlError("Internal server error"))
