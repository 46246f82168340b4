"""`/healthz` (or `/health`): the process runs. `/readyz`: it can do its work, and what is wrong when it cannot.

Not ready (503): the database cannot be reached, its tables are older than this code, keys and models were never loaded, or the recorder
is full. Said but no reason to be unready: no worker is alive, records wait in the spool, notifications do not arrive.
While the database is away realtime calls are still answered, so `/readyz` is for people and deployments; routers in front of all
processes should ask `/healthz`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson
import psycopg
from alembic.script import ScriptDirectory
from flask import Blueprint, Response, current_app

from dwctl import __version__, clock, sql
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
    ready = all(check.ready for check in checks.values())
    body = {
        "status": "ready" if ready else "not_ready",
        "version": __version__,
        "checks": {name: check.shown() for name, check in checks.items()},
    }
    return Response(orjson.dumps(body), 200 if ready else 503, mimetype="application/json")


def look(gateway: Gateway) -> dict[str, Check]:
    """Every check by name."""
    database, workers = _ask_database(gateway)
    return {
        "database": database,
        "routing": _routing(gateway),
        "recorder": _recorder(gateway),
        "notifications": _notifications(gateway),
        "workers": workers,
        "clock": _clock(),
        "shutdown": Check(
            not gateway.draining, "this process is stopping" if gateway.draining else None
        ),
    }


def _ask_database(gateway: Gateway) -> tuple[Check, Check]:
    """Database and workers: one round trip answers for both."""
    began = time.monotonic()
    values = {"dead_after_s": gateway.settings.daemons.dead_after}
    try:
        with Patience(_PATIENCE_S), gateway.connections.transaction() as connection:
            row = connection.execute(_QUERIES["readiness"], values).fetchone()
    except psycopg.errors.UndefinedTable:
        return Check(False, "there are no tables yet: run `dwctl db upgrade`"), _workers(None)
    except (DatabaseAway, psycopg.Error, Patience):
        problem = f"the database did not answer within {_PATIENCE_S:g} s"
        return Check(False, problem), _workers(None)
    assert row is not None
    revision, alive = row
    return _database(revision, round((time.monotonic() - began) * 1000, 1)), _workers(alive)


def _database(revision: str | None, latency_ms: float) -> Check:
    facts = {"latency_ms": latency_ms, "revision": revision, "wanted_revision": _head()}
    # A revision that this code does not know was written by a newer release, whose migrations suit this one too.
    behind = revision is None or (revision in _revisions() and revision != _head())
    problem = "migrations are missing: run `dwctl db upgrade`" if behind else None
    return Check(not behind, problem, facts)


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
    late = age_s > 3 * gateway.settings.snapshot.full_reload_interval
    problem = (
        "keys and models could not be reloaded for long; the last state serves on" if late else None
    )
    routing = gateway.snapshot.routing
    facts = {"age_s": round(age_s, 1), "models": len(routing.models), "keys": len(routing.keys)}
    return Check(True, problem, facts)


def _recorder(gateway: Gateway) -> Check:
    recorder = gateway.recorder
    full = recorder.depth >= gateway.settings.recorder.queue_size
    away_s = (
        None if recorder.away_since is None else round(time.monotonic() - recorder.away_since, 1)
    )
    facts = {"waiting": recorder.depth, "spooled_bytes": _spooled_bytes(gateway), "away_s": away_s}
    if full:
        return Check(False, "the recorder is full: calls are refused until it has caught up", facts)
    return Check(
        True,
        None if away_s is None else "records go to the spool until the database is back",
        facts,
    )


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


def _head() -> str | None:
    return _known(current_app.extensions["migrate"].directory)[0]


def _revisions() -> frozenset[str]:
    return _known(current_app.extensions["migrate"].directory)[1]


@cache
def _known(folder: str) -> tuple[str | None, frozenset[str]]:
    """The newest revision of this code, and all of them."""
    scripts = ScriptDirectory(folder)
    revisions = frozenset(script.revision for script in scripts.walk_revisions())
    return scripts.get_current_head(), revisions
