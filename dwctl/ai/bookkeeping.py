"""What is written down of a call: the row that opens it, and the record that ends it. The one place where both are made."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson

from dwctl import clock
from dwctl.ai.admission import Admitted, key_of, line_of
from dwctl.ai.calls import Incoming, Request, Stamp
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Outcome
from dwctl.analytics import redaction
from dwctl.analytics.records import Opening, Record, file_of, owner_of, text_of, timestamp
from dwctl.analytics.showing import Withheld
from dwctl.billing import money, tariffs
from dwctl.catalog.routing import SYSTEM, Key
from dwctl.errors import DwctlError
from dwctl.printable import printable
from dwctl.protocols.modes import Tier
from dwctl.protocols.usage import TokenUsage
from dwctl.queue.leases import Job
from dwctl.queue.tables import State

_UNUSED = TokenUsage()
_NOTHING_USED: dict[str, Any] = {
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "reasoning_tokens": 0,
    "cached_tokens": 0,
    "total_tokens": 0,
    "usage_source": "none",
}
_UNKEPT = b'{"store":false}'
_REPEATED_WITHIN_S = 3600.0
_MOST_OF_ALIAS = 256
_NOTHING_KEPT = (Withheld.ZERO_RETENTION, Withheld.NOT_STORED)


def opening_of(
    admitted: Admitted, state: State, daemon_id: UUID, *, repeatable: bool = False
) -> Opening:
    """The rows of a call that is not over. `repeatable`: a worker may run it once more if this process dies."""
    request = admitted.request
    rows = _rows_of(request, admitted.key, daemon_id)
    if repeatable:
        # Until then a worker may begin it; without a process that dies nobody looks at it.
        rows["expires_at"] = timestamp(request.asked.created_at + _REPEATED_WITHIN_S)
    return Opening(
        **rows,
        **_body_part(request, waits=state is State.PENDING),
        id=request.id,
        at=timestamp(request.asked.created_at),
        api_key_id=admitted.key.id,
        model=request.asked.alias,
        sla=request.window,
        state=state,
        repeatable=repeatable,
    )


def record_of(
    admitted: Admitted,
    outcome: Outcome,
    flight: Flight,
    daemon_id: UUID,
    shown: Mapping[str, Any] = MappingProxyType({}),
) -> Record:
    """A call that is over: tracking row, log row, charge. `shown`: what `RequestLog` gives."""
    request, key, usage = admitted.request, admitted.key, outcome.usage
    asked, stamp, line, used = request.asked, request.stamp, request.line, usage or _UNUSED
    surface = asked.surface
    opened = request.queued or flight.opened
    # What is not kept has rows only where something had to be known of it while it ran.
    tracked = request.tracked and (request.is_kept or opened)
    outer_id, user_agent = _told_by(request.headers)
    first = flight.first_byte_at
    # (In one piece, as each call comes by.)
    return Record(
        id=stamp.id,
        at=timestamp(asked.created_at if tracked else stamp.at),
        ended_at=clock.now(),
        method=surface.method,
        status_code=outcome.status,
        duration_ms=_milliseconds(stamp.started, time.monotonic()),
        uri=_uri(surface.path, asked.query, shown),
        model=asked.alias,
        user_id=key.owner_id,
        api_key_id=key.id,
        access_source=_access_source(key),
        origin=_origin(key),
        outer_request_id=outer_id,
        user_agent=user_agent,
        sla=request.window,
        batch_id=None if line is None else line.batch_id,
        custom_id=None if line is None else line.custom_id,
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        reasoning_tokens=used.reasoning_tokens,
        cached_tokens=used.cached_tokens,
        total_tokens=used.total_tokens,
        usage_source="none" if usage is None else usage.source,
        ttfb_ms=None if first is None else _milliseconds(stamp.started, first),
        response_type=outcome.response_type,
        finish_reason=outcome.finish_reason,
        served_by=None if flight.target is None else flight.target.endpoint_name,
        error_code=outcome.error_code,
        track=tracked,
        opened=opened,
        queued=request.queued,
        notify=request.queued or asked.mode.background or request.once is not None,
        reserved=True if flight.held is not None and flight.held.is_reserved else None,
        attempts=tuple(flight.tried) or None,
        **(_tracked_part(admitted, outcome, flight, daemon_id) if tracked else {}),
        **_charge_part(admitted, outcome, flight),
        **(shown if flight.trace_id is None else {**shown, "trace_id": flight.trace_id}),
    )


def record_of_refusal(
    stamp: Stamp,
    incoming: Incoming,
    key: Key,
    alias: str | None,
    error: DwctlError,
    shown: Mapping[str, Any] = MappingProxyType({}),
    trace_id: str | None = None,
) -> Record:
    """A caller's call that was not let in: a log row, and nothing else. `alias` may be any text; it is cut. `shown`: see `record_of`."""
    # Also a key that was put into the wrong place.
    model = None if alias is None else redaction.hidden(printable(alias, _MOST_OF_ALIAS))
    return _record_of_untracked(
        stamp,
        incoming,
        key,
        error.status,
        {**shown, "model": model, "error_code": error.code, "trace_id": trace_id},
    )


