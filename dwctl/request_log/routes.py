"""The request log: everybody's calls for those who may read them, and one's own (or one's organisation's) for everybody."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from flask import Response, current_app, request

from dwctl import clock
from dwctl.access import guard
from dwctl.access.caller import MANAGERS, Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.ai.gateway import Gateway
from dwctl.db import db
from dwctl.errors import DwctlError, Forbidden, Invalid, NotFound
from dwctl.identity.routes.users import target_of
from dwctl.request_log import detail, standing
from dwctl.request_log.detail import as_seen
from dwctl.request_log.filters import EVERYBODYS, Scope, conditions, within_an_hour
from dwctl.request_log.pages import Page, Place, Reader, Row, Words, most_shown, place_of
from dwctl.request_log.room import Person, has_room
from dwctl.request_log.schemas import (
    COLUMNS,
    ExportQuery,
    FiltersQuery,
    LoggedDetailSchema,
    NeighboursSchema,
    RequestsQuery,
    RequestsSchema,
    StandingSchema,
    WatchQuery,
    shown,
)
from dwctl.request_log.watching import Watching
from dwctl.web import current, cursors, described, exporting
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("request_log", __name__, description="The request log")
guard.protect(blueprint)

MOST_SKIPPED = 10_000
MOST_SEARCHES = 2
MOST_SEARCHES_OF_ONE = 1
_EXPORT_PAGE = 500
_EVENTS = "text/event-stream; charset=utf-8"
_LINK = {"Link": 'The next page, as `rel="next"`; without it there is none.'}
_DOWNLOAD = {"Content-Disposition": "A name for the file."}
_searching: list[Person] = []


class TooManySearches(DwctlError):
    """As many searches in bodies run in this process as may, or one of yours. Try again shortly."""

    code = "too_many_searches"
    status = 429
    retryable = True


def may_see(caller: Caller, user_id: UUID | str, **_path: Any) -> None:
    """One's own calls, those of organisations that one manages, everybody's for readers of the log."""
    target = target_of(caller, user_id)
    is_theirs = target == caller.user_id or caller.role_in(target) in MANAGERS
    allowed = is_theirs or may_all(caller, Resource.REQUESTS, Operation.READ)
    guard.insist(allowed, Resource.REQUESTS, Operation.READ, target)


@blueprint.route("/requests", methods=["GET"])
@guard.requires(Resource.REQUESTS, Operation.READ)
@blueprint.arguments(RequestsQuery, location="query")
@blueprint.response(200, RequestsSchema)
@described.says(headers=_LINK, refusals=(429,))
def list_requests(query: dict[str, Any]) -> dict[str, Any]:
    """List calls, newest first

    Everybody's. All that is given must hold. A page is read for a bounded time: where few calls fit, it may end before it is full, even with no entries at
    all. It says how far it came (`scanned_until`), and its `Link` goes on there.

    With `body_contains`, words in bodies are searched, too: within the last hour, or since `timestamp_after`.
    """
    return _listed(EVERYBODYS, query)


@blueprint.route("/requests/<id:request_id>", methods=["GET"])
@guard.requires(Resource.REQUESTS, Operation.READ)
@blueprint.response(200, LoggedDetailSchema)
def get_request(request_id: UUID) -> Row:
    """Show a call: how it was served, what it cost, its headers and bodies

    `request_id` is what the answer's header `x-request-id` said, and an entry's member of that name. Headers and bodies are there as the settings of
    the log have it; `bodies` says why they are not.
    """
    return _found(EVERYBODYS, request_id)


@blueprint.route("/requests/<id:request_id>/neighbours", methods=["GET"])
@guard.requires(Resource.REQUESTS, Operation.READ)
@blueprint.arguments(FiltersQuery, location="query")
@blueprint.response(200, NeighboursSchema)
def get_request_neighbours(query: dict[str, Any], request_id: UUID) -> Row:
    """Say which calls stand before and behind a call in a list with these filters"""
    return _neighbours(EVERYBODYS, query, request_id)


@blueprint.route("/requests/<id:request_id>/standing", methods=["GET"])
@guard.requires(Resource.REQUESTS, Operation.READ)
@blueprint.response(200, StandingSchema)
def get_request_standing(request_id: UUID) -> Row:
    """Show a call that is not in the log yet: how it stands in the queue, and what it waits for"""
    return _standing(EVERYBODYS, request_id)


@blueprint.route("/requests/export", methods=["GET"])
@guard.requires(Resource.REQUESTS, Operation.READ)
@blueprint.arguments(ExportQuery, location="query")
@blueprint.response(200, content_type=exporting.CONTENT_TYPES["jsonl"])
@described.says(also_as=("text/csv",), headers=_DOWNLOAD)
def export_requests(query: dict[str, Any]) -> Response:
    """Download calls as JSON lines or CSV

    All that the filters let through, in one answer of any length, without bodies.
    """
    return _exported(EVERYBODYS, query)


@blueprint.route("/requests/live", methods=["GET"])
@guard.requires(Resource.REQUESTS, Operation.READ)
@blueprint.arguments(WatchQuery, location="query")
@blueprint.response(200, content_type="text/event-stream")
@described.says(refusals=(429,))
def watch_requests(query: dict[str, Any]) -> Response:
    """Watch calls as they are written down

    Server-sent events: `event: request` with an entry as its data, in the order in which calls were written, each once. The stream ends (`event: end`)
    after a quarter of an hour, or when the server restarts: come back with `Last-Event-ID`, as browsers do by themselves, and nothing is missed; what
    was written a moment before may come again then. Calls of the last two minutes are made up for.

    With `most`, at most so many calls of each second are told of, and `event: skipped` how many were left out (some of which may not have fitted).
    """
    return _watched(EVERYBODYS, query)


@blueprint.route("/users/<user:user_id>/requests", methods=["GET"])
@guard.checks(may_see)
@blueprint.arguments(RequestsQuery, location="query")
@blueprint.response(200, RequestsSchema)
@described.says(headers=_LINK, refusals=(429,))
def list_user_requests(query: dict[str, Any], user_id: UUID | str) -> dict[str, Any]:
    """List an account's calls, newest first

    One's own (`current`), or those of an organisation for its owners and admins. As `GET /requests`, but without what tells how the operator served them.
    """
    return _listed(_of(user_id), query)


@blueprint.route("/users/<user:user_id>/requests/<id:request_id>", methods=["GET"])
@guard.checks(may_see)
@blueprint.response(200, LoggedDetailSchema)
def get_user_request(user_id: UUID | str, request_id: UUID) -> Row:
    """Show a call of an account: what it cost, its headers and bodies"""
    return _found(_of(user_id), request_id)


@blueprint.route("/users/<user:user_id>/requests/<id:request_id>/neighbours", methods=["GET"])
@guard.checks(may_see)
@blueprint.arguments(FiltersQuery, location="query")
@blueprint.response(200, NeighboursSchema)
def get_user_request_neighbours(
    query: dict[str, Any], user_id: UUID | str, request_id: UUID
) -> Row:
    """Say which calls of an account stand before and behind a call in a list with these filters"""
    return _neighbours(_of(user_id), query, request_id)


@blueprint.route("/users/<user:user_id>/requests/<id:request_id>/standing", methods=["GET"])
@guard.checks(may_see)
@blueprint.response(200, StandingSchema)
def get_user_request_standing(user_id: UUID | str, request_id: UUID) -> Row:
    """Show a call of an account that is not in the log yet: how it stands in the queue"""
    return _standing(_of(user_id), request_id)


@blueprint.route("/users/<user:user_id>/requests/export", methods=["GET"])
@guard.checks(may_see)
@blueprint.arguments(ExportQuery, location="query")
@blueprint.response(200, content_type=exporting.CONTENT_TYPES["jsonl"])
@described.says(also_as=("text/csv",), headers=_DOWNLOAD)
def export_user_requests(query: dict[str, Any], user_id: UUID | str) -> Response:
    """Download an account's calls as JSON lines or CSV"""
    return _exported(_of(user_id), query)


