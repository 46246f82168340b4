"""Requests: the log as people read it."""

from __future__ import annotations

from typing import Any

from flask import Response, redirect, request
from werkzeug.wrappers import Response as AnyResponse

from dwctl.catalog.routes.models import list_models
from dwctl.dashboard import (
    call_chart,
    call_columns,
    call_rows,
    calls,
    formatting,
    operations,
    pages,
    panels,
)
from dwctl.errors import Invalid
from dwctl.identity.routes.found_api_keys import find_api_keys
from dwctl.request_log.schemas import TIERS
from dwctl.web import cursors

blueprint = pages.screen("requests")

PAGE = 50
_MOST_CHOICES = 100


@blueprint.get("/requests")
def show() -> AnyResponse:
    """The list of calls under the address's filters, a page of it."""
    chosen = request.args.getlist("columns")
    if len(chosen) > 1:
        # A form without script sends each of its boxes; the address names them once.
        return redirect(pages.here(columns=",".join(chosen)), 302)
    asked = calls.asked()
    view, path = calls.listing(), asked.path
    answer = operations.values(view, query=asked.query | {"limit": PAGE}, **path)
    entries, along = answer["entries"], kept()
    columns = call_columns.chosen(operator=calls.reads_all())
    return pages.render(
        "requests/page.html",
        title="Requests",
        fragment="requests/_list.html",
        asked=asked,
        entries=entries,
        rows=call_rows.Rows.of(columns, along).written(entries),
        columns=columns,
        offered=call_columns.offered(operator=calls.reads_all()),
        is_everybodys=calls.reads_all(),
        kept=along,
        scanned_until=answer.get("scanned_until"),
        further=cursors.further(),
        is_first="after" not in request.args,
        chips=list(calls.chips(asked, names_in(entries) if asked.key or asked.user else {})),
        has_times=call_chart.has_times(asked),
        statuses=calls.STATUSES,
        tiers=TIERS,
        api=operations.snippet(view, query=asked.query | {"limit": PAGE}, **path),
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


def kept() -> dict[str, str]:
    """The range and the filters as the address has them, for links that lead on from here."""
    return {name: value for name in ("range", *calls.NAMES) if (value := request.args.get(name))}


def names_in(entries: list[dict[str, Any]]) -> dict[str, str]:
    """What the accounts and keys in these calls are called, by id."""
    found: dict[str, str] = {}
    for entry in entries:
        if entry.get("user_email"):
            found[str(entry["user_id"])] = entry["user_email"]
        if entry.get("api_key_name"):
            found[str(entry["api_key_id"])] = formatting.key_name(entry["api_key_name"])
    return found
