"""The worker's own numbers on its metrics page, under the names of the Rust product where the thing exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from dwctl.analytics.duties import dropped
from dwctl.figures.families import Family, Merge, counter, gauge, histogram
from dwctl.mail.sending import Sending
from dwctl.queue import duties as queue_duties
from dwctl.worker.claims import Claims
from dwctl.worker.duties import DutyRunner
from dwctl.worker.tally import Tally

_OF_MODEL = ("model", "status")


def collector(
    claims: Claims, duties: DutyRunner, sending: Sending
) -> Callable[[], Iterator[Family]]:
    """What `operations.metrics` adds to the page of this process."""

    def collect() -> Iterator[Family]:
        running = {(model,): count for model, count in list(claims.runs.running.items())}
        text = "Queued requests that run here."
        yield gauge("fusillade_requests_in_flight", text, ("model",), running)
        yield from _counters(claims)
        yield from _claims(claims)
        yield from _tally(claims.runs.tally)
        yield from _cancelling(claims)
        yield from _duties(duties)
        yield from _mails(sending)

    return collect


def _counters(claims: Claims) -> Iterator[Family]:
    for name, text, value in (
        ("fusillade_requests_claimed", "Requests claimed and begun.", claims.claimed),
        (
            "fusillade_requests_limited",
            "Requests given back because a limit of their model was reached.",
            claims.runs.tally.limited,
        ),
        (
            "fusillade_task_panics",
            "Requests that met a bug of ours, and were given back.",
            claims.runs.tally.panics,
        ),
        (
            "fusillade_stale_requests_reclaimed",
            "Requests that this process took back from workers that had died.",
            queue_duties.reclaimed.requests,
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
        (
            "fusillade_rows_purged",
            "Requests and files past their retention that this process deleted.",
            queue_duties.purged.rows,
        ),
    ):
        yield counter(f"{name}_total", text, (), value)
    text = "Days of the request log that this process has dropped, because of their age or of the log's size."
    days = {(reason,): count for reason, count in sorted(dropped.items())}
    yield counter("dwctl_request_log_days_dropped_total", text, ("reason",), days)


def _claims(claims: Claims) -> Iterator[Family]:
    text = "Requests that this worker could run beside those that it runs."
    yield gauge("fusillade_claim_capacity", text, (), claims.room)
    text = "Seconds that a claim took, its commit included."
    yield histogram("fusillade_claim_duration_seconds", text, (), claims.seconds)
    yield histogram("fusillade_claim_size", "Requests in one claim.", (), claims.sizes)
    text = "Seconds that taking requests back from dead workers took, where there were any."
    seconds = queue_duties.reclaimed.seconds
    yield histogram("fusillade_unclaim_stale_duration_seconds", text, (), seconds)


def _tally(tally: Tally) -> Iterator[Family]:
    counted: tuple[tuple[str, str, tuple[str, ...], Mapping[tuple[str, ...], int]], ...] = (
        (
            "fusillade_requests_completed",
            "Requests that ended here.",
            (*_OF_MODEL, "reason", "status_code"),
            tally.ended,
        ),
        (
            "fusillade_requests_completed_after_sla",
            "Requests that ended here after their deadline.",
            _OF_MODEL,
            tally.late,
        ),
        (
            "fusillade_requests_routed_to_escalation",
            "Requests claimed for the model to which theirs escalates near a deadline.",
            ("original_model", "escalation_model"),
            tally.escalated,
        ),
        (
            "fusillade_requests_retried",
            "Requests put off for another try.",
            ("model",),
            {(model,): count for model, count in tally.retried.items()},
        ),
        (
            "fusillade_retry_denied",
            "Failures that might have passed, and were the last.",
            ("model", "reason"),
            tally.denied,
        ),
        (
            "fusillade_http_status_retriable",
            "Statuses of upstreams after which a request may be tried again.",
            ("model", "status_code"),
            tally.statuses,
        ),
        (
            "fusillade_requests_paused",
            "Requests given back because their account has no credit, or put off with a pause that their upstream asked for.",
            ("reason",),
            {(str(reason),): count for reason, count in tally.pauses.items()},
        ),
    )
    for name, text, labels, counts in counted:
        yield counter(f"{name}_total", text, labels, counts)
    text = "Seconds from a request's start here to its end."
    yield histogram("fusillade_request_duration_seconds", text, _OF_MODEL, tally.seconds)
    text = "How often a request had failed that succeeded."
    retries = tally.retries_of_success
    yield histogram("fusillade_retry_attempts_on_success", text, ("model",), retries)


def _cancelling(claims: Claims) -> Iterator[Family]:
    cancelling = claims.runs.cancelling
    text = (
        "Batches of which lines that ran here were stopped, because they were cancelled or deleted."
    )
    yield counter("fusillade_batches_cancelled_total", text, (), cancelling.batches)
    text = "Batches that run here, each time that it was asked whether they are wanted still."
    yield histogram("fusillade_cancellation_poll_batches_checked", text, (), cancelling.asked)
    text = "Seconds that the answer took."
    yield histogram("fusillade_cancellation_poll_duration_seconds", text, (), cancelling.seconds)
    text = "Such questions that the database did not answer."
    yield counter("fusillade_cancellation_poll_errors_total", text, (), cancelling.faults)


def _duties(duties: DutyRunner) -> Iterator[Family]:
    runs = {(name,): count for name, count in duties.runs.items()}
    yield counter("dwctl_duty_runs_total", "Duties done by this process.", ("duty",), runs)
    faults = {(name,): count for name, count in duties.faults.items()}
    yield counter("dwctl_duty_faults_total", "Duties that failed here.", ("duty",), faults)
    purges = {key: count for key, count in faults.items() if key[0].startswith("purge_")}
    text = "Of these, duties that delete what is past its retention."
    yield counter("fusillade_purge_errors_total", text, ("duty",), purges)


def _mails(sending: Sending) -> Iterator[Family]:
    for name, text, counts in (
        ("dwctl_mails_sent_total", "Mails that the mail server took.", sending.sent),
        ("dwctl_mails_failed_total", "Attempts to send a mail that failed.", sending.failed),
        ("dwctl_mails_given_up_total", "Mails that will not be sent.", sending.given_up),
    ):
        by_template = {(template,): count for template, count in list(counts.items())}
        yield counter(name, text, ("template",), by_template)
    text = "Mails that wait to be sent."
    waiting = sending.waiting
    yield gauge("dwctl_mails_waiting_max", text, (), waiting, Merge.LARGEST)
