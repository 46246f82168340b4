"""`/internal/metrics`: the numbers of this gunicorn's processes for Prometheus, read from what the gateway keeps anyway.

Of one process: requests, calls, the connection pool, the recorder; these are added up over the processes of one gunicorn (`siblings`). Of
the deployment, the same in every process: models and what they are set to, and what waits in the queue. Another gunicorn (another machine,
a worker) has a page of its own. Names are those of the Rust product where the thing exists; docs/metrics.md has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from flask import Blueprint, Flask, Response, current_app
from sqlalchemy.pool import QueuePool

from dwctl import __version__
from dwctl.access import guard
from dwctl.ai import figures as gateway_figures
from dwctl.ai import front
from dwctl.ai.gateway import Gateway
from dwctl.catalog.figures import ModelFigures
from dwctl.db import db
from dwctl.figures import page
from dwctl.figures.families import Family, counter, gauge, histogram, info
from dwctl.monitoring.queue_depth import DepthMetrics
from dwctl.operations import measured, scrapers
from dwctl.operations.measured import Watch
from dwctl.operations.siblings import Siblings
from dwctl.pace import Pace
from dwctl.pool import Pool
from dwctl.protocols.surfaces import SURFACES
from dwctl.usage import figures as usage_figures
from dwctl.web import current

blueprint = Blueprint("metrics", __name__)
guard.open_to_all(blueprint, reason="scrapers are no callers: see `operations.scrapers`")
blueprint.before_request(scrapers.insist)

Collect = Callable[[], Iterable[Family]]

_EXTENSION = "dwctl.metrics"
_HTTP_LABELS = ("method", "endpoint", "status")


class Page:
    """Everything that one process can tell."""

    def __init__(self, app: Flask, watch: Watch, more: Iterable[Collect] = ()) -> None:
        """`more` gives further numbers of this process (the worker's)."""
        self._app = app
        self._watch = watch
        self._more = tuple(more)
        connections = current.parts(app).connections
        self._depths = DepthMetrics(connections)
        self._models = ModelFigures(connections)
        self._usage = usage_figures.collector(connections)
        self.siblings: Siblings | None = None
        self.turned_away: Mapping[str, int] = {}

    @property
    def gateway(self) -> Gateway:
        """Where the numbers come from."""
        found: Gateway = self._app.extensions["dwctl.gateway"]
        return found

    def own(self) -> Iterator[Family]:
        """What belongs to this process, to be added to its siblings'."""
        yield from _requests(self._watch)
        yield from gateway_figures.families(self.gateway)
        yield from self._pool()
        text = "Connections refused before there was a request, by the code of their refusal."
        refused = {(reason,): count for reason, count in list(self.turned_away.items())}
        yield counter("dwctl_connections_refused_total", text, ("reason",), refused)
        for collect in self._more:
            yield from collect()

    def families(self, pace: Callable[[], None]) -> Iterator[Family]:
        """The whole page. `pace` gives others their turn."""
        yield from self.own() if self.siblings is None else self.siblings.summed()
        routing = self.gateway.snapshot.routing
        yield from self._models.families(routing, pace)
        yield from self._depths.collect(routing.models)
        yield from self._usage()
        yield info("dwctl_build_info", "The version that runs.", ("version",), [(__version__,)])

    def _pool(self) -> Iterator[Family]:
        with self._app.app_context():
            pool = db.engine.pool
        if not isinstance(pool, QueuePool):
            return
        idle, used = pool.checkedin(), pool.checkedout()
        database = self.gateway.settings.database
        for name, value in {
            "total": idle + used,
            "idle": idle,
            "in_use": used,
            "max": database.pool_size + database.pool_overflow,
        }.items():
            text = f"Connections of the pool: {name}."
            yield gauge(f"dwctl_db_pool_connections_{name}", text, ("pool",), {("main",): value})
        text = "Times that nobody gave a connection back within database.pool_timeout."
        timeouts = pool.timeouts if isinstance(pool, Pool) else 0
        yield counter("dwctl_db_pool_acquire_timeouts_total", text, (), timeouts)


def init_app(app: Flask, more: Iterable[Collect] = ()) -> None:
    """Count the app's requests and give it a page to show. Call it when everything else stands in front of the app."""
    gateway: Gateway = app.extensions["dwctl.gateway"]
    watch = Watch(logs_each=gateway.settings.log_requests, tracer=gateway.tracer)
    measured.install(app, watch, hot_routes=[front.PREFIX + path for path in SURFACES])
    app.extensions[_EXTENSION] = Page(app, watch, more)


def start(worker: Any) -> None:
    """Called by gunicorn when the worker has loaded the application: share numbers with the other processes."""
    shown: Page = worker.wsgi.extensions[_EXTENSION]
    shown.turned_away = worker.turned_away
    shown.siblings = Siblings(shown.own)
    shown.siblings.start()


def stop(worker: Any) -> None:
    """Called by gunicorn at the very end: leave the last numbers behind."""
    app = getattr(worker, "wsgi", None)
    shown: Page | None = app.extensions.get(_EXTENSION) if app is not None else None
    if shown is not None and shown.siblings is not None:
        shown.siblings.stop()


@blueprint.get("/internal/metrics")
def show_metrics() -> Response:
    """Prometheus's text format."""
    pace = Pace()
    found: Page = current_app.extensions[_EXTENSION]
    return Response(page.written(found.families(pace), pace), content_type=page.CONTENT_TYPE)


def _requests(watch: Watch) -> Iterator[Family]:
    totals = {key: sum(spread.buckets) for key, spread in list(watch.seconds.by_labels.items())}
    text = "HTTP requests that have ended."
    yield counter("dwctl_http_requests_total", text, _HTTP_LABELS, totals)
    text = "Seconds from a request's arrival to the end of its answer."
    yield histogram("dwctl_http_requests_duration_seconds", text, _HTTP_LABELS, watch.seconds)
    text = "HTTP requests being answered."
    yield gauge("dwctl_http_requests_pending", text, _HTTP_LABELS[:2], watch.pending)
