"""Endpoints: the upstream servers, whether they answer, and what is on them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, request

from dwctl.catalog.routes import endpoints as api
from dwctl.catalog.routes import models
from dwctl.dashboard import model_words, operations, pages
from dwctl.web import cursors

blueprint = pages.screen("endpoints")

_ROWS = 50


@blueprint.get("/endpoints")
def show() -> Response:
    """All of them, newest first."""
    search = request.args.get("search") or None
    found = operations.run(
        api.list_endpoints, query={"search": search, "include": "models", "limit": _ROWS}
    )
    return pages.render(
        "endpoints/page.html",
        fragment="endpoints/_rows.html",
        title="Endpoints",
        endpoints=[(one, model_words.of_endpoint(one)) for one in found],
        further=cursors.further(),
        search=search,
        call=operations.snippet(api.list_endpoints, query={"search": search}),
    )


@blueprint.get("/endpoints/<id:endpoint_id>")
def detail(endpoint_id: UUID) -> Response:
    """One endpoint."""
    return page_of(endpoint_id)


def page_of(endpoint_id: UUID, *, status: int = 200, **more: Any) -> Response:
    """Its page; `more` is what an action on it has found."""
    endpoint = operations.run(api.get_endpoint, query={"include": "models"}, id=endpoint_id)
    state = request.args.get("state", "")
    query = {"endpoint": str(endpoint_id), "limit": _ROWS, "sort": "alias", "include": "pricing"}
    found = operations.run(
        models.list_models, query={**query, "inactive": "true" if state == "inactive" else None}
    )
    return pages.render(
        "endpoints/endpoint.html",
        title=endpoint["name"],
        status=status,
        endpoint=endpoint,
        state=model_words.of_endpoint(endpoint),
        shown=state,
        models=found["data"],
        price_of=model_words.price,
        further=cursors.further(),
        call=operations.snippet(api.get_endpoint, id=endpoint_id),
        compare_call=operations.snippet(api.compare_endpoint, id=endpoint_id),
        **more,
    )
