"""How a run ended: done, failed (a kind that knows whether a retry helps) or interrupted (why). Pure.

Done         the answer is what the upstream promised
Failed       it is not: refused, broken off, not understood, or a bug of ours
Interrupted  nobody wanted it any more, or the process ended
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

import msgspec

from dwctl.ai.calls import JSON, Headers
from dwctl.errors import DwctlError, Unavailable
from dwctl.protocols.disclosure import neutral
from dwctl.protocols.failures import FailureKind, tagged
from dwctl.protocols.usage import TokenUsage
from dwctl.upstream.errors import Timeout, UpstreamError
from dwctl.web.envelope import openai_error, wrap

CLIENT_CLOSED = 499


class Reason(Enum):
    """Why a run was interrupted: status, code, how it is stored, and what is said."""

    LEFT = (
        CLIENT_CLOSED,
        "client_disconnected",
        FailureKind.CLIENT_DISCONNECTED,
        "client cancelled request before upstream response",
    )
    CANCELLED = (CLIENT_CLOSED, "cancelled", FailureKind.CANCELLED, "The response was cancelled.")
    DRAINED = (
        503,
        "drained",
        FailureKind.TASK_TERMINATED,
        "The process that ran the request is shutting down.",
    )
    DIED = (
        503,
        "interrupted",
        FailureKind.INTERRUPTED,
        "The process that ran this request ended before it was done.",
    )

    def __init__(self, status: int, code: str, kind: FailureKind, text: str) -> None:
        self.status = status
        self.code = code
        self.kind = kind
        self.text = text


class Done(msgspec.Struct, frozen=True):
    """The answer is there, whole."""


class Failed(msgspec.Struct, frozen=True):
    """`code` is what the log says; `details` are stored beside the kind (batches-and-worker 4.1)."""

    kind: FailureKind
    code: str
    details: Mapping[str, Any] = msgspec.field(default_factory=dict)
    retry_after_s: float | None = None


class Interrupted(msgspec.Struct, frozen=True):
    """Ended from outside."""

    reason: Reason


End = Done | Failed | Interrupted


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to.

    status, headers, body: what the caller gets (or would have got). stored: what GET will show. upstream_status: what the upstream
    said, where it said anything; said_status: the status of an error that came with a 2xx. usage: None where nothing was used.
    finish_reason: why the model stopped, as the answer says.
    refused_here: a limit of the target's was reached, and nothing was sent.
    """

    end: End
    status: int
    body: bytes
    headers: Headers
    stored: bytes
    response_type: str = "other"
    upstream_status: int | None = None
    usage: TokenUsage | None = None
    finish_reason: str | None = None
    said_status: int | None = None
    refused_here: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the request ends `completed`."""
        return isinstance(self.end, Done)

    @property
    def retry_helps(self) -> bool:
        """Whether the same request may succeed later."""
        return isinstance(self.end, Failed) and self.end.kind.retry_helps

    @property
    def is_charged(self) -> bool:
        """Whether what was used is paid for. Not where an upstream's failure is all that its caller got; what it got of a stream is."""
        if not isinstance(self.end, Failed):
            return True
        if self.status < 400:
            return self.usage is not None and self.usage.completion_tokens > 0
        return self.end.kind is FailureKind.INTERNAL

    @property
    def error_code(self) -> str | None:
        """For the log."""
        if isinstance(self.end, Failed):
            return self.end.code
        return self.end.reason.code if isinstance(self.end, Interrupted) else None

    @property
    def failure(self) -> dict[str, Any] | None:
        """The tagged error that is stored (`protocols.failures`)."""
        if isinstance(self.end, Failed):
            return tagged(self.end.kind, self.end.details)
        return tagged(self.end.reason.kind, {}) if isinstance(self.end, Interrupted) else None

    def with_usage(self, usage: TokenUsage | None) -> Outcome:
        """The same, having used that much."""
        return msgspec.structs.replace(self, usage=usage)


def refused(error: DwctlError) -> Outcome:
    """A queued request that may not run (any more)."""
    body = openai_error(error.message, error.code, error.status, error.param)
    details = {"status": error.status, "body": body.decode()}
    return _failed(error.status, body, Failed(FailureKind.FINAL_STATUS, error.code, details))


def unreachable(error: UpstreamError) -> Outcome:
    """The upstream gave no whole answer."""
    if isinstance(error, Timeout):
        kind, status, code = FailureKind.TIMEOUT, 504, "gateway_timeout"
        text = "The upstream provider took too long to answer."
    else:
        kind, status, code = FailureKind.NETWORK, 502, "upstream_unreachable"
        text = "The upstream provider could not be reached or broke off its answer."
    if not error.retryable:
        kind, code, text = FailureKind.FINAL_STATUS, error.code, error.message
    details: dict[str, Any] = {"error": error.message}
    if kind is FailureKind.FINAL_STATUS:
        details = {"status": status, "body": error.message}
    # The caller is told what it can do something about; the log, in which wait it was.
    logged = error.code if kind is FailureKind.TIMEOUT else code
    return _failed(status, openai_error(text, code, status), Failed(kind, logged, details))


def over_limit(error: DwctlError) -> Outcome:
    """A limit of the target's own was reached; it was not asked."""
    body = openai_error(error.message, error.code, error.status)
    details = {"status": error.status, "body": body.decode()}
    end = Failed(FailureKind.RETRIABLE_STATUS, error.code, details, error.retry_after_s)
    headers = [JSON, *error.headers]
    if error.retry_after_s is not None:
        headers.append(("retry-after", str(error.retry_after_s)))
    return Outcome(end, error.status, body, headers, body, refused_here=True)


def all_resting(status: int, seconds: float) -> Outcome:
    """Every target of a model has said that it is not to be asked before so many seconds have passed."""
    error = Unavailable(
        "The providers of this model cannot take more calls now. Try again later.",
        status=status,
        code="rate_limit" if status == 429 else None,
        retry_after_s=math.ceil(seconds),
    )
    return over_limit(error)


def unreadable(upstream_status: int, reason: str) -> Outcome:
    """A 2xx answer that is not what the protocol promises."""
    body = wrap(neutral(502))
    details = {"status": 502, "body": reason}
    end = Failed(FailureKind.RETRIABLE_STATUS, "http_502", details)
    return msgspec.structs.replace(_failed(502, body, end), upstream_status=upstream_status)


def internal() -> Outcome:
    """A bug of ours, told apart by the request id in the log. Trying again would meet it again."""
    text = "Internal error. Please try again later."
    body = openai_error(text, "internal_error", 500)
    return _failed(500, body, Failed(FailureKind.INTERNAL, "internal_error", {"error": text}))


def interrupted(reason: Reason) -> Outcome:
    """Ended from outside before there was an answer."""
    body = openai_error(reason.text, reason.code, reason.status)
    return Outcome(Interrupted(reason), reason.status, body, [JSON], body)


def _failed(status: int, body: bytes, end: Failed) -> Outcome:
    return Outcome(end, status, body, [JSON], body)
