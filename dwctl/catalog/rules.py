"""Traffic rules: what happens to calls on a model by keys of one purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, func, or_, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session, aliased, with_expression
from sqlalchemy.orm.interfaces import ORMOption

from dwctl.catalog.tables import DeployedModel, TrafficRule
from dwctl.errors import Conflict, Invalid

_LOCK = 0x6477_7275_6C65
"""The advisory lock of those who write redirects."""


def _brought() -> ORMOption:
    target = aliased(DeployedModel)
    shown = func.json_build_array(TrafficRule.api_key_purpose, TrafficRule.action, target.alias)
    every = (
        select(func.coalesce(func.json_agg(aggregate_order_by(shown, TrafficRule.api_key_purpose)), func.json_build_array()))
        .outerjoin(target, (target.id == TrafficRule.redirect_target_id) & ~target.deleted)
        # One that redirects to a deleted model is none any more.
        .where(TrafficRule.deployed_model_id == DeployedModel.id, or_(TrafficRule.action == "deny", target.alias.is_not(None)))
        .correlate(DeployedModel)
    )  # fmt: skip
    return with_expression(DeployedModel.rules, every.scalar_subquery())


BROUGHT = _brought()
"""For a query of models that are shown: their traffic rules by the same statement, as `DeployedModel.rules`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`action` is deny or redirect; a redirect names the alias that serves instead."""

    api_key_purpose: str
    action: str
    target: str | None = None


def replace(session: Session, model: DeployedModel, wanted: Sequence[Rule]) -> None:
    """Make `wanted` the model's rules.

    Raises: Conflict when a purpose occurs twice, Invalid when a target is missing, unknown or the model itself, or when redirects would
    go in a circle. (A call follows one redirect only, so a circle harms nobody: but whoever makes one means something else.)
    """
    purposes = [rule.api_key_purpose for rule in wanted]
    if len(set(purposes)) < len(purposes):
        raise Conflict(
            "A model has at most one traffic rule for an API key purpose",
            members={"resource": "unknown"},
        )
    if any(rule.action == "redirect" for rule in wanted):
        # Two writers at once could each add one half of a circle.
        session.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    rows = [
        TrafficRule(
            deployed_model_id=model.id,
            api_key_purpose=rule.api_key_purpose,
            action=rule.action,
            redirect_target_id=_target(session, model, rule),
        )
        for rule in wanted
    ]
    session.execute(delete(TrafficRule).where(TrafficRule.deployed_model_id == model.id))
    session.add_all(rows)
    session.flush()
    for row in rows:
        if row.redirect_target_id is not None:
            _refuse_circle(session, model, row)


def _refuse_circle(session: Session, model: DeployedModel, rule: TrafficRule) -> None:
    path = [model.alias]
    next_id = rule.redirect_target_id
    seen: set[UUID] = set()
    while next_id is not None and next_id not in seen:
        seen.add(next_id)
        alias, onward = _step(session, next_id, rule.api_key_purpose)
        path.append(alias)
        if next_id == model.id:
            raise Invalid(
                f"API keys with the purpose {rule.api_key_purpose} would be redirected in a circle: {' -> '.join(path)}",
                param="traffic_routing_rules",
            )
        next_id = onward


def _step(session: Session, model_id: UUID, purpose: str) -> tuple[str, UUID | None]:
    """The alias of a model, and the living model that its rule for this purpose leads to."""
    target = aliased(DeployedModel)
    alias, onward = session.execute(
        select(DeployedModel.alias, target.id)
        .outerjoin(
            TrafficRule,
            (TrafficRule.deployed_model_id == DeployedModel.id)
            & (TrafficRule.api_key_purpose == purpose),
        )
        .outerjoin(target, (target.id == TrafficRule.redirect_target_id) & ~target.deleted)
        .where(DeployedModel.id == model_id)
    ).one()
    return alias, onward


def _target(session: Session, model: DeployedModel, rule: Rule) -> UUID | None:
    if rule.action == "deny":
        return None
    alias = (rule.target or "").strip()
    if not alias:
        raise Invalid("Redirect target must not be empty")
    if alias == model.alias:
        raise Invalid("A model cannot redirect to itself")
    found = session.scalar(
        select(DeployedModel.id).where(DeployedModel.alias == alias, ~DeployedModel.deleted)
    )
    if found is None:
        raise Invalid(f"Redirect target model '{alias}' does not exist")
    return found
