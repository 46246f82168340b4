"""The API reference: `/admin/openapi.json` and `/ai/openapi.json`, and pages that show them (`/admin/docs`, `/ai/docs`).

Public, and made without the database. A document is written once in a process, in a native thread, and has an ETag. The pages are Swagger UI
from a package: no other site is asked for anything, and their policy allows scripts and styles of this site only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from importlib import metadata, resources
from typing import Any

import orjson
from flask import Blueprint, Flask, Response, current_app, render_template, request, url_for

from dwctl import threads
from dwctl.access import guard
from dwctl.errors import NotFound
from dwctl.operations.openapi import documents
from dwctl.web import current, html

blueprint = Blueprint("reference", __name__, template_folder="templates")
guard.open_to_all(
    blueprint, reason="it says how to call, and names neither users nor models nor secrets"
)

TITLE = "Doubleword Control Layer"
_MAKERS: dict[str, Callable[..., dict[str, Any]]] = {"admin": documents.admin, "ai": documents.ai}
_WRITTEN = "dwctl.reference"
_MOST_WRITTEN = 8
"""How many documents are kept; there is one of each kind for each path that proxies put in front."""
_PACKAGE = "flask_swagger_ui"
_ASSETS = {
    "swagger-ui.css": "text/css",
    "index.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
    "start.js": "text/javascript",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/admin/openapi.json")
def show_admin_document() -> Response:
    """The admin API's."""
    return _document("admin")


@blueprint.get("/ai/openapi.json")
def show_ai_document() -> Response:
    """The AI API's."""
    return _document("ai")


@blueprint.get("/admin/docs")
def show_admin_docs() -> Response:
    """A page that shows it."""
    return _page("Admin API", "reference.show_admin_document")


@blueprint.get("/ai/docs")
def show_ai_docs() -> Response:
    """A page that shows it."""
    return _page("AI API", "reference.show_ai_document")


@blueprint.get("/assets/reference-<version>/<name>")
def show_asset(version: str, name: str) -> Response:
    """A file of the pages. Its address changes with its content, so that it can be kept for ever."""
    if version != _version() or name not in _ASSETS:
        raise NotFound("There is no such file.")
    response = Response(threads.in_files(_asset, name), mimetype=_ASSETS[name])
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
    return response


def _document(name: str) -> Response:
    written: dict[tuple[str, str], tuple[bytes, str]]
    written = current_app.extensions.setdefault(_WRITTEN, {})
    key = (name, request.script_root)
    if key not in written:
        if len(written) >= _MOST_WRITTEN:
            written.clear()
        app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
        written[key] = threads.in_files(_write, app, name, request.script_root)
    body, tag = written[key]
    response = Response(body, mimetype="application/json")
    response.set_etag(tag)
    response.headers["Cache-Control"] = "no-cache"
    return response.make_conditional(request)  # type: ignore[return-value]


def _write(app: Flask, name: str, root: str) -> tuple[bytes, str]:
    """The document with its ETag; below `root`, where a proxy has put a path in front of ours."""
    made = _MAKERS[name](app, current.parts(app).settings)
    for server in made["servers"]:
        server["url"] = root + server["url"]
    for item in made["paths"].values():
        for server in item.get("servers", ()):
            server["url"] = root + server["url"]
    body = orjson.dumps(made)
    return body, hashlib.sha256(body).hexdigest()[:32]


def _page(name: str, document: str) -> Response:
    def address(asset: str) -> str:
        return url_for("reference.show_asset", version=_version(), name=asset)

    shown = render_template(
        "reference.html", title=f"{name} - {TITLE}", document=url_for(document), asset=address
    )
    return html.page(shown, policy=_POLICY)


@cache
def _version() -> str:
    """The package's, and what our own script is."""
    ours = hashlib.sha256(_asset("start.js")).hexdigest()[:8]
    return re.sub(r"[^\w.]", "", f"{metadata.version(_PACKAGE)}.{ours}")


@cache
def _asset(name: str) -> bytes:
    folder = resources.files(_PACKAGE).joinpath("dist")
    if name == "start.js":
        folder = resources.files("dwctl.operations").joinpath("templates")
    return folder.joinpath(name).read_bytes()
