"""Endpoints and the standard models that come from their lists.

What a server lists is asked for by the caller (`discovery`), before any transaction: nothing here waits for somebody else's server.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from dwctl import clock
from dwctl.catalog.discovery import Server, guess_type
from dwctl.catalog.tables import TIMEOUTS, DeployedModel, Endpoint
from dwctl.encryption import Sealer
from dwctl.errors import Conflict, NotFound
from dwctl.identity.tables import NIL
from dwctl.upstream.target import parse_origin

log = logging.getLogger(__name__)

CLEARABLE = frozenset({"description", "api_key", "model_filter", *TIMEOUTS})
"""Fields that null clears; null leaves the others as they are."""


class AliasConflict(Conflict):
    """An alias is taken, or wanted twice."""

    code = "alias_conflict"

    def __init__(self, message: str, choices: Sequence[Choice]) -> None:
        self.aliases = [choice.alias for choice in choices]
        conflicts = [
            {"model_name": choice.model_name, "attempted_alias": choice.alias} for choice in choices
        ]
        super().__init__(message, members={"conflicts": conflicts})


@dataclass(frozen=True, slots=True)
class Choice:
    """A model of a server's list, and the alias that it is to have."""

    model_name: str
    alias: str


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

    @property
    def changes_made(self) -> int:
        """How many models are different now."""
        return (
            self.new_models_created
            + self.models_reactivated
            + self.models_deactivated
            + self.models_deleted
        )


def load(session: Session, endpoint_id: UUID, *, lock: bool = False) -> Endpoint:
    """The endpoint; locked until the end of the transaction on request. Raises NotFound."""
    found = session.get(Endpoint, endpoint_id, with_for_update=lock or None)
    if found is None:
        raise NotFound(f"Endpoint with ID {endpoint_id} not found")
    return found


def server_of(endpoint: Endpoint, sealer: Sealer) -> Server:
    """Whom to ask for its models. Raises Undecryptable when its credential cannot be read."""
    sealed = endpoint.api_key_sealed
    return Server(
        url=endpoint.url,
        api_key=sealer.open(sealed) if sealed else None,
        auth_header_name=endpoint.auth_header_name,
        auth_header_prefix=endpoint.auth_header_prefix,
    )


def choose(
    names: Iterable[str], model_filter: Collection[str] | None, aliases: Mapping[str, str]
) -> list[Choice]:
    """The models that pass the filter (None: all), each with its alias or under its own name."""
    wanted = None if model_filter is None else set(model_filter)
    return [
        Choice(name, aliases.get(name, name))
        for name in dict.fromkeys(names)
        if wanted is None or name in wanted
    ]


def create(
    session: Session,
    sealer: Sealer,
    fields: Mapping[str, Any],
    choices: Sequence[Choice],
    *,
    created_by: UUID,
) -> Endpoint:
    """Add an endpoint together with models of its list, which belong to the system.

    Raises: AliasConflict when one of their aliases is taken or wanted twice (nothing may be committed then).
    """
    endpoint = Endpoint(created_by=created_by, **_columns(fields, sealer))
    session.add(endpoint)
    session.flush()
    conflicts = _add_models(session, endpoint.id, choices)
    if conflicts:
        raise AliasConflict("Alias conflicts detected during endpoint creation", conflicts)
    return endpoint


def update(
    session: Session, sealer: Sealer, endpoint: Endpoint, changes: Mapping[str, Any]
) -> None:
    """Change the fields that are given; null clears those in CLEARABLE and leaves the others.

    The credential is for one origin: a URL with another one clears it, unless a new one comes with it.
    """
    given = {k: v for k, v in changes.items() if v is not None or k in CLEARABLE}
    if "url" in given and not _same_origin(endpoint.url, given["url"]):
        given.setdefault("api_key", None)
    for column, value in _columns(given, sealer).items():
        setattr(endpoint, column, value)
    endpoint.updated_at = clock.now()
    session.flush()


