"""Reads the routing value, whole or what has changed of it, inside one transaction and in short turns.

Everything that grows with the number of keys (rows, dicts, sets) is built step by step with rests in between. What is there is not copied
for a change (`layers`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.billing.tariffs import CurrentTariff, ProviderPrice
from dwctl.catalog import key_rows, metadata
from dwctl.catalog.key_rows import KeyRows, Row
from dwctl.catalog.layers import Layered, Shards
from dwctl.catalog.routing import (
    Component,
    Fallback,
    Keeping,
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

V = TypeVar("V")

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.catalog")
_ROWS_AT_ONCE = 25
_SHORT_ROWS_AT_ONCE = 250
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
        self.ages_s: Mapping[str, float] = {}
        """For how long what has changed had waited to be read, by table: the first change of each."""
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
        self.ages_s = {row.table_name: max(0.0, row.age_s) for row in rows}
        changes = {row.table_name: None if row.ids is None else set(row.ids) for row in rows}
        return Mark(mark.seen, mark.at), changes

    def everything(self) -> Routing:
        """All of it."""
        empty = Routing()
        tables = (
            "api_keys",
            "users",
            "user_groups",
            "user_balance_checkpoints",
            "deployed_models",
        )
        return self.changed(empty, dict.fromkeys(tables))

    def changed(self, old: Routing, changes: Changes) -> Routing:
        """The value with these rows read anew."""
        new = old
        if (keys := self._key_ids(changes)) is None or keys:
            new = replace(self._with_keys(new, keys), capped=self._capped())
        owners = changes.get("user_groups", set())
        if owners is None or owners:
            new = replace(new, groups=self._groups(new.groups, owners))
        accounts = changes.get("user_balance_checkpoints", set())
        if accounts is None or accounts:
            new = replace(new, funded=self._funded(new.funded, accounts))
        keepers = _together(changes, "users", "api_keys")
        if keepers is None or keepers:
            new = replace(new, keeping=self._keeping(new.keeping, keepers))
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
        found = self._connection.execute(_QUERIES["snapshot_key_by_hash"], {"hash": secret_hash})
        row = found.fetchone()
        return None if row is None else key_rows.key_of(row)

    def _with_keys(self, old: Routing, ids: Ids) -> Routing:
        rows, hashes, retired = self._keys(ids)
        if ids is None:
            return replace(old, keys=Layered(KeyRows(rows)), hashes=Layered(hashes), retired=Layered(retired))  # fmt: skip
        named = [id.bytes for id in ids]
        before = [hash for id in named for hash in old.hashes_of(id)]
        return replace(
            old,
            keys=old.keys.changed({**dict.fromkeys(before), **KeyRows(rows)}),
            hashes=old.hashes.changed({**dict.fromkeys(named), **hashes}),
            retired=old.retired.changed({**dict.fromkeys(named), **retired}),
        )

    def _keys(self, ids: Ids) -> tuple[Shards[bytes, Row], Shards[bytes, bytes], Shards[bytes, tuple[bytes, ...]]]:  # fmt: skip
        """Rows by the hash of their secret, hashes by id, and those of earlier secrets."""
        rows: Shards[bytes, Row] = Shards()
        hashes: Shards[bytes, bytes] = Shards()
        retired: Shards[bytes, tuple[bytes, ...]] = Shards()
        for row in self._tuples("snapshot_keys", ids):
            hash, id = row[:2]
            rows[hash] = row
            hashes[id] = hash
        for id, hash, expires_at in self._tuples("snapshot_retired_secrets", ids):
            if id in hashes:
                rows[hash] = key_rows.retired(rows[hashes[id]], hash, expires_at)
                retired[id] = (*retired.get(id, ()), hash)
        return rows, hashes, retired

    def _groups(self, old: Layered[UUID, frozenset[UUID]], ids: Ids) -> Layered[UUID, frozenset[UUID]]:  # fmt: skip
        groups: Shards[UUID, frozenset[UUID]] = Shards()
        for account_id, found in self._tuples("snapshot_groups", ids):
            groups[account_id] = frozenset(found)
        return _layered(old, ids, groups)

    def _funded(self, old: Layered[UUID, int], ids: Ids) -> Layered[UUID, int]:
        funded: Shards[UUID, int] = Shards()
        for account_id, level in self._tuples("snapshot_funded", ids):
            funded[account_id] = level
        return _layered(old, ids, funded)

    def _capped(self) -> frozenset[UUID]:
        """All of them: few keys have a cap."""
        return frozenset(id for (id,) in self._tuples("snapshot_capped", None))

    def _keeping(self, old: Mapping[UUID, Keeping], ids: Ids) -> dict[UUID, Keeping]:
        # Few have an entry: those that are as all others are not read.
        kept = {} if ids is None else {id: one for id, one in old.items() if id not in ids}
        for id, zero_retention, sample in self._tuples("snapshot_keeping", ids):
            kept[id] = Keeping(zero_retention, sample)
        return kept

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
        with self._connection.cursor(row_factory=namedtuple_row) as cursor:
            yield from self._streamed(cursor, query, ids, _ROWS_AT_ONCE)

    def _tuples(self, query: str, ids: Ids) -> Iterator[tuple[Any, ...]]:
        """For rows that are short and many."""
        with self._connection.cursor(binary=True) as cursor:
            yield from self._streamed(cursor, query, ids, _SHORT_ROWS_AT_ONCE)

    def _streamed(self, cursor: psycopg.Cursor[Any], query: str, ids: Ids, at_once: int) -> Iterator[Any]:  # fmt: skip
        """Rows as the server finds them, while those before are handled: neither memory nor the loop ever has all of them."""
        values = {"ids": None if ids is None else list(ids)}
        rows = cursor.stream(_QUERIES[query], values, size=at_once)
        while some := list(islice(rows, at_once)):
            yield from some
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
            reasoning_input=metadata.reasoning_input(row.metadata),
            refuses_unrunnable_tools=row.refuse_unrunnable_tools,
            owned_by=metadata.owner(row.metadata),
            provider_price=_provider_price(row),
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


def _together(changes: Changes, *tables: str) -> Ids:
    """The changed rows of several tables whose ids are never the same."""
    found: set[UUID] = set()
    for table in tables:
        ids = changes.get(table, set())
        if ids is None:
            return None
        found |= ids
    return found


def _layered(old: Layered[UUID, V], ids: Ids, found: Shards[UUID, V]) -> Layered[UUID, V]:
    """What was found in place of what was there of these rows."""
    return Layered(found) if ids is None else old.changed({**dict.fromkeys(ids), **found})


def _limits(row: Any) -> Limits:
    return key_rows.limited(
        row.requests_per_second, row.burst_size, row.capacity, row.tokens_per_minute
    )


def _provider_price(row: Any) -> ProviderPrice | None:
    """What is paid by the token; an hour's price is nobody's call's."""
    prices = row.downstream_input_price_per_token, row.downstream_output_price_per_token
    if row.downstream_pricing_mode != "per_token" or prices == (None, None):
        return None
    return ProviderPrice(*prices)


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
    until, cached, reasoning = part["valid_until"], part["cached_input"], part["reasoning"]
    return CurrentTariff(
        input=Decimal(part["input"]),
        output=Decimal(part["output"]),
        purpose=part["purpose"],
        window=part["window"],
        valid_from=datetime.fromisoformat(part["valid_from"]),
        valid_until=datetime.fromisoformat(until) if until else None,
        cached_input=None if cached is None else Decimal(cached),
        reasoning=None if reasoning is None else Decimal(reasoning),
        id=UUID(part["id"]),
    )
