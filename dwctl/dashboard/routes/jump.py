"""The search box of every page: an id, a name or an address leads straight to its page, whatever range is chosen."""

from __future__ import annotations

from flask import redirect, request
from werkzeug.wrappers import Response as AnyResponse

from dwctl.dashboard import finding, pages

blueprint = pages.screen("jump")

_LONGEST = 300


@blueprint.get("/go")
def go() -> AnyResponse:
    """The page of what is meant; where that is not clear, what it may be."""
    text = request.args.get("q", "").strip()[:_LONGEST]
    found = finding.find(text) if text else []
    meant = finding.the_one(found)
    if meant:
        return redirect(meant.url, 303)
    return pages.render("requests/found.html", title="Search", text=text, found=found)
