"""What is shown of models, and to whom: the members that a role may see, and what was asked to be included."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from sqlalchemy.orm import Session

from dwctl import clock, sql
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import price_list
from dwctl.billing.money import price_text
from dwctl.billing.price_list import InForce
from dwctl.billing.tariffs import BATCH
from dwctl.catalog import components, metrics
from dwctl.catalog.endpoint_schemas import EndpointSchema
from dwctl.catalog.models import LIMITS
from dwctl.catalog.tables import DeployedModel
from dwctl.identity.schemas import GroupSchema
from dwctl.web.dumping import Written, WrittenRows, written
from dwctl.web.schemas import rfc3339

_QUERIES = sql.load("dwctl.catalog", "includes.sql")

# What stands in many rows of a page is written once.
_GROUP, _ENDPOINT = GroupSchema(exclude=("users", "models")), EndpointSchema()

NO_STATUS = {
    "probe_id": None,
    "active": False,
    "interval_seconds": None,
    "last_check": None,
    "last_success": None,
    "uptime_percentage": None,
}
"""The probe state of a model without a probe."""

_NEEDED = {
    "groups": Resource.GROUPS,
    "metrics": Resource.ANALYTICS,
    "calls": Resource.ANALYTICS,
    "endpoints": Resource.MODELS,
    "components": Resource.MODELS,
}
"""Includes that not everybody may have, and the resource that one must be able to read all of."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one caller sees of models: rate limits, the author, how calls are routed, prices, deleted models; and the includes.

    since, until: of what time calls are counted.
    """

    limits: bool
    author: bool
    routing: bool
    prices: bool
    lifecycle: bool
    include: frozenset[str]
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of(
        cls,
        caller: Caller,
        include: Collection[str] = (),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Self:
        """The sight of a caller; includes that the caller may not have are dropped."""

        def reads(resource: Resource) -> bool:
            return may_all(caller, resource, Operation.READ)

        return cls(
            limits=reads(Resource.MODEL_RATE_LIMITS),
            author=reads(Resource.USERS),
            routing=reads(Resource.MODELS),
            prices=reads(Resource.PRICING),
            lifecycle=reads(Resource.SYSTEM),
            include=frozenset(
                name for name in include if name not in _NEEDED or reads(_NEEDED[name])
            ),
            since=since,
            until=until,
        )


def describe(
    session: Session, models: Sequence[DeployedModel], sight: Sight
) -> list[dict[str, Any]]:
    """The models as `ModelSchema` takes them, with the includes; provider prices are always among them for those who see prices."""
    found = changed(session, models, sight)
    for model, shown in zip(models, found, strict=True):
        if sight.prices and (pricing := _provider_pricing(model)):
            shown["provider_pricing"] = pricing
    for name, include in _INCLUDES.items():
        if name in sight.include:
            include(session, models, found, sight)
    return found


def changed(
    session: Session, models: Sequence[DeployedModel], sight: Sight
) -> list[dict[str, Any]]:
    """The models as the answer to a change shows them: without includes and provider prices."""
    ruled = _rules(session, models) if sight.routing else {}
    return [_base(model, sight) | ruled.get(model.id, {}) for model in models]


def _base(model: DeployedModel, sight: Sight) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": model.id,
        "model_name": model.model_name,
        "alias": model.alias,
        "description": model.description,
        "model_type": model.type,
        "capabilities": model.capabilities,
        "created_at": model.created_at,
        "updated_at": model.updated_at,
    }
    further: dict[str, Any] = {
        "display_name": model.display_name,
        "hosted_on": model.hosted_on,
        "allowed_batch_completion_windows": model.allowed_batch_completion_windows,
        "metadata": model.info or None,
    }
    if sight.author:
        further["created_by"] = model.created_by
    if sight.limits:
        further |= {name: getattr(model, name) for name in LIMITS}
    if sight.routing:
        further |= _routing(model)
    if sight.lifecycle:
        further |= {"activity_status": model.status, "deleted": model.deleted}
    return shown | {name: value for name, value in further.items() if value is not None}


def _routing(model: DeployedModel) -> dict[str, Any]:
    return {
        "is_composite": model.is_composite,
        **(_composite(model) if model.is_composite else {}),
        "sanitize_responses": model.sanitize_responses,
        "trusted": model.trusted,
        "open_responses_adapter": model.open_responses_adapter is not False,
        "forward_service_tier": model.forward_service_tier,
        "refuse_unrunnable_tools": model.refuse_unrunnable_tools,
    }


def _composite(model: DeployedModel) -> dict[str, Any]:
    fallback = {
        "enabled": model.fallback_enabled,
        "on_rate_limit": model.fallback_on_rate_limit,
        "on_status": model.fallback_on_status,
        "with_replacement": model.fallback_with_replacement,
    }
    if model.fallback_max_attempts is not None:
        fallback["max_attempts"] = model.fallback_max_attempts
    return {"lb_strategy": model.lb_strategy, "fallback": fallback}


def _rules(session: Session, models: Sequence[DeployedModel]) -> dict[UUID, dict[str, Any]]:
    """The member with traffic rules, of each model that has any."""
    rows = [(model.id, *rule) for model in models for rule in model.rules or ()]
    if asked := [model.id for model in models if model.rules is None]:
        rows += _rows(session, "rules_of_models", asked)
    found: dict[UUID, dict[str, Any]] = {}
    for model_id, purpose, action, target in rows:
        shown = {"type": action} if target is None else {"type": action, "target": target}
        of_model = found.setdefault(model_id, {"traffic_routing_rules": []})
        of_model["traffic_routing_rules"].append({"api_key_purpose": purpose, "action": shown})
    return found


def _provider_pricing(model: DeployedModel) -> Mapping[str, Any] | None:
    rate, ratio = model.downstream_hourly_rate, model.downstream_input_token_cost_ratio
    if model.downstream_pricing_mode == "per_token":
        prices = {
            "input_price_per_token": model.downstream_input_price_per_token,
            "output_price_per_token": model.downstream_output_price_per_token,
        }
        texts = {name: None if v is None else price_text(v) for name, v in prices.items()}
        return {"mode": "per_token", **texts}
    if model.downstream_pricing_mode == "hourly" and rate is not None and ratio is not None:
        return {"mode": "hourly", "rate": f"{rate:f}", "input_token_cost_ratio": f"{ratio:f}"}
    return None


def _rows(session: Session, query: str, ids: Iterable[UUID | str]) -> Sequence[Any]:
    # An array as one text: psycopg looks at each id of a list.
    array = f"{{{','.join(map(str, ids))}}}"
    return session.connection().exec_driver_sql(_QUERIES[query], {"ids": array}).all()


Shown = list[dict[str, Any]]


def _include_groups(
    session: Session, models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    rows = _rows(session, "groups_of_models", [model.id for model in models])
    groups = {row.id: written(_GROUP, row) for row in rows if row.id}
    found = {row.model: WrittenRows(groups[id] for id in row.granted) for row in rows if row.model}
    for one in shown:
        one["groups"] = found.get(one["id"], WrittenRows())


def _include_metrics(
    session: Session, models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    now = clock.now()
    found = metrics.of_models(session, {model.alias for model in models}, now)
    steps = [rfc3339(step) for step in metrics.steps(now)]
    for one in shown:
        one["metrics"] = _metrics(found[one["alias"]], steps)


def _metrics(of_model: metrics.Metrics, steps: Sequence[str]) -> Written:
    """What `MetricsSchema` makes of them. (A page has more points than anything else.)"""
    last = of_model.last_active_at
    return Written(
        avg_latency_ms=of_model.avg_latency_ms,
        total_requests=of_model.total_requests,
        total_input_tokens=of_model.total_input_tokens,
        total_output_tokens=of_model.total_output_tokens,
        last_active_at=None if last is None else rfc3339(last),
        time_series=[
            {"timestamp": step, "requests": calls}
            for step, calls in zip(steps, of_model.series, strict=True)
        ],
    )


def _include_calls(
    session: Session, models: Sequence[DeployedModel], shown: Shown, sight: Sight
) -> None:
    aliases = {model.alias for model in models}
    found = metrics.calls_of(session, aliases, sight.since, sight.until, clock.now())
    for one in shown:
        one["calls"] = found[one["alias"]]


def _include_status(
    _session: Session, _models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    for one in shown:
        one["status"] = NO_STATUS


def _include_pricing(
    session: Session, models: Sequence[DeployedModel], shown: Shown, sight: Sight
) -> None:
    found = price_list.current(session, [model.id for model in models])
    for model, one in zip(models, shown, strict=True):
        tariffs = found.get(model.id, [])
        one["tariffs"] = [t for t in tariffs if sight.prices or _offered(model, t)]


def _offered(model: DeployedModel, tariff: InForce) -> bool:
    """Whether calls at this tariff are possible: not a batch in a window that the model does not have."""
    windows = model.allowed_batch_completion_windows
    if tariff.api_key_purpose != BATCH or windows is None:
        return True
    return tariff.completion_window in windows


def _include_endpoints(
    session: Session, models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    ids = {model.hosted_on for model in models if model.hosted_on}
    endpoints = {row.id: written(_ENDPOINT, row) for row in _rows(session, "endpoints", ids)}
    for model, one in zip(models, shown, strict=True):
        if model.hosted_on in endpoints:
            one["endpoint"] = endpoints[model.hosted_on]


def _include_components(
    session: Session, models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    ids = [model.id for model in models if model.is_composite]
    found = components.of_models(session, ids) if ids else {}
    for model, one in zip(models, shown, strict=True):
        if model.is_composite:
            one["components"] = found.get(model.id, [])


_INCLUDES = {
    "groups": _include_groups,
    "metrics": _include_metrics,
    "calls": _include_calls,
    "status": _include_status,
    "pricing": _include_pricing,
    "endpoints": _include_endpoints,
    "components": _include_components,
}