def record_of_listing(
    stamp: Stamp, incoming: Incoming, key: Key, shown: Mapping[str, Any]
) -> Record:
    """A list of models that a caller was given: a log row, and nothing else. `shown`: see `record_of`."""
    return _record_of_untracked(stamp, incoming, key, 200, shown)


def _record_of_untracked(
    stamp: Stamp, incoming: Incoming, key: Key, status: int, more: Mapping[str, Any]
) -> Record:
    return Record(
        **more,
        **_log_part(stamp, status, incoming.surface.method),
        **_NOTHING_USED,
        response_type="other",
        uri=_uri(incoming.surface.path, incoming.query, more),
        user_id=key.owner_id,
        api_key_id=key.id,
        access_source=_access_source(key),
        origin=_origin(key),
        outer_request_id=_outer_id(incoming.first.get("x-fusillade-request-id")),
        user_agent=redaction.program(incoming.first.get("user-agent")),
        sla="0s",
        track=False,
        opened=False,
        queued=False,
        notify=False,
    )


def record_of_unrunnable(
    job: Job,
    outcome: Outcome,
    daemon_id: UUID,
    shown: Mapping[str, Any] = MappingProxyType({}),
    trace_id: str | None = None,
) -> Record:
    """A queued request that nobody can run, or may not run any more: its row ends, and nothing is charged. `shown`: see `record_of`."""
    key, line = key_of(job), line_of(job)
    at = (job.batch_created_at or job.created_at).timestamp()
    return Record(
        **shown,
        **_log_part(Stamp(job.id, at, time.monotonic()), outcome.status),
        **_row_part(outcome),
        **_NOTHING_USED,
        response_type=outcome.response_type,
        uri="/" + (job.path or "").removeprefix("/v1/"),
        model=job.model,
        user_id=key.owner_id if job.owner_id else None,
        api_key_id=job.api_key_id,
        access_source="api_key",
        origin="api",
        error_code=outcome.error_code,
        trace_id=trace_id,
        track=True,
        opened=True,
        queued=True,
        notify=True,
        owner=owner_of(key.owner_id),
        path=job.path,
        tier=job.tier or Tier.FLEX,
        sla=job.window,
        expires_at=job.deadline,
        batch_id=line.batch_id if line else None,
        custom_id=line.custom_id if line else None,
        daemon_id=daemon_id,
    )


def _rows_of(request: Request, key: Key, daemon_id: UUID) -> dict[str, Any]:
    """What `opening_of` and `record_of` say alike of the rows in the queue's tables, and only of these."""
    created_at = request.asked.created_at
    owner = owner_of(key.owner_id)
    return {
        "file_id": file_of(owner, created_at),
        "owner": owner,
        "path": request.path,
        "tier": request.tier,
        "expires_at": timestamp(created_at + request.window_s),
        "daemon_id": daemon_id,
        "metadata": _metadata_of(request),
    }


def _tracked_part(
    admitted: Admitted, outcome: Outcome, flight: Flight, daemon_id: UUID
) -> dict[str, Any]:
    """What a record of a call has that has a row in the queue's tables."""
    request = admitted.request
    members = _rows_of(request, admitted.key, daemon_id)
    # Who waits for a worker's answer takes it from the row, and has that deleted (`queued`).
    members |= _row_part(outcome, with_texts=request.is_kept or request.queued)
    members["routed_model"] = admitted.served_by.alias
    # Without its body a record is of a row that was committed before.
    if not request.queued and not flight.row_is_there:
        members |= _body_part(request)
    return members


