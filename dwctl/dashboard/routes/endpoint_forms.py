"""Adding endpoints and changing them: tried before they are saved, and brought in line with what their servers list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.catalog.routes import endpoints as api
from dwctl.dashboard import forms, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.dashboard.routes import endpoints

blueprint = pages.screen("endpoints_forms")

_ONE = "/endpoints/<id:endpoint_id>"
_TRIED = ("url", "api_key", "auth_header_name", "auth_header_prefix")
_CHANGES = {
    "new": "new: is added",
    "back": "back: is active again",
    "gone": "gone: becomes inactive, and is not called",
    "outside": "not in the filter: is deleted",
    "taken": "its alias is another model's: is not added",
}
"""What a synchronisation does to a model, in words."""


@blueprint.route("/endpoints/new", methods=["GET", "POST"])
def make() -> AnyResponse:
    """A new endpoint."""
    form = Form()
    if request.method == "POST":
        body = _body(api.create_endpoint)
        made, form = forms.submit(lambda: operations.run(api.create_endpoint, body=body))
        if not form.is_wrong:
            where = url_for("ui_endpoints.detail", endpoint_id=made["id"])
            return pages.done(where, "Endpoint added. Its models are below: say what they cost, and who may use them.")  # fmt: skip
    return _page("Add endpoint", None, form)


@blueprint.route(f"{_ONE}/edit", methods=["GET", "POST"])
def edit(endpoint_id: UUID) -> AnyResponse:
    """Everything of it. The key is kept where its field is empty, and never shown."""
    form = Form()
    if request.method == "POST":
        operations.insist(api.update_endpoint)
        body = _body(api.update_endpoint)
        _, form = forms.submit(
            lambda: operations.run(api.update_endpoint, body=body, id=endpoint_id),
            seen=_seen(_endpoint(endpoint_id)),
        )
        if not form.is_wrong:
            where = url_for("ui_endpoints.detail", endpoint_id=endpoint_id)
            return pages.done(where, "Endpoint saved.")
    return _page("Edit endpoint", _endpoint(endpoint_id), form)


@blueprint.post("/endpoints/test")
def test_new() -> Response:
    """Try what the form says, and show what the server said; nothing is saved."""
    return _tested(None, _candidate())


@blueprint.post(f"{_ONE}/test")
def test(endpoint_id: UUID) -> Response:
    """The same for one that is known: with its key, unless the form brings another key or address."""
    endpoint = _endpoint(endpoint_id)
    return _tested(endpoint, _known(endpoint) or _candidate())


@blueprint.post(f"{_ONE}/check")
def check(endpoint_id: UUID) -> Response:
    """Ask the server whether it answers now."""
    body = {"type": "existing", "endpoint_id": str(endpoint_id)}
    tried = operations.run(api.validate_endpoint, body=body)
    if pages.is_partial():
        return pages.answer_part("endpoints/_tried.html", tried=tried)
    return endpoints.page_of(endpoint_id, tried=tried)


@blueprint.post(f"{_ONE}/compare")
def compare(endpoint_id: UUID) -> Response:
    """What its server lists, against what is here."""
    found, form = forms.submit(lambda: operations.run(api.compare_endpoint, id=endpoint_id))
    return endpoints.page_of(endpoint_id, compared=found, problem=form.problem, words=_CHANGES)


@blueprint.post(f"{_ONE}/synchronise")
def synchronise(endpoint_id: UUID) -> AnyResponse:
    """Have the chosen models follow the list."""
    body = {"models": request.form.getlist("model")}
    done, form = forms.submit(lambda: operations.run(api.synchronize_endpoint, body=body, id=endpoint_id))  # fmt: skip
    if form.is_wrong:
        return endpoints.page_of(endpoint_id, status=422, problem=form.problem or "Choose models that its server lists.")  # fmt: skip
    return pages.done(url_for("ui_endpoints.detail", endpoint_id=endpoint_id), _said(done))


@blueprint.post(f"{_ONE}/delete")
def delete(endpoint_id: UUID) -> AnyResponse:
    """Delete it with its models; its name must be typed."""
    endpoint = _endpoint(endpoint_id)
    if not forms.is_typed(endpoint["name"]):
        problem = "Nothing was deleted: what was typed is not the endpoint's name."
        return endpoints.page_of(endpoint_id, status=422, problem=problem)
    operations.run(api.delete_endpoint, id=endpoint_id)
    return pages.done(url_for("ui_endpoints.show"), f"{endpoint['name']} and its models are deleted.")  # fmt: skip


def _page(title: str, endpoint: Mapping[str, Any] | None, form: Form, **more: Any) -> Response:
    view = api.update_endpoint if endpoint else api.create_endpoint
    operations.insist(view)
    if endpoint:
        body = {"description": endpoint["description"], "alias_mapping": {}}
        call = operations.snippet(view, body=body, id=endpoint["id"])
    else:
        call = operations.snippet(view, body=getattr(operations.of(view).body, "example", {}))
    shown = {"given": endpoint or {}, "seen": endpoint and _seen(endpoint), **more}
    return pages.render(
        "endpoints/form.html",
        title=title,
        status=422 if form.is_wrong else 200,
        endpoint=endpoint,
        form=form.without("api_key"),
        call=call,
        **shown,
    )


def _seen(endpoint: Mapping[str, Any]) -> str:
    return forms.seen(operations.of(api.update_endpoint).body, endpoint)


def _tested(endpoint: Mapping[str, Any] | None, body: Mapping[str, Any]) -> Response:
    tried, form = forms.submit(lambda: operations.run(api.validate_endpoint, body=body))
    if pages.is_partial():
        return pages.answer_part("endpoints/_tried.html", tried=tried, form=form)
    given = {name: value for name, value in forms.sent().items() if name != "api_key"}
    title = "Edit endpoint" if endpoint else "Add endpoint"
    return _page(title, endpoint, form, given=given, tried=tried)


def _endpoint(endpoint_id: UUID) -> dict[str, Any]:
    found: dict[str, Any] = operations.run(
        api.get_endpoint, query={"include": "models"}, id=endpoint_id
    )
    return found


def _candidate() -> dict[str, Any]:
    given = {name: request.form.get(name, "") for name in _TRIED}
    return {"type": "new", **{name: value for name, value in given.items() if value.strip()}}


def _known(endpoint: Mapping[str, Any]) -> dict[str, Any] | None:
    """Try it as it is saved: where the form would not change how it is asked."""
    changed = any(
        name in request.form and request.form[name].strip() != endpoint[name].strip()
        for name in ("url", "auth_header_name", "auth_header_prefix")
    )
    if changed or request.form.get("api_key", "").strip() or "api_key.clear" in request.form:
        return None
    return {"type": "existing", "endpoint_id": endpoint["id"]}


def _body(view: Any) -> dict[str, Any]:
    """The form as the API takes it. An empty key says nothing; one that is to be taken away is null."""
    body = forms.body(operations.of(view).body)
    if not body.get("api_key"):
        body.pop("api_key", None)
        if "api_key.clear" in request.form:
            body["api_key"] = None
    if not body.get("model_filter"):
        body["model_filter"] = None
    # The space at its end counts, and is what people leave out.
    body["auth_header_prefix"] = request.form.get("auth_header_prefix") or None
    body["alias_mapping"] = _aliases(request.form.get("alias_mapping", ""))
    if view is api.update_endpoint and request.form.get("follow"):
        del body["alias_mapping"]
    return body


def _aliases(text: str) -> dict[str, str]:
    """`name on the server = alias`, a line each; a line without `=` has no alias of its own."""
    pairs = (line.rpartition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): alias.strip() for name, _, alias in pairs if name.strip()}


def _said(done: Mapping[str, Any]) -> str:
    counts = (
        ("added", done["new_models_created"]),
        ("back", done["models_reactivated"]),
        ("inactive now", done["models_deactivated"]),
        ("deleted", done["models_deleted"]),
        ("not added, since their alias is taken", len(done["conflicts"])),
    )
    parts = [f"{count} {word}" for word, count in counts if count]
    return f"Synchronised: {', '.join(parts) or 'nothing has changed'}."
