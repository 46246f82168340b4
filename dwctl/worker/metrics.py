"""The worker's own numbers on its metrics page, under the names of the Rust product where the thing exists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from dwctl.printable import printable
from dwctl.worker.claims import Claims
from dwctl.worker.duties import DutyRunner


def collector(claims: Claims, duties: DutyRunner) -> Callable[[], Iterator[Metric]]:
    """What `operations.metrics` adds to the page of this process."""

    def collect() -> Iterator[Metric]:
        flying = GaugeMetricFamily(
            "fusillade_requests_in_flight", "Queued requests that run here.", labels=["model"]
        )
        for model, count in Counter(claims.runs.models_in_flight()).items():
            flying.add_metric([printable(model)], count)
        yield flying
        yield from _counters(claims)
        yield from _duties(duties)

    return collect


def _counters(claims: Claims) -> Iterator[Metric]:
    for name, text, value in (
        ("fusillade_requests_claimed", "Requests claimed and begun.", claims.claimed),
        ("fusillade_requests_retried", "Requests put off for another try.", claims.runs.retried),
        (
            "fusillade_requests_limited",
            "Requests given back because a limit of their model was reached.",
            claims.runs.put_off,
        ),
        (
            "fusillade_claim_rounds",
            "Claims made, whether they found something or not.",
            claims.rounds,
        ),
    ):
        yield CounterMetricFamily(name, text, value=value)
    ended = CounterMetricFamily(
        "fusillade_requests_completed", "Requests that ended here.", labels=["status"]
    )
    for status, count in claims.runs.ended.items():
        ended.add_metric([status], count)
    yield ended


def _duties(duties: DutyRunner) -> Iterator[Metric]:
    runs = CounterMetricFamily("dwctl_duty_runs", "Duties done by this process.", labels=["duty"])
    faults = CounterMetricFamily("dwctl_duty_faults", "Duties that failed here.", labels=["duty"])
    for name in duties.runs:
        runs.add_metric([name], duties.runs[name])
        faults.add_metric([name], duties.faults[name])
    yield runs
    yield faults
