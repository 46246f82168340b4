"""How a batch is made: a file chosen or uploaded, what it would cost, then the start."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson
from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.batches import routes as batches
from dwctl.dashboard import forms, operations, pages, panels
from dwctl.dashboard.routes.batches import blueprint
from dwctl.downloads import routes as downloads
from dwctl.errors import Forbidden, Invalid
from dwctl.files.routes import files
from dwctl.web import current

_CHOICES = 20


@blueprint.get("/batches/new")
def new() -> Response:
    """Without a file: choose or upload one. With one: what it holds and would cost, and the form that starts it."""
    if not operations.may(batches.create_batch):
        raise Forbidden("Insufficient permissions to make batches")
    file_id = request.args.get("file")
    return _chosen(file_id, forms.Form()) if file_id else _choice()


@blueprint.post("/batches/new")
def make() -> AnyResponse:
    """Start it. Sent twice, the form makes one batch: it bears the key that says so."""
    file_id = request.form.get("input_file_id", "")
    made, form = forms.submit(_made)
    if form.is_wrong:
        return _chosen(file_id, form)
    return pages.done(url_for(".detail", batch_id=made["id"]), "Batch started.")


@blueprint.get("/batches/new/estimate")
def estimate() -> Response:
    """The part of the form that says what a batch in another window would cost."""
    file_id, window = request.args.get("file", ""), request.args.get("completion_window", "")
    return pages.render("batches/_estimate.html", title="", estimate=_estimate(file_id, window))


def _made() -> Any:
    body = forms.body(operations.of(batches.create_batch).body) | {"metadata": _metadata()}
    headers = {"Idempotency-Key": request.form.get("once") or str(uuid4())}
    return operations.run(batches.create_batch, body=body, headers=headers)


def _metadata() -> dict[str, str]:
    """A pair a line: `name: text`. Raises Invalid."""
    pairs = {}
    for number, line in enumerate(request.form.get("metadata", "").splitlines(), 1):
        name, colon, text = line.partition(":")
        if line.strip() and not (colon and name.strip()):
            raise Invalid(f"Line {number}: write a name, a colon and a text.", param="metadata")
        if line.strip():
            pairs[name.strip()] = text.strip()
    return pairs


def _choice() -> Response:
    query = {"purpose": "batch", "limit": _CHOICES}
    known = panels.attempt(lambda: operations.run(files.list_files, query=query))
    return pages.render(
        "batches/choose.html", title="Create batch", files=known, max_bytes=_largest()
    )


def _chosen(file_id: str, form: forms.Form) -> Response:
    file = operations.run(files.get_file, file_id=file_id)
    rules = current.settings().batches
    window = form.values.get("completion_window") or rules.allowed_completion_windows[0]
    body = {
        "input_file_id": file_id,
        "endpoint": _endpoint_of(file_id) or rules.allowed_url_paths[0],
        "completion_window": window,
    }
    return pages.render(
        "batches/new.html",
        title="Create batch",
        status=422 if form.is_wrong else 200,
        file=file,
        form=form,
        order=body,
        once=form.values.get("once") or str(uuid4()),
        windows=rules.allowed_completion_windows,
        paths=rules.allowed_url_paths,
        estimate=_estimate(file_id, window),
        snippet=operations.snippet(batches.create_batch, body=body),
    )


def _estimate(file_id: str, window: str) -> panels.Panel:
    query = {"completion_window": window}
    return panels.attempt(lambda: operations.run(files.estimate_cost, query=query, file_id=file_id))


def _endpoint_of(file_id: str) -> str | None:
    """Where the first line of the file goes; all lines of a batch go to the same."""
    content = operations.run(downloads.get_file_content, query={"limit": 1}, file_id=file_id)
    try:
        found = orjson.loads(content.get_data())
    except orjson.JSONDecodeError:
        return None
    return found.get("url") if isinstance(found, dict) else None


def _largest() -> int:
    return current.settings().limits.files.max_file_size
