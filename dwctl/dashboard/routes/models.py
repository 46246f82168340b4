"""Models: up or not, prices, routing, access."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from flask import Response, request, url_for

from dwctl.catalog.routes import models as api
from dwctl.dashboard import calls, gone, model_paths, model_words, operations, pages, ranges
from dwctl.dashboard.routes import model_page
from dwctl.errors import NotFound
from dwctl.identity.routes import groups
from dwctl.web import cursors
from dwctl.web.schemas import rfc3339

blueprint = pages.screen("models")

_ROWS = 50
_FILTERS = (
    "search", "model_type", "is_composite", "provider", "capability", "group", "sort",
)  # fmt: skip
_LOOKS = frozenset({"search", "sort"})
"""Those of them that do not say which models there are."""
_LIFECYCLES: dict[str, dict[str, str]] = {
    "inactive": {"inactive": "true"},
    "deleted": {"deleted": "true"},
}
_INCLUDE = "groups,metrics,calls,endpoints,components,pricing"


@blueprint.url_defaults
def _spell_alias(_endpoint: str, values: dict[str, Any]) -> None:
    if "alias" in values:
        values["alias"] = model_paths.to_path(str(values["alias"]))


@blueprint.url_value_preprocessor
def _read_alias(_endpoint: str | None, values: dict[str, Any] | None) -> None:
    if values and "alias" in values:
        values["alias"] = model_paths.from_path(values["alias"])


@blueprint.get("/models")
def show() -> Response:
    """All models to those who manage them; to others those that they may call, with what they cost."""
    asked = {name: request.args.get(name) or None for name in _FILTERS}
    # (`endpoint` is what `url_for` calls something else.)
    asked["endpoint"] = request.args.get("endpoint_id") or None
    lifecycle = request.args.get("state", "")
    query = asked | _LIFECYCLES.get(lifecycle, {})
    range = ranges.asked()
    # What filters offer is of all models, whatever is looked for among them; a part of the page has no filters.
    narrows = lifecycle or any(value for name, value in asked.items() if name not in _LOOKS)
    has_facets = not narrows and not pages.is_partial()
    found = operations.run(
        api.list_models,
        query={
            **query,
            "include": f"{_INCLUDE},facets" if has_facets else _INCLUDE,
            "since": rfc3339(range.since),
            "until": rfc3339(range.until),
            "limit": _ROWS,
        },
    )
    further = cursors.further()
    manages = model_page.is_manager()
    return pages.render(
        "models/page.html",
        fragment="models/_rows.html",
        title="Models",
        models=[(model, model_words.state(model)) for model in found["data"]],
        total=found["total_count"],
        further=further,
        asked=asked,
        lifecycle=lifecycle,
        is_filtered=any(value for name, value in asked.items() if name != "sort")
        or bool(lifecycle),
        manages=manages,
        range=range,
        behind=partial(calls.behind, range.in_whole_minutes),
        price_of=model_words.price,
        limits_of=model_words.limits,
        call=operations.snippet(api.list_models, query=query),
        **({} if pages.is_partial() else _choices(manages, found.get("facets"))),
    )


@blueprint.get(f"/models/{model_paths.OURS}/<id:model_id>")
def by_id(model_id: UUID) -> Response:
    """One model, whatever its alias is."""
    tab = request.args.get("tab", "")
    return model_page.show(model_page.by_id(model_id, tab), tab)


@blueprint.get("/models/<path:alias>")
def detail(alias: str) -> Response:
    """One model."""
    tab = request.args.get("tab", "")
    try:
        found = model_page.by_alias(alias, tab)
    except NotFound as error:
        above = (url_for("ui_models.show"), "Models")
        return gone.page(alias, error.message, above=above, model=alias)
    return model_page.show(found, tab)


def _choices(manages: bool, facets: dict[str, Any] | None) -> dict[str, Any]:
    """What filters offer: from small tables, never from the log."""
    if facets is None:
        every = operations.beside(api.list_models, query={"include": "facets", "limit": 1})
        facets = every["facets"]
    if not manages:
        return {"facets": facets}
    found = operations.beside(groups.list_groups, query={"limit": "101"})["data"]
    return {
        "facets": facets,
        "endpoints": model_page.endpoint_choices(),
        "groups": {one["id"]: one["name"] for one in found},
    }
