"""Where a person is, as an address to come back to: relative to where the application is mounted, and encoded as it came."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from flask import request

_OF_PATHS = "/:@!$&'()*+,;=~"
"""What stands as it is in a path. (An alias may have what ends one: `?`, `#`, `%`.)"""


def asked() -> str:
    """Of the request at hand."""
    path = quote(request.path, safe=_OF_PATHS)
    query = quote(request.query_string, safe=f"{_OF_PATHS}?%")
    return f"{path}?{query}" if query else path


def page() -> str | None:
    """Of the page that the person sees, which for its parts and forms is where they were asked from; None where the browser does not say."""
    is_page = request.method in ("GET", "HEAD") and request.headers.get("HX-Request") != "true"
    return asked() if is_page else _referrer()


def _referrer() -> str | None:
    parts = urlsplit(request.headers.get("Referer", ""))
    root = request.script_root
    if parts.netloc != request.host or not parts.path.startswith(f"{root}/"):
        return None
    path = parts.path.removeprefix(root)
    return f"{path}?{parts.query}" if parts.query else path
