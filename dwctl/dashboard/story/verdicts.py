"""The sentence above a call: what became of it, how long that took, and where most of that time went. Pure, but for how numbers are written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dwctl.dashboard.formatting import duration
from dwctl.dashboard.story.telling import Story, was_refused

_TELLING_SHARE = 0.3
_NOT_WORTH_TELLING_MS = 20
_MOST_NAMED = 3

_LIMITS = {
    "cancelling": "its batch is being cancelled",
    "model_unknown": "no model has that name any more",
    "no_worker": "no worker is alive",
    "no_credit": "its account has not enough credit",
    "upstream_pressure": "the model's provider asked for a rest",
    "paused": "its queue is paused",
    "turn": "a worker has yet to take it",
}


def of(story: Story) -> str:
    """Of a call that is over."""
    call, times, failure = story.call, story.times, story.failure
    took = duration(round(times.end_ms))
    if was_refused(call):
        assert failure is not None
        return f"Refused with {call['status_code']} before anything was sent: {_ends(failure.message or failure.code)}"
    where = _where_the_time_went(story)
    if failure is None:
        return f"Served in {took}{_by(story)}{where}."
    if failure.code == "client_disconnected":
        return f"Its caller left after {took}, before the answer was complete{where}."
    if failure.code == "cancelled":
        return f"Cancelled after {took}{where}."
    why = _why(story).rstrip(".")
    if call["status_code"] < 400:
        return f"Broke off after {took}, when it had begun to answer: {why}{where}."
    return f"Failed after {took} with {call['status_code']}: {why}{where}."


def of_standing(standing: Mapping[str, Any], waited_ms: float) -> str:
    """Of a call that is not over."""
    state, waits = standing["state"], duration(round(waited_ms))
    if state in ("claimed", "processing"):
        by = f" by {standing['process']}" if standing["process"] else ""
        return f"Running{by}, {waits} after it came in."
    if state != "pending":
        return (
            "Over; it is being written down."
            if standing["started_at"]
            else "Ended before any worker had begun it."
        )
    return f"Waiting for {waits}: {why_it_waits(standing)}."


def why_it_waits(standing: Mapping[str, Any]) -> str:
    """What keeps a pending call from being run, and what is before it."""
    limit, ahead = standing["limited_by"], standing["ahead"]
    if limit == "retry":
        return _what_failed(standing)
    if limit == "concurrency":
        places = _counted(standing["concurrency"], "place", "places")
        why = (
            f"the model's {places} are taken"
            if standing["concurrency"] != 1
            else "the model's one place is taken"
        )
    else:
        why = _LIMITS.get(limit or "turn", str(limit))
    if not ahead:
        return f"{why}; none is due before it"
    most = "at least " if ahead >= 1000 else ""
    return f"{why}, and {most}{_counted(ahead, 'call is', 'calls are')} due before it"


def _what_failed(standing: Mapping[str, Any]) -> str:
    tries = standing["attempts"]
    if not tries:
        return "the process that ran it died, and it waits to be run again"
    return f"{_counted(tries, 'try has', 'tries have')} failed, and it waits for the next one"


def _by(story: Story) -> str:
    """Who served it, after whom."""
    if not story.tries:
        return ""
    *failed, last = story.tries
    by = f" by {last.who}"
    if not failed:
        return by
    named = [f"{one.who} {one.said}" for one in failed[:_MOST_NAMED]]
    more = [f"{len(failed) - _MOST_NAMED} more failed"] if len(failed) > _MOST_NAMED else []
    return f"{by} after {_joined([*named, *more])}"


def _why(story: Story) -> str:
    failure = story.failure
    assert failure is not None
    failed = [one for one in story.tries if one.failure]
    if len(failed) > 1:
        named = [f"{one.who} {one.said}" for one in failed[:_MOST_NAMED]]
        return f"none of {len(story.tries)} targets answered: {_joined(named)}"
    if failed and failed[0].failure not in ("internal_error", "interrupted", "drained"):
        return f"{failed[0].who} {failed[0].said}"
    return failure.message or failure.code


def _where_the_time_went(story: Story) -> str:
    """The largest part of it, where one stands out."""
    times = story.times
    if times.end_ms < _NOT_WORTH_TELLING_MS:
        return ""
    wasted = sum(one.length_ms for one in story.tries if one.failure) if len(story.tries) > 1 else 0
    last = story.tries[-1].begin_ms if story.tries else times.run_ms
    parts = {"in the queue": times.queued_ms, "on targets that failed": wasted}
    if times.first_byte_ms is not None:
        first = (
            "waiting for the first token"
            if str(story.call["response_type"]).endswith("_stream")
            else "waiting for the answer to begin"
        )
        parts[first] = times.first_byte_ms - last
        parts["giving the answer"] = times.end_ms - times.first_byte_ms
    name = max(parts, key=lambda part: parts[part])
    if parts[name] < _TELLING_SHARE * times.end_ms:
        return ""
    return f"; {duration(round(parts[name]))} of it {name}"


def _ends(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else text + "."


def _joined(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"
