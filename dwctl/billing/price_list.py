"""The tariffs of a model as rows: the set is replaced by closing and opening, never by editing, so that what was in force can be read later.

A change may be scheduled: its row begins in the future, and the one before it of the same kind ends there. Until then it can be taken back
without a trace.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from dataclasses import replace as changed
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, or_, select
from sqlalchemy.orm import Session

from dwctl import clock, sql
from dwctl.billing import money
from dwctl.billing.tables import Tariff
from dwctl.billing.tariffs import BATCH, REALTIME, gap
from dwctl.errors import Conflict, Invalid, NotFound

_QUERIES = sql.load("dwctl.billing")

Kind = tuple[str, str | None]
"""A purpose, with a window where it is batch: one tariff of a kind is in force at a time."""


@dataclass(frozen=True, slots=True)
class NewTariff:
    """A tariff as it is wanted; prices in USD per token. Without a purpose it only informs.

    valid_from: None, or a moment that has passed, stands for now.
    """

    name: str
    input_price_per_token: Decimal
    output_price_per_token: Decimal
    api_key_purpose: str | None = None
    completion_window: str | None = None
    cached_input_price_per_token: Decimal | None = None
    reasoning_price_per_token: Decimal | None = None
    valid_from: datetime | None = None


_PRICES = tuple(f.name for f in fields(NewTariff) if f.name.endswith("_price_per_token"))
_CONTENT = tuple(f.name for f in fields(NewTariff) if f.name != "valid_from")


class InForce(NamedTuple):
    """A tariff that is in force, as `Tariff` has it. Ids are texts."""

    deployed_model_id: UUID
    id: str
    name: str
    input_price_per_token: Decimal
    output_price_per_token: Decimal
    cached_input_price_per_token: Decimal | None
    reasoning_price_per_token: Decimal | None
    api_key_purpose: str | None
    completion_window: str | None
    valid_from: datetime
    valid_until: datetime | None
    is_active: bool = True


def current(session: Session, model_ids: Collection[UUID]) -> dict[UUID, list[InForce]]:
    """The tariffs in force of each model, by purpose (those without last), window and name."""
    rows = session.connection().exec_driver_sql(_QUERIES["tariffs_in_force"], {"ids": list(model_ids)})  # fmt: skip
    found: dict[UUID, list[InForce]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(InForce(*row))
    return found


def history(model_id: UUID) -> Select[Tariff]:
    """Every tariff that a model has, has had or is going to have; the one that began last, or begins last, first."""
    return (
        select(Tariff)
        .where(Tariff.deployed_model_id == model_id)
        .order_by(Tariff.valid_from.desc(), Tariff.id.desc())
    )


def gaps(session: Session, model_id: UUID, windows: Iterable[str]) -> list[str]:
    """What the model's tariffs leave out now, a sentence each: realtime calls, and batches (and flex) in these windows."""
    moment = func.statement_timestamp()
    rows = session.execute(_not_over(model_id, moment).add_columns(moment)).all()
    tariffs = [tariff.as_value for tariff, _ in rows]
    # (Where there are none, no time makes a difference.)
    now = rows[0][1] if rows else clock.now()
    kinds = [(REALTIME, None), *((BATCH, window) for window in windows)]
    found = (gap(tariffs, purpose=purpose, window=window, at=now) for purpose, window in kinds)
    return [each for each in found if each is not None]


def replace(session: Session, model_id: UUID, wanted: Sequence[NewTariff]) -> None:
    """Make `wanted` the model's tariffs from now on, scheduled ones included; the caller has locked the model.

    Rows in force that stay the same in all members are kept untouched, the others closed, new ones opened, all at one moment. Scheduled
    rows that are not wanted are deleted. Each is in force until the next of its kind.
    Raises: Invalid for a price or a name that cannot be stored or a batch tariff without a window, Conflict for two tariffs
    that would price the same calls.
    """
    now = _now(session)
    left = [_storable(tariff, now) for tariff in wanted]
    _refuse_rivals(left)
    kept = []
    for row in session.scalars(_not_over(model_id, now)).all():
        same = _as_wanted(row, now)
        if same in left:
            left.remove(same)
            kept.append(row)
        elif row.valid_from > now:
            session.delete(row)
        else:
            row.valid_until = now
    # Each step makes room for the next: the database allows one row of a kind without an end.
    session.flush()
    opened = [_row(model_id, tariff, now) for tariff in left]
    _chain([*kept, *opened])
    session.flush()
    session.add_all(opened)
    session.flush()


