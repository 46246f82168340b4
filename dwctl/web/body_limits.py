"""How large a body may be, by route: judged by what is announced before a byte is read, and again while chunks come in."""

from __future__ import annotations

from flask import Flask, Request, request
from werkzeug.exceptions import RequestEntityTooLarge

from dwctl.config import RequestLimits
from dwctl.web.refusals import TooLarge

_INFERENCE = ("/ai/", "/admin/api/v1/ai/")
_ADMIN = "/admin/"
_UPLOADS = ("/ai/v1/files", "/files/upload")


def init_app(app: Flask, limits: RequestLimits) -> None:
    """Give each request its limit: nothing beyond it is read (`body_of`)."""

    @app.before_request
    def limit_body() -> None:
        limit = limit_of(request.path, limits)
        # One more: a body that comes in chunks may end exactly at the limit, and what is longer must show.
        request.max_content_length = None if limit is None else limit + 1
        # Inference judges the credential first, and reads its body itself.
        if request.path.startswith(_INFERENCE) or limit is None:
            return
        if (request.content_length or 0) > limit:
            raise _too_large(limit)


def body_of(asked: Request) -> bytes:
    """The body of a request. Raises TooLarge."""
    most = asked.max_content_length
    try:
        body = asked.get_data(cache=True)
    except RequestEntityTooLarge:
        raise _too_large((most or 1) - 1) from None
    if most is not None and len(body) >= most:
        raise _too_large(most - 1)
    return body


def limit_of(path: str, limits: RequestLimits) -> int | None:
    """Bytes that a body on this path may have; None: any number."""
    if path.rstrip("/") in _UPLOADS:
        return None  # They read their body themselves, as far as `limits.files` allows.
    if path.startswith(_INFERENCE):
        return limits.max_body_size or None
    if path.startswith(_ADMIN):
        return limits.max_admin_body_size
    return limits.max_sign_in_body_size


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the limit of {limit} bytes.")
