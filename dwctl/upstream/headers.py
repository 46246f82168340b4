"""Which headers pass between our callers and an upstream server. Pure; both functions run for every call.

Both ways by a list. To the upstream our credential goes along, so whatever else is in the head speaks for our account: what chooses an
organisation, another method or URL, or a part of the answer must not come from a caller. Back to the caller goes what is true for *it*: an
upstream's cookies, limits and server names are about our account there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from dwctl.upstream.retry_after import WAIT_STATUSES

Headers = Iterable[tuple[str, str]]

ALLOWED = frozenset({"accept", "user-agent", "openai-beta"})
"""What inference servers read of a caller: the form of the answer, which program asks, and which previews of OpenAI's API it means."""

_MOST_CHARS = 4096
# What the server says about this one answer. Its limits are our account's, and its organisation is ours.
_RETURNED = {
    "cache-control": "cache-control",
    "openai-model": "openai-model",
    "openai-processing-ms": "openai-processing-ms",
    "openai-version": "openai-version",
    "x-request-id": "x-upstream-request-id",
}
# RFC 9110, 5.5: such characters are invalid, though a recipient may keep them. A server that answers with them is another matter.
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def to_upstream(
    headers: Headers,
    *,
    also: Collection[str] = (),
    credential: str = "",
    trace: Sequence[tuple[str, str]] = (),
) -> list[tuple[str, str]]:
    """The caller's headers that the upstream server may see, names in lower case, each name once.

    `also` are names beside `ALLOWED`, in lower case. `credential` is the name of the header in which the target carries ours: a caller's
    header of that name never passes. `trace` (`traceparent`, `tracestate`) is ours; give none for untrusted targets. A value with control
    characters, or of more than 4,096 characters, is no value that a server expects: its header stays here.
    """
    kept: dict[str, str] = {}
    hop_by_hop = ""
    for name, value in headers:
        lower = name.lower()
        if lower in ALLOWED or lower in also:
            kept[lower] = f"{kept[lower]}, {value}" if lower in kept else value
        elif lower == "connection":
            hop_by_hop += "," + value
    if hop_by_hop:
        _drop_named(kept, hop_by_hop)
    kept.pop(credential.lower(), None)
    passing = [(name, value) for name, value in kept.items() if _is_plain(value)]
    passing.extend(trace)
    return passing


def to_caller(status: int, headers: Headers) -> list[tuple[str, str]]:
    """The upstream's headers (names in lower case) that the caller may see, each once; its request id under another name.

    Never the content type: what a body is, is said by who has read it. Control characters in values are left out: no answer can be sent
    with them.
    """
    passing = {}
    for name, value in headers:
        known = _RETURNED.get(name)
        if name == "retry-after" and status in WAIT_STATUSES:
            known = name
        if known and known not in passing and len(value) <= _MOST_CHARS:
            passing[known] = _CONTROLS.sub("", value)
    return list(passing.items())


def _is_plain(value: str) -> bool:
    return len(value) <= _MOST_CHARS and not _CONTROLS.search(value)


def _drop_named(headers: dict[str, str], connection: str) -> None:
    """Without those that the `Connection` header calls hop-by-hop (RFC 9110, 7.6.1)."""
    for name in connection.split(","):
        headers.pop(name.strip().lower(), None)
