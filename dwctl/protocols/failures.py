"""Why a stored request failed, as people and programs can read it.

Stored failures are tagged JSON objects, `{"type": T, "details": {...}, "code": C, "message": M}`, as `tagged` makes them. T is one of
`FailureKind`; details are `{"status", "body"}` where somebody answered with an error status (the body no longer than 4 KiB, and no more of
it than its caller may see), `{"error"}` where nobody did, and absent where the tag says it all. C and M are what a reader is shown: a stable
word (`http_429`, `timeout`, `network_error`), and a sentence. Rows of others have no code and no message, or are plain sentences:
`read_failure` reads all of them, and what it does not know is shown as it is. A tag that is not in the table becomes a code (`FooBar`:
`foo_bar`), with the message that its details have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import orjson

from dwctl.printable import printable
from dwctl.protocols.usage import count


class FailureKind(StrEnum):
    """How a request failed. The values are the tags of stored failures."""

    RETRIABLE_STATUS = "RetriableHttpStatus"
    FINAL_STATUS = "NonRetriableHttpStatus"
    NETWORK = "NetworkError"
    TIMEOUT = "Timeout"
    STREAM_BROKEN = "StreamBroken"
    REQUEST_BUILDER = "RequestBuilderError"
    INTERNAL = "InternalError"
    CANCELLED = "Cancelled"
    CLIENT_DISCONNECTED = "ClientDisconnected"
    TASK_TERMINATED = "TaskTerminated"
    INTERRUPTED = "Interrupted"
    WORKER_LOST = "WorkerLost"
    DEADLINE_PASSED = "DeadlinePassed"
    NOT_RECORDED = "NotRecorded"
    BATCH_TERMINATED = "BatchTerminated"

    @property
    def retry_helps(self) -> bool:
        """Whether the same request may come out differently another time."""
        return self in _PASSING


_PASSING = frozenset({FailureKind.RETRIABLE_STATUS, FailureKind.NETWORK, FailureKind.TIMEOUT})
_HTTP = frozenset({FailureKind.RETRIABLE_STATUS, FailureKind.FINAL_STATUS})
_READABLE: Mapping[FailureKind, tuple[str, str]] = {
    FailureKind.NETWORK: ("network_error", "The upstream provider could not be reached."),
    FailureKind.TIMEOUT: ("timeout", "The upstream provider took too long to answer."),
    FailureKind.STREAM_BROKEN: ("stream_broken", "The upstream provider broke off its answer."),
    FailureKind.REQUEST_BUILDER: ("request_error", "The request could not be sent to the upstream provider."),
    FailureKind.INTERNAL: ("internal_error", "The gateway failed while it ran the request."),
    FailureKind.CANCELLED: ("cancelled", "The request was cancelled."),
    FailureKind.CLIENT_DISCONNECTED: ("client_disconnected", "The client left before the answer was complete."),
    FailureKind.TASK_TERMINATED: ("interrupted", "The request was interrupted before it was done."),
    FailureKind.INTERRUPTED: ("interrupted", "The process that ran the request ended before it was done."),
    FailureKind.WORKER_LOST: ("worker_lost", "The processes that ran the request died, more often than is tried again."),
    FailureKind.DEADLINE_PASSED: ("deadline_passed", "The request's completion window ended before it was run."),
    FailureKind.NOT_RECORDED: ("not_recorded", "The answer could not be recorded."),
    FailureKind.BATCH_TERMINATED: ("batch_terminated", "The batch ended before the request was run."),
}  # fmt: skip
_MOST_OF_MESSAGE = 1000
_SAYS_MORE = frozenset({FailureKind.STREAM_BROKEN})
"""Kinds whose details have a message of ours, made to be shown."""
_KINDS = frozenset(FailureKind)
_BEFORE_A_CAPITAL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
_SENTENCE = re.compile(r"Upstream returned (\d{3})(?:: (.*))?\Z", re.DOTALL)
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_credits",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    499: "client_disconnected",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `status` is the upstream's (or ours), where there was one."""

    code: str
    message: str
    type: str = "server_error"
    status: int | None = None


def read_failure(text: str | None) -> Failure:
    """What a stored error text says. Never raises."""
    if not text or not text.strip():
        return Failure("server_error", "The request failed.")
    record = _parsed(text)
    if isinstance(record, dict) and isinstance(record.get("type"), str):
        details = record.get("details")
        found = _tagged(record["type"], details if isinstance(details, dict) else {})
        return found if record["type"] in _HTTP else _as_stored(found, record)
    sentence = _SENTENCE.match(text)
    if sentence:
        return http_failure(int(sentence[1]), sentence[2])
    return Failure("server_error", _message_in(record) or text)


def tagged(kind: FailureKind, details: Mapping[str, Any]) -> dict[str, Any]:
    """A failure as it is stored, with its code and its message."""
    failure = _tagged(kind, details)
    found: dict[str, Any] = {"type": kind}
    if details:
        found["details"] = dict(details)
    return found | {"code": failure.code, "message": printable(failure.message, _MOST_OF_MESSAGE)}


def http_failure(status: int, body: object) -> Failure:
    """An answer with an error status; its body may be JSON, a text, or nothing."""
    message = _message_in(_parsed(body)) or (body.strip() if isinstance(body, str) else "")
    if not message or message[0] in "{[<":
        message = f"The upstream provider answered with status {status}."
    return Failure(f"http_{status}", message, _TYPES.get(status, "server_error"), status)


def word(said: object) -> str | None:
    """What an upstream calls an end or an error, if that is a name. Anything longer may quote what was said, and logs outlive that."""
    return said if isinstance(said, str) and _WORD.fullmatch(said) else None


def _tagged(tag: str, details: Mapping[str, Any]) -> Failure:
    if tag in _HTTP:
        status = count(details.get("status")) or 0
        return http_failure(status if 100 <= status <= 999 else 500, details.get("body"))
    if tag in _KINDS:
        kind = FailureKind(tag)
        code, message = _READABLE[kind]
        said = _message_in(details) if kind in _SAYS_MORE else None
        return Failure(code, said or message)
    code = _BEFORE_A_CAPITAL.sub("_", tag).lower()
    return Failure(code, _message_in(details) or "The request failed.")


def _as_stored(failure: Failure, record: Mapping[str, Any]) -> Failure:
    """With the code and message that were stored with it: whoever ended the request knew more than its tag says."""
    code, message = record.get("code"), record.get("message")
    if isinstance(code, str) and isinstance(message, str) and code and message:
        return replace(failure, code=code, message=message)
    return failure


def _parsed(text: object) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def _message_in(body: Any) -> str | None:
    """The message in the shapes that inference servers use for errors."""
    if not isinstance(body, dict):
        return None
    for name in ("error", "message", "detail"):
        value = body.get(name)
        if isinstance(value, dict):
            value = value.get("message")
        if isinstance(value, str) and value.strip():
            return value
    return None
