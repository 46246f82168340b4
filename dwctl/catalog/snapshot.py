"""The in-process copy of the routing value: loaded whole at the start, then kept up by a log of changes.

Triggers write which rows changed into that log (`routing_changes`), and notify. A reader asks it for what its last reading did not see:
exactly, whatever was committed in which order, so it does not matter whether notifications are lost or doubled. Reloads wait a moment for
more changes (a trailing edge), read only what changed and rest while they build (`dwctl.pace`). The value is replaced whole, so a call
sees one state. While the database is away the last value serves on. Now and then entries are counted on both sides: only where that
disagrees, or where the log cannot say what is new, all of it is read anew.
"""

from __future__ import annotations

import gc
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import gevent
from gevent.event import Event

from dwctl import clock
from dwctl.catalog.key_rows import KeyRows
from dwctl.catalog.key_use import KeyUse
from dwctl.catalog.layers import Shards
from dwctl.catalog.loader import Changes, Loader, Mark
from dwctl.catalog.routing import Key, Routing
from dwctl.config import Settings
from dwctl.db import Connections, DatabaseAway
from dwctl.encryption import Sealer
from dwctl.figures.spreads import Spreads
from dwctl.pace import Pace
from dwctl.wakeups import Wakeups

log = logging.getLogger(__name__)

CHANNEL = "auth_config_changed"
_RETRY_S = 0.5
_POLL_S = 2.0
_UNKNOWN_KEY_LOOKUPS_PER_S = 50
_UNKNOWN_KEPT = 10_000
_NEW_KEY_S = 2.0
LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAYERED = {"api_keys": "keys", "user_groups": "groups", "user_balance_checkpoints": "funded"}
_DEEPEST = 5000
"""Changes over what was read whole, each of which costs as much as there are. Beyond that the table is read whole again."""


