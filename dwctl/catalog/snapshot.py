"""The in-process copy of the routing value: loaded whole at the start, then kept up by notifications.

A change notifies with the ids that changed; reloads wait a moment for more of them (a trailing edge: what arrives meanwhile is in the
next one, nothing is dropped), read only what changed and yield while they build. The value is replaced whole, so a call sees one state.
While the database is away the last value serves on. After a gap in the notifications, and every minute anyway, all of it is read anew.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import gevent
import psycopg
from gevent.event import Event
from psycopg.rows import namedtuple_row

from dwctl import sql
from dwctl.billing.tariffs import CurrentTariff
from dwctl.catalog.routing import Key, Model, Routing, Rule
from dwctl.config import Settings
from dwctl.db import Connections, DatabaseAway
from dwctl.encryption import Sealer, Undecryptable
from dwctl.upstream.target import Target, Timeouts
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

CHANNEL = "auth_config_changed"
_QUERIES = sql.load("dwctl.catalog")
_YIELD_EVERY = 2000
_RETRY_S = 0.5
_POLL_S = 2.0
_UNKNOWN_KEY_LOOKUPS_PER_S = 50
_UNKNOWN_KEPT = 10_000

Ids = set[UUID] | None
"""Which rows changed; None stands for all of them."""


class Snapshot:
    """Holds the routing value of this process and keeps it fresh."""

    def __init__(self, settings: Settings, connections: Connections, sealer: Sealer) -> None:
        self.routing = Routing()
        self.loaded_at: float | None = None
        self._settings = settings
        self._connections = connections
        self._sealer = sealer
        self._changes: dict[str, Ids] = {}
        self._changed = Event()
        self._greenlet: gevent.Greenlet | None = None
        self._wakeups: Wakeups | None = None
        self._unknown: dict[bytes, float] = {}
        self._lookups = (0.0, 0)

    def start(self, wakeups: Wakeups) -> None:
        """Begin to load and to listen. `loaded_at` stays None until the first load has ended."""
        self._wakeups = wakeups
        wakeups.subscribe(CHANNEL, self.note_change, self.reload_everything)
        self.reload_everything()
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Stop reloading."""
        if self._greenlet is not None:
            self._greenlet.kill()

    @property
    def age_s(self) -> float | None:
        """Seconds since the value was last known to be right; None before the first load."""
        return None if self.loaded_at is None else time.monotonic() - self.loaded_at

    def note_change(self, payload: str) -> None:
        """`table:id,id,...` or `table:*`: reload these soon."""
        table, _, ids = payload.partition(":")
        known = self._changes.get(table, set())
        try:
            found = None if ids in ("", "*") else set(map(UUID, ids.split(",")))
        except ValueError:
            found = None
        self._changes[table] = None if known is None or found is None else known | found
        self._changed.set()

    def reload_everything(self) -> None:
        """Read all of it anew, soon."""
        self._changes = {"*": None}
        self._changed.set()

    def find_key(self, secret_hash: bytes) -> Key | None:
        """The key with this hash. One that the snapshot does not know is looked up in the database, up to a rate:
        so a key works from the moment its creation was answered, also where a notification is still on its way.
        """
        known = self.routing.keys.get(secret_hash)
        if known is not None or self.loaded_at is None:
            return known
        now = time.monotonic()
        if self._unknown.get(secret_hash, 0.0) > now - 1.0 or not self._may_look_up(now):
            return None
        return self._look_up(secret_hash, now)

    def mark_unfunded(self, owner_ids: Iterable[UUID]) -> None:
        """These accounts have just been charged down to nothing: refuse them without waiting for the notification."""
        gone = frozenset(owner_ids) & self.routing.funded
        if gone:
            self.routing = replace(self.routing, funded=self.routing.funded - gone)

    def wait_loaded(self, patience_s: float) -> bool:
        """Wait for the first load; False when it took too long (the database is away)."""
        until = time.monotonic() + patience_s
        while self.loaded_at is None and time.monotonic() < until:
            gevent.sleep(0.02)
        return self.loaded_at is not None

    def wait_fresher_than(self, moment: float, patience_s: float) -> bool:
        """Reload, and wait until the value is newer than `moment` (monotonic); False when that took too long."""
        self.reload_everything()
        until = time.monotonic() + patience_s
        while (self.loaded_at or 0.0) < moment:
            if time.monotonic() > until:
                return False
            gevent.sleep(0.02)
        return True

    def _run(self) -> None:
        while True:
            self._changed.wait(self._reload_interval_s())
            if not self._changed.is_set():
                self.reload_everything()
            else:
                gevent.sleep(self._settings.snapshot.debounce)
            changes, self._changes = self._changes, {}
            self._changed.clear()
            self._reload(changes)

    def _reload_interval_s(self) -> float:
        """Where notifications do not arrive, polling has to do."""
        interval_s = self._settings.snapshot.full_reload_interval
        hears = self._wakeups is not None and self._wakeups.delivers
        return interval_s if hears else min(interval_s, _POLL_S)

    def _reload(self, changes: dict[str, Ids]) -> None:
        started = time.monotonic()
        try:
            with self._connections.transaction() as connection:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                loader = _Loader(connection, self._settings, self._sealer)
                built = (
                    loader.everything() if "*" in changes else loader.changed(self.routing, changes)
                )
            self.routing = built
            self.loaded_at = started
            self._unknown.clear()
        except Exception as error:
            # Nothing is lost: what should have been read is read at the next try, and the last value serves on.
            level = logging.WARNING if isinstance(error, DatabaseAway) else logging.ERROR
            log.log(level, "routing not reloaded", extra={"reason": repr(error)})
            for table, ids in changes.items():
                known = self._changes.get(table, set())
                self._changes[table] = None if known is None or ids is None else known | ids
            self._changed.set()
            gevent.sleep(_RETRY_S)

    def _may_look_up(self, now: float) -> bool:
        since, count = self._lookups
        if now - since > 1.0:
            since, count = now, 0
        self._lookups = (since, count + 1)
        return count < _UNKNOWN_KEY_LOOKUPS_PER_S

    def _look_up(self, secret_hash: bytes, now: float) -> Key | None:
        with self._connections.transaction() as connection:
            loader = _Loader(connection, self._settings, self._sealer)
            key = loader.key_by_hash(secret_hash)
            if key is None:
                if len(self._unknown) >= _UNKNOWN_KEPT:
                    self._unknown.clear()
                self._unknown[secret_hash] = now
                return None
            owner = {key.owner_id}
            groups, funded = loader.groups(owner), loader.funded(owner)
        assert key.id is not None
        self.routing = replace(
            self.routing,
            keys={**self.routing.keys, secret_hash: key},
            hashes={**self.routing.hashes, key.id: secret_hash},
            groups={**self.routing.groups, **groups},
            funded=self.routing.funded - owner | funded,
        )
        return key


