"""Requests: the log as people read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from uuid import UUID

from flask import Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.catalog.routes.models import list_models
from dwctl.dashboard import call_chart, call_columns, calls, formatting, operations, pages, panels
from dwctl.errors import Invalid
from dwctl.identity.routes.found_api_keys import find_api_keys
from dwctl.request_log.schemas import TIERS
from dwctl.web import cursors

blueprint = pages.screen("requests")

PAGE = 50
_MOST_CHOICES = 100
_ANY = UUID(int=0)
"""Stands for ids in addresses that are made once for all."""


@blueprint.get("/requests")
def show() -> AnyResponse:
    """The list of calls under the address's filters, a page of it."""
    columns = request.args.getlist("columns")
    if len(columns) > 1:
        # A form without script sends each of its boxes; the address names them once.
        return redirect(pages.here(columns=",".join(columns)), 302)
    asked = calls.asked()
    view, path = calls.listing(), asked.path
    answer = operations.run(view, query=asked.query | {"limit": PAGE}, **path)
    entries = answer["entries"]
    return pages.render(
        "requests/page.html",
        title="Requests",
        fragment="requests/_list.html",
        asked=asked,
        entries=entries,
        scanned_until=answer.get("scanned_until"),
        further=cursors.further(),
        is_first="after" not in request.args,
        has_times=call_chart.has_times(asked),
        chips=list(calls.chips(asked, names_in(entries))),
        statuses=calls.STATUSES,
        tiers=TIERS,
        api=operations.snippet(view, query=asked.query | {"limit": PAGE}, **path),
        **of_rows(),
    )


@blueprint.get("/requests/chart")
def chart() -> Response:
    """The calls of the range over time, by outcome, as far as sums can obey the filters."""
    asked = calls.asked()
    shown = panels.attempt(lambda: call_chart.of(asked))
    return pages.render(
        "requests/chart.html",
        title="Calls over time",
        fragment="requests/_chart.html",
        chart=shown,
        asked=asked,
        has_times=call_chart.has_times(asked),
    )


@blueprint.get("/requests/times")
def times() -> Response:
    """How long the calls of the range took, over time; whoever opens that part of the list has it asked for."""
    asked = calls.asked()
    return pages.render(
        "requests/times.html",
        title="Time taken",
        fragment="requests/_times.html",
        chart=panels.attempt(lambda: call_chart.times(asked)),
        asked=asked,
    )


@blueprint.get("/requests/export")
def export() -> Response:
    """What the filters let through, as a download of any length, as CSV or JSON lines."""
    asked = calls.asked()
    if asked.q:
        raise Invalid("q: words in bodies are searched page by page, and not downloaded", param="q")
    query = asked.query | {"format": request.args.get("format", "csv")}
    answer: Response = operations.run(calls.exporting(), query=query, **asked.path)
    return answer


@blueprint.get("/requests/choices/models")
def choose_model() -> Response:
    """The names that the field of models offers: of what the caller may see, by the text that is there."""
    text = request.args.get("model", "").strip()[:200]
    query = {"search": text or None, "limit": _MOST_CHOICES}
    names = [model["alias"] for model in operations.run(list_models, query=query)["data"]]
    return pages.render("requests/_models.html", title="Models", names=names)


@blueprint.get("/requests/choices/keys")
def choose_key() -> Response:
    """The keys that the menu offers: those of the account whose calls are shown."""
    asked = calls.asked()
    own = None if calls.reads_all() else str(calls.usual_account())
    query = {"user_id": asked.user or own, "limit": _MOST_CHOICES}
    keys = operations.run(find_api_keys, query=query)["data"]
    return pages.render("requests/_keys.html", title="Keys", keys=keys, chosen=asked.key)


def of_rows() -> dict[str, Any]:
    """What the template of a row needs besides the call."""
    caller, operator = guard.identify(), calls.reads_all()
    # What a row's link takes along, so that its page knows its neighbours in this list.
    kept = {name: value for name in ("range", *calls.NAMES) if (value := request.args.get(name))}
    columns = call_columns.chosen(operator=operator)
    return {
        "columns": columns,
        "offered": call_columns.offered(operator=operator),
        "length": call_columns.length,
        "is_everybodys": operator,
        "links_people": may_all(caller, Resource.USERS, Operation.READ),
        "links_keys_of": None if may_all(caller, Resource.API_KEYS, Operation.READ) else str(caller.user_id),
        "kept": kept,
        "links": _Links.of(kept),
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Links:
    """Where the cells of a row lead. `url_for` is asked once for each kind of them: what has an id has it between two texts.

    call, person, key: what stands before the id and behind it. model: by its alias, of which there are few.
    """

    call: tuple[str, str]
    person: tuple[str, str]
    key: tuple[str, str]
    model: Callable[[str], str]

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> _Links:
        return cls(
            _around(url_for("ui_requests.detail", request_id=_ANY, **kept)),
            _around(url_for("ui_people.detail", user_id=_ANY)),
            _around(url_for("ui_keys.detail", key_id=_ANY)),
            lru_cache(maxsize=128)(lambda alias: url_for("ui_models.detail", alias=alias)),
        )


def _around(url: str) -> tuple[str, str]:
    before, _, behind = url.partition(str(_ANY))
    return before, behind


def names_in(entries: list[dict[str, Any]]) -> dict[str, str]:
    """What the accounts and keys in these calls are called, by id."""
    found: dict[str, str] = {}
    for entry in entries:
        if "user_email" in entry:
            found[entry["user_id"]] = entry["user_email"]
        if "api_key_name" in entry:
            found[entry["api_key_id"]] = formatting.key_name(entry["api_key_name"])
    return found
