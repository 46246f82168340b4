"""Finding models: what a caller may see of them, the filters and orders of the list, and the values to filter by."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, Text, func, literal, or_, select
from sqlalchemy.orm import Session

from dwctl.billing.tables import Tariff
from dwctl.catalog import access
from dwctl.catalog.rules import BROUGHT
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.errors import NotFound
from dwctl.web import pagination

_M = DeployedModel


@dataclass(frozen=True, slots=True)
class Criteria:
    """Which models. `usable_by` keeps to what an account may call; `search` is a LIKE pattern.

    `deleted` shows the deleted ones too; `inactive` shows the inactive ones instead of the active ones.
    """

    usable_by: UUID | None = None
    alias: str | None = None
    endpoint: UUID | None = None
    groups: tuple[UUID, ...] | None = None
    search: str | None = None
    is_composite: bool | None = None
    provider: str | None = None
    model_type: str | None = None
    capability: str | None = None
    deleted: bool = False
    inactive: bool = False


@dataclass(frozen=True, slots=True)
class Facets:
    """The values that occur, each list ascending."""

    providers: tuple[str, ...]
    capabilities: tuple[str, ...]
    model_types: tuple[str, ...]


def page(
    session: Session,
    criteria: Criteria,
    *,
    sort: str,
    direction: str | None,
    skip: int,
    limit: int,
) -> tuple[list[DeployedModel], int]:
    """One page, and how many there are in all. `sort` is a key of ORDERS, `direction` asc, desc or None for the order's own."""
    query = select(_M).where(*_filters(criteria)).options(BROUGHT)
    if sort == "price_from":
        query = query.outerjoin(_PRICES, _PRICES.c.deployed_model_id == _M.id)
    if criteria.search is not None:
        query = query.where(_found(criteria.search))
    return pagination.page(
        session, query.order_by(*_order(sort, direction)), skip=skip, limit=limit
    )


def facets(session: Session, criteria: Criteria) -> Facets:
    """What occurs among the models of the criteria, whatever is searched for."""
    provider = _M.info["provider"].astext.label("provider")
    models = select(provider, _M.capabilities, _M.type).where(*_filters(criteria)).cte("models")
    capabilities = select(func.unnest(models.c.capabilities).label("capability")).subquery()

    def distinct(value: ColumnElement[Any]) -> ColumnElement[Any]:
        values = func.array_agg(value.distinct()).filter(value.is_not(None))
        return select(func.coalesce(values, literal([], ARRAY(Text)))).scalar_subquery()

    columns = (models.c.provider, capabilities.c.capability, models.c.type)
    found = session.execute(select(*map(distinct, columns))).one()
    return Facets(*map(tuple, found))


def one(
    session: Session, model_id: UUID, *, usable_by: UUID | None, deleted: bool, inactive: bool
) -> DeployedModel:
    """The model, if it may be seen: one that is deleted or inactive only on request. Raises NotFound."""
    query = select(_M).where(_M.id == model_id).options(BROUGHT)
    if not deleted:
        query = query.where(~_M.deleted)
    if not inactive:
        query = query.where(or_(_M.status == "active", _M.deleted))
    if usable_by is not None:
        query = query.where(access.may_use(usable_by))
    found = session.scalar(query)
    if found is None:
        raise NotFound(f"Deployment with ID {model_id} not found")
    return found


def _filters(criteria: Criteria) -> list[ColumnElement[bool]]:
    wanted: list[tuple[Any, Callable[[Any], ColumnElement[bool]]]] = [
        (criteria.usable_by, access.may_use),
        (criteria.alias, lambda alias: _M.alias == alias),
        (criteria.groups, access.in_groups),
        (criteria.endpoint, lambda id: _M.hosted_on == id),
        (criteria.is_composite, lambda yes: _M.is_composite.is_(yes)),
        (criteria.provider, lambda name: _provider() == func.lower(name)),
        (criteria.model_type, lambda kind: _M.type == kind),
        (criteria.capability, lambda name: _M.capabilities.contains([name])),
    ]
    filters = [condition(value) for value, condition in wanted if value is not None]
    return [*filters, _alive(criteria)]


def _alive(criteria: Criteria) -> ColumnElement[bool]:
    status = _M.status == ("inactive" if criteria.inactive else "active")
    if not criteria.deleted:
        return status & ~_M.deleted
    return status if criteria.inactive else or_(status, _M.deleted)


def _found(pattern: str) -> ColumnElement[bool]:
    on_endpoint = select(Endpoint.id).where(Endpoint.name.ilike(pattern, escape="\\"))
    return or_(
        _M.alias.ilike(pattern, escape="\\"),
        _M.model_name.ilike(pattern, escape="\\"),
        _M.hosted_on.in_(on_endpoint),
    )


def _provider() -> ColumnElement[str]:
    return func.lower(_M.info["provider"].astext)


_PRICE = Tariff.input_price_per_token + Tariff.output_price_per_token
# Joined, where a subquery for each model would be run for its place, its order and its cursor.
_PRICES = (
    select(Tariff.deployed_model_id, func.min(_PRICE).label("price_from"))
    .where(Tariff.is_active, _PRICE > 0)
    .group_by(Tariff.deployed_model_id)
    .subquery("prices")
)

ORDERS: Mapping[str, tuple[Callable[[], Any], str]] = {
    "created_at": (lambda: _M.created_at, "desc"),
    "alias": (lambda: _M.alias, "asc"),
    "intelligence_index": (lambda: _M.info["intelligence_index"], "desc"),
    "released_at": (lambda: _M.info["released_at"].astext, "desc"),
    "context_window": (lambda: _M.info["context_window"], "desc"),
    "provider": (_provider, "asc"),
    "price_from": (lambda: _PRICES.c.price_from, "asc"),
}
"""What the list can be sorted by, and each order's usual direction. Numbers in the metadata compare as JSON numbers."""


def _order(sort: str, direction: str | None) -> list[Any]:
    value, usual = ORDERS[sort]
    if (direction or usual) == "desc":
        return [value().desc().nulls_last(), _M.id.desc()]
    return [value().asc().nulls_last(), _M.id.asc()]
