"""What the error codes of calls mean for whoever reads of them, and what helps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_LIMITED = "Space calls out, and try again after the time in Retry-After, as the SDKs do by themselves; or raise the limit of the key or the model."
_UPSTREAM_AWAY = "Look at the endpoint's page: is it reachable? With a second target behind the model, calls would go on there."
_TOO_SLOW = "Look at the model's times. Raise the endpoint's time-out where such answers are expected, or give the model a second target."
_WRONG_REQUEST = "The request itself is wrong: mend what the message names and send it again. The same again will not help."

_ADVICE: Mapping[str, str] = {
    "insufficient_credits": "Add credits to the account, then send the call again.",
    "spend_cap_exceeded": "The key has spent what it may in this window. Raise its cap, or wait for the next window.",
    "model_not_found": "Check the name against the list of models. It is case-sensitive; the model may also have been renamed or deleted.",
    "model_access_denied": "Put the account into a group that has the model, or open the model to everybody.",
    "traffic_blocked": "A rule of the model blocks calls of this purpose. Use another model, or change the rule.",
    "redirect_unavailable": "A rule sends these calls to a model that has no endpoint. Change the rule, or give that model one.",
    "rate_limit": _LIMITED,
    "tokens_per_minute": _LIMITED,
    "concurrency_limit_exceeded": "Wait for calls that run to end, or raise how many may run at once.",
    "too_many_concurrent_requests": "The account has as many calls open as one may. Wait for some to end.",
    "too_many_queued_requests": "The account has as many calls waiting as one may. Wait for some to end, or send a batch.",
    "too_many_held_requests": "Send it with `background: true`, and fetch the answer by its id.",
    "gateway_overloaded": "The gateway had more to do than it takes on. Try again shortly; more web processes help for good.",
    "service_unavailable": "Try again shortly.",
    "server_shutting_down": "A process was restarted. Try again.",
    "drained": "A process was restarted while it ran the call. Try again; a longer `shutdown.grace` lets such calls end.",
    "interrupted": "The process that ran it died. Try again, and look at that process's log.",
    "worker_lost": "Workers died with it, each time. Look at their logs before it is sent again.",
    "deadline_passed": "No worker began it within its completion window. Look at the queue: are workers alive, does the model have room?",
    "client_disconnected": "Its caller hung up. Compare the caller's own time-out with how long the answer took.",
    "cancelled": "Somebody cancelled it. Nothing needs to be done.",
    "internal_error": "A fault of the gateway. Its log has more, under this request's id.",
    "upstream_unreachable": _UPSTREAM_AWAY,
    "upstream_connection_failed": _UPSTREAM_AWAY,
    "upstream_address_not_allowed": "The endpoint's address is not one that `outbound.endpoints` lets the gateway call.",
    "upstream_connect_timeout": _UPSTREAM_AWAY,
    "upstream_first_byte_timeout": _TOO_SLOW,
    "upstream_idle_timeout": _TOO_SLOW,
    "upstream_total_timeout": _TOO_SLOW,
    "gateway_timeout": _TOO_SLOW,
    "upstream_bad_response": "The provider's answer could not be read. Test the endpoint: does it speak this protocol?",
    "upstream_response_too_large": "The answer is larger than the gateway takes. Ask for less of it.",
    "stream_broken": "The provider broke its answer off. Try again.",
    "owner_gone": "The account was deleted while the call waited.",
    "http_401": "The provider refused the endpoint's credential. Give the endpoint a valid one.",
    "http_403": "The provider refused the endpoint's credential. Give the endpoint one that may use the model.",
    "http_404": "The provider does not know the model by that name. Check the name under which the endpoint serves it.",
    "http_429": "The provider takes no more calls now. Try again later, or give the model a second target.",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as its reader meets it. message: in the API's words, None where they are not kept; advice: what to do."""

    code: str
    message: str | None
    advice: str


def for_code(code: str, status: int | None) -> str:
    """What to do about an error code; by the status where the code says nothing."""
    if code in _ADVICE:
        return _ADVICE[code]
    if code.startswith("http_5") or status in (502, 503, 504):
        return "The provider failed. Try again; with a second target behind the model, calls would go on there."
    if status == 429:
        return _LIMITED
    if status is not None and 400 <= status < 500:
        return _WRONG_REQUEST
    return "Try again. If it stays, look at the gateway's log under this request's id."
