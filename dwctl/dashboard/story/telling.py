"""The steps of a call, one after the other, each with its moment, its length and its reason. Pure, but for how numbers are written.

    received → admitted, or refused → queued → claimed → each target that was tried → first token → done → charged

What is not recorded is said to be so, or left out; nothing is made up. Who may not see how the call was served is told of one target without a name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from dwctl.dashboard.formatting import exact_money, moment
from dwctl.dashboard.story import advice, texts
from dwctl.dashboard.story.sums import Sum

Call = Mapping[str, Any]

_ENOUGH_TOKENS = 10
"""From so many on a rate says something."""
_LEFT = frozenset({"client_disconnected", "cancelled"})
_STOPPED = _LEFT | {"stopped", "drained"}
"""Ends that say nothing of the target."""
_NAMES = {"priority": "realtime", "default": "realtime", "auto": "realtime", "flex": "flex"}
_FAILURES = {
    "upstream_unreachable": "gave no whole answer",
    "upstream_connection_failed": "could not be reached",
    "upstream_connect_timeout": "could not be reached in time",
    "upstream_first_byte_timeout": "did not begin to answer in time",
    "upstream_idle_timeout": "stopped in the middle of its answer",
    "upstream_total_timeout": "did not finish in time",
    "gateway_timeout": "took too long",
    "upstream_bad_response": "gave an answer that could not be read",
    "not_an_answer": "gave an error in place of an answer",
    "rate_limit": "was at its limit of calls a second",
    "concurrency_limit_exceeded": "was at its limit of calls at once",
    "tokens_per_minute": "was at its limit of tokens a minute",
    "stopped": "had not answered when the call was stopped",
    "client_disconnected": "had not answered when the caller left",
    "cancelled": "had not answered when the call was cancelled",
    "drained": "had not answered when the process ended",
    "interrupted": "had not answered when the process died",
}


@dataclass(frozen=True, slots=True)
class Step:
    """begin_ms, length_ms: since the call was received; None where that is not known. kind: good, warn, bad, busy, or "" (neutral)."""

    name: str
    title: str
    reason: str
    begin_ms: float | None = None
    length_ms: float | None = None
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Try:
    """One target that was asked: how long, and what was wrong; `said` as in "gpu-1 answered 503". model: its name there, where it is recorded."""

    who: str
    begin_ms: float
    length_ms: float
    failure: str | None
    said: str
    model: str | None = None
    why_next: str | None = None


@dataclass(frozen=True, slots=True)
class Times:
    """When what happened, in ms since `begin`. run_ms: when a process began it; end_ms: when it was over."""

    begin: datetime
    run_ms: float
    first_byte_ms: float | None
    end_ms: float
    queued_ms: float


@dataclass(frozen=True, slots=True)
class Story:
    """A call that is over. failure: None where it came to what it was to come to."""

    call: Call
    times: Times
    tries: tuple[Try, ...]
    steps: tuple[Step, ...]
    failure: advice.Failure | None


def told(call: Call, sum: Sum, *, answer: Any) -> Story:
    """The story of a call that is in the log; `answer`: what its answer's JSON says, None where it is not shown."""
    times = times_of(call)
    tries = tuple(_tries(call, times))
    failure = _failure(call, answer)
    return Story(call, times, tries, tuple(_steps(call, times, tries, sum, failure)), failure)


def so_far(standing: Call, now: datetime) -> tuple[Step, ...]:
    """The steps of a call that is not over."""
    begin = _known(standing["created_at"])
    claimed, ended = moment(standing["claimed_at"]), moment(standing["ended_at"])
    tier = tier_of(standing)
    received = Step("received", "Received", f"POST {standing['uri'] or ''}.", 0.0)
    steps = [_received_with_batch(standing) if tier == "batch" else received]
    if tier != "realtime":
        waits = claimed is None and ended is None
        reason = f"It {'waits' if waits else 'waited'} for a worker, within {standing['completion_window']}."
        length = _since(begin, claimed or ended or now)
        steps.append(Step("queued", "Queued", reason, 0.0, length, "busy" if waits else ""))
    if claimed is not None:
        who = standing["process"] or "a process of the gateway"
        title, kind = ("Running", "busy") if ended is None else ("Run", "")
        length = _since(claimed, ended or now)
        steps.append(Step("claimed", title, f"By {who}.", _since(begin, claimed), length, kind))
    if ended is not None:
        steps.append(Step("done", f"Ended: {standing['state']}", "", _since(begin, ended)))
    return tuple(steps)


def was_refused(call: Call) -> bool:
    """Whether it was turned away at the door: such a call was never sent, and no worker waited for it."""
    is_error = call["status_code"] >= 400
    return is_error and call["queue"] is None and not call["sent"] and not call.get("batch_sla")


def was_queued(call: Call) -> bool:
    """Whether a worker ran it."""
    queue = call["queue"]
    return queue is not None and (
        queue["service_tier"] not in ("priority", "default", "auto") or bool(call.get("batch_sla"))
    )


