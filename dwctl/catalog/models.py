"""Models under change: made by hand on an endpoint, changed, deleted. Their prices and traffic rules go with them in one transaction."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import String, cast, or_, select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.billing import money, price_list
from dwctl.catalog import rules
from dwctl.catalog.discovery import LONGEST_NAME, is_name
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.errors import Invalid, NotFound

CLEARABLE = frozenset(
    {
        "display_name",
        "description",
        "model_type",
        "capabilities",
        "requests_per_second",
        "burst_size",
        "capacity",
        "batch_capacity",
        "throughput",
        "tokens_per_minute",
        "fallback_max_attempts",
        "allowed_batch_completion_windows",
        "traffic_routing_rules",
    }
)
"""Fields that null clears; null leaves the others as they are."""

LIMITS = (
    "requests_per_second",
    "burst_size",
    "capacity",
    "batch_capacity",
    "throughput",
    "tokens_per_minute",
)
OF_COMPOSITES = (
    "lb_strategy",
    "fallback_enabled",
    "fallback_on_rate_limit",
    "fallback_on_status",
    "fallback_with_replacement",
    "fallback_max_attempts",
)
"""Fields that say something of composite models only."""
MAX_METADATA_BYTES = 16_384
MAX_EXTRA_KEYS = 50

_COLUMNS = {"model_type": "type", "metadata": "info"}
"""Fields whose column has another name."""
_FALLBACK_ON_STATUS = [500, 502, 503, 504]
"""Of a composite model that was made without saying."""
_MOST = {"tokens_per_minute": 2**53}
_PROVIDER_PRICES = {"rate": (2, Decimal("99999999.99")), "input_token_cost_ratio": (2, Decimal(1))}
"""Digits after the point and the largest value of those whose columns are not those of prices."""
_ELSEWHERE = frozenset({"tariffs", "traffic_routing_rules", "provider_pricing"})


def load(session: Session, model_id: UUID, *, lock: bool = False) -> DeployedModel:
    """The model, deleted or not; locked until the end of the transaction on request. Raises NotFound."""
    # Rows that refer to it may be written meanwhile: two models may get rules that lead to each other's.
    found = session.get(
        DeployedModel, model_id, with_for_update={"key_share": True} if lock else None
    )
    if found is None:
        raise NotFound(f"Deployment with ID {model_id} not found")
    return found


def living(session: Session, alias: str, *, lock: bool = False) -> DeployedModel:
    """The model that has the alias now, or the id; locked as by `load` on request. Raises NotFound."""
    # An alias may look like the id of another one: the alias wins.
    same = or_(DeployedModel.alias == alias, cast(DeployedModel.id, String) == alias.lower())
    known = select(DeployedModel).where(same, ~DeployedModel.deleted)
    query = known.order_by((DeployedModel.alias == alias).desc())
    found = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if found is None:
        raise NotFound(f"There is no model with the alias {alias}")
    return found


def create(
    session: Session, fields: Mapping[str, Any], *, created_by: UUID, windows: Collection[str]
) -> DeployedModel:
    """Add a model: standard, or with `is_composite` one that is made of components. `windows` are the completion windows that batches may have here.

    Raises: NotFound for an unknown endpoint, Invalid and Conflict for what a field's rule refuses; a taken alias breaks the unique index.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    given["model_name"], given["alias"] = _names(fields["model_name"], fields.get("alias"))
    is_composite = given.get("is_composite", False)
    if is_composite:
        given.setdefault("fallback_on_status", _FALLBACK_ON_STATUS)
    elif session.get(Endpoint, given["hosted_on"]) is None:
        raise NotFound(f"endpoint with ID {given['hosted_on']} not found")
    _check(given, windows, is_composite=is_composite)
    model = DeployedModel(created_by=created_by)
    _set_columns(model, given)
    session.add(model)
    session.flush()
    _set_others(session, model, given)
    return model


def update(
    session: Session, model: DeployedModel, changes: Mapping[str, Any], *, windows: Collection[str]
) -> None:
    """Change the fields that are given; null clears those in CLEARABLE and leaves the others. Raises as `create` does.

    A rate that is taken away takes its burst along: alone that is a limit of its own.
    """
    if "requests_per_second" in changes and changes["requests_per_second"] is None:
        changes = {"burst_size": None, **changes}
    given = {
        name: value for name, value in changes.items() if value is not None or name in CLEARABLE
    }
    if "alias" in given:
        _, given["alias"] = _names(given["alias"], None)
    if given.pop("is_composite", model.is_composite) != model.is_composite:
        raise Invalid(
            "A model stays standard or composite as it was made: make another one, and give it this one's alias",
            code="model_kind_is_fixed",
            param="is_composite",
        )
    _check(given, windows, is_composite=model.is_composite)
    _set_columns(model, given)
    model.updated_at = clock.now()
    session.flush()
    _set_others(session, model, given)


