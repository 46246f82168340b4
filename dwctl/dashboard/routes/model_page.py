"""The page of one model, which its forms come back to: found by alias or id, a tab at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from uuid import UUID

import orjson
from flask import Response, request, url_for

from dwctl import clock
from dwctl.catalog.routes import components, endpoints, grants
from dwctl.catalog.routes import models as api
from dwctl.catalog.schemas import PURPOSES
from dwctl.dashboard import calls, model_words, operations, pages, ranges, samples
from dwctl.dashboard.forms import Form
from dwctl.errors import NotFound
from dwctl.identity.routes import groups, users
from dwctl.tools import routes as tools
from dwctl.web import current, cursors
from dwctl.web.schemas import rfc3339

Shown = dict[str, Any]

NOTHING_WRONG = Form()
_MOST = "101"
"""As many as the API lists at once."""
_SHOWN = "groups,calls,endpoints,pricing,components"
_INCLUDES = {
    "": _SHOWN,
    "routing": "endpoints,components",
    "access": "groups",
    "api": f"{_SHOWN},metrics",
}
_TABS = (
    ("", "Overview"),
    ("routing", "Routing"),
    ("prices", "Prices"),
    ("access", "Access"),
    ("code", "Sample code"),
    ("api", "API object"),
)
_FOR_MEMBERS = frozenset({"", "code", "api"})


def by_alias(alias: str, tab: str) -> Shown:
    """The model that has the alias now; else, for those who see them, one that its server does not list any more, or the last that was deleted. Raises NotFound."""
    for lifecycle in ({}, {"inactive": "true"}, {"deleted": "true"}):
        query = {"alias": alias, "limit": "1", **lifecycle, **_included(tab)}
        found = operations.beside(api.list_models, query=query)["data"]
        if found:
            first: Shown = found[0]
            return first
        if not is_manager():
            break
    raise NotFound(f"There is no model called {alias!r} that you may see.")


def by_id(model_id: UUID, tab: str) -> Shown:
    """The model, deleted ones too. Raises NotFound."""
    query = {"deleted": "true", "inactive": "true", **_included(tab)}
    found: Shown = operations.run(api.get_model, query=query, id=model_id)
    return found


def is_manager() -> bool:
    """Whether the caller may change models."""
    return operations.may(api.update_model)


def address(model: Mapping[str, Any], tab: str = "", **more: Any) -> str:
    """Of a tab of a model's page."""
    return url_for("ui_models.detail", alias=model["alias"], tab=tab or None, **more)


def show(model: Shown, tab: str, form: Form = NOTHING_WRONG, of: str = "", **more: Any) -> Response:
    """The page. form, of: a form of it that was refused, and which one that is."""
    manages = is_manager()
    closed = frozenset() if manages else dict(_TABS).keys() - _FOR_MEMBERS
    if model.get("deleted"):
        closed = closed | {"access"}
    tabs = [(name, label) for name, label in _TABS if name not in closed]
    if tab not in dict(_TABS):
        raise NotFound("There is no such part of a model's page.")
    if tab not in _FOR_MEMBERS:
        operations.insist(api.update_model)
    pages.stands_at(url_for("ui_models.by_id", model_id=model["id"]), tab=tab)
    read, range, hour = _PARTS.get(tab), ranges.asked(), ranges.parsed("1h", clock.now())
    return pages.render(
        f"models/{tab or 'overview'}.html",
        title=model["alias"],
        status=422 if form.is_wrong else 200,
        model=model,
        state=model_words.state(model),
        tab=tab,
        tabs=tabs,
        manages=manages,
        form=form if form.is_wrong else NOTHING_WRONG,
        of=of,
        nothing_wrong=NOTHING_WRONG,
        range=range,
        behind=partial(calls.behind, range.in_whole_minutes),
        last_hour=calls.behind(hour.in_whole_minutes, model=model["alias"]),
        call=operations.snippet(api.get_model, id=model["id"]),
        **(read(model) if read else {}),
        **more,
    )


def _included(tab: str) -> Shown:
    found: Shown = {"include": _INCLUDES.get(tab, "pricing" if tab == "code" else None)}
    if "calls" in (found["include"] or ""):
        range = ranges.asked()
        found |= {"since": rfc3339(range.since), "until": rfc3339(range.until)}
    return found


def _overview(model: Shown) -> Shown:
    return {
        "price": model_words.price(model),
        "limits": model_words.limits(model),
        "author": _author(model),
    }


def _author(model: Shown) -> str | None:
    """The e-mail address of whoever has made it; None where that is nobody that the reader may see."""
    id = model.get("created_by")
    if id in (None, str(UUID(int=0))) or not operations.may(users.get_user, user_id=UUID(id)):
        return None
    try:
        found: str = operations.run(users.get_user, user_id=UUID(id))["email"]
    except NotFound:
        return None
    return found


def _routing(model: Shown) -> Shown:
    rules = {
        one["api_key_purpose"]: one["action"] for one in model.get("traffic_routing_rules", ())
    }
    standard = {"is_composite": "false", "limit": _MOST, "sort": "alias"}
    return {
        "rules": rules,
        "purposes": PURPOSES,
        "choices": operations.beside(api.list_models, query=standard)["data"],
        "weight": sum(one["weight"] for one in model.get("components", ()) if one["enabled"]),
        "components_call": operations.snippet(components.list_components, id=model["id"]),
    }


def _prices(model: Shown) -> Shown:
    found = operations.run(api.list_tariffs, query={"limit": "50"}, id=UUID(model["id"]))
    return {
        "history": found["data"],
        "warnings": found["warnings"],
        "further": cursors.further(),
        "windows": model.get("allowed_batch_completion_windows") or _windows(),
        "prices_call": operations.snippet(api.list_tariffs, id=model["id"]),
        "add_call": operations.snippet(
            api.add_tariff, body=_example(api.add_tariff), id=model["id"]
        ),
    }


def _access(model: Shown) -> Shown:
    granted = {group["id"] for group in model.get("groups", ())}
    every = operations.beside(groups.list_groups, query={"limit": _MOST})["data"]
    attached = operations.run(tools.list_tool_sources_of_model, deployment_id=UUID(model["id"]))
    ids = {one["id"] for one in attached}
    sources = operations.run(tools.list_tool_sources)
    return {
        "groups": [group for group in every if group["id"] not in granted],
        "everyone": str(UUID(int=0)),
        "tools": attached,
        "other_tools": [one for one in sources if one["id"] not in ids],
        "access_call": operations.snippet(grants.list_groups_of_model, deployment_id=model["id"]),
    }


def _code(model: Shown) -> Shown:
    told = current.settings().metadata.ai_api_base_url
    base = (told or f"{request.url_root}ai/v1").rstrip("/")
    return {"samples": samples.of_model(model["alias"], model.get("model_type") or "CHAT", base)}


def _api(model: Shown) -> Shown:
    return {"pretty": orjson.dumps(model, option=orjson.OPT_INDENT_2).decode()}


_PARTS: dict[str, Callable[[Shown], Shown]] = {
    "": _overview,
    "routing": _routing,
    "prices": _prices,
    "access": _access,
    "code": _code,
    "api": _api,
}


def _windows() -> tuple[str, ...]:
    return current.settings().batches.allowed_completion_windows


def _example(view: Callable[..., Any]) -> Shown:
    example: Shown = getattr(operations.of(view).body, "example", {})
    return example


def endpoint_choices() -> dict[str, str]:
    """Id to name, the newest endpoints."""
    found = operations.beside(endpoints.list_endpoints, query={"limit": _MOST})
    return {one["id"]: one["name"] for one in found}