def tier_of(call: Call) -> str:
    """In what way it was asked for: `realtime`, `flex` or `batch`."""
    if (call.get("fusillade_batch_id") and call.get("request_origin") == "fusillade") or call.get(
        "batch_id"
    ):
        return "batch"
    tier = call["queue"]["service_tier"] if call.get("queue") else call.get("service_tier")
    return _NAMES.get(tier or "", "realtime" if not call.get("batch_sla") else "flex")


def times_of(call: Call) -> Times:
    """When what happened, as far as it is recorded."""
    begin = _known(call["timestamp"])
    queue = call["queue"] or {}
    started = moment(queue.get("started_at")) if was_queued(call) else None
    ended = moment(queue.get("ended_at"))
    run_ms = _since(begin, started) if started else 0.0
    if was_queued(call) and started is None:
        # Nobody ever began it.
        run_ms = _since(begin, ended) if ended else 0.0
    first = call.get("duration_to_first_byte_ms")
    end_ms = run_ms + (call["duration_ms"] if started or not was_queued(call) else 0)
    queued_ms = run_ms if was_queued(call) else 0.0
    return Times(begin, run_ms, None if first is None else run_ms + first, end_ms, queued_ms)


def failed_as(code: str | None, status: int | None) -> str:
    """What a target did wrong, to stand behind its name."""
    if code in _FAILURES:
        return _FAILURES[code]
    if status is not None and status >= 300:
        return f"answered {status}"
    if code and code.startswith("http_"):
        return f"answered {code.removeprefix('http_')}"
    return f"failed ({code})" if code else "failed"


def _tries(call: Call, times: Times) -> Iterator[Try]:
    attempts = call["attempts"]
    if attempts:
        begin = times.run_ms
        for one in attempts:
            failure, length = one.get("failure"), float(one["ms"])
            said = failed_as(failure, one.get("status")) if failure else "answered"
            yield Try(one["endpoint"], begin, length, failure, said, one["model"], one.get("next"))
            begin += length
    elif call.get("served_by"):
        # One target leaves no line of its own.
        code = call.get("error_code") if call["status_code"] >= 400 else None
        if code in _STOPPED and times.first_byte_ms is not None:
            code = None
        said = failed_as(code, None) if code else "answered"
        yield Try(call["served_by"], times.run_ms, times.end_ms - times.run_ms, code, said)


def _steps(
    call: Call, times: Times, tries: tuple[Try, ...], sum: Sum, failure: advice.Failure | None
) -> Iterator[Step]:
    yield _received(call)
    if was_refused(call):
        assert failure is not None
        yield Step("refused", "Refused", _refusal(call, failure), 0.0, times.end_ms, "bad")
        yield Step("charged", "Not charged", "A call that is refused costs nothing.", times.end_ms)
        return
    yield _admitted(call)
    if was_queued(call):
        yield from _queued(call, times)
    yield from _served(call, times, tries)
    yield _ended(call, times, failure)
    yield _charged(call, times, sum)


def _received(call: Call) -> Step:
    if tier_of(call) == "batch":
        return _received_with_batch(call)
    by = f", sent by {call['user_agent']}" if call.get("user_agent") else ""
    whose = ", from the playground" if call["access_source"] == "playground" else ""
    return Step("received", "Received", f"{call['method']} {call['uri']}{by}{whose}.", 0.0)


def _received_with_batch(call: Call) -> Step:
    line = f" as line “{call['custom_id']}”" if call.get("custom_id") else ""
    return Step("received", "Received", f"With its batch{line}.", 0.0)


def _admitted(call: Call) -> Step:
    if call.get("model") is None:
        return Step("admitted", "Admitted", "Its key let it in.", 0.0)
    said = ["Key, access to the model, traffic rules, credit and limits let it in."]
    queue = call["queue"]
    if queue and queue.get("model") and queue["model"] != call.get("model"):
        said.append(f"A rule had {queue['model']} serve it.")
    headers = {name.lower(): value for name, value in (call["response_headers"] or {}).items()}
    for kind in ("requests", "tokens"):
        left = headers.get(f"x-ratelimit-remaining-{kind}")
        if left is not None:
            said.append(f"{left} of {headers.get(f'x-ratelimit-limit-{kind}')} {kind} were left.")
    return Step("admitted", "Admitted", " ".join(said), 0.0)


def _queued(call: Call, times: Times) -> Iterator[Step]:
    queue = call["queue"]
    why = (
        "It is a line of a batch"
        if tier_of(call) == "batch"
        else "It asked for flex"
        if tier_of(call) == "flex"
        else "It was to run in the background"
    )
    said = [f"{why}, so it waited for a worker{_within(call)}."]
    if queue["attempts"]:
        said.append(
            f"In that time it was tried {_times(queue['attempts'])} before, in vain; why is not recorded."
        )
    if queue["times_lost"]:
        said.append(f"{_times(queue['times_lost']).capitalize()} the process died that ran it.")
    if queue["times_retried"]:
        said.append(f"Its owner had it run again {_times(queue['times_retried'])}.")
    yield Step(
        "queued",
        "Queued",
        " ".join(said),
        0.0,
        times.queued_ms,
        "warn" if queue["attempts"] or queue["times_lost"] else "",
    )
    if queue["started_at"]:
        by = f"By {queue['process']}." if queue["process"] else "By a worker."
        yield Step("claimed", "Claimed", by, times.run_ms)


