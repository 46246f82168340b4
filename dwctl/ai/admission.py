"""Everything that refuses a call does so here, before any work.

Order: credential (401), model known (404), access (403), traffic rules (403), funds (402), what one account may hold at once
(`holdings`, 429), and last, because they are taken in the database, the limits of model and key (`demands_of`, `limits`, 429) and, where that
is little, what the call may cost (`funds`, 402). A worker asks the same questions of a queued request, again and as of now (`readmit`); there only the model's limits count.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec

from dwctl.ai.calls import Line, Request, Stamp
from dwctl.ai.request_log import unstored
from dwctl.ai.selection import components_of
from dwctl.analytics.records import timestamp
from dwctl.billing import tariffs
from dwctl.billing.reservations import NO_CREDIT, TOO_LOW
from dwctl.billing.tariffs import TariffPrice
from dwctl.catalog.routing import Key, Limits, Model, Routing
from dwctl.catalog.snapshot import Snapshot
from dwctl.clock import time_s
from dwctl.errors import DwctlError, Unavailable
from dwctl.identity import api_keys
from dwctl.limits.demands import Demand, Whose, demand
from dwctl.protocols import asked as reading
from dwctl.protocols.asked import Asked
from dwctl.protocols.bounds import likely_tokens
from dwctl.protocols.modes import Mode, Tier
from dwctl.protocols.surfaces import SURFACES, Surface
from dwctl.queue.leases import Job

MISSING_KEY = "Please supply an API key: Authorization: Bearer <key>"
INVALID_KEY = "The API key is unknown or was revoked."

_FRESH_ENOUGH_S = 2.0


class Refused(DwctlError):
    """The call is refused."""


class Admitted(msgspec.Struct, frozen=True):
    """A call that may run. `asked_for` prices it; `served_by` runs it (another model under a redirect rule), at one of its targets.

    `price` is the tariff in force when it began; None where it costs nothing. `strict`: the gateway's mode.
    """

    request: Request
    key: Key
    asked_for: Model
    served_by: Model
    price: TariffPrice | None
    strict: bool

    @property
    def adapted(self) -> bool:
        """Whether it may reach a target that speaks chat completions only (`Surface.treat`)."""
        served_by = self.served_by
        return True in _adapted(served_by) if served_by.is_composite else served_by.adapter

    @property
    def context_length(self) -> int | None:
        """What every target can take, in tokens; None where that is not known of all."""
        if not self.served_by.is_composite:
            return self.served_by.context_length
        lengths = [one.model.context_length for one in components_of(self.served_by)]
        known = [length for length in lengths if length is not None]
        return min(known) if known and len(known) == len(lengths) else None


def bearer(authorization: str | None) -> str | None:
    """The secret in an Authorization header; the scheme in any case."""
    scheme, _, secret = (authorization or "").strip().partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def authenticate(snapshot: Snapshot, authorization: str | None) -> Key:
    """Whose key it is. Raises Refused (401), with a code and a reason of its own where the secret was right once."""
    secret = bearer(authorization)
    if secret is None:
        raise Refused(MISSING_KEY, code="unauthenticated", status=401)
    if snapshot.loaded_at is None:
        raise Unavailable("The gateway is starting. Try again shortly.", retry_after_s=1)
    digest = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
    key = snapshot.find_key(digest)
    if key is None:
        raise Refused(INVALID_KEY, code="invalid_api_key", status=401)
    # No notification comes when a time is up.
    if key.expires_at is not None and key.expires_at <= time_s():
        replaced = snapshot.routing.is_replaced(key, digest)
        raise Refused(
            api_keys.expiry(key.expires_at, replaced=replaced), code=api_keys.EXPIRED, status=401
        )
    if key.id is not None:
        snapshot.key_use.note(key.id)
    return key


def admit(
    routing: Routing, key: Key, request: Request, *, strict: bool, escalation: str | None = None
) -> Admitted:
    """Let a call in, or raise InvalidRequest (400), Refused (404, 403, 402) or Unavailable (its endpoint cannot be called).

    escalation: the model that serves it in place of the one asked for, which is the one that its caller needs access to and pays.
    """
    asked = request.asked
    model = routing.models.get(asked.alias)
    checked = {True} if model is None else _adapted(model)
    refuses_tools = model is not None and model.refuses_unrunnable_tools
    _check(request, checked, strict=strict, refuses_tools=refuses_tools)
    if model is None:
        raise Refused(
            f"The model `{asked.alias}` does not exist or you do not have access to it.",
            code="model_not_found",
            status=404,
        )
    if not routing.may_use(key.owner_id, model):
        raise Refused(
            f"You do not have access to '{asked.alias}'. Please contact your administrator to request access.",
            code="model_access_denied",
            status=403,
        )
    # Traffic rules and tariffs judge queued work as `batch`, whatever key brought it.
    flex = request.tier is Tier.FLEX
    purpose = "batch" if flex else key.purpose
    served_by = _served_by(routing, model, purpose)
    if escalation is not None:
        served_by = routing.models.get(escalation) or served_by
    if served_by is not model:
        ways = _adapted(served_by) - checked
        _check(request, ways, strict=strict, refuses_tools=refuses_tools)
    price = tariffs.pick(
        model.tariffs,
        purpose=purpose,
        window=request.window if flex else None,
        at=timestamp(asked.created_at),
    )
    if not routing.has_funds(key.owner_id) and not (price is None or price.is_zero):
        raise Refused(TOO_LOW, code=NO_CREDIT, status=402)
    if served_by.target is None and not components_of(served_by):
        raise _nowhere(model, served_by)
    return Admitted(request, key, model, served_by, price, strict)


def demands_of(admitted: Admitted) -> list[Demand]:
    """The limits that a call must pass, in the order in which they are named; none for most calls.

    Those of the model that serves it, and, unless a worker runs it, of the key. Hidden keys (playground) have none of their own.
    """
    model, key = admitted.served_by, admitted.key
    found = []
    if _is_limited(model.limits) and (one := _demand(Whose.MODEL, model.id, model.limits)):
        found.append(one)
    if (
        not admitted.request.queued
        and _is_limited(key.limits)
        and (one := _demand(Whose.KEY, key.id, key.limits))
    ):
        found.append(one)
    return found


def component_demands(composite: Model, component: Model) -> list[Demand]:
    """The limits of a model where it serves within a composite one: they are counted apart from those of its own alias."""
    found = _demand(Whose.COMPONENT, f"{composite.id}/{component.id}", component.limits)
    return [found] if found else []


def tokens_of(admitted: Admitted, demands: Sequence[Demand]) -> int:
    """How many LLM tokens a call is likely to use, its conversation included; looked at only where one of its limits counts them."""
    if all(one.per_minute is None for one in demands):
        return 0
    asked = admitted.request.asked
    return likely_tokens(asked.read_by_model, asked.surface.limited_by)


def _is_limited(limits: Limits) -> bool:
    return bool(limits.requests_per_second or limits.capacity or limits.tokens_per_minute)


def _demand(whose: Whose, id: object, limits: Limits) -> Demand | None:
    return demand(
        whose,
        id,
        requests_per_second=limits.requests_per_second,
        burst_size=limits.burst_size,
        capacity=limits.capacity,
        tokens_per_minute=limits.tokens_per_minute,
    )


def readmit(snapshot: Snapshot, job: Job, *, strict: bool) -> Admitted:
    """Judge a queued request as of now. A refusal is only believed from a snapshot that is newer than the claim.

    That of a line is as new as its batch: access that was lost before it was made is lost.
    Raises what `admit` raises, and Refused for a request that cannot be run by anybody (its body, its path or its owner is gone).
    """
    request = _request_of(job)
    key = key_of(job)
    if request.line is not None:
        _follow(snapshot, request.asked.created_at)
    try:
        admitted = admit(snapshot.routing, key, request, strict=strict, escalation=job.escalation)
    except DwctlError:
        snapshot.wait_fresher_than(time.monotonic(), _FRESH_ENOUGH_S)
        admitted = admit(snapshot.routing, key, request, strict=strict, escalation=job.escalation)
    if request.line is not None and snapshot.routing.keeping_of(key).zero_retention:
        return _told_not_to_store(admitted)
    return admitted


def _told_not_to_store(admitted: Admitted) -> Admitted:
    """A line, which stays as it was uploaded, as the upstream server gets it."""
    asked = admitted.request.asked
    body, content = unstored(asked.surface, asked.body, asked.content)
    asked = msgspec.structs.replace(asked, body=body, content=content)
    request = msgspec.structs.replace(admitted.request, asked=asked)
    return msgspec.structs.replace(admitted, request=request)


def _follow(snapshot: Snapshot, at: float) -> None:
    """Wait for a snapshot that is no older than `at` (Unix time)."""
    moment = time.monotonic() - max(0.0, time_s() - at)
    if snapshot.loaded_at is None or snapshot.loaded_at < moment:
        snapshot.wait_fresher_than(moment, _FRESH_ENOUGH_S)


def key_of(job: Job) -> Key:
    """As whom a queued request runs. A realtime call in the background whose process died pays the realtime price all the same."""
    owner = job.owner_id or UUID(int=0)
    purpose = "realtime" if job.tier == Tier.REALTIME else "batch"
    return Key(job.api_key_id, owner, owner, purpose)


def _request_of(job: Job) -> Request:
    # Rows that are written by hand may leave out the version.
    surface = SURFACES.get((job.path or "").removeprefix("/v1").strip("/"))
    if surface is None or job.body is None:
        raise Refused(
            "What was to be sent is gone, or its path is unknown.",
            code="request_error",
            status=400,
        )
    if job.owner_id is None or job.owner_deleted:
        raise Refused(
            "The account in whose name the request runs does not exist.",
            code="owner_gone",
            status=403,
        )
    body = job.body.encode()
    content = reading.read(body)
    line = line_of(job)
    tier = Tier.REALTIME if job.tier == Tier.REALTIME else Tier.FLEX
    asked = Asked(
        surface=surface,
        body=body,
        content=content,
        alias=reading.read_alias(content, job.model),
        id=job.id,
        created_at=(job.batch_created_at or job.created_at).timestamp(),
        mode=_mode_of(surface, content, tier, of_batch=line is not None),
    )
    stamp = Stamp(job.id, asked.created_at, time.monotonic())
    is_kept = line is not None or asked.is_stored
    return Request(stamp, asked, is_kept, queued=True, line=line)


def _mode_of(surface: Surface, content: Mapping[str, Any], tier: Tier, *, of_batch: bool) -> Mode:
    """A line of a batch is answered in one piece and at its batch's price, whatever it asks for. (An upstream that it asks to stream is
    read to the end, and what it said put together.)
    """
    if of_batch:
        return Mode(tier, of_batch=True)
    stream = surface.streams and content.get("stream") is True
    return Mode(tier, stream, content.get("background") is True)


def line_of(job: Job) -> Line | None:
    """What a request is within its batch; None for a single one."""
    if job.batch_id is None or job.batch_id == job.id:
        return None
    return Line(job.batch_id, job.custom_id, job.window)


def _adapted(model: Model) -> set[bool]:
    """In which ways /responses may reach the model's targets: see `Surface.treat`."""
    if not model.is_composite:
        return {model.adapter}
    return {one.model.adapter for one in components_of(model)} or {model.adapter}


def _check(request: Request, ways: set[bool], *, strict: bool, refuses_tools: bool) -> None:
    """The request must suit every target that may be chosen. Raises InvalidRequest."""
    asked = request.asked
    for adapted in ways:
        request.surface.check(
            asked.content,
            alias=asked.alias,
            strict=strict,
            adapted=adapted,
            refuses_unrunnable_tools=refuses_tools,
        )


def _nowhere(model: Model, served_by: Model) -> DwctlError:
    if served_by is model:
        return Unavailable(f"The model `{model.alias}` has no endpoint that can be called.")
    text = f"The model that serves `{model.alias}` for this purpose has no endpoint that can be called."
    return Refused(text, code="redirect_unavailable", status=502, retryable=True)


def _served_by(routing: Routing, model: Model, purpose: str) -> Model:
    rule = model.rules.get(purpose)
    if rule is None:
        return model
    if rule.target is None:
        raise Refused(
            f"The model `{model.alias}` is blocked for {purpose} traffic.",
            code="traffic_blocked",
            status=403,
        )
    return routing.models.get(rule.target) or model
