"""Which headers pass between our callers and an upstream server. Pure; both functions run for every call.

To the upstream everything passes but what is about one connection, proves who the caller is to *us*, or is ours to
say. Back to the caller only what is on a list passes: an upstream's cookies, limits and server names are about our
account there, not about the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

Headers = Iterable[tuple[str, str]]

_CONNECTION = {
    "connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "expect",
}  # fmt: skip
_CREDENTIALS = {
    "authorization", "x-api-key", "api-key", "cookie", "proxy-authenticate", "proxy-authorization",
}  # fmt: skip
_BROWSER = {
    "origin", "referer", "if-modified-since", "if-none-match", "if-match", "if-unmodified-since", "if-range",
}  # fmt: skip
# Ours to say: the body is parsed and may be written anew, and `Target` says host, coding and protocol. A key for
# idempotence is judged by us; sent on under our one credential, two callers' keys could meet.
_OURS = {
    "host", "content-length", "content-encoding", "accept-encoding", "model-override", "idempotency-key",
    "traceparent", "tracestate", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip",
}  # fmt: skip
_REMOVED = frozenset(_CONNECTION | _CREDENTIALS | _BROWSER | _OURS)
_REMOVED_PREFIXES = (
    "sec-fetch-", "sec-ch-ua", "x-forwarded-", "x-fusillade-", "x-onwards-", "x-doubleword-", "x-dwctl-",
)  # fmt: skip

_RETURNED = frozenset({"content-type", "cache-control"})
_NAMES_OUR_ACCOUNT = frozenset({"openai-organization", "openai-project"})
_WAIT_STATUSES = frozenset({429, 503})
# RFC 9110, 5.5: such characters are invalid, though a recipient may keep them. A server that answers with them is another matter.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def to_upstream(
    headers: Headers, *, credential: str = "", trace: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """The caller's headers that the upstream server may see, names in lower case.

    `credential` is the name of the header in which the target carries ours: a caller's header of that name never
    passes. `trace` (`traceparent`, `tracestate`) replaces what the caller sent; give none for untrusted targets.
    """
    credential = credential.lower()
    kept = []
    hop_by_hop = ""
    for name, value in headers:
        lower = _passing_name(name)
        if lower and lower != credential:
            kept.append((lower, value))
        elif not lower and name.lower() == "connection":
            hop_by_hop += "," + value
    if hop_by_hop:
        kept = _without_named(kept, hop_by_hop)
    kept.extend(trace)
    return kept


def to_caller(status: int, headers: Headers) -> list[tuple[str, str]]:
    """The upstream's headers (names in lower case) that the caller may see; its request id under another name.

    Control characters in values are left out: no answer can be sent with them.
    """
    passing = []
    for name, value in headers:
        if name in _RETURNED or (name.startswith("openai-") and name not in _NAMES_OUR_ACCOUNT):
            passing.append((name, value))
        elif name == "x-request-id":
            passing.append(("x-upstream-request-id", value))
        elif name == "retry-after" and status in _WAIT_STATUSES:
            passing.append((name, value))
    return [(name, _CONTROLS.sub("", value)) for name, value in passing]


@lru_cache(1024)
def _passing_name(name: str) -> str:
    """The name in lower case, or nothing where the header must not pass."""
    lower = name.lower()
    return "" if lower in _REMOVED or lower.startswith(_REMOVED_PREFIXES) else lower


def _without_named(headers: list[tuple[str, str]], connection: str) -> list[tuple[str, str]]:
    """Without those that the `Connection` header calls hop-by-hop (RFC 9110, 7.6.1)."""
    named = {name.strip().lower() for name in connection.split(",")}
    return [(name, value) for name, value in headers if name not in named]
