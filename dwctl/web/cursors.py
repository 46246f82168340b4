"""Where the next page of a list begins, as a text that a client hands back unread (`?after=`), and the `Link` header that offers it.

A cursor holds a position: the values by which the list is ordered, of the last row that was shown. It is signed under `secret_key` together with the
list that it is of (path, filters and order), so that a position can be neither made up nor taken to another list. It does not expire.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlencode

import orjson
from flask import Response, after_this_request, g, has_request_context, request

from dwctl.errors import Invalid
from dwctl.web import current

Position = Sequence[str | None]
"""The values that a row has in a list's order, as PostgreSQL writes them."""

LONGEST = 8192
_BEGIN_ANEW = "Ask without `after` to begin with the first page."
# Paging and what is shown of a row leave the list as it is.
_NOT_OF_THE_LIST = frozenset({"after", "skip", "limit", "include"})
_SIGNATURE_BYTES = 12
_LIST_BYTES = 8


def asked(order: str) -> Position | None:
    """The position behind which the request wants to read a list of this order; None for its beginning. Raises Invalid."""
    if not has_request_context() or g.get("cursors_aside"):
        return None
    text = request.args.get("after")
    return _opened(text, order) if text else None


def offer(order: str, position: Position) -> None:
    """Have the answer say that the list goes on behind this position: `Link: <?...>; rel="next"`.

    The target has no path, so it is right whatever proxies make of the address: a client resolves it against the URL that it has asked.
    """
    if not has_request_context() or g.get("cursors_aside"):
        return
    asked = [(k, v) for k, v in request.args.items(multi=True) if k not in ("after", "skip")]
    target = "?" + urlencode([*asked, ("after", _sealed(order, position))])
    g.further = target

    @after_this_request
    def link(response: Response) -> Response:
        response.headers["Link"] = f'<{target}>; rel="next"'
        return response


@contextmanager
def aside() -> Iterator[None]:
    """Lists that are read within are not the one that the request is about: they begin at their beginning, and offer nothing."""
    g.cursors_aside = True
    try:
        yield
    finally:
        g.cursors_aside = False


def further() -> str | None:
    """Where the list at hand goes on, as `offer` has said it: a relative address; None where it has ended, or has none (a form's answer)."""
    found: str | None = g.get("further") if request.method in ("GET", "HEAD") else None
    return found


def _sealed(order: str, position: Position) -> str:
    body = _list(order) + orjson.dumps(list(position))
    sealed = base64.urlsafe_b64encode(_signature(body, _secrets()[0]) + body)
    return sealed.rstrip(b"=").decode()


def _opened(text: str, order: str) -> Position:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
    if not any(hmac.compare_digest(signature, _signature(body, s)) for s in _secrets()):
        reason = "after: not a cursor of this server, or one that was changed on the way. Take it as it stands in the header `Link`."
        raise Invalid(f"{reason} {_BEGIN_ANEW}", param="after")
    if body[:_LIST_BYTES] != _list(order):
        reason = (
            "after: a cursor of another list, or of this one with other filters or another order."
        )
        raise Invalid(f"{reason} {_BEGIN_ANEW}", param="after")
    position: Position = orjson.loads(body[_LIST_BYTES:])
    return position


def _list(order: str) -> bytes:
    """Which list a request asks for: its path, its filters, and the order of the rows."""
    filters = [(k, v) for k, v in request.args.items(multi=True) if k not in _NOT_OF_THE_LIST]
    named = orjson.dumps([request.path, sorted(filters), order])
    return hashlib.sha256(named).digest()[:_LIST_BYTES]


def _secrets() -> tuple[str, ...]:
    settings = current.settings()
    return (settings.secret_key or "", *settings.secret_key_previous)


def _signature(body: bytes, secret: str) -> bytes:
    key = hashlib.sha256(b"dwctl cursors\0" + secret.encode()).digest()
    return hmac.digest(key, body, "sha256")[:_SIGNATURE_BYTES]
