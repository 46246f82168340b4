"""Views of the queue: processes, pending requests, requests of all batches, a batch's progress."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response, jsonify

from dwctl.access import guard
from dwctl.access.caller import Caller
from dwctl.access.ownership import may_reach
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.errors import Invalid, NotFound
from dwctl.monitoring import (
    batch_lines,
    daemons,
    progress,
    queue_depth,
    queue_state,
    requests,
)
from dwctl.monitoring.requests import Filters, Place
from dwctl.monitoring.schemas import (
    BatchFailuresSchema,
    BatchLineQuery,
    BatchLinesSchema,
    DaemonQuery,
    DaemonsSchema,
    ProgressSchema,
    RequestDetailSchema,
    RequestPage,
    RequestQuery,
    WaitingWorkSchema,
)
from dwctl.queue import identifiers
from dwctl.queue.tables import State
from dwctl.web import current, cursors, described
from dwctl.web.pagination import envelope
from dwctl.web.schemas import Blueprint

ai = Blueprint("daemons", __name__, description="Processes, and how far batches are.")
admin = Blueprint("monitoring", __name__, description="The queue: what waits, and every request.")
_LIST = "part, processing, id"
_LINES = "line"

guard.protect(ai)
guard.protect(admin)

_COUNTS = {
    "type": "object",
    "description": "By model, then by window.",
    "additionalProperties": {"type": "object", "additionalProperties": {"type": "integer"}},
}


@ai.route("/daemons", methods=["GET"])
@guard.requires(Resource.SYSTEM, Operation.READ)
@ai.arguments(DaemonQuery, location="query")
@ai.response(200, DaemonsSchema)
def list_daemons(query: dict[str, Any]) -> Response:
    """List web and worker processes with their last signs of life."""
    status = query["status"] or None
    if status is not None and status not in daemons.STATUSES:
        raise Invalid(f"Unknown status '{status[:64]}'. Use one of: {', '.join(daemons.STATUSES)}")
    parts = current.parts()
    with parts.connections.transaction() as connection:
        found = daemons.listed(connection, status, parts.settings.daemons.dead_after)
    return jsonify({"daemons": found})


@ai.route("/batches/<batch_id>/progress", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@ai.response(200, ProgressSchema)
def get_batch_progress(batch_id: str) -> Response:
    """Say how far a batch is, what holds it up, and when it will end."""
    id, parts = identifiers.parse("batch", batch_id), current.parts()
    with parts.connections.transaction() as connection:
        found = progress.find(
            connection,
            id,
            dead_after_s=parts.settings.daemons.dead_after,
            default_cap=parts.settings.background_services.batch_daemon.default_model_concurrency,
        )
    caller = guard.identify()
    if found is None or not may_reach(
        caller, Resource.BATCHES, Operation.READ, found[0].created_by
    ):
        raise NotFound(f"Batch with ID {id} not found")
    return jsonify(progress.described(*found))


@ai.route("/batches/<batch_id>/requests", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@ai.arguments(BatchLineQuery, location="query")
@ai.response(200, BatchLinesSchema)
def list_batch_lines(query: dict[str, Any], batch_id: str) -> dict[str, Any]:
    """List the lines of a batch in their order, without bodies."""
    id, status, limit = (
        identifiers.parse("batch", batch_id),
        query["status"] or None,
        query["limit"],
    )
    if status is not None and status not in batch_lines.STATES:
        known = ", ".join(batch_lines.STATES)
        raise Invalid(f"Unknown status '{status[:64]}'. Use one of: {known}", param="status")
    position = cursors.asked(_LINES)
    with current.parts().connections.transaction() as connection:
        found = batch_lines.page(
            connection,
            id,
            is_populated=batch_lines.insist(connection, guard.identify(), id),
            status=status,
            after=UUID(position[0]) if position and position[0] else batch_lines.NIL,
            limit=limit + 1,
        )
    if len(found) > limit:
        cursors.offer(_LINES, [str(found[limit - 1]["id"])])
    return {"data": found[:limit], "has_more": len(found) > limit}


@ai.route("/batches/<batch_id>/failures", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@ai.response(200, BatchFailuresSchema)
def group_batch_failures(batch_id: str) -> dict[str, Any]:
    """Say why lines of a batch have failed, grouped by what they say."""
    id = identifiers.parse("batch", batch_id)
    with current.parts().connections.transaction() as connection:
        batch_lines.insist(connection, guard.identify(), id)
        return batch_lines.failures(connection, id)


@admin.route("/monitoring/queue", methods=["GET"])
@guard.requires(Resource.SYSTEM, Operation.READ)
@admin.response(200, WaitingWorkSchema)
def get_queue() -> dict[str, Any]:
    """Read what waits and runs by model and tier, what is next, what is paused, and how fast batches go."""
    with current.parts().connections.transaction() as connection:
        return queue_state.described(connection)


@admin.route("/monitoring/pending-request-counts", methods=["GET"])
@guard.requires(Resource.SYSTEM, Operation.READ)
@admin.response(200)
@described.says(body=_COUNTS, example={"gpt-oss": {"24h": 12}})
def count_pending_requests() -> Response:
    """Count what is not over, by model and by the window within which it is due."""
    parts = current.parts()
    with parts.connections.transaction() as connection:
        windows = parts.settings.batches.allowed_completion_windows
        return jsonify(queue_depth.by_window(connection, windows))


@admin.route("/batches/requests", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@admin.arguments(RequestQuery, location="query")
@admin.response(200, RequestPage)
def list_batch_requests(query: dict[str, Any]) -> dict[str, Any]:
    """List requests of all batches, single ones too; what runs and waits first."""
    filters, skip, limit = _filters(guard.identify(), query), query["skip"], query["limit"]
    with current.parts().connections.transaction() as connection:
        places = requests.page(
            connection,
            filters,
            skip=skip,
            limit=limit + 1,
            active_first=query["active_first"],
            after=_asked(),
        )
        data = requests.shown(connection, [place.id for place in places[:limit]])
        total = requests.total(connection, filters)
    if len(places) > limit:
        part, processing, id = places[limit - 1]
        cursors.offer(_LIST, [str(part), str(int(processing)), str(id)])
    # An estimate may be less than what is on the page.
    return envelope(data, max(total, skip + len(data) if data else 0), skip=skip, limit=limit)


@admin.route("/batches/requests/<id:request_id>", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@admin.response(200, RequestDetailSchema)
def get_batch_request(request_id: UUID) -> Any:
    """Read one request with its bodies."""
    with current.parts().connections.transaction() as connection:
        found = requests.shown(connection, [request_id], with_bodies=True)
    if not found or not may_reach(
        guard.identify(), Resource.BATCHES, Operation.READ, found[0].batch_created_by
    ):
        raise NotFound(f"BatchRequest with ID {request_id} not found")
    return found[0]


def _asked() -> Place | None:
    position = cursors.asked(_LIST)
    if position is None:
        return None
    part, processing, id = (text or "" for text in position)
    return Place(int(part), processing == "1", UUID(id))


def _filters(caller: Caller, query: dict[str, Any]) -> Filters:
    sees_all = may_all(caller, Resource.BATCHES, Operation.READ)
    member = query["member_id"]
    if member is not None and not sees_all:
        raise Invalid("member_id filter requires platform manager permissions")
    owner = member if sees_all else caller.owner_id
    states = _words(query["status"])
    for state in states or ():
        if state not in frozenset(State):
            raise Invalid(f"Unknown status '{state[:64]}'. Use one of: {', '.join(State)}")
    return Filters(
        owner=None if owner is None else str(owner),
        states=states,
        models=_words(query["model"]),
        tiers=_words(query["service_tiers"]),
        windows=_words(query["completion_window"]),
        after=query["created_after"],
        before=query["created_before"],
    )


def _words(text: str | None) -> tuple[str, ...] | None:
    """The names in a comma list; None where there are none."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip()) or None
