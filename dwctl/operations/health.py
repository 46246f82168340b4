"""`/healthz` (or `/health`): the process runs. `/readyz`: it can do its work, and what is wrong when it cannot.

Not ready (503): the database cannot be reached, its tables are older than this code, today has no partition of the log, keys and models were
never loaded or could not be reloaded for long, the recorder is full; of a worker: it could not claim for long. Said but no reason to be unready,
because every call is still answered and charged: no worker is alive, the recorder is half full or records wait in the spool (refusals are
left out of the log, charges are late), notifications do not arrive, the tables are of a newer release.
While the database is away realtime calls are still answered, so `/readyz` is for people and deployments; routers in front of all
processes should ask `/healthz`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
from flask import Blueprint, Flask, Response, current_app

from dwctl import __version__, clock, revisions, sql
from dwctl.access import guard
from dwctl.ai.gateway import Gateway
from dwctl.db import DatabaseAway
from dwctl.patience import Patience

blueprint = Blueprint("health", __name__)
guard.open_to_all(
    blueprint, reason="probes carry no credential, and nothing here names a user or a secret"
)

_QUERIES = sql.load("dwctl.operations")
_PATIENCE_S = 3.0
_LATE_AFTER = 3
"""Reloads of keys and models that may fail one after the other."""
_MORE = "dwctl.health.more"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `problem` is a sentence for the operator, with what to do."""

    ready: bool
    problem: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def shown(self) -> dict[str, Any]:
        """As a member of the answer."""
        problem = {"problem": self.problem} if self.problem else {}
        return {"ready": self.ready, **problem, **self.facts}


@blueprint.get("/healthz")
@blueprint.get("/health")
def show_health() -> Response:
    """200 as long as the process answers; nothing is checked."""
    return Response("OK", mimetype="text/plain")


@blueprint.get("/readyz")
def show_readiness() -> Response:
    """200 when every check holds, else 503; the body says which one does not."""
    gateway: Gateway = current_app.extensions["dwctl.gateway"]
    if not gateway.started:
        gateway.start()
    checks = look(gateway)
    for more in current_app.extensions.get(_MORE, ()):
        checks |= more()
    ready = all(check.ready for check in checks.values())
    body = {
        "status": "ready" if ready else "not_ready",
        "version": __version__,
        "checks": {name: check.shown() for name, check in checks.items()},
    }
    return Response(orjson.dumps(body), 200 if ready else 503, mimetype="application/json")


def add_checks(app: Flask, checks: Callable[[], dict[str, Check]]) -> None:
    """Have a process look at more (the worker's own). They are asked at each probe, so they look at nothing far away."""
    app.extensions.setdefault(_MORE, []).append(checks)


def look(gateway: Gateway) -> dict[str, Check]:
    """Every check by name."""
    database, partition, workers = _ask_database(gateway)
    return {
        "database": database,
        "partition": partition,
        "routing": _routing(gateway),
        "recorder": _recorder(gateway),
        "notifications": _notifications(gateway),
        "workers": workers,
        "clock": _clock(),
        "shutdown": Check(
            not gateway.draining, "this process is stopping" if gateway.draining else None
        ),
    }


def _ask_database(gateway: Gateway) -> tuple[Check, Check, Check]:
    """Database, partition and workers: one round trip answers for all."""
    began = time.monotonic()
    values = {"dead_after_s": gateway.settings.daemons.dead_after}
    try:
        with Patience(_PATIENCE_S), gateway.connections.transaction() as connection:
            row = connection.execute(_QUERIES["readiness"], values).fetchone()
    except psycopg.errors.UndefinedTable:
        problem = "there are no tables yet: run `dwctl db upgrade`"
        return Check(False, problem), _partition(None), _workers(None)
    except (DatabaseAway, psycopg.Error, Patience):
        problem = f"the database did not answer within {_PATIENCE_S:g} s"
        return Check(False, problem), _partition(None), _workers(None)
    assert row is not None
    revision, alive, has_partition = row
    latency_ms = round((time.monotonic() - began) * 1000, 1)
    return _database(revision, latency_ms), _partition(has_partition), _workers(alive)


def _database(revision: str | None, latency_ms: float) -> Check:
    facts = {
        "latency_ms": latency_ms,
        "revision": revision,
        "wanted_revision": revisions.known().head,
    }
    # A revision that this code does not know was written by a newer release, whose migrations suit this one too.
    known = revision is None or revision in revisions.known().all
    behind = known and revision != revisions.known().head
    problem = None
    if behind:
        problem = "migrations are missing: run `dwctl db upgrade`"
    elif not known:
        problem = "the tables are of a newer release: replace this process by one of that"
    return Check(not behind, problem, facts)


def _partition(exists: bool | None) -> Check:
    """None: nobody can tell, and the check of the database says why."""
    if exists is False:
        return Check(
            False,
            "today has no partition in the request log, which workers make days ahead (duty make_partitions): see their log",
        )
    return Check(True)


def _workers(alive: int | None) -> Check:
    nobody = alive == 0
    problem = (
        "no worker process is alive: flex, background and batch requests are accepted, but wait"
        if nobody
        else None
    )
    return Check(True, problem, {"alive": alive})


def _routing(gateway: Gateway) -> Check:
    age_s = gateway.snapshot.age_s
    if age_s is None:
        return Check(False, "keys and models have not been loaded yet")
    late = age_s > _LATE_AFTER * gateway.settings.snapshot.full_reload_interval
    problem = (
        "keys and models could not be reloaded for long; the last state serves on" if late else None
    )
    routing = gateway.snapshot.routing
    facts = {"age_s": round(age_s, 1), "models": len(routing.models), "keys": len(routing.keys)}
    return Check(not late, problem, facts)


def _recorder(gateway: Gateway) -> Check:
    recorder = gateway.recorder
    depth, most = recorder.depth, gateway.settings.recorder.queue_size
    spooled = _spooled_bytes(gateway)
    away_s = (
        None if recorder.away_since is None else round(time.monotonic() - recorder.away_since, 1)
    )
    facts = {
        "waiting": depth,
        "oldest_s": round(recorder.oldest_s, 1),
        "spooled_bytes": spooled,
        "away_s": away_s,
    }
    if depth >= most:
        return Check(False, "the recorder is full: calls are refused until it has caught up", facts)
    problem = None
    if away_s is not None:
        problem = "records go to the spool until the database is back"
    elif depth >= most // 2:
        problem = (
            "the recorder is half full: the database is too slow, and refusals are not written down"
        )
    elif spooled:
        problem = "records wait in the spool of this machine: they are written, and charged, soon"
    return Check(True, problem, facts)


def _spooled_bytes(gateway: Gateway) -> int | None:
    try:
        return gateway.recorder.spool.pending_bytes
    except OSError:
        return None


def _notifications(gateway: Gateway) -> Check:
    wakeups = gateway.wakeups
    problem = None
    if not wakeups.connected:
        problem = "not listening yet; changes are found by polling"
    elif wakeups.deaf:
        problem = "notifications do not arrive, changes are found by polling: set database.direct_url to an address without a transaction pooler"
    return Check(True, problem, {"listening": wakeups.connected, "delivered": wakeups.delivers})


def _clock() -> Check:
    off_s = clock.off_s()
    problem = (
        f"this machine's clock is {abs(off_s):.0f} s {'behind' if off_s > 0 else 'ahead of'} the database's, which is used instead: keep it by NTP"
        if off_s
        else None
    )
    return Check(True, problem, {"off_s": round(off_s, 1)})
