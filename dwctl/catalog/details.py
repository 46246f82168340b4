"""What is shown of models, and to whom: the members that a role may see, and what was asked to be included."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.access.caller import Caller
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.billing import price_list
from dwctl.billing.money import price_text
from dwctl.billing.tables import Tariff
from dwctl.billing.tariffs import BATCH
from dwctl.catalog import components, metrics, rules
from dwctl.catalog.endpoint_schemas import EndpointSchema
from dwctl.catalog.models import LIMITS
from dwctl.catalog.schemas import PointSchema
from dwctl.catalog.tables import DeployedModel, Endpoint, ModelAccess
from dwctl.identity.schemas import Extended, GroupSchema
from dwctl.identity.tables import Group
from dwctl.web.dumping import Written, written

# What stands in many rows of a page is written once.
_GROUP, _POINT, _ENDPOINT = GroupSchema(), PointSchema(), EndpointSchema()

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
    "endpoints": Resource.MODELS,
    "components": Resource.MODELS,
}
"""Includes that not everybody may have, and the resource that one must be able to read all of."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What one caller sees of models: rate limits, the author, how calls are routed, prices, deleted models; and the includes."""

    limits: bool
    author: bool
    routing: bool
    prices: bool
    lifecycle: bool
    include: frozenset[str]

    @classmethod
    def of(cls, caller: Caller, include: Collection[str] = ()) -> Self:
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
    ruled = rules.of_models(session, [m.id for m in models]) if sight.routing else {}
    return [_base(model, sight) | _rules(ruled.get(model.id)) for model in models]


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


def _rules(found: Sequence[rules.Rule] | None) -> dict[str, Any]:
    if not found:
        return {}
    return {
        "traffic_routing_rules": [
            {"api_key_purpose": rule.api_key_purpose, "action": _action(rule)} for rule in found
        ]
    }


def _action(rule: rules.Rule) -> dict[str, str]:
    if rule.target is None:
        return {"type": "deny"}
    return {"type": "redirect", "target": rule.target}


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


Shown = list[dict[str, Any]]


def _include_groups(
    session: Session, models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    rows = session.execute(
        select(ModelAccess.deployment_id, Group)
        .join(Group, Group.id == ModelAccess.group_id)
        .where(ModelAccess.deployment_id.in_([model.id for model in models]))
        .order_by(ModelAccess.granted_at, ModelAccess.id)
    )
    groups: dict[UUID, list[Written]] = {}
    known: dict[UUID, Written] = {}
    for model_id, group in rows:
        if group.id not in known:
            known[group.id] = written(_GROUP, group)
        groups.setdefault(model_id, []).append(known[group.id])
    for one in shown:
        one["groups"] = groups.get(one["id"], [])


def _include_metrics(
    session: Session, models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    found = metrics.of_models(session, {model.alias for model in models}, clock.now())
    series = {id(each.time_series): each.time_series for each in found.values()}
    points = {key: [written(_POINT, point) for point in each] for key, each in series.items()}
    for one in shown:
        of_model = found[one["alias"]]
        one["metrics"] = Extended(of_model, time_series=points[id(of_model.time_series)])


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


def _offered(model: DeployedModel, tariff: Tariff) -> bool:
    """Whether calls at this tariff are possible: not a batch in a window that the model does not have."""
    windows = model.allowed_batch_completion_windows
    if tariff.api_key_purpose != BATCH or windows is None:
        return True
    return tariff.completion_window in windows


def _include_endpoints(
    session: Session, models: Sequence[DeployedModel], shown: Shown, _sight: Sight
) -> None:
    ids = {model.hosted_on for model in models if model.hosted_on}
    rows = session.scalars(select(Endpoint).where(Endpoint.id.in_(ids)))
    endpoints = {row.id: written(_ENDPOINT, row) for row in rows}
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
    "status": _include_status,
    "pricing": _include_pricing,
    "endpoints": _include_endpoints,
    "components": _include_components,
}
