"""Traffic rules: what happens to calls on a model by keys of one purpose."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.orm import Session, aliased

from dwctl.catalog.tables import DeployedModel, TrafficRule
from dwctl.errors import Conflict, Invalid


@dataclass(frozen=True, slots=True)
class Rule:
    """`action` is deny or redirect; a redirect names the alias that serves instead."""

    api_key_purpose: str
    action: str
    target: str | None = None


def of_models(session: Session, model_ids: Collection[UUID]) -> dict[UUID, list[Rule]]:
    """The rules of each model, by purpose. One that redirects to a deleted model is none any more."""
    target = aliased(DeployedModel)
    rows = session.execute(
        select(
            TrafficRule.deployed_model_id,
            TrafficRule.api_key_purpose,
            TrafficRule.action,
            target.alias,
        )
        .outerjoin(target, (target.id == TrafficRule.redirect_target_id) & ~target.deleted)
        .where(TrafficRule.deployed_model_id.in_(model_ids))
        .order_by(TrafficRule.api_key_purpose)
    )
    found: dict[UUID, list[Rule]] = {}
    for model_id, purpose, action, alias in rows:
        if action == "deny" or alias is not None:
            found.setdefault(model_id, []).append(Rule(purpose, action, alias))
    return found


def replace(session: Session, model: DeployedModel, wanted: Sequence[Rule]) -> None:
    """Make `wanted` the model's rules.

    Raises: Conflict when a purpose occurs twice, Invalid when a target is missing, unknown or the model itself.
    """
    purposes = [rule.api_key_purpose for rule in wanted]
    if len(set(purposes)) < len(purposes):
        raise Conflict(
            "A model has at most one traffic rule for an API key purpose",
            members={"resource": "unknown"},
        )
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
