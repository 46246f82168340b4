"""How long an upstream server asks to be left alone, in seconds. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

WAIT_STATUSES = frozenset({429, 503})
"""With which a server says when to come back."""

_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_LONGEST_S = 999_999.0


def retry_after_s(headers: Iterable[tuple[str, str]], now: float) -> float | None:
    """What `retry-after-ms` says, else `Retry-After`: seconds or a date (RFC 9110, 10.2.3). None where neither says anything.

    headers: names in lower case. now: seconds since 1970; the server's own `Date` goes before it, for its clock may be another.
    A time that has passed is 0.
    """
    named: dict[str, str] = {}
    for name, text in headers:
        named.setdefault(name, text)
    milliseconds = _number(named.get("retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, _LONGEST_S)
    value = named.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return min(seconds, _LONGEST_S)
    due = _moment(value)
    if due is None:
        return None
    sent = _moment(named.get("date"))
    return min(max(due - (now if sent is None else sent), 0.0), _LONGEST_S)


def _number(value: str | None) -> float | None:
    return float(value) if value and _SECONDS.fullmatch(value.strip()) else None


def _moment(value: str | None) -> float | None:
    """A date as HTTP writes it, in any of its three forms, in seconds since 1970."""
    if not value or len(value) > 64:
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