def delete(session: Session, model_id: UUID) -> None:
    """Delete a model softly, which frees its alias; again changes nothing. Raises NotFound for an id that never was."""
    # Locked, since its endpoint may be going, and take it along.
    model = session.get(DeployedModel, model_id, with_for_update={"key_share": True})
    if model is None:
        raise NotFound
    if not model.deleted:
        model.deleted = True
        model.updated_at = clock.now()
        session.flush()


def _names(model_name: str, alias: str | None) -> tuple[str, str]:
    names = model_name.strip(), (model_name if alias is None else alias).strip()
    if not all(names):
        raise Invalid("Model name and alias must not be empty or whitespace")
    if not all(map(is_name, names)):
        raise Invalid(f"Model name and alias must be one line of at most {LONGEST_NAME} characters")
    return names


def _check(given: Mapping[str, Any], windows: Collection[str], *, is_composite: bool) -> None:
    for name in LIMITS:
        value, below = given.get(name), _MOST.get(name, 2**31)
        if value is not None and not 0 < value < below:
            power = below.bit_length() - 1
            raise Invalid(f"{name} must be greater than zero and below 2^{power}", param=name)
    _check_composite(given, is_composite=is_composite)
    for window in given.get("allowed_batch_completion_windows") or ():
        if window not in windows:
            raise Invalid(
                f"Invalid batch completion window '{window}'. Configured windows: {', '.join(windows)}"
            )
    _check_metadata(given.get("metadata") or {})


def _check_composite(given: Mapping[str, Any], *, is_composite: bool) -> None:
    for name in OF_COMPOSITES:
        if not is_composite and given.get(name) is not None:
            raise Invalid(f"{name} is for composite models; this one is standard", param=name)
    for status in given.get("fallback_on_status") or ():
        if not 1 <= status <= 599:
            raise Invalid(
                "fallback_on_status takes status codes (100 to 599), their first two digits (10 to 99) or their first (1 to 9)",
                param="fallback_on_status",
            )
    attempts = given.get("fallback_max_attempts")
    if attempts is not None and attempts < 1:
        raise Invalid("fallback_max_attempts must be at least 1", param="fallback_max_attempts")


def _check_metadata(metadata: Mapping[str, Any]) -> None:
    if len(metadata.get("extra") or ()) > MAX_EXTRA_KEYS:
        raise Invalid(f"metadata.extra has more than {MAX_EXTRA_KEYS} keys")
    if len(_json(metadata)) > MAX_METADATA_BYTES:
        raise Invalid(f"metadata is larger than {MAX_METADATA_BYTES} bytes")


def _json(value: Any) -> bytes:
    # Halves of surrogate pairs are refused by the database; here they only count.
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _set_columns(model: DeployedModel, given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name not in _ELSEWHERE:
            setattr(model, _COLUMNS.get(name, name), value)
    if "provider_pricing" in given:
        _set_provider_pricing(model, given["provider_pricing"])


def _set_others(session: Session, model: DeployedModel, given: Mapping[str, Any]) -> None:
    if "tariffs" in given:
        wanted = [price_list.NewTariff(**tariff) for tariff in given["tariffs"]]
        price_list.replace(session, model.id, wanted)
    if "traffic_routing_rules" in given:
        wanted_rules = [
            rules.Rule(
                rule["api_key_purpose"], rule["action"]["type"], rule["action"].get("target")
            )
            for rule in given["traffic_routing_rules"] or ()
        ]
        rules.replace(session, model, wanted_rules)


def _set_provider_pricing(model: DeployedModel, pricing: Mapping[str, Any]) -> None:
    """What the operator pays. Fields that are absent stay; another mode begins empty."""
    mode = pricing["mode"]
    if mode == "no_change":
        return
    if mode != model.downstream_pricing_mode:
        model.downstream_input_price_per_token = None
        model.downstream_output_price_per_token = None
        model.downstream_hourly_rate = None
        model.downstream_input_token_cost_ratio = None
    model.downstream_pricing_mode = mode
    for name, value in pricing.items():
        if name != "mode":
            _set_provider_price(model, name, value)


def _set_provider_price(model: DeployedModel, name: str, value: Any) -> None:
    if value is not None:
        value = _storable(name, value)
    if value is not None or name.endswith("_per_token"):
        column = "hourly_rate" if name == "rate" else name
        setattr(model, f"downstream_{column}", value)


def _storable(name: str, value: Decimal) -> Decimal:
    """The value as its column holds it. Further digits of a price come from dividing and are rounded, but not to nothing."""
    if value < 0:
        raise _price_refused(name, "must not be negative")
    if name == "input_token_cost_ratio" and value > 1:
        raise _price_refused(name, "must be between 0 and 1")
    scale, most = _PROVIDER_PRICES.get(name, (money.SCALE, money.LARGEST))
    if value > most:
        raise _price_refused(name, f"must be at most {most}")
    kept = value.quantize(Decimal(1).scaleb(-scale), ROUND_HALF_UP)
    if value and not kept:
        raise _price_refused(
            name, f"is below the smallest that is kept, {Decimal(1).scaleb(-scale):f}"
        )
    return kept


def _price_refused(name: str, reason: str) -> Invalid:
    return Invalid(f"provider_pricing.{name} {reason}", param=f"provider_pricing.{name}")
