"""What one process's gateway can tell of itself: calls, refusals, targets, and how fresh what it knows is."""

from __future__ import annotations

from collections.abc import Iterator

from dwctl.ai.gateway import Gateway
from dwctl.analytics import figures as recorder_figures
from dwctl.catalog import figures as catalog_figures
from dwctl.figures.families import Family, counter, gauge, histogram
from dwctl.upstream.health import Health


def families(gateway: Gateway) -> Iterator[Family]:
    """For the metrics page."""
    yield from _calls(gateway)
    yield from gateway.genai.families()
    yield from _targets(gateway.health)
    yield from recorder_figures.families(gateway.recorder)
    yield from catalog_figures.of_snapshot(gateway.snapshot)
    text = "Processes in which notifications arrive; the others poll."
    yield gauge("dwctl_notifications_delivered", text, (), int(gateway.wakeups.delivers))
    registration = gateway.registration
    text = "Seconds that a sign of life took, its commit included."
    yield histogram("fusillade_heartbeat_duration_seconds", text, (), registration.seconds)
    text = "Signs of life that could not be written."
    yield counter("fusillade_heartbeat_failures_total", text, (), registration.beats_failed)
    yield from _spans(gateway)


def _spans(gateway: Gateway) -> Iterator[Family]:
    exporting = gateway.tracer.exporting if gateway.tracer is not None else None
    text = "Spans that the collector took."
    yield counter("dwctl_spans_exported_total", text, (), exporting.sent if exporting else 0)
    text = "Spans that nobody took: queue_full, not_taken (the collector is away or refuses them), shutdown."
    dropped = exporting.dropped if exporting else {}
    by_reason = {(reason,): count for reason, count in dropped.items()}
    yield counter("dwctl_spans_dropped_total", text, ("reason",), by_reason)
    text = "Spans that wait to be exported."
    yield gauge("dwctl_spans_waiting", text, (), exporting.depth if exporting else 0)


def _calls(gateway: Gateway) -> Iterator[Family]:
    text = "Calls on an inference route whose answer has not ended."
    yield gauge("onwards_requests_inflight", text, (), len(gateway.in_progress.flights))
    done, failed = gateway.registration.processed, gateway.registration.failed
    text = "Calls that were sent to an upstream."
    outcomes = {("failed",): failed, ("succeeded",): done - failed}
    yield counter("dwctl_calls_total", text, ("outcome",), outcomes)
    text = "Inference calls without a valid key, by the code of their refusal."
    refused = {(reason,): count for reason, count in list(gateway.strangers.refused.items())}
    yield counter("dwctl_strangers_refused_total", text, ("reason",), refused)
    text = "Calls refused by a limit, by whose it was and by the code of their refusal."
    limited = {(str(whose), code): n for (whose, code), n in list(gateway.limiter.refused.items())}
    yield counter("dwctl_limits_refused_total", text, ("limit", "reason"), limited)


def _targets(health: Health) -> Iterator[Family]:
    text = "Attempts of calls at a target that failed, by what was wrong."
    labels = ("endpoint", "model", "reason")
    yield counter("dwctl_upstream_attempts_failed_total", text, labels, health.failed)
    text = "Processes in which a target keeps failing, and models that have another leave it out."
    left_out = dict.fromkeys(health.left_out(), 1)
    yield gauge("dwctl_upstream_target_left_out", text, ("endpoint", "model"), left_out)