@blueprint.route("/users/<user:user_id>/requests/live", methods=["GET"])
@guard.checks(may_see)
@blueprint.arguments(WatchQuery, location="query")
@blueprint.response(200, content_type="text/event-stream")
@described.says(refusals=(429,))
def watch_user_requests(query: dict[str, Any], user_id: UUID | str) -> Response:
    """Watch an account's calls as they are written down

    As `GET /requests/live`.
    """
    return _watched(_of(user_id), query)


def _of(user_id: UUID | str) -> Scope:
    """The account of a path. Whoever may read the whole log sees its calls as they see all."""
    caller = guard.identify()
    reads_all = may_all(caller, Resource.REQUESTS, Operation.READ)
    return Scope(target_of(caller, user_id), as_owner=not reads_all)


def _listed(scope: Scope, query: dict[str, Any]) -> dict[str, Any]:
    reader, skip = _reader(scope, query), query["skip"]
    if skip > MOST_SKIPPED:
        raise Invalid(
            f"skip: more than {MOST_SKIPPED:,} calls are not skipped. Go on by the header `Link`, or say a time.",
            param="skip",
        )
    order = f"log {'desc' if reader.newest_first else 'asc'}"
    position = cursors.asked(order)
    after = None if position is None else Place.of(position)
    if reader.words is None:
        page, rows = reader.page_with_rows(limit=query["limit"], skip=skip, after=after)
    else:
        page, rows = _searched(reader, _person(scope), limit=query["limit"], skip=skip, after=after)
    if page.next is not None:
        cursors.offer(order, page.next.as_position())
    answer: dict[str, Any] = {"entries": [as_seen(scope, row) for row in rows]}
    if page.ended_early or reader.words:
        answer["scanned_until"] = page.next.timestamp if page.next else reader.end
    return answer


