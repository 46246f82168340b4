"""The one spelling of a path that is served. Pure.

A rule about paths, here or in a router in front, holds only where one thing has one name: `//internal/metrics`, `/internal%2fmetrics` or
`/a/../internal/metrics` must never reach what `/internal/metrics` does. Parameters (a model's name, an id) may be percent-encoded as
clients like; what is literal in a route must be written as it is.
"""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import unquote_to_bytes, urlsplit

LONGEST = 2048
"""Characters of a path as it was sent."""

_ALLOWED = re.compile(r"/(?:[A-Za-z0-9\-._~!$&'()*+,=:@/]|%[0-9A-Fa-f]{2})*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_PARAMETER = re.compile(r"<(?:([^:<>]+):)?[^<>]+>")


def path_in(target: str) -> str:
    """The path of a request target (RFC 9112, 3.2) as it was sent: of `/path?query` and of `http://host/path?query`."""
    if not target.startswith("/") and "://" in target:
        target = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", "", target) or "/"
    return target.partition("?")[0]


def authority_in(target: str) -> str | None:
    """The host (and port) of a target that has one; it goes before the Host header."""
    if target.startswith("/") or "://" not in target:
        return None
    try:
        return urlsplit(target).netloc
    except ValueError:
        return ""


def is_canonical(path: str) -> bool:
    """Whether a path, as it was sent, may be served: no empty or dot segments, no parameters (`;`), nothing that cannot be text."""
    if len(path) > LONGEST or not _ALLOWED.fullmatch(path):
        return False
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    segments = text.split("/")
    return not ("//" in text or _CONTROL.search(text) or "." in segments or ".." in segments)


def decoded(path: str) -> str:
    """The path as WSGI's PATH_INFO wants it: bytes as Latin-1."""
    return unquote_to_bytes(path).decode("latin-1")


def spells_out(path: str, rule: str) -> bool:
    """Whether a path, as it was sent, has the literal parts of a route (`/models/<path:alias>`) unencoded."""
    return _pattern(rule).fullmatch(path.rstrip("/") or "/") is not None


@cache
def _pattern(rule: str) -> re.Pattern[str]:
    found, end = "", 0
    for parameter in _PARAMETER.finditer(rule):
        found += re.escape(rule[end : parameter.start()])
        found += ".+" if parameter[1] == "path" else "[^/]+"
        end = parameter.end()
    return re.compile(found + re.escape(rule[end:].rstrip("/") if rule != "/" else rule))
