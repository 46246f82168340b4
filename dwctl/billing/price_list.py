"""The tariffs of a model as rows: the current set is replaced by closing and opening, never by editing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dwctl.billing import money
from dwctl.billing.tables import Tariff
from dwctl.billing.tariffs import BATCH
from dwctl.errors import Conflict, Invalid


@dataclass(frozen=True, slots=True)
class NewTariff:
    """A tariff as it is wanted; prices in USD per token. Without a purpose it only informs."""

    name: str
    input_price_per_token: Decimal
    output_price_per_token: Decimal
    api_key_purpose: str | None = None
    completion_window: str | None = None


def current(session: Session, model_ids: Collection[UUID]) -> dict[UUID, list[Tariff]]:
    """The tariffs in force of each model, by purpose (those without last), window and name."""
    rows = session.scalars(
        select(Tariff)
        .where(Tariff.deployed_model_id.in_(model_ids), Tariff.valid_until.is_(None))
        .order_by(
            Tariff.api_key_purpose.nulls_last(),
            Tariff.completion_window.nulls_last(),
            Tariff.name,
            Tariff.id,
        )
    )
    found: dict[UUID, list[Tariff]] = {}
    for row in rows:
        found.setdefault(row.deployed_model_id, []).append(row)
    return found


def replace(session: Session, model_id: UUID, wanted: Sequence[NewTariff]) -> None:
    """Make `wanted` the model's current set; the caller has locked the model.

    Rows that stay the same in all five fields are kept untouched, the others closed, new ones opened, all at one moment.
    Raises: Invalid for a price or a name that cannot be stored or a batch tariff without a window, Conflict for two tariffs
    that would price the same calls.
    """
    left = [_storable(tariff) for tariff in wanted]
    _refuse_rivals(left)
    now = session.scalar(select(func.clock_timestamp()))
    for row in current(session, [model_id]).get(model_id, []):
        same = _as_wanted(row)
        if same in left:
            left.remove(same)
        else:
            row.valid_until = now
    # Closed before others are opened: the database allows one of a kind at a time.
    session.flush()
    for tariff in left:
        session.add(_row(model_id, tariff, now))
    session.flush()


def _row(model_id: UUID, tariff: NewTariff, valid_from: object) -> Tariff:
    return Tariff(
        deployed_model_id=model_id,
        name=tariff.name,
        input_price_per_token=tariff.input_price_per_token,
        output_price_per_token=tariff.output_price_per_token,
        api_key_purpose=tariff.api_key_purpose,
        completion_window=tariff.completion_window,
        valid_from=valid_from,
    )


def _as_wanted(row: Tariff) -> NewTariff:
    return NewTariff(
        row.name,
        row.input_price_per_token,
        row.output_price_per_token,
        row.api_key_purpose,
        row.completion_window,
    )


def _storable(tariff: NewTariff) -> NewTariff:
    if len(tariff.name) > 255:
        raise Invalid("Invalid data provided: a tariff's name has 255 characters at most")
    if tariff.api_key_purpose == BATCH and tariff.completion_window is None:
        raise Invalid(
            f"Invalid data provided: the batch tariff {tariff.name!r} needs a completion_window"
        )
    return NewTariff(
        tariff.name,
        _price(tariff.name, tariff.input_price_per_token),
        _price(tariff.name, tariff.output_price_per_token),
        tariff.api_key_purpose,
        tariff.completion_window,
    )


def _price(name: str, value: Decimal) -> Decimal:
    """The price as the column holds it. Further digits come from dividing in floats and are rounded, but not to nothing."""
    if value < 0:
        raise Invalid(f"Invalid data provided: the tariff {name!r} has a negative price")
    if value > money.LARGEST or (value and not money.rounded(value)):
        raise Invalid(f"Invalid data provided: the tariff {name!r} has a price out of range")
    return money.rounded(value)


def _refuse_rivals(tariffs: Sequence[NewTariff]) -> None:
    kinds = Counter(
        (t.api_key_purpose, t.completion_window if t.api_key_purpose == BATCH else None)
        for t in tariffs
        if t.api_key_purpose is not None
    )
    for (purpose, window), count in kinds.items():
        if count > 1:
            kind = f"{purpose} with the window {window}" if window else purpose
            raise Conflict(
                f"A model has at most one current tariff for {kind}",
                members={"resource": "unknown"},
            )
