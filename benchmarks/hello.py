"""A bare WSGI application: what gunicorn alone costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_BODY = b"hello, world\n"
_HEADERS = [("content-type", "text/plain"), ("content-length", str(len(_BODY)))]


def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Says hello, whatever is asked."""
    start_response("200 OK", _HEADERS)
    return [_BODY]