def _reader(scope: Scope, query: dict[str, Any]) -> Reader:
    filters, text = query["filters"], query.get("body_contains")
    if scope.as_owner and filters.served_by is not None:
        raise Forbidden("served_by: only whoever may read the whole request log can ask for it")
    words = None
    if text is not None:
        filters, words = (
            within_an_hour(filters, clock.now()),
            Words.of(text, most_shown(current.settings())),
        )
    _release()
    connections = current.parts().connections
    return Reader(connections, scope, filters, query.get("order_desc", True), words)


def _person(scope: Scope) -> Person:
    return guard.identify().user_id if scope.as_owner else None


def _searched(reader: Reader, person: Person, **page: Any) -> tuple[Page, list[Row]]:
    if not has_room(_searching, person, most=MOST_SEARCHES, each=MOST_SEARCHES_OF_ONE):
        raise TooManySearches(retry_after_s=1)
    _searching.append(person)
    try:
        return reader.page_with_rows(**page)
    finally:
        _searching.remove(person)


def _found(scope: Scope, request_id: UUID) -> Row:
    _release()
    return detail.find(
        current.parts().connections, scope, request_id, shown=most_shown(current.settings())
    )


def _neighbours(scope: Scope, query: dict[str, Any], request_id: UUID) -> Row:
    reader = _reader(scope, query)
    place = place_of(reader.connections, scope, request_id)
    if place is None:
        raise NotFound(f"Request with ID {request_id} is not in the log")
    found = {
        name: replace(reader, newest_first=name == "older").page(limit=1, after=place).places
        for name in ("newer", "older")
    }
    return {name: places[0].request_id if places else None for name, places in found.items()}


def _standing(scope: Scope, request_id: UUID) -> Row:
    _release()
    settings = current.settings()
    return standing.find(
        current.parts().connections,
        scope,
        request_id,
        dead_after_s=settings.daemons.dead_after,
        default_cap=settings.background_services.batch_daemon.default_model_concurrency,
    )


def _exported(scope: Scope, query: dict[str, Any]) -> Response:
    format = query.pop("format")
    pages = _reader(scope, query).pages(_EXPORT_PAGE)
    rendered = (shown([as_seen(scope, row) for row in page]) for page in pages)
    lines = exporting.lines(rendered, COLUMNS, format=format)
    return exporting.answer(lines, name="requests", format=format)


def _watched(scope: Scope, query: dict[str, Any]) -> Response:
    reader = _reader(scope, query)
    watching = _watching()
    if request.method == "HEAD":
        return Response(content_type=_EVENTS)
    watcher = watching.join(_person(scope), query["most"])
    events = watching.events(
        watcher,
        conditions(scope, reader.filters),
        lambda rows: shown([as_seen(scope, row) for row in rows]),
        seconds=query["seconds"],
        last_event_id=request.headers.get("Last-Event-ID"),
    )
    answer = Response(events, content_type=_EVENTS)
    answer.headers["X-Accel-Buffering"] = "no"
    answer.call_on_close(lambda: watching.leave(watcher))
    return answer


def _watching() -> Watching:
    """This process's, made when the first watcher comes."""
    extensions = current_app.extensions
    gateway: Gateway = extensions["dwctl.gateway"]
    connections = current.parts().connections
    found: Watching = extensions.setdefault(
        "dwctl.watching", Watching(connections, lambda: gateway.draining)
    )
    return found


def _release() -> None:
    """Give back the connection on which the caller was looked up: reading takes its own, for as long as it reads."""
    db.session.rollback()
