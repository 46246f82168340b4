"""How a call ended, and the record that is written of it: one place for what is logged, stored and charged."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from dwctl.ai.admission import pricing_purpose
from dwctl.ai.calls import Call, Headers, Tier
from dwctl.analytics.records import Opening, Record, file_of, text_of, timestamp
from dwctl.billing import tariffs
from dwctl.catalog.routing import SYSTEM
from dwctl.protocols.usage import TokenUsage

_NONE = TokenUsage()


@dataclass(slots=True)
class Outcome:
    """The end of one call.

    status: what the caller got (or would have got). upstream_status: what the upstream said, where it said anything.
    stored: what GET will show, a JSON text. failure: the tagged error of a call that did not succeed, as batches-and-worker 4.1 has it.
    usage_source: reported, estimated or none.
    """

    status: int
    body: bytes = b""
    headers: Headers = field(default_factory=list)
    stored: bytes | None = None
    upstream_status: int | None = None
    failure: dict[str, Any] | None = None
    error_code: str | None = None
    retry_after_s: float | None = None
    usage: TokenUsage | None = None
    usage_source: str = "none"
    response_type: str = "other"

    @property
    def succeeded(self) -> bool:
        """Whether the request ends `completed`."""
        return self.failure is None


def opening_of(call: Call, state: str, *, repeatable: bool = False) -> Opening:
    """The rows that stand for this call in the queue's tables. Needs an admitted call."""
    return Opening(**_opening_part(call), state=state, repeatable=repeatable or None)


def record_of(call: Call, outcome: Outcome) -> Record:
    """The whole record of a call that is over: tracking row, log row, charge."""
    ended = time.time()
    record = _log_part(call, outcome, ended) | _charge_part(call, outcome)
    # A queued call has its row already, and must end there even where nobody may serve it.
    if call.track and call.key is not None and (call.serving is not None or call.queued):
        record |= _tracking_part(call, outcome)
    return Record(**record)


def _opening_part(call: Call) -> dict[str, Any]:
    assert call.key is not None
    assert call.alias is not None
    window, window_s = call.window
    owner = str(call.key.owner_id)
    return {
        "id": call.id,
        "at": timestamp(call.created_at),
        "file_id": file_of(owner, call.created_at),
        "owner": owner,
        "api_key_id": call.key.id,
        "path": call.path,
        "model": call.alias,
        "request_body": text_of(call.incoming.body),
        "request_size": len(call.incoming.body),
        "tier": call.tier.value,
        "sla": window,
        "expires_at": timestamp(call.created_at + window_s),
        "daemon_id": call.daemon_id,
    }


def _tracking_part(call: Call, outcome: Outcome) -> dict[str, Any]:
    part = _opening_part(call)
    stored = text_of(outcome.body if outcome.stored is None else outcome.stored)
    failure = None if outcome.failure is None else orjson.dumps(outcome.failure).decode()
    part |= {
        "track": True,
        "state": "completed" if outcome.succeeded else "failed",
        "opened": call.opened,
        "queued": call.queued,
        "notify": call.queued or call.background,
        "response_status": outcome.status,
        "response_body": stored,
        "response_size": len(stored),
        "routed_model": call.serving.alias if call.serving else None,
        "error": failure,
    }
    if call.opened_in_database:
        part["request_body"] = None
    return part


def _log_part(call: Call, outcome: Outcome, ended: float) -> dict[str, Any]:
    usage = outcome.usage or _NONE
    elapsed = time.monotonic() - call.started
    first = None if call.first_byte_at is None else int((call.first_byte_at - call.started) * 1000)
    return {
        "id": call.id,
        "at": timestamp(call.created_at),
        "ended_at": timestamp(ended),
        "track": False,
        "opened": False,
        "queued": call.queued,
        "notify": False,
        "method": "POST",
        "uri": f"/{call.endpoint.value}"
        + (f"?{call.incoming.query}" if call.incoming.query else ""),
        "model": call.alias,
        "status_code": outcome.status,
        "duration_ms": int(elapsed * 1000),
        "ttfb_ms": first,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cached_tokens": usage.cached_tokens,
        "total_tokens": usage.total_tokens,
        "usage_source": outcome.usage_source,
        "response_type": outcome.response_type,
        "user_id": call.key.owner_id if call.key else None,
        "api_key_id": call.key.id if call.key else None,
        "access_source": _access_source(call),
        "outer_request_id": _outer_id(call),
        "origin": _origin(call),
        "sla": call.window[0],
        "batch_id": call.batch_id,
        "custom_id": call.custom_id,
        "served_by": call.serving.target.endpoint_name
        if call.serving and call.serving.target
        else None,
        "error_code": outcome.error_code,
    }


def _charge_part(call: Call, outcome: Outcome) -> dict[str, Any]:
    if call.model is None or call.key is None or outcome.usage is None:
        return {}
    price = tariffs.pick(
        call.model.tariffs,
        purpose=pricing_purpose(call.key, call.tier),
        window=call.window[0] if call.tier is Tier.FLEX else None,
        at=datetime.fromtimestamp(call.created_at, UTC),
    )
    if price is None:
        return {}
    cost = tariffs.price(price, outcome.usage.prompt_tokens, outcome.usage.completion_tokens)
    free = call.key.owner_id == SYSTEM
    return {
        "input_price": price.input,
        "output_price": price.output,
        "cost": Decimal(0) if free else cost,
    }


def _access_source(call: Call) -> str:
    if call.key is not None:
        return "playground" if call.key.purpose == "playground" else "api_key"
    return "unknown_api_key" if call.key_presented else "unauthenticated"


def _origin(call: Call) -> str:
    return "frontend" if call.key is not None and call.key.purpose == "playground" else "api"


def _outer_id(call: Call) -> UUID | None:
    """A request id from outside is written down as it is, and means nothing else."""
    given = call.incoming.header("x-fusillade-request-id")
    try:
        return UUID(given) if given else None
    except ValueError:
        return None