class _Loader:
    """Reads parts of the routing value inside one transaction."""

    def __init__(
        self, connection: psycopg.Connection[Any], settings: Settings, sealer: Sealer
    ) -> None:
        self._connection = connection
        self._sealer = sealer
        timeouts = settings.upstream
        self._timeouts = Timeouts(
            timeouts.connect_timeout, timeouts.first_byte_timeout, timeouts.idle_timeout
        )

    def everything(self) -> Routing:
        keys = self.keys(None)
        return Routing(
            keys=dict(keys),
            hashes={key.id: digest for digest, key in keys if key.id},
            groups=self.groups(None),
            models={model.alias: model for model in self.models(None)},
            funded=self.funded(None),
        )

    def changed(self, old: Routing, changes: Mapping[str, Ids]) -> Routing:
        new = old
        if (keys := self._key_ids(changes)) is None or keys:
            new = self._with_keys(new, keys)
        owners = changes.get("user_groups", set())
        if owners is None or owners:
            kept = (
                {} if owners is None else {k: v for k, v in new.groups.items() if k not in owners}
            )
            new = replace(new, groups={**kept, **self.groups(owners)})
        accounts = changes.get("user_balance_checkpoints", set())
        if accounts is None or accounts:
            kept_funded = frozenset() if accounts is None else new.funded - accounts
            new = replace(new, funded=kept_funded | self.funded(accounts))
        if (models := self._model_ids(changes)) is None or models:
            new = self._with_models(new, models)
        return new

    def keys(self, ids: Ids) -> list[tuple[bytes, Key]]:
        found = []
        for row in self._rows("snapshot_keys", ids):
            found.append((bytes(row.secret_hash), _key(row)))
        return found

    def key_by_hash(self, secret_hash: bytes) -> Key | None:
        cursor = self._connection.cursor(row_factory=namedtuple_row)
        row = cursor.execute(_QUERIES["snapshot_key_by_hash"], {"hash": secret_hash}).fetchone()
        return None if row is None else _key(row)

    def groups(self, ids: Ids) -> dict[UUID, frozenset[UUID]]:
        return {row.user_id: frozenset(row.groups) for row in self._rows("snapshot_groups", ids)}

    def funded(self, ids: Ids) -> frozenset[UUID]:
        return frozenset(row.user_id for row in self._rows("snapshot_funded", ids))

    def models(self, ids: Ids) -> list[Model]:
        return [self._model(row) for row in self._rows("snapshot_models", ids)]

    def _with_keys(self, old: Routing, ids: Ids) -> Routing:
        if ids is None:
            pairs = self.keys(None)
            return replace(
                old, keys=dict(pairs), hashes={key.id: digest for digest, key in pairs if key.id}
            )
        keys, hashes = dict(old.keys), dict(old.hashes)
        for id in ids:
            if gone := hashes.pop(id, None):
                keys.pop(gone, None)
        for digest, key in self.keys(ids):
            assert key.id is not None
            keys[digest], hashes[key.id] = key, digest
        return replace(old, keys=keys, hashes=hashes)

    def _with_models(self, old: Routing, ids: Ids) -> Routing:
        gone = set() if ids is None else ids
        kept = (
            {}
            if ids is None
            else {alias: model for alias, model in old.models.items() if model.id not in gone}
        )
        return replace(old, models={**kept, **{model.alias: model for model in self.models(ids)}})

    def _key_ids(self, changes: Mapping[str, Ids]) -> Ids:
        keys, users = changes.get("api_keys", set()), changes.get("users", set())
        if keys is None or users is None:
            return None
        return keys | self._ids("snapshot_key_ids_of_users", users)

    def _model_ids(self, changes: Mapping[str, Ids]) -> Ids:
        found: set[UUID] = set()
        for table in (
            "deployed_models",
            "deployment_groups",
            "model_tariffs",
            "model_traffic_rules",
        ):
            ids = changes.get(table, set())
            if ids is None:
                return None
            found |= ids
        endpoints = changes.get("inference_endpoints", set())
        if endpoints is None:
            return None
        found |= self._ids("snapshot_models_of_endpoints", endpoints)
        return found | self._ids("snapshot_models_redirecting", found)

    def _ids(self, query: str, ids: set[UUID]) -> set[UUID]:
        return {row.id for row in self._rows(query, ids)} if ids else set()

    def _rows(self, query: str, ids: Ids) -> Iterable[Any]:
        cursor = self._connection.cursor(row_factory=namedtuple_row)
        cursor.execute(_QUERIES[query], {"ids": None if ids is None else list(ids)})
        while rows := cursor.fetchmany(_YIELD_EVERY):
            yield from rows
            gevent.sleep(0)

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
            tariffs=tuple(_tariff(part) for part in row.tariffs or ()),
            rules={
                purpose: Rule(part["target"] if part["action"] == "redirect" else None)
                for purpose, part in (row.rules or {}).items()
                # A redirect whose target was deleted is no rule any more.
                if part["action"] == "deny" or part["target"]
            },
            capacity=row.capacity,
            batch_capacity=row.batch_capacity,
            endpoint_id=row.endpoint_id,
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
                timeouts=self._timeouts,
                endpoint_id=row.endpoint_id,
                endpoint_name=row.endpoint_name,
                trusted=row.trusted,
            )
        except (Undecryptable, ValueError) as error:
            # One endpoint that cannot be called must not take all the others with it.
            log.error("model skipped", extra={"alias": row.alias, "reason": str(error)})
            return None


def _key(row: Any) -> Key:
    return Key(
        id=row.id,
        owner_id=row.user_id,
        created_by=row.created_by,
        purpose=row.purpose,
        requests_per_second=row.requests_per_second,
        burst_size=row.burst_size,
    )


def _tariff(part: Mapping[str, Any]) -> CurrentTariff:
    until = part["valid_until"]
    return CurrentTariff(
        input=Decimal(part["input"]),
        output=Decimal(part["output"]),
        purpose=part["purpose"],
        window=part["window"],
        valid_from=datetime.fromisoformat(part["valid_from"]),
        valid_until=datetime.fromisoformat(until) if until else None,
    )
