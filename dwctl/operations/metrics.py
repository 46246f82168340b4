"""`/internal/metrics`: the numbers of this gunicorn's processes for Prometheus, read from what the gateway keeps anyway.

Of one process: requests, calls in flight, the connection pool, the recorder; these are added up over the processes of one gunicorn
(`siblings`). Of the deployment, the same in every process: models and what they are set to. Another gunicorn (another machine, a worker)
has a page of its own. Names are those of the Rust product where the thing exists; gauges that are no sum over processes end in `_max`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit

from flask import Blueprint, Flask, Response, current_app
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from sqlalchemy.pool import QueuePool

from dwctl import __version__
from dwctl.access import guard
from dwctl.ai import front
from dwctl.ai.gateway import Gateway
from dwctl.analytics.recorder import Recorder
from dwctl.catalog.routing import Model
from dwctl.db import db
from dwctl.monitoring.queue_depth import DepthMetrics
from dwctl.operations import measured, scrapers
from dwctl.operations.measured import BUCKETS_S, Tally
from dwctl.operations.siblings import Siblings
from dwctl.printable import printable
from dwctl.protocols.surfaces import SURFACES
from dwctl.upstream.health import Health
from dwctl.web import current

blueprint = Blueprint("metrics", __name__)
guard.open_to_all(blueprint, reason="scrapers are no callers: see `operations.scrapers`")
blueprint.before_request(scrapers.insist)

Collect = Callable[[], Iterable[Metric]]

_EXTENSION = "dwctl.metrics"
_BOUNDS = [*map(str, BUCKETS_S), "+Inf"]
_HTTP_LABELS = ("method", "endpoint", "status")
_MODEL_LABELS = (
    "model", "model_name", "model_type", "endpoint_name", "endpoint_host", "is_composite", "lb_strategy",
    "sanitize_responses", "is_metered",
)  # fmt: skip


class Page:
    """Everything that one process can tell."""

    def __init__(self, app: Flask, tally: Tally, more: Iterable[Collect] = ()) -> None:
        """`more` gives further numbers of this process (the worker's)."""
        self._app = app
        self._tally = tally
        self._more = tuple(more)
        self._depths = DepthMetrics(current.parts(app).connections)
        self.siblings: Siblings | None = None
        self.turned_away: Mapping[str, int] = {}

    @property
    def gateway(self) -> Gateway:
        """Where the numbers come from."""
        found: Gateway = self._app.extensions["dwctl.gateway"]
        return found

    def own(self) -> Iterator[Metric]:
        """What belongs to this process, to be added to its siblings'."""
        yield from _requests(self._tally)
        yield from _calls(self.gateway)
        yield from _targets(self.gateway.health)
        yield from _recorder(self.gateway.recorder)
        yield from self._pool()
        text = "Connections refused before there was a request, by the code of their refusal."
        turned_away = CounterMetricFamily("dwctl_connections_refused", text, labels=["reason"])
        for reason, count in list(self.turned_away.items()):
            turned_away.add_metric([reason], count)
        yield turned_away
        for collect in self._more:
            yield from collect()

    def collect(self) -> Iterator[Metric]:
        """The whole page."""
        yield from self.own() if self.siblings is None else self.siblings.summed()
        models = self.gateway.snapshot.routing.models
        yield from _models(models.values())
        yield from self._depths.collect(models)
        yield _gauge(
            "dwctl_build_info", "The version that runs.", ("version",), [((__version__,), 1)]
        )

    def _pool(self) -> Iterator[Metric]:
        with self._app.app_context():
            pool = db.engine.pool
        if not isinstance(pool, QueuePool):
            return
        idle, used = pool.checkedin(), pool.checkedout()
        largest = (
            self.gateway.settings.database.pool_size + self.gateway.settings.database.pool_overflow
        )
        for name, value in {
            "total": idle + used,
            "idle": idle,
            "in_use": used,
            "max": largest,
        }.items():
            text = f"Connections of the pool: {name}."
            yield _gauge(f"dwctl_db_pool_connections_{name}", text, ("pool",), [(("main",), value)])


def init_app(app: Flask, more: Iterable[Collect] = ()) -> None:
    """Count the app's requests and give it a page to show. Call it when everything else stands in front of the app."""
    tally = measured.install(app, hot_routes=[front.PREFIX + path for path in SURFACES])
    app.extensions[_EXTENSION] = Page(app, tally, more)


def start(worker: Any) -> None:
    """Called by gunicorn when the worker has loaded the application: share numbers with the other processes."""
    page: Page = worker.wsgi.extensions[_EXTENSION]
    page.turned_away = worker.turned_away
    page.siblings = Siblings(page.own)
    page.siblings.start()


def stop(worker: Any) -> None:
    """Called by gunicorn at the very end: leave the last numbers behind."""
    app = getattr(worker, "wsgi", None)
    page: Page | None = app.extensions.get(_EXTENSION) if app is not None else None
    if page is not None and page.siblings is not None:
        page.siblings.stop()


@blueprint.get("/internal/metrics")
def show_metrics() -> Response:
    """Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(current_app.extensions[_EXTENSION])
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def _requests(tally: Tally) -> Iterator[Metric]:
    total = CounterMetricFamily(
        "dwctl_http_requests", "HTTP requests that have ended.", labels=_HTTP_LABELS
    )
    text = "Seconds from a request's arrival to the end of its answer."
    duration = HistogramMetricFamily(
        "dwctl_http_requests_duration_seconds", text, labels=_HTTP_LABELS
    )
    for key, series in list(tally.series.items()):
        counts = list(accumulate(series.buckets))
        total.add_metric(key, counts[-1])
        duration.add_metric(key, list(zip(_BOUNDS, counts, strict=True)), series.seconds)
    yield total
    yield duration
    yield GaugeMetricFamily(
        "dwctl_http_requests_pending", "HTTP requests being answered.", tally.pending
    )


def _calls(gateway: Gateway) -> Iterator[Metric]:
    text = "Calls on an inference route whose answer has not ended."
    yield GaugeMetricFamily("onwards_requests_inflight", text, len(gateway.in_progress.flights))
    calls = CounterMetricFamily(
        "dwctl_calls", "Calls that were sent to an upstream.", labels=["outcome"]
    )
    calls.add_metric(["failed"], gateway.registration.failed)
    calls.add_metric(["succeeded"], gateway.registration.processed - gateway.registration.failed)
    yield calls
    text = "Inference calls without a valid key, by the code of their refusal."
    strangers = CounterMetricFamily("dwctl_strangers_refused", text, labels=["reason"])
    for reason, count in gateway.strangers.refused.items():
        strangers.add_metric([reason], count)
    yield strangers
    text = "Calls refused by a limit, by whose it was and by the code of their refusal."
    limited = CounterMetricFamily("dwctl_limits_refused", text, labels=["limit", "reason"])
    for (whose, code), count in list(gateway.limiter.refused.items()):
        limited.add_metric([whose, code], count)
    yield limited
    text = "Seconds since keys and models were last known to be right, in the process that is furthest behind."
    yield GaugeMetricFamily("dwctl_routing_age_seconds_max", text, gateway.snapshot.age_s or 0.0)
    text = "Processes in which notifications arrive; the others poll."
    yield GaugeMetricFamily("dwctl_notifications_delivered", text, gateway.wakeups.delivers)


def _targets(health: Health) -> Iterator[Metric]:
    text = "Attempts of calls at a target that failed, by what was wrong."
    failed = CounterMetricFamily(
        "dwctl_upstream_attempts_failed", text, labels=("endpoint", "model", "reason")
    )
    for labels, count in list(health.failed.items()):
        failed.add_metric([printable(label) for label in labels], count)
    yield failed
    text = "Processes in which a target keeps failing, and models that have another leave it out."
    left_out = [(target, 1) for target in health.left_out()]
    yield _gauge("dwctl_upstream_target_left_out", text, ("endpoint", "model"), left_out)


def _recorder(recorder: Recorder) -> Iterator[Metric]:
    counts = recorder.counts
    written = "dwctl_analytics_batched_records"
    yield CounterMetricFamily(written, "Records of calls that were committed.", counts["flushed"])
    yield CounterMetricFamily("dwctl_recorder_groups", "Commits that wrote them.", counts["groups"])
    text = "Records that went to the spool because the database was away."
    yield CounterMetricFamily("dwctl_recorder_spooled", text, counts["spooled"])
    text = "Refusals that were not written down because too much waited."
    yield CounterMetricFamily("dwctl_recorder_shed", text, counts["shed"])
    text = "Records that the database refused for good; they lie beside the spool."
    yield CounterMetricFamily("dwctl_recorder_rejected", text, counts["rejected"])
    yield GaugeMetricFamily(
        "dwctl_recorder_depth", "Records that wait to be committed.", recorder.depth
    )
    away_s = 0.0 if recorder.away_since is None else time.monotonic() - recorder.away_since
    text = "Seconds for which the database has been away, in the process that misses it longest."
    yield GaugeMetricFamily("dwctl_recorder_away_seconds_max", text, away_s)
    yield from _spool(recorder)


def _spool(recorder: Recorder) -> Iterator[Metric]:
    try:
        size = recorder.spool.pending_bytes
    except OSError:
        return
    text = "Size of the spool on this machine."
    yield GaugeMetricFamily("dwctl_recorder_spool_bytes_max", text, size)


def _models(models: Iterable[Model]) -> Iterator[Metric]:
    models = list(models)
    info = [(_labels_of(model), 1) for model in models]
    yield _gauge("dwctl_model_info", "A model that can be called.", _MODEL_LABELS, info)
    text = "Calls at once that the model may have; 0: no limit."
    limits = [((model.alias,), model.limits.capacity or 0) for model in models]
    yield _gauge("dwctl_model_concurrency_limit", text, ("model",), limits)
    text = "Batch requests at once that the model may have; 0: the default."
    limits = [((model.alias,), model.batch_capacity or 0) for model in models]
    yield _gauge("dwctl_model_batch_capacity", text, ("model",), limits)
    groups = [((model.alias, str(group)), 1) for model in models for group in model.groups]
    text = "A group that may call a model."
    yield _gauge("dwctl_model_group_info", text, ("model", "group_id"), groups)


def _labels_of(model: Model) -> tuple[str, ...]:
    target = model.target
    return (
        model.alias,
        target.model_name if target else "",
        model.type or "",
        (target.endpoint_name if target else None) or "",
        (urlsplit(target.base_url).netloc.rpartition("@")[2] if target else ""),
        _word(model.is_composite),
        model.strategy if model.is_composite else "",
        _word(model.sanitise),
        _word(any(not tariff.price.is_zero for tariff in model.tariffs)),
    )


def _word(value: bool) -> str:
    return "true" if value else "false"


def _gauge(
    name: str, text: str, labels: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values:
        gauge.add_metric([printable(label) for label in key], value)
    return gauge
