"""`/batches`: made from a file, shown, listed, stopped, run again, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from flask import request
from sqlalchemy import func, select

import dwctl.batches.departures  # noqa: F401 - registers what happens to batches when their account is deleted
from dwctl.access import guard, ownership
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.ai.idempotency import HEADER as REPEAT_KEY
from dwctl.ai.idempotency import key_of
from dwctl.batches import changes, creation, listing, metadata, summaries, usage
from dwctl.batches.batch_object import OVER, batch_object, status_of
from dwctl.batches.creation import Order
from dwctl.batches.schemas import (
    BatchCreate,
    BatchListQuery,
    BatchListSchema,
    BatchSchema,
    RetriedBatchSchema,
    RetryRequests,
    UsageSchema,
)
from dwctl.db import db
from dwctl.errors import DwctlError, Invalid, NotFound
from dwctl.identity import api_keys, people
from dwctl.identity.people import People
from dwctl.identity.tables import ApiKey
from dwctl.queue import identifiers
from dwctl.queue.tables import Batch
from dwctl.web import current, described, pagination
from dwctl.web.schemas import Blueprint

blueprint = Blueprint("batches", __name__, description="Batches: a file of requests, run once.")
guard.protect(blueprint)


@blueprint.route("/batches", methods=["POST"])
@guard.requires_own(Resource.BATCHES, Operation.CREATE)
@blueprint.arguments(BatchCreate)
@blueprint.response(201, BatchSchema)
@described.says(refusals=(402, 429))
def create_batch(wanted: dict[str, Any]) -> dict[str, Any]:
    """Run the lines of a file. The answer comes at once, its requests are made by a worker"""
    caller = guard.identify()
    own = metadata.accepted(wanted["metadata"])
    order = Order(
        file_id=wanted["input_file_id"],
        endpoint=wanted["endpoint"],
        window=wanted["completion_window"],
        metadata=metadata.stored(
            own,
            source="api" if caller.source == "api_key" else "frontend",
            created_by=str(caller.user_id),
            user_agent=request.headers.get("User-Agent"),
        ),
        owner_id=caller.owner_id,
        api_key_id=_key_of(caller),
        reach=_reach(caller),
        any_window=may_all(caller, Resource.BATCHES, Operation.CREATE),
        repeat_key=key_of(request.headers.getlist(REPEAT_KEY)),
    )
    parts = current.parts()
    with parts.connections.transaction() as connection:
        id = creation.create(connection, parts.settings, order)
    made = db.session.get_one(Batch, id)
    return batch_object(made, {"created_by_email": caller.email}, _now()) | _used([made])[made.id]


@blueprint.route("/batches", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@blueprint.arguments(BatchListQuery, location="query")
@blueprint.response(200, BatchListSchema)
def list_batches(query: dict[str, Any]) -> dict[str, Any]:
    """List batches, newest first"""
    caller, session, limit = guard.identify(), db.session(), query["limit"]
    windows = pagination.includes(query["completion_window"])
    criteria = listing.Criteria(
        owner=ownership.listed_owner(caller, Resource.BATCHES),
        member=_member(caller, query["member_id"]),
        search=pagination.substring(query["search"]),
        status=query["status"] or None,
        created_after=query["created_after"],
        created_before=query["created_before"],
        windows=windows or None,
        file=_file(query["input_file_id"]),
    )
    found = listing.page(
        session,
        criteria,
        after=query["after"] or None,
        limit=limit + 1,
        active_first=query["active_first"],
    )
    shown = _shown(found[:limit])
    included = pagination.includes(query["include"])
    for name, of in (("analytics", usage.of), ("summary", summaries.of)):
        if name in included:
            known = of(session, [batch.id for batch in found[:limit]])
            for batch, made in zip(found, shown, strict=False):
                made[name] = known[batch.id]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
    return {"object": "list", "data": shown, **ends, "has_more": len(found) > limit}


@blueprint.route("/batches/<batch_id>", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@blueprint.response(200, BatchSchema)
def get_batch(batch_id: str) -> dict[str, Any]:
    """Read a batch"""
    found = reachable(batch_id, Operation.READ)
    if status_of(found) not in OVER:
        with _on_its_own(found) as connection:
            changes.finalise(connection, found.id)
        found = reachable(batch_id, Operation.READ)
    return _shown([found])[0]


@blueprint.route("/batches/<batch_id>", methods=["DELETE"])
@guard.requires_own(Resource.BATCHES, Operation.DELETE)
@blueprint.response(204)
def delete_batch(batch_id: str) -> None:
    """Delete a batch; one that runs is stopped. Its files stay"""
    found = reachable(batch_id, Operation.DELETE)
    with _on_its_own(found) as connection:
        changes.delete(connection, found.id)


@blueprint.route("/batches/<batch_id>/cancel", methods=["POST"])
@guard.requires_own(Resource.BATCHES, Operation.UPDATE)
@blueprint.response(200, BatchSchema)
def cancel_batch(batch_id: str) -> dict[str, Any]:
    """Stop a batch; one that is over is left as it is"""
    found = reachable(batch_id, Operation.UPDATE)
    with _on_its_own(found) as connection:
        changes.cancel(connection, found.id)
    return _changed(batch_id)


@blueprint.route("/batches/<batch_id>/retry", methods=["POST"])
@guard.requires_own(Resource.BATCHES, Operation.UPDATE)
@blueprint.response(200, RetriedBatchSchema)
def retry_batch(batch_id: str) -> dict[str, Any]:
    """Run the failed lines of a batch again"""
    found = reachable(batch_id, Operation.UPDATE)
    with _on_its_own(found) as connection:
        # Of a batch that is stopped and has none it is said as of any other that has none.
        is_stopped = found.cancelling_at is not None
        retried = (
            0 if is_stopped and not found.failed_requests else changes.retry(connection, found.id)
        )
        if not retried:
            raise Invalid("No failed requests to retry in this batch", code="nothing_to_retry")
    return {**_changed(batch_id), "retry": {"retried": retried, "refused": []}}


@blueprint.route("/batches/<batch_id>/retry-requests", methods=["POST"])
@guard.requires_own(Resource.BATCHES, Operation.UPDATE)
@blueprint.arguments(RetryRequests)
@blueprint.response(200, RetriedBatchSchema)
def retry_requests(wanted: dict[str, Any], batch_id: str) -> dict[str, Any]:
    """Run some failed lines of a batch again; those that are not its own, or have not failed, are refused and named"""
    found = reachable(batch_id, Operation.UPDATE)
    given = dict.fromkeys(wanted["request_ids"])
    known = {text: id for text in given if (id := _line_id(text))}
    if not known:
        raise Invalid("No valid request IDs provided", param="request_ids")
    with _on_its_own(found) as connection:
        retried, _ = changes.retry_requests(connection, found.id, set(known.values()))
    refused = [text for text in given if known.get(text) not in retried]
    return {**_changed(batch_id), "retry": {"retried": len(retried), "refused": refused}}


@blueprint.route("/batches/<batch_id>/analytics", methods=["GET"])
@guard.requires_own(Resource.BATCHES, Operation.READ)
@blueprint.response(200, UsageSchema)
def get_usage(batch_id: str) -> dict[str, Any]:
    """Read what a batch has used and cost so far"""
    id = reachable(batch_id, Operation.READ).id
    return usage.of(db.session(), [id])[id]


def reachable(batch_id: str, operation: Operation) -> Batch:
    """The batch, if the caller may do this to it. Raises Invalid (malformed id), NotFound (also for what is another's)."""
    id = identifiers.parse("batch", batch_id)
    found = db.session.get(Batch, id)
    if found is None or found.single or found.deleted_at is not None:
        raise _unknown(id)
    if not ownership.may_reach(guard.identify(), Resource.BATCHES, operation, found.created_by):
        raise _unknown(id)
    return found


@contextmanager
def _on_its_own(batch: Batch) -> Iterator[psycopg.Connection[Any]]:
    """A transaction to change a batch in; what was read of it before is let go."""
    db.session.expunge(batch)
    db.session.rollback()
    with current.parts().connections.transaction() as connection:
        yield connection


def _changed(batch_id: str) -> dict[str, Any]:
    """A batch after a change, which names its owner only."""
    found = reachable(batch_id, Operation.UPDATE)
    owner = _people([found]).owner(found.created_by)
    said = {"created_by_email": owner.email} if owner else {}
    return batch_object(found, said, _now()) | _used([found])[found.id]


def _file(text: str | None) -> UUID | None:
    return identifiers.parse("file", text, "input_file_id") if text else None


def _line_id(text: str) -> UUID | None:
    try:
        return identifiers.parse("request", text)
    except DwctlError:
        return None


def _unknown(id: UUID) -> NotFound:
    return NotFound(f"Batch with ID {id} not found")


def _shown(batches: list[Batch]) -> list[dict[str, Any]]:
    if not batches:
        return []
    known, now, used = _people(batches), _now(), _used(batches)
    return [batch_object(batch, _said(batch, known), now) | used[batch.id] for batch in batches]


def _used(batches: list[Batch]) -> dict[UUID, dict[str, Any]]:
    return usage.in_openais_words(db.session(), [batch.id for batch in batches])


def _people(batches: list[Batch]) -> People:
    owners, keys = (b.created_by for b in batches), (b.api_key_id for b in batches)
    return people.behind(db.session(), owners, keys)


def _said(batch: Batch, known: People) -> dict[str, str]:
    """What a batch's metadata says of its maker and its owner."""
    owner = known.owner(batch.created_by)
    email = known.maker(batch.api_key_id) or (owner.email if owner else None)
    said = {"created_by_email": email} if email else {}
    return said | (owner.context if owner else {})


def _now() -> datetime:
    """By the database's clock, which sets the stamps and deadlines."""
    return db.session.scalars(select(func.now())).one()


def _key_of(caller: Caller) -> UUID:
    """Names the one who makes the batch, within the account that pays for it: by the key that it is made with, if lines must be treated as
    that wants it (its cap, what is kept of its calls).
    """
    session = db.session()
    used = session.get(ApiKey, caller.api_key_id) if caller.api_key_id else None
    if used is not None and _is_special(used):
        key: UUID = used.id
    else:
        key = api_keys.hidden_key(session, caller.owner_id, caller.user_id, "batch").id
    # Nobody holds a connection who is about to wait for another one.
    db.session.commit()
    return key


def _is_special(key: ApiKey) -> bool:
    return key.spend_limit is not None or key.zero_data_retention or key.log_sample is not None


def _reach(caller: Caller) -> frozenset[str] | None:
    everybody = may_all(caller, Resource.FILES, Operation.READ)
    return None if everybody else ownership.owners_of(caller)


def _member(caller: Caller, member_id: UUID | None) -> UUID | None:
    allowed = caller.active_organization_id is not None or may_all(
        caller, Resource.BATCHES, Operation.READ
    )
    if member_id is not None and not allowed:
        raise Invalid(
            "member_id filter is only available in organization context or for platform managers",
            param="member_id",
        )
    return member_id