def remap(session: Session, endpoint: Endpoint, aliases: Mapping[str, str]) -> None:
    """Give the endpoint's models new aliases, add what its filter names and it lacks, delete what is outside of it.

    Raises: AliasConflict (nothing may be committed then).
    """
    models = _models_of(session, endpoint.id, living=True)
    outside = [model for model in models if not _passes(model.model_name, endpoint.model_filter)]
    for model in outside:
        _delete(model)
    session.flush()
    kept = [model for model in models if not model.deleted]
    conflicts = _rename(session, kept, aliases)
    known = {model.model_name for model in kept}
    missing = [name for name in endpoint.model_filter or () if name not in known]
    conflicts += _add_models(session, endpoint.id, choose(missing, None, aliases), guess=False)
    if conflicts:
        raise AliasConflict("Alias conflicts detected during endpoint update", conflicts)


def synchronise(session: Session, endpoint_id: UUID, listed: Sequence[str]) -> Synchronised:
    """Bring the endpoint's models in line with the names that its server lists.

    New names are added (but for those whose alias is taken: logged, skipped); missing ones become inactive, and active again when they
    are back; those outside the filter are deleted. What was deleted stays deleted.
    """
    endpoint = load(session, endpoint_id, lock=True)
    now = clock.now()
    wanted = None if endpoint.model_filter is None else frozenset(endpoint.model_filter)
    chosen = choose(listed, wanted, {})
    present = {choice.model_name for choice in chosen}
    models = _models_of(session, endpoint_id, living=False)
    counts = {"models_reactivated": 0, "models_deactivated": 0, "models_deleted": 0}
    for model in models:
        if not model.deleted and (change := _settle(model, present, wanted, now)):
            counts[change] += 1
    known = {model.model_name for model in models}
    new = [choice for choice in chosen if choice.model_name not in known]
    refused = _add_models(session, endpoint_id, new, synced_at=now)
    for choice in refused:
        log.warning("model not added, its alias is taken", extra={"alias": choice.alias})
    return Synchronised(
        endpoint_id=endpoint_id,
        total_models_fetched=len(listed),
        filtered_models_count=len(present),
        synced_at=now,
        new_models_created=len(new) - len(refused),
        **counts,
    )


def _same_origin(one: str, other: str) -> bool:
    try:
        return parse_origin(one) == parse_origin(other)
    except ValueError:
        return False


def _columns(fields: Mapping[str, Any], sealer: Sealer) -> dict[str, Any]:
    columns = dict(fields)
    if "api_key" in columns:
        api_key = columns.pop("api_key")
        columns["api_key_sealed"] = sealer.seal(api_key) if api_key else None
    return columns


def _models_of(session: Session, endpoint_id: UUID, *, living: bool) -> Sequence[DeployedModel]:
    query = select(DeployedModel).where(DeployedModel.hosted_on == endpoint_id)
    if living:
        query = query.where(~DeployedModel.deleted)
    return session.scalars(query.order_by(DeployedModel.id).with_for_update()).all()


def _passes(name: str, model_filter: Collection[str] | None) -> bool:
    return model_filter is None or name in model_filter


def _settle(
    model: DeployedModel,
    present: Collection[str],
    model_filter: Collection[str] | None,
    now: datetime,
) -> str | None:
    """Bring one living model in line with the list; which count it belongs to, None where nothing of note changed."""
    model.last_sync = now
    if not _passes(model.model_name, model_filter):
        _delete(model)
        return "models_deleted"
    if model.model_name not in present:
        was, model.status = model.status, "inactive"
        return "models_deactivated" if was == "active" else None
    model.type = model.type or guess_type(model.model_name)
    was, model.status = model.status, "active"
    return "models_reactivated" if was == "inactive" else None


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
    # An alias is unique at every moment, so all of them step aside first.
    for model in changed:
        model.alias = f"{uuid4()}"
    session.flush()
    for model, choice in zip(changed, wanted, strict=True):
        model.alias = choice.alias
        model.updated_at = clock.now()
    session.flush()
    return []


def _add_models(
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
    rows = [
        {
            "model_name": choice.model_name,
            "alias": choice.alias,
            "type": guess_type(choice.model_name) if guess else None,
            "created_by": NIL,
            "hosted_on": endpoint_id,
            "last_sync": synced_at,
        }
        for choice in choices
    ]
    added = session.execute(
        insert(DeployedModel)
        .values(rows)
        .on_conflict_do_nothing(index_elements=["alias"], index_where=text("NOT deleted"))
        .returning(DeployedModel.model_name, DeployedModel.alias)
    ).all()
    known = {Choice(row.model_name, row.alias) for row in added}
    return [choice for choice in choices if choice not in known]
