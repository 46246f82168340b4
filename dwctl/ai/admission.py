"""Everything that refuses a call does so here, before any work.

Order: credential (401), model known (404), access (403), traffic rules (403), funds (402), and what one account may hold at once
(`holdings`, 429). A worker asks the same questions of a queued request, again and as of now (`readmit`).
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from dwctl.ai.calls import Line, Request, Stamp
from dwctl.billing import tariffs
from dwctl.billing.tariffs import TariffPrice
from dwctl.catalog.routing import Key, Model, Routing
from dwctl.catalog.snapshot import Snapshot
from dwctl.errors import DwctlError, Unavailable
from dwctl.protocols import asked as reading
from dwctl.protocols.asked import Asked
from dwctl.protocols.disclosure import Disclosure
from dwctl.protocols.modes import Mode, Tier
from dwctl.protocols.surfaces import SURFACES
from dwctl.queue.leases import Job
from dwctl.upstream.target import Target

MISSING_KEY = "Please supply an API key: Authorization: Bearer <key>"
INVALID_KEY = "The API key is unknown or was revoked."

_FRESH_ENOUGH_S = 2.0


class Refused(DwctlError):
    """The call is refused."""


class Admitted(msgspec.Struct, frozen=True):
    """A call that may run. `asked_for` prices it; `served_by` runs it (another model under a redirect rule), at `target`.

    `price` is the tariff in force when it began; None where it costs nothing.
    """

    request: Request
    key: Key
    asked_for: Model
    served_by: Model
    target: Target
    price: TariffPrice | None
    disclosure: Disclosure


def bearer(authorization: str | None) -> str | None:
    """The secret in an Authorization header; the scheme in any case."""
    scheme, _, secret = (authorization or "").strip().partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def authenticate(snapshot: Snapshot, authorization: str | None) -> Key:
    """Whose key it is. Raises Refused (401)."""
    secret = bearer(authorization)
    if secret is None:
        raise Refused(MISSING_KEY, code="unauthenticated", status=401)
    if snapshot.loaded_at is None:
        raise Unavailable("The gateway is starting. Try again shortly.", retry_after_s=1)
    key = snapshot.find_key(hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest())
    if key is None:
        raise Refused(INVALID_KEY, code="invalid_api_key", status=401)
    return key


def admit(routing: Routing, key: Key, request: Request, *, strict: bool) -> Admitted:
    """Let a call in, or raise InvalidRequest (400), Refused (404, 403, 402) or Unavailable (its endpoint cannot be called)."""
    asked = request.asked
    model = routing.models.get(asked.alias)
    request.surface.check(
        asked.content,
        alias=asked.alias,
        strict=strict,
        adapted=model is None or model.adapter,
        refuses_unrunnable_tools=model is not None and model.refuses_unrunnable_tools,
    )
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
    if served_by.adapter and not model.adapter:
        request.surface.check(
            asked.content,
            alias=asked.alias,
            strict=strict,
            adapted=True,
            refuses_unrunnable_tools=model.refuses_unrunnable_tools,
        )
    price = tariffs.pick(
        model.tariffs,
        purpose=purpose,
        window=request.window if flex else None,
        at=datetime.fromtimestamp(asked.created_at, UTC),
    )
    if not routing.has_funds(key.owner_id) and not (price is None or price.is_zero):
        raise Refused(
            "Account balance too low. Please add credits to continue.",
            code="insufficient_credits",
            status=402,
        )
    if served_by.target is None:
        raise Unavailable(f"The model `{asked.alias}` has no endpoint that can be called.")
    disclosure = Disclosure(strict, served_by.trusted, served_by.sanitise)
    return Admitted(request, key, model, served_by, served_by.target, price, disclosure)


def readmit(snapshot: Snapshot, job: Job, *, strict: bool) -> Admitted:
    """Judge a queued request as of now. A refusal is only believed from a snapshot that is newer than the claim.

    Raises what `admit` raises, and Refused for a request that cannot be run by anybody (its body, its path or its owner is gone).
    """
    request = _request_of(job)
    key = key_of(job)
    try:
        return admit(snapshot.routing, key, request, strict=strict)
    except DwctlError:
        snapshot.wait_fresher_than(time.monotonic(), _FRESH_ENOUGH_S)
        return admit(snapshot.routing, key, request, strict=strict)


def key_of(job: Job) -> Key:
    """As whom a queued request runs. A realtime call in the background whose process died pays the realtime price all the same."""
    owner = job.owner_id or UUID(int=0)
    purpose = "realtime" if job.tier == Tier.REALTIME else "batch"
    return Key(job.api_key_id, owner, owner, purpose)


def _request_of(job: Job) -> Request:
    surface = SURFACES.get((job.path or "").removeprefix("/v1/"))
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
        # A line of a batch is answered in one piece, whatever it asks for.
        mode=Mode(
            tier,
            stream=line is None and surface.streams and content.get("stream") is True,
            background=content.get("background") is True,
        ),
    )
    stamp = Stamp(job.id, asked.created_at, time.monotonic())
    return Request(stamp, asked, queued=True, line=line)


def line_of(job: Job) -> Line | None:
    """What a request is within its batch; None for a single one."""
    if job.batch_id is None or job.batch_id == job.id:
        return None
    return Line(job.batch_id, job.custom_id, job.window)


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
