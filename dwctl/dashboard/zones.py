"""The time zone in which a person reads times: a cookie that the page's own menu sets; UTC where there is none."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flask import g, has_request_context, request

COOKIE = "dw_zone"
UTC = ZoneInfo("UTC")
_OF_THE_MACHINE = ("localtime", "posixrules", "Factory")
"""They stand among the zones, and say where the server is."""


def zone() -> ZoneInfo:
    """The zone of the request at hand."""
    if not has_request_context():
        return UTC
    if "zone" not in g:
        g.zone = named(unquote(request.cookies.get(COOKIE, "UTC")))
    found: ZoneInfo = g.zone
    return found


@lru_cache(maxsize=256)
def named(name: str) -> ZoneInfo:
    """The zone of an IANA name; UTC for what is none, and for the names of the machine's own files."""
    if len(name) > 64 or name in _OF_THE_MACHINE:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC
