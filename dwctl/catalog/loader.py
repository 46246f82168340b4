"""Reads the routing value, whole or what has changed of it, inside one transaction and in short turns.

Everything that grows with the number of keys (rows, dicts, sets) is built step by step with rests in between; only copies of what is
there stay in one piece, each of which takes a few milliseconds for 100,000 entries.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from sys import intern
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.billing.tariffs import CurrentTariff
from dwctl.catalog import metadata
from dwctl.catalog.routing import (
    UNLIMITED,
    Component,
    Fallback,
    Key,
    Limits,
    Model,
    Routing,
    Rule,
    Strategy,
)
from dwctl.config import Settings
from dwctl.encryption import Sealer, Undecryptable
from dwctl.pace import Pace
from dwctl.upstream.target import Target, Timeouts

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.catalog")
_NO_LIMITS = (None, None, None, None)
_ROWS_AT_ONCE = 200
_SHORT_ROWS_AT_ONCE = 500
_ROWS_A_STEP = 25
"""How many rows are handled before others may have their turn: far less than a turn."""
_MOST_NAMED = 2000
"""Rows of one table that are read by their ids; from there on all of the table is read."""

_MODEL_TABLES = (
    "deployed_models",
    "deployed_model_components",
    "deployment_groups",
    "model_tariffs",
    "model_traffic_rules",
)

Ids = set[UUID] | None
"""Which rows changed; None stands for all of them."""

Changes = Mapping[str, Ids]
"""Changed rows by table."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Up to where the database has been read: what that transaction saw, and when it began by the database's clock."""

    seen: str
    at: datetime


class Loader:
    """Reads parts of the routing value on one connection, in a transaction that sees one state (`begin`)."""

    def __init__(
        self, connection: psycopg.Connection[Any], settings: Settings, sealer: Sealer, pace: Pace
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        self._pace = pace
        timeouts = settings.upstream
        self._timeouts = Timeouts(
            timeouts.connect_timeout, timeouts.first_byte_timeout, timeouts.idle_timeout
        )

    def begin(self, last: Mark | None) -> tuple[Mark, Changes | None]:
        """From here on one state is seen. Gives its mark, and what has changed since the last one: None where that is not known."""
        self._connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        known = {"seen": last and last.seen, "at": last and last.at}
        (mark,) = self._fetch("snapshot_mark", known)
        if mark.lost:
            return Mark(mark.seen, mark.at), None
        rows = self._fetch("snapshot_changes", {**known, "most": _MOST_NAMED})
        changes = {row.table_name: None if row.ids is None else set(row.ids) for row in rows}
        return Mark(mark.seen, mark.at), changes

    def everything(self) -> Routing:
        """All of it."""
        empty = Routing()
        tables = ("api_keys", "user_groups", "user_balance_checkpoints", "deployed_models")
        return self.changed(empty, dict.fromkeys(tables))

    def changed(self, old: Routing, changes: Changes) -> Routing:
        """The value with these rows read anew."""
        new = old
        if (keys := self._key_ids(changes)) is None or keys:
            new = self._with_keys(new, keys)
        owners = changes.get("user_groups", set())
        if owners is None or owners:
            new = replace(new, groups=self._groups(new.groups, owners))
        accounts = changes.get("user_balance_checkpoints", set())
        if accounts is None or accounts:
            new = replace(new, funded=self._funded(new.funded, accounts))
        if (models := self._model_ids(changes)) is None or models:
            new = self._with_models(new, models)
        return new

    def miscounted(self, routing: Routing) -> list[str]:
        """What of a value has not as many entries as the database has: something was changed past the log of changes."""
        (counts,) = self._fetch("snapshot_counts", {})
        return [
            name for name, count in counts._asdict().items() if len(getattr(routing, name)) != count
        ]

    def key_by_hash(self, secret_hash: bytes) -> Key | None:
        """One key."""
        rows = self._fetch("snapshot_key_by_hash", {"hash": secret_hash})
        return _key(*rows[0][1:]) if rows else None

    def _with_keys(self, old: Routing, ids: Ids) -> Routing:
        keys: dict[bytes, Key] = {}
        hashes: dict[UUID, bytes] = {}
        retired: dict[UUID, tuple[bytes, ...]] = {}
        if ids is not None:
            keys = self._copy(old.keys)
            hashes = self._copy(old.hashes)
            retired = self._copy(old.retired)
            for id in ids:
                for gone in (hashes.pop(id, None), *retired.pop(id, ())):
                    if gone is not None:
                        keys.pop(gone, None)
        for digest, id, *columns in self._tuples("snapshot_keys", ids):
            keys[digest] = _key(id, *columns)
            hashes[id] = digest
        for row in self._rows("snapshot_retired_secrets", ids):
            current = hashes.get(row.api_key_id)
            if current is None:
                continue
            digest, key = bytes(row.secret_hash), keys[current]
            ends = [end for end in (row.expires_at, key.expires_at) if end is not None]
            keys[digest] = replace(key, expires_at=min(ends))
            retired[row.api_key_id] = (*retired.get(row.api_key_id, ()), digest)
        return replace(old, keys=keys, hashes=hashes, retired=retired)

    def _groups(self, old: Mapping[UUID, frozenset[UUID]], ids: Ids) -> dict[UUID, frozenset[UUID]]:
        groups: dict[UUID, frozenset[UUID]] = {}
        if ids is not None:
            groups = self._copy(old)
            for id in ids:
                groups.pop(id, None)
        for account_id, found in self._tuples("snapshot_groups", ids):
            groups[account_id] = frozenset(found)
        return groups

    def _funded(self, old: frozenset[UUID], ids: Ids) -> frozenset[UUID]:
        funded: set[UUID] = set()
        if ids is not None:
            self._pace.rest()
            funded = set(old)
            funded -= ids
        for (account_id,) in self._tuples("snapshot_funded", ids):
            funded.add(account_id)
        self._pace.rest()
        return frozenset(funded)

    def _with_models(self, old: Routing, ids: Ids) -> Routing:
        models: dict[str, Model] = {}
        if ids is not None:
            models = {alias: model for alias, model in old.models.items() if model.id not in ids}
        standard: dict[UUID, Model] | None = None
        for row in self._rows("snapshot_models", ids):
            model = self._model(row)
            if row.is_composite:
                # The rows of standard models came before: those that are there now are the components.
                standard = standard or {m.id: m for m in models.values() if not m.is_composite}
                model = replace(model, components=_components(row, standard))
            models[row.alias] = model
        return replace(old, models=models)

    def _copy(self, old: Mapping[Any, Any]) -> dict[Any, Any]:
        self._pace.rest()
        return dict(old)

    def _key_ids(self, changes: Changes) -> Ids:
        keys, users = changes.get("api_keys", set()), changes.get("users", set())
        roles, retired = (
            changes.get("user_roles", set()),
            changes.get("retired_api_key_secrets", set()),
        )
        if keys is None or users is None or roles is None or retired is None:
            return None
        return keys | retired | self._ids("snapshot_key_ids_of_users", users | roles)

    def _model_ids(self, changes: Changes) -> Ids:
        found: set[UUID] = set()
        for table in _MODEL_TABLES:
            ids = changes.get(table, set())
            if ids is None:
                return None
            found |= ids
        endpoints = changes.get("inference_endpoints", set())
        if endpoints is None:
            return None
        found |= self._ids("snapshot_models_of_endpoints", endpoints)
        found |= self._ids("snapshot_models_redirecting", found)
        return found | self._ids("snapshot_composites_of", found)

    def _ids(self, query: str, ids: set[UUID]) -> set[UUID]:
        return {row.id for row in self._rows(query, ids)} if ids else set()

    def _rows(self, query: str, ids: Ids) -> Iterator[Any]:
        """Rows a few at a time from a cursor of the server: neither memory nor the loop ever has all of them."""
        with self._connection.cursor(name="routing", row_factory=namedtuple_row) as cursor:
            cursor.execute(_QUERIES[query], {"ids": None if ids is None else list(ids)})
            yield from self._paced(cursor, _ROWS_AT_ONCE)

    def _tuples(self, query: str, ids: Ids) -> Iterator[tuple[Any, ...]]:
        """The same for rows that are short and many."""
        with self._connection.cursor(name="routing", binary=True) as cursor:
            cursor.execute(_QUERIES[query], {"ids": None if ids is None else list(ids)})
            yield from self._paced(cursor, _SHORT_ROWS_AT_ONCE)

    def _paced(self, cursor: psycopg.ServerCursor[Any], at_once: int) -> Iterator[Any]:
        while rows := cursor.fetchmany(at_once):
            for begin in range(0, len(rows), _ROWS_A_STEP):
                yield from rows[begin : begin + _ROWS_A_STEP]
                self._pace()

    def _fetch(self, query: str, values: Mapping[str, Any]) -> list[Any]:
        cursor = self._connection.cursor(row_factory=namedtuple_row)
        return cursor.execute(_QUERIES[query], values).fetchall()

    def _model(self, row: Any) -> Model:
        return Model(
            id=row.id,
            alias=row.alias,
            target=self._target(row),
            type=row.type,
            created_at=row.created_at,
            trusted=row.trusted,
            sanitise=row.sanitize_responses,
            adapter=row.adapter,
            forward_service_tier=row.forward_service_tier,
            groups=frozenset(row.groups or ()),
            tariffs=tuple(tariff_of(part) for part in row.tariffs or ()),
            rules={
                purpose: Rule(part["target"] if part["action"] == "redirect" else None)
                for purpose, part in (row.rules or {}).items()
                # A redirect whose target was deleted is no rule any more.
                if part["action"] == "deny" or part["target"]
            },
            limits=_limits(row),
            batch_capacity=row.batch_capacity,
            endpoint_id=row.endpoint_id,
            is_composite=row.is_composite,
            strategy=Strategy(row.lb_strategy),
            fallback=Fallback(
                enabled=row.fallback_enabled,
                on_rate_limit=row.fallback_on_rate_limit,
                on_status=tuple(row.fallback_on_status),
                with_replacement=row.fallback_with_replacement,
                max_attempts=row.fallback_max_attempts,
            ),
            context_length=metadata.context_length(row.metadata),
            refuses_unrunnable_tools=row.refuse_unrunnable_tools,
            owned_by=metadata.owner(row.metadata),
        )

    def _target(self, row: Any) -> Target | None:
        if row.endpoint_id is None:
            return None
        try:
            header = None
            if row.api_key_sealed:
                credential = self._sealer.open(row.api_key_sealed)
                header = (row.auth_header_name, row.auth_header_prefix + credential)
            return Target(
                base_url=row.url,
                model_name=row.model_name,
                auth_header=header,
                timeouts=self._timeouts_of(row),
                endpoint_id=row.endpoint_id,
                endpoint_name=row.endpoint_name,
                trusted=row.trusted,
            )
        except (Undecryptable, ValueError) as error:
            # One endpoint that cannot be called must not take all the others with it.
            log.error("model skipped", extra={"alias": row.alias, "reason": str(error)})
            return None

    def _timeouts_of(self, row: Any) -> Timeouts:
        """The endpoint's own, and the settings where it has none."""
        usual = self._timeouts
        return Timeouts(
            row.connect_timeout_seconds or usual.connect_s,
            row.first_byte_timeout_seconds or usual.first_byte_s,
            row.idle_timeout_seconds or usual.idle_s,
            row.total_timeout_seconds or usual.total_s,
        )


def _key(
    id: UUID,
    owner_id: UUID,
    created_by: UUID,
    purpose: str,
    sees_providers: bool,
    expires_at: float | None,
    *limits: Any,
) -> Key:
    """A key of the columns of `snapshot_keys` behind its hash."""
    return Key(
        id, owner_id, created_by, intern(purpose), _limited(*limits), sees_providers, expires_at
    )


def _limits(row: Any) -> Limits:
    return _limited(row.requests_per_second, row.burst_size, row.capacity, row.tokens_per_minute)


def _limited(*limits: Any) -> Limits:
    # Nearly all keys share the one value.
    return UNLIMITED if limits == _NO_LIMITS else Limits(*limits)


def _components(row: Any, standard: Mapping[UUID, Model]) -> tuple[Component, ...]:
    """The components that can be called: what is deleted, inactive or has no endpoint that can be called is none (`_target` has said so)."""
    found = ((standard.get(UUID(part["id"])), part) for part in row.components or ())
    return tuple(
        Component(model, part["weight"], part["sort_order"])
        for model, part in found
        if model is not None and model.target is not None
    )


def tariff_of(part: Mapping[str, Any]) -> CurrentTariff:
    """A tariff as the statements put it into JSON (`snapshot_models`)."""
    until = part["valid_until"]
    return CurrentTariff(
        input=Decimal(part["input"]),
        output=Decimal(part["output"]),
        purpose=part["purpose"],
        window=part["window"],
        valid_from=datetime.fromisoformat(part["valid_from"]),
        valid_until=datetime.fromisoformat(until) if until else None,
    )
