"""The time zone in which a person reads times: a cookie that the page's own menu sets; UTC where there is none."""

from __future__ import annotations

from urllib.parse import unquote
from zoneinfo import ZoneInfo

from flask import g, has_request_context, request

from dwctl import time_zones

COOKIE = "dw_zone"
UTC = ZoneInfo("UTC")


def zone() -> ZoneInfo:
    """The zone of the request at hand."""
    if not has_request_context():
        return UTC
    if "zone" not in g:
        g.zone = time_zones.named(unquote(request.cookies.get(COOKIE, "UTC"))) or UTC
    found: ZoneInfo = g.zone
    return found
