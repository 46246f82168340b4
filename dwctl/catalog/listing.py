"""The standard models of an endpoint, and the list of its server that they follow: added, renamed, gone and back again."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, Boolean, Text, Uuid, case, func, literal, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.catalog.discovery import guess_type
from dwctl.catalog.tables import DeployedModel, Endpoint
from dwctl.errors import Conflict
from dwctl.identity.tables import NIL
from dwctl.pace import Pace

log = logging.getLogger(__name__)

_M = DeployedModel


@dataclass(frozen=True, slots=True)
class Choice:
    """A model of a server's list, and the alias that it is to have."""

    model_name: str
    alias: str

    @property
    def attempted_alias(self) -> str:
        """The alias, as conflicts call it."""
        return self.alias


@dataclass(frozen=True, slots=True)
class Synchronised:
    """What a synchronisation found and changed."""

    endpoint_id: UUID
    total_models_fetched: int
    filtered_models_count: int
    synced_at: datetime
    new_models_created: int = 0
    models_reactivated: int = 0
    models_deactivated: int = 0
    models_deleted: int = 0
    conflicts: Sequence[Choice] = ()
    """Models that were not added, since their alias is taken."""

    @property
    def changes_made(self) -> int:
        """How many models are different now."""
        return (
            self.new_models_created
            + self.models_reactivated
            + self.models_deactivated
            + self.models_deleted
        )


class AliasConflict(Conflict):
    """An alias is taken, or wanted twice."""

    code = "alias_conflict"

    def __init__(self, message: str, choices: Sequence[Choice]) -> None:
        self.aliases = [choice.alias for choice in choices]
        conflicts = [
            {"model_name": choice.model_name, "attempted_alias": choice.alias} for choice in choices
        ]
        super().__init__(message, members={"conflicts": conflicts})


def choose(
    names: Iterable[str], model_filter: Collection[str] | None, aliases: Mapping[str, str]
) -> list[Choice]:
    """The models that pass the filter (None: all), each with its alias or under its own name."""
    wanted = None if model_filter is None else set(model_filter)
    return [
        Choice(name, aliases.get(name, name.strip()))
        for name in dict.fromkeys(names)
        if wanted is None or name in wanted
    ]


def add(
    session: Session,
    endpoint_id: UUID,
    choices: Sequence[Choice],
    *,
    guess: bool = True,
    synced_at: datetime | None = None,
) -> list[Choice]:
    """Add standard models of the system's; those whose alias is taken (by a model, or earlier in the list) are returned instead."""
    if not choices:
        return []
    # In the order of their aliases: two who add the same ones at once then wait for each other, and not in a circle.
    rows = sorted(choices, key=lambda choice: choice.alias)
    pace = Pace()
    types = []
    for choice in rows:
        types.append(guess_type(choice.model_name) if guess else None)
        pace()
    columns: list[Any] = [
        literal([choice.model_name for choice in rows], ARRAY(Text)),
        literal([choice.alias for choice in rows], ARRAY(Text)),
        literal(types, ARRAY(Text)),
    ]
    new = func.unnest(*columns).table_valued("model_name", "alias", "type", name="new").render_derived()  # fmt: skip
    said = {"created_by": NIL, "hosted_on": endpoint_id, "last_sync": synced_at}
    added = session.execute(
        insert(_M)
        .from_select(
            ["model_name", "alias", "type", *said],
            select(
                new.c.model_name,
                new.c.alias,
                new.c.type,
                *(literal(value, _M.__table__.c[name].type) for name, value in said.items()),
            ),
        )
        .on_conflict_do_nothing(index_elements=["alias"], index_where=text("NOT deleted"))
        .returning(_M.model_name, _M.alias)
    ).all()
    known = {Choice(row.model_name, row.alias) for row in added}
    return [choice for choice in choices if choice not in known]


