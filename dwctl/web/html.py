"""Pages of HTML: made here, so that each has the headers that keep it from being scripted or framed."""

from __future__ import annotations

import base64
import hashlib
import re

from flask import Response

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)


def page(
    html: str, status: int = 200, *, forms_lead_to: str = "", policy: str | None = None
) -> Response:
    """An answer that is this page. It may have `<style>` elements and forms to our own routes; scripts and whatever else is loaded are refused.

    `forms_lead_to` is an origin to which such a route may redirect: browsers hold redirections to the same rule. `policy` is another
    content security policy for a page with other needs.
    """
    styles = " ".join(f"'sha256-{_digest(style)}'" for style in _STYLE.findall(html)) or "'none'"
    to = f" {forms_lead_to}" if forms_lead_to else ""
    response = Response(html, status, mimetype="text/html")
    response.headers["Content-Security-Policy"] = policy or (
        f"default-src 'none'; style-src {styles}; base-uri 'none'; form-action 'self'{to}; frame-ancestors 'none'"
    )
    response.headers["X-Frame-Options"] = "DENY"
    # Without a referrer for our own, a form would be sent with `Origin: null`, as if from a foreign page.
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers["Cache-Control"] = "no-cache"
    return response


def _digest(style: str) -> str:
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
