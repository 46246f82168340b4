"""Everything that refuses a call does so here, before any work.

Order: credential (401), model known (404), access (403), traffic rules (403), funds (402). Limits on rate and concurrency join here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

from dwctl.ai.calls import Call
from dwctl.billing import tariffs
from dwctl.catalog.routing import Key, Model, Routing
from dwctl.catalog.snapshot import Snapshot
from dwctl.errors import DwctlError, Unavailable
from dwctl.protocols.modes import Tier

MISSING_KEY = "Please supply an API key: Authorization: Bearer <key>"
INVALID_KEY = "The API key is unknown or was revoked."


class Refused(DwctlError):
    """The call is refused."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """`model` is what was asked for and prices the call, `serving` what runs it (another one under a redirect rule)."""

    model: Model
    serving: Model


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


def admit(routing: Routing, key: Key, alias: str, call: Call) -> Admitted:
    """Which model serves the call. Raises Refused (404, 403, 402) or Unavailable (its endpoint cannot be called)."""
    model = routing.models.get(alias)
    if model is None:
        raise Refused(
            f"The model `{alias}` does not exist or you do not have access to it.",
            code="model_not_found",
            status=404,
        )
    if not routing.may_use(key.owner_id, model):
        raise Refused(
            f"You do not have access to '{alias}'. Please contact your administrator to request access.",
            code="model_access_denied",
            status=403,
        )
    serving = _served_by(routing, model, pricing_purpose(key, call.tier))
    if not routing.has_funds(key.owner_id) and not _is_free(model, key, call):
        raise Refused(
            "Account balance too low. Please add credits to continue.",
            code="insufficient_credits",
            status=402,
        )
    if serving.target is None:
        raise Unavailable(f"The model `{alias}` has no endpoint that can be called.")
    return Admitted(model, serving)


def pricing_purpose(key: Key, tier: Tier) -> str:
    """Traffic rules and tariffs judge queued work as `batch`, whatever key brought it."""
    return "batch" if tier is Tier.FLEX else key.purpose


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


def _is_free(model: Model, key: Key, call: Call) -> bool:
    price = tariffs.pick(
        model.tariffs,
        purpose=pricing_purpose(key, call.tier),
        window=call.window[0] if call.tier is Tier.FLEX else None,
        at=datetime.fromtimestamp(call.created_at, UTC),
    )
    return price is None or (price.input == 0 and price.output == 0)