def remap(session: Session, endpoint: Endpoint, aliases: Mapping[str, str]) -> None:
    """Give the endpoint's models new aliases, add what its filter names and it lacks, delete what is outside of it.

    Raises: AliasConflict (nothing may be committed then).
    """
    models = _living_models(session, endpoint.id)
    outside = [model for model in models if not _passes(model.model_name, endpoint.model_filter)]
    for model in outside:
        _delete(model)
    session.flush()
    kept = [model for model in models if not model.deleted]
    conflicts = _rename(session, kept, aliases)
    known = {model.model_name for model in kept}
    missing = [name for name in endpoint.model_filter or () if name not in known]
    conflicts += add(session, endpoint.id, choose(missing, None, aliases), guess=False)
    if conflicts:
        raise AliasConflict("Alias conflicts detected during endpoint update", conflicts)


@dataclass(frozen=True, slots=True)
class Difference:
    """One model that a synchronisation would change. change: `new`, `taken` (new, but its alias is another model's), `back`, `gone` or `outside`."""

    change: str
    model_name: str
    alias: str


@dataclass(frozen=True, slots=True)
class Compared:
    """What a synchronisation would change, by change and name, and how many models it would leave as they are."""

    endpoint_id: UUID
    total_models_fetched: int
    unchanged: int
    differences: Sequence[Difference]


def compare(session: Session, endpoint: Endpoint, listed: Sequence[str]) -> Compared:
    """What `follow` would do with this list. Nothing is changed."""
    wanted = None if endpoint.model_filter is None else frozenset(endpoint.model_filter)
    chosen = choose(listed, wanted, {})
    present = {choice.model_name for choice in chosen}
    known = session.execute(
        select(_M.id, _M.model_name, _M.alias, _M.status, _M.type, _M.deleted)
        .where(_M.hosted_on == endpoint.id)
        .order_by(_M.id)
    ).all()
    names = {row.model_name for row in known}
    new = [choice for choice in chosen if choice.model_name not in names]
    taken = _taken(session, [choice.alias for choice in new])
    found = [
        Difference("taken" if each.alias in taken else "new", each.model_name, each.alias)
        for each in new
    ]
    for row in known:
        settled = None if row.deleted else _settled(row, present, wanted)
        if settled and settled.count:
            found.append(Difference(_CHANGES[settled.count], row.model_name, row.alias))
    alive = sum(not row.deleted for row in known)
    changed = sum(each.change not in ("new", "taken") for each in found)
    found.sort(key=lambda each: (each.change, each.model_name, each.alias))
    return Compared(endpoint.id, len(listed), alive - changed, found)


_CHANGES = {"models_reactivated": "back", "models_deactivated": "gone", "models_deleted": "outside"}


def _taken(session: Session, aliases: Sequence[str]) -> frozenset[str]:
    same = select(_M.alias).where(_M.alias == func.any(literal(aliases, ARRAY(Text))), ~_M.deleted)
    return frozenset(session.scalars(same)) if aliases else frozenset()


def follow(
    session: Session,
    endpoint: Endpoint,
    listed: Sequence[str],
    only: Collection[str] | None = None,
) -> Synchronised:
    """Bring the models of an endpoint, which is locked, in line with the names that its server lists.

    only: of the server's names those that may change now; the others stay as they are until the next time. None: all.
    New names are added (but for those whose alias is taken: logged, and named in the result); missing ones become inactive, and active
    again when they are back; those outside the filter are deleted. What was deleted stays deleted."""
    now = clock.now()
    wanted = None if endpoint.model_filter is None else frozenset(endpoint.model_filter)
    chosen = choose(listed, wanted, {})
    present = {choice.model_name for choice in chosen}
    known = session.execute(
        select(_M.id, _M.model_name, _M.status, _M.type, _M.deleted)
        .where(_M.hosted_on == endpoint.id)
        .order_by(_M.id)
        .with_for_update(key_share=True)
    ).all()
    changes = [
        _settled(row, present, wanted)
        for row in known
        if not row.deleted and (only is None or row.model_name in only)
    ]
    _apply(session, changes, now)
    names = {row.model_name for row in known}
    new = [
        choice
        for choice in chosen
        if choice.model_name not in names and (only is None or choice.model_name in only)
    ]
    refused = add(session, endpoint.id, new, synced_at=now)
    for choice in refused:
        log.warning("model not added, its alias is taken", extra={"alias": choice.alias})
    return Synchronised(
        endpoint_id=endpoint.id,
        total_models_fetched=len(listed),
        filtered_models_count=len(present),
        synced_at=now,
        new_models_created=len(new) - len(refused),
        conflicts=refused,
        **{count: sum(change.count == count for change in changes) for count in _COUNTS},
    )