def add(session: Session, model_id: UUID, wanted: NewTariff) -> None:
    """Set one tariff: what it would meet of its kind ends where it begins, all else stays. The caller has locked the model. Raises as `replace` does."""
    now = _now(session)
    begins = _in_future(wanted.valid_from, now)
    kind = _kind(wanted)
    present = [_as_wanted(row, now) for row in session.scalars(_not_over(model_id, now))]
    kept = [each for each in present if kind is None or (_kind(each), each.valid_from) != (kind, begins)]  # fmt: skip
    replace(session, model_id, [*kept, wanted])


def withdraw(session: Session, model_id: UUID, tariff_id: UUID) -> None:
    """End a tariff that is in force, or take back one that is scheduled. The caller has locked the model.

    Raises: NotFound for one that is not this model's, Conflict for one that is over.
    """
    now = _now(session)
    found = session.get(Tariff, tariff_id)
    if found is None or found.deployed_model_id != model_id:
        raise NotFound(f"Tariff with ID {tariff_id} not found")
    left = session.scalars(_not_over(model_id, now)).all()
    if found not in left:
        raise Conflict("This tariff is over: what calls have cost stays as it is")
    replace(session, model_id, [_as_wanted(row, now) for row in left if row is not found])


def _now(session: Session) -> datetime:
    now: datetime = session.scalars(select(func.clock_timestamp())).one()
    return now


def _not_over(model_id: UUID, now: datetime | ColumnElement[datetime]) -> Select[Tariff]:
    has_no_end: ColumnElement[bool] = Tariff.valid_until.is_(None)
    return select(Tariff).where(
        Tariff.deployed_model_id == model_id, or_(has_no_end, Tariff.valid_until > now)
    )


def _chain(rows: Iterable[Tariff]) -> None:
    """Have each row end where the next of its kind begins."""
    kinds: dict[Kind | None, list[Tariff]] = defaultdict(list)
    for row in rows:
        kinds[_kind(row)].append(row)
    kinds.pop(None, None)
    for of_kind in kinds.values():
        of_kind.sort(key=lambda row: row.valid_from)
        ends = [following.valid_from for following in of_kind[1:]]
        for row, end in zip(of_kind, [*ends, None], strict=True):
            row.valid_until = end


def _kind(tariff: Tariff | NewTariff) -> Kind | None:
    """None for one that prices nothing."""
    purpose = tariff.api_key_purpose
    if purpose is None:
        return None
    return purpose, tariff.completion_window if purpose == BATCH else None


def _row(model_id: UUID, tariff: NewTariff, now: datetime) -> Tariff:
    content = {name: getattr(tariff, name) for name in _CONTENT}
    return Tariff(deployed_model_id=model_id, **content, valid_from=tariff.valid_from or now)


def _as_wanted(row: Tariff, now: datetime) -> NewTariff:
    content = {name: getattr(row, name) for name in _CONTENT}
    return NewTariff(**content, valid_from=_in_future(row.valid_from, now))


def _in_future(at: datetime | None, now: datetime) -> datetime | None:
    return at if at is not None and at > now else None


def _storable(tariff: NewTariff, now: datetime) -> NewTariff:
    if len(tariff.name) > 255:
        raise Invalid("Invalid data provided: a tariff's name has 255 characters at most")
    if tariff.api_key_purpose == BATCH and tariff.completion_window is None:
        raise Invalid(
            f"Invalid data provided: the batch tariff {tariff.name!r} needs a completion_window"
        )
    prices: dict[str, Any] = {
        name: _price(tariff.name, name, price)
        for name in _PRICES
        if (price := getattr(tariff, name)) is not None
    }
    return changed(tariff, valid_from=_in_future(tariff.valid_from, now), **prices)


def _price(tariff: str, name: str, value: Decimal) -> Decimal:
    """The price as the column holds it. Further digits come from dividing in floats and are rounded, but not to nothing."""
    if value < 0:
        raise Invalid(f"Invalid data provided: the tariff {tariff!r} has a negative price ({name})")
    if value > money.LARGEST or (value and not money.rounded(value)):
        raise Invalid(
            f"Invalid data provided: the tariff {tariff!r} has a price out of range ({name})"
        )
    return money.rounded(value)


def _refuse_rivals(tariffs: Sequence[NewTariff]) -> None:
    kinds = Counter((kind, t.valid_from) for t in tariffs if (kind := _kind(t)) is not None)
    for ((purpose, window), _), count in kinds.items():
        if count > 1:
            named = f"{purpose} with the window {window}" if window else purpose
            raise Conflict(
                f"A model has at most one current tariff for {named}",
                members={"resource": "unknown"},
            )