class Snapshot:
    """Holds the routing value of this process and keeps it fresh."""

    def __init__(self, settings: Settings, connections: Connections, sealer: Sealer) -> None:
        self.routing = Routing()
        self.loaded_at: float | None = None
        self.key_use = KeyUse(connections, settings.snapshot.key_use_interval)
        self._settings = settings
        self._connections = connections
        self._sealer = sealer
        self.reloads: Counter[str] = Counter()
        """Reloads by what caused them: `listen_notify`, or `fallback` (a poll, a gap, a key that was not known)."""
        self.faults: Counter[str] = Counter()
        self.lags_s = Spreads(LAG_S)
        self._mark: Mark | None = None
        self._counted_at = 0.0
        self._found: list[Key] = []
        self._changed = Event()
        self._heard = False
        self._loaded = Event()
        self._greenlet: gevent.Greenlet | None = None
        self._wakeups: Wakeups | None = None
        self._unknown: dict[bytes, float] = {}
        self._lookups = (0.0, 0)

    def start(self, wakeups: Wakeups, after: Event | None = None) -> None:
        """Begin to listen and, `after` that, to load. `loaded_at` stays None until the first load has ended."""
        self._wakeups = wakeups
        wakeups.subscribe(CHANNEL, self.note_change, self.catch_up)
        self.catch_up()
        self._greenlet = gevent.spawn(self._run, after)
        self.key_use.start()

    def stop(self) -> None:
        """Stop reloading, and write down which keys were used."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self.key_use.stop()

    @property
    def age_s(self) -> float | None:
        """Seconds since the value was last known to be right; None before the first load."""
        return None if self.loaded_at is None else time.monotonic() - self.loaded_at

    def note_change(self, _payload: str) -> None:
        """Something has changed; the log says what."""
        self._heard = True
        self.catch_up()

    def catch_up(self) -> None:
        """Read what has changed, soon."""
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
        funded = self.routing.funded
        gone = [id for id in owner_ids if id in funded]
        if gone:
            self.routing = replace(self.routing, funded=funded.changed(dict.fromkeys(gone)))

    def wait_loaded(self, patience_s: float) -> bool:
        """Wait for the first load; False when it took too long (the database is away)."""
        return self.loaded_at is not None or self._wait_fresher_than(0.0, patience_s)

    def wait_fresher_than(self, moment: float, patience_s: float) -> bool:
        """Read what has changed, and wait until the value is newer than `moment` (monotonic); False when that took too long."""
        self.catch_up()
        return self._wait_fresher_than(moment, patience_s)

    def _wait_fresher_than(self, moment: float, patience_s: float) -> bool:
        until = time.monotonic() + patience_s
        while (self.loaded_at or 0.0) < moment or self.loaded_at is None:
            left_s = until - time.monotonic()
            if left_s <= 0:
                return False
            self._loaded.wait(left_s)
        return True

    def _run(self, after: Event | None) -> None:
        if after is not None:
            after.wait()
        while True:
            if self._changed.wait(self._poll_interval_s()):
                gevent.sleep(self._settings.snapshot.debounce)
            self._changed.clear()
            source = "listen_notify" if self._heard else "fallback"
            self._heard = False
            self._reload(source)

    def _poll_interval_s(self) -> float:
        """Where notifications do not arrive, polling has to do."""
        interval_s = self._settings.snapshot.full_reload_interval
        hears = self._wakeups is not None and self._wakeups.delivers
        return interval_s if hears else min(interval_s, _POLL_S)

    def _reload(self, source: str) -> None:
        started, old, pace = time.monotonic(), self.routing, Pace()
        found, self._found = self._found, []
        try:
            self._read(started, found, pace)
        except Exception as error:
            # Nothing is lost: the mark stays where it was, so the next try reads the same, and the last value serves on.
            self.faults[source] += 1
            level = logging.WARNING if isinstance(error, DatabaseAway) else logging.ERROR
            log.log(level, "routing not reloaded", extra={"reason": repr(error)})
            self._found += found
            self._changed.set()
            gevent.sleep(_RETRY_S)
            return
        self.loaded_at = started
        self.reloads[source] += 1
        self._unknown.clear()
        loaded, self._loaded = self._loaded, Event()
        loaded.set()
        parts = _parts(old, self.routing)
        del old
        _let_go(parts, pace)

    def _read(self, started: float, found: list[Key], pace: Pace) -> None:
        old = self.routing
        counting = started - self._counted_at >= self._settings.snapshot.full_reload_interval
        with self._connections.transaction() as connection:
            loader = Loader(connection, self._settings, self._sealer, pace)
            mark, changes = loader.begin(self._mark)
            _follow(mark)
            whole = changes is None
            if changes is not None:
                new = _changed(loader, old, _with(changes, found))
                if counting and (wrong := loader.miscounted(new)):
                    log.warning("routing read anew", extra={"miscounted": wrong})
                    whole = True
            if whole:
                with _uncollected():
                    new = loader.everything()
        self.routing, self._mark = new, mark
        for table, age_s in loader.ages_s.items():
            self.lags_s.add((table,), age_s + time.monotonic() - started)
        if counting or whole:
            self._counted_at = started

    def _may_look_up(self, now: float) -> bool:
        since, count = self._lookups
        if now - since > 1.0:
            since, count = now, 0
        self._lookups = (since, count + 1)
        return count < _UNKNOWN_KEY_LOOKUPS_PER_S

    def _look_up(self, secret_hash: bytes, now: float) -> Key | None:
        """Ask the database; a key that is there comes in with the next reload, together with the others that wait for it."""
        with self._connections.transaction() as connection:
            key = Loader(connection, self._settings, self._sealer, Pace()).key_by_hash(secret_hash)
        if key is None:
            if len(self._unknown) >= _UNKNOWN_KEPT:
                self._unknown.clear()
            self._unknown[secret_hash] = now
            return None
        self._found.append(key)
        if not self.wait_fresher_than(time.monotonic(), _NEW_KEY_S):
            raise DatabaseAway
        return self.routing.keys.get(secret_hash)


def _follow(mark: Mark) -> None:
    if clock.follow(mark.at):
        log.error(
            "this machine's clock and the database's are far apart: the database's is used",
            extra={"off_s": round(clock.off_s(), 1)},
        )


def _with(changes: Changes, found: list[Key]) -> Changes:
    """The changes and, whatever the log knows of them, keys that were found in the database, with what their owners have."""
    if not found:
        return changes
    owners = {key.owner_id for key in found}
    more = {
        "api_keys": {key.id for key in found if key.id},
        "user_groups": owners,
        "user_balance_checkpoints": owners,
    }
    merged = dict(changes)
    for table, ids in more.items():
        known = changes.get(table, set())
        merged[table] = None if known is None else known | ids
    return merged


def _changed(loader: Loader, old: Routing, changes: Changes) -> Routing:
    """The value with the changes. A part over which much has changed is read whole again, as one is of which more has changed than is named."""
    deep = {table: None for table, name in _LAYERED.items() if getattr(old, name).depth > _DEEPEST}
    changes = {**changes, **deep}
    if None not in changes.values():
        return loader.changed(old, changes)
    with _uncollected():
        return loader.changed(old, changes)


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is made here stays out of the garbage collector's sight: it would look at hundreds of thousands of new objects again and again, the
    more of them the longer, while there is nothing to find. What is dropped of them is freed without it.
    """
    gc.collect(1)
    gc.disable()
    try:
        yield
        # What others made meanwhile is kept with it, cycles too; that is little, and this is rare.
        gc.freeze()
    finally:
        gc.enable()


def _parts(old: Routing, new: Routing) -> list[dict[Any, Any]]:
    """What of the old value is not in the new one."""
    parts: list[dict[Any, Any]] = []
    for name in ("keys", "hashes", "groups", "funded"):
        base = getattr(old, name).base
        if base is not getattr(new, name).base:
            shards = base.rows if isinstance(base, KeyRows) else base
            parts += shards.parts if isinstance(shards, Shards) else ()
    return parts


def _let_go(parts: list[dict[Any, Any]], pace: Pace) -> None:
    """Drop them one at a time: with the last reference to a whole value they would all be freed at once."""
    while parts:
        parts.pop()
        pace()