def _metadata_of(request: Request) -> str | None:
    """What the queue's own statements look for: the response before (`chain`), that nothing is kept (`forget_unkept`), and the trace of the
    call (`traces`).
    """
    if request.is_kept and request.asked.continues is None and request.trace is None:
        return None
    found: dict[str, Any] = {} if request.is_kept else {"unkept": True}
    if request.asked.continues is not None:
        found["continues"] = request.asked.continues
    if request.trace is not None:
        found["trace"] = request.trace
    return orjson.dumps(found).decode()


def _body_part(request: Request, *, waits: bool = False) -> dict[str, Any]:
    """What was asked. Of a call that is not kept nothing, unless a worker `waits` to read it."""
    body = request.asked.body if request.is_kept or waits else _UNKEPT
    return {"request_body": text_of(body), "request_size": len(body)}


def _row_part(outcome: Outcome, *, with_texts: bool = True) -> dict[str, Any]:
    """How it ended; without texts nothing that anybody said."""
    stored = text_of(outcome.stored) if with_texts else ""
    failure = outcome.failure
    if failure and not with_texts:
        failure = {"type": failure["type"]}
    return {
        "state": State.COMPLETED if outcome.succeeded else State.FAILED,
        "response_status": outcome.status,
        "response_body": stored,
        "response_size": len(stored),
        "error": None if failure is None else orjson.dumps(failure).decode(),
    }


def _log_part(stamp: Stamp, status: int, method: str = "POST") -> dict[str, Any]:
    return {
        "id": stamp.id,
        "at": timestamp(stamp.at),
        "ended_at": clock.now(),
        "method": method,
        "status_code": status,
        "duration_ms": _milliseconds(stamp.started, time.monotonic()),
    }


def _uri(path: str, query: str, shown: Mapping[str, Any]) -> str:
    """Without a query where nothing that the caller said is to be kept: it may say anything."""
    return redaction.uri(path, "" if shown.get("bodies") in _NOTHING_KEPT else query)


def cost_of(admitted: Admitted, outcome: Outcome) -> Decimal | None:
    """What a call is charged, in USD; None where nothing was used, the model has no price for it, or an upstream has failed it."""
    price, usage = admitted.price, outcome.usage
    if usage is None or price is None or not outcome.is_charged:
        return None
    if admitted.key.owner_id == SYSTEM:
        return Decimal(0)
    cost = tariffs.price(
        price,
        usage.prompt_tokens,
        usage.completion_tokens,
        cached_tokens=usage.cached_tokens,
        reasoning_tokens=usage.reasoning_tokens,
    )
    return money.chargeable(cost)


def _charge_part(admitted: Admitted, outcome: Outcome, flight: Flight) -> dict[str, Any]:
    """What it costs its caller, and what it costs the operator."""
    usage = outcome.usage
    if usage is None:
        return {}
    members: dict[str, Any] = {}
    if (price := admitted.price) is not None and outcome.is_charged:
        members = {
            "tariff_id": price.tariff_id,
            "input_price": price.input,
            "output_price": price.output,
            "cached_input_price": price.cached_input,
            "reasoning_price": price.reasoning,
            "cost": cost_of(admitted, outcome),
        }
    if flight.provider is not None and (paid := flight.provider.provider_price) is not None:
        provider_cost = paid.of(usage.prompt_tokens, usage.completion_tokens)
        if provider_cost is not None:
            members["provider_cost"] = money.chargeable(provider_cost)
    return members


def _milliseconds(started: float, moment: float) -> int:
    return int((moment - started) * 1000)


def _access_source(key: Key) -> str:
    return "playground" if key.purpose == "playground" else "api_key"


def _origin(key: Key) -> str:
    return "frontend" if key.purpose == "playground" else "api"


def _told_by(headers: Sequence[tuple[str, str]]) -> tuple[UUID | None, str | None]:
    """Of a caller's head: the request id that somebody else gave the call, and which program sent it."""
    outer_id = program = None
    for name, value in headers:
        if name == "user-agent" and program is None:
            program = redaction.program(value)
        elif name == "x-fusillade-request-id" and outer_id is None:
            outer_id = value
    return _outer_id(outer_id), program


def _outer_id(given: str | None) -> UUID | None:
    """A request id from outside is written down as it is, and means nothing else."""
    try:
        return UUID(given) if given else None
    except ValueError:
        return None
