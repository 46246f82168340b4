"""Playground: ask models, and see how fast and at what price they answer. The calls themselves go from the browser through the tunnel (`ai.playground`)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, jsonify, request, url_for

from dwctl import clock
from dwctl.access import guard
from dwctl.access.caller import MANAGERS
from dwctl.catalog.routes import models as catalog
from dwctl.dashboard import breakdowns, forms, operations, pages, panels, ranges, snippets
from dwctl.errors import Invalid, NotFound
from dwctl.request_log import routes as request_log

blueprint = pages.screen("playground")

_CHOICES = 100
_LONGEST_SEARCH = 200
_LATELY = "24h"
_FLEX_WINDOW = "1h"
_PRICES = ("input", "output", "cached_input", "reasoning")
NIL = UUID(int=0)
"""Stands in addresses for an id that the page's script puts there."""


@blueprint.get("/playground")
def show() -> Response:
    """The screen; with `replay` it opens with the body of that call, with `model` on that one."""
    asked = request.args.get("replay")
    replayed = _logged(asked) if asked else None
    choices = _choices(None)
    model = request.args.get("model") or None
    if model and model not in (known["alias"] for known in choices["models"]):
        choices["models"] += _choices(None, alias=model[:_LONGEST_SEARCH])["models"]
    snippet = operations.written_out(
        "POST",
        f"{request.url_root}ai/v1/chat/completions",
        {"model": "MODEL", "messages": [{"role": "user", "content": "Hello"}]},
        key=snippets.API_KEY,
    )
    return pages.render(
        "playground/page.html",
        title="Playground",
        choices=choices,
        model=model,
        replayed=replayed,
        snippet=snippet,
        form=forms.Form(),
        nil=NIL,
    )


@blueprint.get("/playground/models")
def search() -> Response:
    """The models with this in their names (`q`) that the caller may call, as JSON: for accounts that have more than the page brings."""
    found = jsonify(_choices(request.args.get("q", "")[:_LONGEST_SEARCH] or None))
    found.headers["Cache-Control"] = "no-store"
    return found


@blueprint.get("/playground/lately")
def show_lately() -> Response:
    """How often each model was called within a day and how many of these calls failed, as far as the caller may see that: `{alias: [calls, failed]}`.

    The page's script asks for it, so that it opens on a model that answers.
    """
    sums = panels.attempt(lambda: breakdowns.read(ranges.parsed(_LATELY, clock.now()), by="model", order="requests", limit=_CHOICES, lines=0))  # fmt: skip
    rows = sums.value["rows"] if sums.value else ()
    found = jsonify({row["id"]: [row["requests"], row["errors"]] for row in rows if row["id"]})
    found.headers["Cache-Control"] = "no-store"
    return found


def _choices(search: str | None, *, alias: str | None = None) -> dict[str, Any]:
    query = {"accessible": "true", "include": "pricing", "sort": "alias", "limit": _CHOICES, "search": search, "alias": alias}  # fmt: skip
    page = operations.run(catalog.list_models, query=query)
    return {
        "models": [_choice(model) for model in page["data"]],
        "has_more": page["total_count"] > len(page["data"]),
    }


def _choice(model: dict[str, Any]) -> dict[str, Any]:
    tariffs = model.get("tariffs", [])
    realtime = _tariff(tariffs, "playground") or _tariff(tariffs, "realtime")
    flex = _tariff(tariffs, "batch", _FLEX_WINDOW) or realtime
    return {
        "alias": model["alias"],
        "name": model.get("display_name"),
        "kind": model.get("model_type"),
        "url": url_for("ui_models.detail", alias=model["alias"]),
        "tariffs": {"realtime": realtime, "flex": flex},
    }


def _tariff(
    tariffs: list[dict[str, Any]], purpose: str, window: str | None = None
) -> dict[str, str | None] | None:
    """The prices that are in force for calls of a purpose."""
    for tariff in tariffs:
        if tariff["api_key_purpose"] == purpose and tariff.get("completion_window") == window:
            return {name.removesuffix("_input"): tariff.get(f"{name}_price_per_token") for name in _PRICES}  # fmt: skip
    return None


def _logged(asked: str) -> dict[str, Any]:
    """The call of the log that is to be replayed, as far as the caller may see it. Raises NotFound, Invalid."""
    try:
        request_id = UUID(asked)
    except ValueError:
        raise Invalid("replay: the id of a call, as the log shows it", param="replay") from None
    if operations.may(request_log.get_request):
        found: dict[str, Any] = operations.run(request_log.get_request, request_id=request_id)
        return found
    for user_id in _readable():
        try:
            found = operations.run(request_log.get_user_request, user_id=user_id, request_id=request_id)  # fmt: skip
        except NotFound:
            continue
        return found
    raise NotFound(f"Request with ID {request_id} is not in the log")


def _readable() -> list[UUID | str]:
    """The accounts whose calls the caller may see: their own, and the organisations that they manage."""
    caller = guard.identify()
    managed = [one.organization_id for one in caller.memberships if one.role in MANAGERS]
    return ["current", *managed]
