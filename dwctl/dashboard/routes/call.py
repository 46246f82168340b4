"""A call's story: one page that says what happened to a request, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from flask import Response, redirect, request, url_for
from werkzeug.wrappers import Response as AnyResponse

from dwctl import clock
from dwctl.access import guard
from dwctl.access.caller import MANAGERS
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.dashboard import calls, operations, pages, snippets
from dwctl.dashboard.formatting import moment
from dwctl.dashboard.routes.requests import blueprint
from dwctl.dashboard.story import comparing, picture, sums, telling, texts, verdicts
from dwctl.errors import NotFound
from dwctl.queue.tables import State
from dwctl.request_log.routes import (
    get_request,
    get_request_neighbours,
    get_request_standing,
    get_user_request,
    get_user_request_neighbours,
    get_user_request_standing,
)
from dwctl.web.schemas import rfc3339

__all__ = ["blueprint"]  # that of `requests`: one screen, in two modules

Call = dict[str, Any]
View = Callable[..., Any]

_LOOKED_BACK = timedelta(days=30)
_MOST_TO_COPY = 32 * 1024
"""Bytes of a body that is written into a command."""


@blueprint.get("/requests/<id:request_id>")
def detail(request_id: UUID) -> Response:
    """One call: over, running or waiting."""
    try:
        view, path, call = _first(request_id, get_request, get_user_request)
    except NotFound:
        return _not_over(request_id)
    asked = texts.body(call["request_body"], call["request_body_size"])
    answered = texts.body(call["response_body"], call["response_body_size"])
    sum = sums.of(call)
    story = telling.told(call, sum, answer=answered.content if answered else None)
    return pages.render(
        "requests/call.html",
        title=f"{call['method']} {call['uri']}",
        fragment="requests/_call.html",
        call=call,
        story=story,
        verdict=verdicts.of(story),
        steps=_drawn(story.steps),
        sum=sum,
        tier=call["tier"],
        asked=asked,
        answered=answered,
        original=_original(call, asked),
        snippet=operations.snippet(view, **path),
        is_everybodys=view is get_request,
        **_around(),
    )


@blueprint.get("/requests/<id:request_id>/<any(newer, older):way>")
def neighbour(request_id: UUID, way: str) -> AnyResponse:
    """On to the call beside this one in the list that the person came from."""
    asked, kept = calls.asked(), _kept()
    # A call that was found by its id may be older than the range that holds where none is named.
    query = asked.query if "range" in kept else asked.narrowed
    query.pop("body_contains", None)
    _, _, beside = _first(request_id, get_request_neighbours, get_user_request_neighbours, query)
    if beside[way] is None:
        here = url_for("ui_requests.detail", request_id=request_id, **kept)
        return pages.done(here, f"There is no {way} call in this list.")
    return redirect(url_for("ui_requests.detail", request_id=beside[way], **kept), 303)


@blueprint.get("/requests/<id:request_id>/compare")
def compare(request_id: UUID) -> AnyResponse:
    """A call beside the one that its key had sent to the model before it: figures, and what was asked otherwise."""
    _, _, call = _first(request_id, get_request, get_user_request)
    before = _before(call)
    if before is None:
        here = url_for("ui_requests.detail", request_id=request_id, **_kept())
        return pages.done(here, "Its key has sent this model no call in the thirty days before.")
    return pages.render(
        "requests/compare.html",
        title="What was different",
        call=call,
        before=before,
        figures=comparing.figures(before, call),
        differences=comparing.differences(before["request_body"], call["request_body"]),
        **_around(),
    )


def _before(call: Call) -> Call | None:
    """The last call before this one with the same key and model; None where there is none in the time that is looked at."""
    at = moment(call["timestamp"])
    assert at is not None
    query = {
        "api_key_id": call.get("api_key_id"),
        "model": call.get("model"),
        "timestamp_after": rfc3339(at - _LOOKED_BACK),
    }
    id = UUID(call["request_id"])
    _, _, beside = _first(id, get_request_neighbours, get_user_request_neighbours, query)
    if beside["older"] is None:
        return None
    return _first(UUID(beside["older"]), get_request, get_user_request)[2]


def _not_over(request_id: UUID) -> Response:
    """A call that is not in the log: it waits or runs, or was cancelled before anybody began it."""
    view, path, call = _first(request_id, get_request_standing, get_user_request_standing)
    now = clock.now()
    since = moment(call["created_at"])
    assert since is not None
    return pages.render(
        "requests/standing.html",
        title=f"Request to {call['model']}",
        fragment="requests/_standing.html",
        call=call,
        verdict=verdicts.of_standing(call, (now - since) / timedelta(milliseconds=1)),
        steps=_drawn(telling.so_far(call, now)),
        tier=telling.tier_of(call),
        moves=call["state"] != State.CANCELED,
        snippet=operations.snippet(view, **path),
        is_everybodys=view is get_request_standing,
        **_around(),
    )


def _first(
    request_id: UUID, everybodys: View, somebodys: View, query: Call | None = None
) -> tuple[View, Call, Call]:
    """A call as the caller may see it: by which operation with which path, and what that answers. Raises NotFound.

    Everybody's to whoever reads the log; else one's own, and those of the organisations that one manages.
    """
    refusal = NotFound(f"There is no request with the id {request_id} that you may see.")
    for view, path in _ways(request_id, everybodys, somebodys):
        try:
            return view, path, operations.run(view, query=query, **path)
        except NotFound:
            continue
    raise refusal


def _ways(request_id: UUID, everybodys: View, somebodys: View) -> Iterator[tuple[View, Call]]:
    if operations.may(everybodys):
        yield everybodys, {"request_id": request_id}
        return
    yield somebodys, {"user_id": "current", "request_id": request_id}
    for membership in guard.identify().memberships:
        if membership.role in MANAGERS:
            yield somebodys, {"user_id": membership.organization_id, "request_id": request_id}


def _drawn(steps: tuple[telling.Step, ...]) -> list[tuple[telling.Step, picture.Bar | None]]:
    return list(zip(steps, picture.bars(steps), strict=True))


def _original(call: Call, asked: texts.Body | None) -> operations.Snippet | None:
    """The call as its caller sent it, with a key of the environment; None where not all of its body is there, or it is too long to be copied."""
    if asked is None or asked.is_cut or not isinstance(asked.content, dict):
        return None
    if (asked.size or 0) > _MOST_TO_COPY:
        return None
    url = f"{request.url_root.rstrip('/')}/ai/v1{call['uri']}"
    return operations.written_out(call["method"], url, asked.content, key=snippets.API_KEY)


def _around() -> dict[str, Any]:
    """What the templates need besides the call."""
    caller = guard.identify()
    return {
        "kept": _kept(),
        "links_endpoints": may_all(caller, Resource.ENDPOINTS, Operation.READ),
        "width": picture.WIDTH,
    }


def _kept() -> dict[str, Any]:
    """Filters of the list that the person came from: they go along, to the call's neighbours and back."""
    names = ("range", *calls.NAMES)
    return {name: value for name in names if (value := request.args.get(name))}
