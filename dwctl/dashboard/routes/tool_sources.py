"""Tool sources: what models are offered, and the servers behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from flask import Response, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.dashboard import forms, operations, pages
from dwctl.dashboard.forms import Form
from dwctl.tools import routes as api

blueprint = pages.screen("endpoints_tools")


@blueprint.get("/tool-sources")
def show() -> Response:
    """All of them."""
    return pages.render(
        "endpoints/tools.html",
        title="Tool sources",
        sources=operations.run(api.list_tool_sources),
        call=operations.snippet(api.list_tool_sources),
    )


@blueprint.route("/tool-sources/new", methods=["GET", "POST"])
def make() -> AnyResponse:
    """A new one."""
    form = Form()
    if request.method == "POST":
        body = _body(api.create_tool_source)
        _, form = forms.submit(lambda: operations.run(api.create_tool_source, body=body))
        if not form.is_wrong:
            return pages.done(url_for("ui_endpoints_tools.show"), "Tool source added. Attach it to a model and to a group.")  # fmt: skip
    operations.insist(api.create_tool_source)
    example = getattr(operations.of(api.create_tool_source).body, "example", {})
    return _page("Add tool source", {}, form, operations.snippet(api.create_tool_source, body=example))  # fmt: skip


@blueprint.route("/tool-sources/<id:tool_id>", methods=["GET", "POST"])
def edit(tool_id: UUID) -> AnyResponse:
    """One of them, to be changed."""
    form = Form()
    if request.method == "POST":
        body = _body(api.update_tool_source)
        found = operations.run(api.get_tool_source, id=tool_id)
        _, form = forms.submit(
            lambda: operations.run(api.update_tool_source, body=body, id=tool_id), seen=_seen(found)
        )
        if not form.is_wrong:
            return pages.done(url_for("ui_endpoints_tools.show"), "Tool source saved.")
    source = operations.run(api.get_tool_source, id=tool_id)
    example = {"timeout_secs": source["timeout_secs"]}
    return _page(source["name"], source, form, operations.snippet(api.update_tool_source, body=example, id=tool_id))  # fmt: skip


@blueprint.post("/tool-sources/<id:tool_id>/delete")
def delete(tool_id: UUID) -> AnyResponse:
    """Delete it with its attachments."""
    operations.run(api.delete_tool_source, id=tool_id)
    return pages.done(url_for("ui_endpoints_tools.show"), "Tool source deleted.")


def _page(title: str, given: Mapping[str, Any], form: Form, call: operations.Snippet) -> Response:
    parameters = given.get("parameters")
    return pages.render(
        "endpoints/tool.html",
        title=title,
        status=422 if form.is_wrong else 200,
        given=given,
        seen=_seen(given),
        parameters=orjson.dumps(parameters, option=orjson.OPT_INDENT_2).decode()
        if parameters
        else "",
        form=form.without("api_key"),
        call=call,
    )


def _seen(source: Mapping[str, Any]) -> str:
    return forms.seen(operations.of(api.update_tool_source).body, source)


def _body(view: Any) -> dict[str, Any]:
    body = forms.body(operations.of(view).body)
    if "parameters" in body:
        body["parameters"] = forms.json_of(body["parameters"])
    if not body.get("api_key"):
        body.pop("api_key", None)
        if "api_key.clear" in request.form:
            body["api_key"] = None
    return body
