"""The header `traceparent` (W3C Trace Context, level 1): which trace a caller's request belongs to. Pure.

Of a caller's context the ids and the sampling flag are taken. `tracestate` is not: it is other vendors' data, and would travel on.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_FORM = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED = 1


class TraceParent(NamedTuple):
    """A span of somebody else's."""

    trace_id: int
    span_id: int
    sampled: bool


def parse(header: str | None) -> TraceParent | None:
    """None for what is missing or malformed: then a trace begins here."""
    found = _FORM.fullmatch(header.strip()) if header is not None and len(header) <= 512 else None
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    parsed = TraceParent(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return parsed if parsed.trace_id and parsed.span_id else None


def written(parent: TraceParent) -> str:
    """The header."""
    return f"00-{parent.trace_id:032x}-{parent.span_id:016x}-{int(parent.sampled):02x}"
