"""The worker's own numbers on its metrics page, under the names of the Rust product where the thing exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from dwctl.mail.sending import Sending
from dwctl.printable import printable
from dwctl.queue.duties import reclaimed
from dwctl.worker.claims import Claims
from dwctl.worker.duties import DutyRunner
from dwctl.worker.tally import Spreads, Tally


def collector(
    claims: Claims, duties: DutyRunner, sending: Sending
) -> Callable[[], Iterator[Metric]]:
    """What `operations.metrics` adds to the page of this process."""

    def collect() -> Iterator[Metric]:
        flying = GaugeMetricFamily(
            "fusillade_requests_in_flight", "Queued requests that run here.", labels=["model"]
        )
        for model, count in claims.runs.running.items():
            flying.add_metric([printable(model)], count)
        yield flying
        yield from _counters(claims)
        yield from _claims(claims)
        yield from _tally(claims.runs.tally)
        yield from _duties(duties)
        yield from _mails(sending)

    return collect


def _counters(claims: Claims) -> Iterator[Metric]:
    for name, text, value in (
        ("fusillade_requests_claimed", "Requests claimed and begun.", claims.claimed),
        (
            "fusillade_requests_limited",
            "Requests given back because a limit of their model was reached.",
            claims.runs.tally.limited,
        ),
        (
            "fusillade_requests_completed_after_sla",
            "Requests that ended here after their deadline.",
            claims.runs.tally.late,
        ),
        (
            "fusillade_requests_routed_to_escalation",
            "Requests claimed for the model to which theirs escalates near a deadline.",
            claims.escalated,
        ),
        (
            "fusillade_stale_requests_reclaimed",
            "Requests that this process took back from workers that had died.",
            reclaimed.requests,
        ),
        (
            "fusillade_claim_faults",
            "Claims that failed: the database was away, or took too long.",
            claims.faults,
        ),
        (
            "fusillade_claim_rounds",
            "Claims made, whether they found something or not.",
            claims.rounds,
        ),
    ):
        yield CounterMetricFamily(name, text, value=value)


def _claims(claims: Claims) -> Iterator[Metric]:
    capacity = "Requests that this worker could run beside those that it runs."
    yield GaugeMetricFamily("fusillade_claim_capacity", capacity, value=claims.room)
    seconds = "Seconds that a claim took, its commit included."
    yield _spread("fusillade_claim_duration_seconds", seconds, (), claims.seconds)
    yield _spread("fusillade_claim_size", "Requests in one claim.", (), claims.sizes)


def _tally(tally: Tally) -> Iterator[Metric]:
    yield _counted(
        "fusillade_requests_completed",
        "Requests that ended here.",
        ("model", "status", "reason", "status_code"),
        tally.ended,
    )
    yield _counted(
        "fusillade_requests_retried",
        "Requests put off for another try.",
        ("model",),
        {(model,): count for model, count in tally.retried.items()},
    )
    yield _counted(
        "fusillade_retry_denied",
        "Failures that might have passed, and were the last.",
        ("model", "reason"),
        tally.denied,
    )
    yield _counted(
        "fusillade_http_status_retriable",
        "Statuses of upstreams after which a request may be tried again.",
        ("model", "code"),
        tally.statuses,
    )
    yield _counted(
        "fusillade_requests_paused",
        "Requests given back because their account has no credit, or put off with a pause that their upstream asked for.",
        ("reason",),
        {(reason,): count for reason, count in tally.pauses.items()},
    )
    yield _spread(
        "fusillade_request_duration_seconds",
        "Seconds from a request's start here to its end.",
        ("model", "status"),
        tally.seconds,
    )
    yield _spread(
        "fusillade_retry_attempts_on_success",
        "How often a request had failed that succeeded.",
        ("model",),
        tally.retries_of_success,
    )


def _counted(
    name: str, text: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in list(counts.items()):
        family.add_metric([printable(value) for value in values], count)
    return family


def _spread(name: str, text: str, labels: Sequence[str], spreads: Spreads) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    bounds = [*map(str, spreads.bounds), "+Inf"]
    for values, spread in list(spreads.by_labels.items()):
        counts = accumulate(spread.buckets)
        shown = [printable(value) for value in values]
        family.add_metric(shown, list(zip(bounds, counts, strict=True)), spread.total)
    return family


def _duties(duties: DutyRunner) -> Iterator[Metric]:
    runs = CounterMetricFamily("dwctl_duty_runs", "Duties done by this process.", labels=["duty"])
    faults = CounterMetricFamily("dwctl_duty_faults", "Duties that failed here.", labels=["duty"])
    for name in duties.runs:
        runs.add_metric([name], duties.runs[name])
        faults.add_metric([name], duties.faults[name])
    yield runs
    yield faults


def _mails(sending: Sending) -> Iterator[Metric]:
    for name, text, counts in (
        ("dwctl_mails_sent", "Mails that the mail server took.", sending.sent),
        ("dwctl_mails_failed", "Attempts to send a mail that failed.", sending.failed),
        ("dwctl_mails_given_up", "Mails that will not be sent.", sending.given_up),
    ):
        by_template: dict[tuple[str, ...], int] = {
            (template,): count for template, count in counts.items()
        }
        yield _counted(name, text, ("template",), by_template)
    yield GaugeMetricFamily(
        "dwctl_mails_waiting_max", "Mails that wait to be sent.", value=sending.waiting
    )