def _within(call: Call) -> str:
    return f", within {call['batch_sla']}" if call.get("batch_sla") not in (None, "", "0s") else ""


def _served(call: Call, times: Times, tries: tuple[Try, ...]) -> Iterator[Step]:
    first = _first_byte(call, times)
    for number, one in enumerate(tries, 1):
        name = f"{one.who}, as {one.model}" if one.model else one.who
        title = f"Try {number}: {name}" if len(tries) > 1 else f"Sent to {name}"
        until = one.begin_ms + one.length_ms
        if one.failure is None and first is not None:
            until = max(one.begin_ms, first)
        kind = "" if one.failure is None else "warn" if one.failure in _STOPPED else "bad"
        yield Step("sent", title, _outcome(one), one.begin_ms, until - one.begin_ms, kind)
    if not tries and call["sent"]:
        until = times.end_ms if first is None else first
        yield Step("sent", "Sent to the model", "", times.run_ms, until - times.run_ms)
    if first is not None:
        yield _answering(call, first, times.end_ms - first)


def _first_byte(call: Call, times: Times) -> float | None:
    """When the answer began; that of an error tells nothing."""
    is_error = call["status_code"] >= 400 and call.get("error_code") not in _STOPPED
    return None if is_error else times.first_byte_ms


def _answering(call: Call, begin_ms: float, length_ms: float) -> Step:
    is_streamed = str(call["response_type"]).endswith("_stream")
    tokens = call.get("completion_tokens", 0)
    rate = ""
    if is_streamed and tokens >= _ENOUGH_TOKENS and length_ms > 0:
        rate = f"{tokens / length_ms * 1000:,.0f} tokens a second from here on."
    title = "First token" if is_streamed else "Answer begins"
    return Step("first", title, rate, begin_ms, max(0.0, length_ms))


def _outcome(one: Try) -> str:
    if one.failure is None:
        return "It answered."
    return f"It {one.said}" + ("; so the next one was asked." if one.why_next else ".")


def _ended(call: Call, times: Times, failure: advice.Failure | None) -> Step:
    status = call["status_code"]
    if failure is None:
        why = f" ({call['finish_reason']})" if call.get("finish_reason") else ""
        return Step("done", "Done", f"Answered with {status}{why}.", times.end_ms, None, "good")
    if failure.code in _LEFT:
        title = "Cancelled" if failure.code == "cancelled" else "Its caller left"
        return Step(
            "done",
            title,
            failure.message or "Before the answer was complete.",
            times.end_ms,
            None,
            "warn",
        )
    said = failure.message or "What the caller was told is not kept."
    if status < 400:
        reason = f"When {status} and the first of it had been sent: {said}"
        return Step("done", "Broke off", reason, times.end_ms, None, "bad")
    return Step("done", "Failed", f"Answered with {status}: {said}", times.end_ms, None, "bad")


def _charged(call: Call, times: Times, sum: Sum) -> Step:
    charge = call["charge"]
    if charge:
        tariff = call["tariff"]
        by = f", by the tariff “{tariff['name']}”" if tariff else ""
        said = f"{exact_money(short(charge['amount']))}{by}."
        at = _since(times.begin, moment(charge["created_at"]))
        return Step("charged", "Charged", said, max(at, times.end_ms))
    return Step(
        "charged", "Not charged", sum.why_free or "The price comes to nothing.", times.end_ms
    )


def _refusal(call: Call, failure: advice.Failure) -> str:
    said = failure.message or "What its caller was told is not kept."
    return f"{call['status_code']} {failure.code}: {said}"


def _failure(call: Call, answer: Any) -> advice.Failure | None:
    """An error after the answer had begun has a good status, and a code all the same."""
    status, code = call["status_code"], call.get("error_code")
    if status < 400 and not code:
        return None
    said_code, message = texts.error_of(answer)
    if message is None and call["queue"]:
        message = texts.error_of(texts.read(call["queue"]["error"]))[1]
    code = code or said_code or f"http_{status}"
    return advice.Failure(code, message, advice.for_code(code, status))


def short(amount: str) -> str:
    """A sum of the ledger without zeros at its end."""
    return amount.rstrip("0").rstrip(".") if "." in amount else amount


def _times(number: int) -> str:
    return "once" if number == 1 else "twice" if number == 2 else f"{number} times"


def _since(begin: datetime, at: datetime | None) -> float:
    assert at is not None
    return max(0.0, (at - begin) / timedelta(milliseconds=1))


def _known(value: Any) -> datetime:
    found = moment(value)
    assert found is not None
    return found