def _living_models(session: Session, endpoint_id: UUID) -> Sequence[DeployedModel]:
    return session.scalars(
        select(_M)
        .where(_M.hosted_on == endpoint_id, ~_M.deleted)
        .order_by(_M.id)
        .with_for_update(key_share=True)
    ).all()


def _passes(name: str, model_filter: Collection[str] | None) -> bool:
    return model_filter is None or name in model_filter


@dataclass(frozen=True, slots=True)
class _Settled:
    """One living model as it is to be; `count` is the count that the change belongs to, None where nothing of note changes."""

    id: UUID
    status: str
    type: str | None
    deleted: bool
    count: str | None


_COUNTS = ("models_reactivated", "models_deactivated", "models_deleted")


def _settled(row: Any, present: Collection[str], model_filter: Collection[str] | None) -> _Settled:
    if not _passes(row.model_name, model_filter):
        return _Settled(row.id, row.status, row.type, deleted=True, count="models_deleted")
    if row.model_name not in present:
        count = "models_deactivated" if row.status == "active" else None
        return _Settled(row.id, "inactive", row.type, deleted=False, count=count)
    count = "models_reactivated" if row.status == "inactive" else None
    kind = row.type or guess_type(row.model_name)
    return _Settled(row.id, "active", kind, deleted=False, count=count)


def _apply(session: Session, changes: Sequence[_Settled], now: datetime) -> None:
    """Write them all by one statement, whose cost to the loop does not grow with them."""
    columns: list[Any] = [
        literal([change.id for change in changes], ARRAY(Uuid())),
        literal([change.status for change in changes], ARRAY(Text)),
        literal([change.type for change in changes], ARRAY(Text)),
        literal([change.deleted for change in changes], ARRAY(Boolean)),
        literal([change.count is not None for change in changes], ARRAY(Boolean)),
    ]
    new = (
        func.unnest(*columns)
        .table_valued("id", "status", "type", "deleted", "noted", name="new")
        .render_derived()
    )
    session.execute(
        update(_M)
        .where(_M.id == new.c.id)
        .values(
            status=new.c.status,
            type=new.c.type,
            deleted=new.c.deleted,
            last_sync=now,
            updated_at=case((new.c.noted, now), else_=_M.updated_at),
        )
        .execution_options(synchronize_session=False)
    )


def _delete(model: DeployedModel) -> None:
    model.deleted = True
    model.updated_at = clock.now()


def _rename(
    session: Session, models: Sequence[DeployedModel], aliases: Mapping[str, str]
) -> list[Choice]:
    """Rename at once, so that two models can swap their names; what could not be renamed is returned."""
    changed = [m for m in models if aliases.get(m.model_name, m.alias) != m.alias]
    wanted = [Choice(model.model_name, aliases[model.model_name]) for model in changed]
    names = [choice.alias for choice in wanted]
    changed_ids = [model.id for model in changed]
    taken = set(
        session.scalars(
            select(DeployedModel.alias).where(
                DeployedModel.alias.in_(names),
                ~DeployedModel.deleted,
                DeployedModel.id.not_in(changed_ids),
            )
        )
    )
    conflicts = [
        choice for choice in wanted if choice.alias in taken or names.count(choice.alias) > 1
    ]
    if conflicts:
        return conflicts
    # An alias is unique at every moment, so those who have what others of them want step aside first.
    for model in changed:
        if model.alias in names:
            model.alias = f"{uuid4()}"
    session.flush()
    for model, choice in zip(changed, wanted, strict=True):
        model.alias = choice.alias
        model.updated_at = clock.now()
    session.flush()
    return []
