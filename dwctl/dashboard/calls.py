"""Which calls the screen of requests is about: out of its address, as the log's operations take it, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from flask import request, url_for

from dwctl.access import guard
from dwctl.access.permissions import Operation, Resource, may_all
from dwctl.dashboard import breakdowns, operations, ranges
from dwctl.errors import Invalid
from dwctl.queue import identifiers
from dwctl.request_log import routes as log
from dwctl.web.schemas import rfc3339

_BOUNDS = {
    "ok": (200, 299),
    "error": (300, None),
    "3xx": (300, 399),
    "4xx": (400, 499),
    "5xx": (500, 599),
}
STATUSES: Final = {
    "ok": "Succeeded (2xx)",
    "error": "Failed (not 2xx)",
    "4xx": "Refused (4xx)",
    "5xx": "Server errors (5xx)",
    "429": "Too many (429)",
    "402": "No credit (402)",
    "504": "Timed out (504)",
}
"""What the menu offers; any other code can be written into the address."""
_LONGEST: Final = 2000
_LEAST = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Filter:
    """One that is set, in words, for a chip that takes it off."""

    name: str
    label: str
    value: str


@dataclass(frozen=True, slots=True)
class Asked:
    """The address, read. `None`: not set. `user` narrows to an account for whoever reads everybody's calls; for others it says which of theirs."""

    range: ranges.Range
    model: str | None = None
    key: str | None = None
    user: str | None = None
    status: str | None = None
    tier: str | None = None
    batch: str | None = None
    q: str | None = None
    min_ms: str | None = None

    @property
    def values(self) -> dict[str, str]:
        """The filters that are set, as the address has them."""
        return {name: value for name in NAMES if (value := getattr(self, name))}

    @property
    def query(self) -> dict[str, Any]:
        """What the list's operation is asked."""
        return self.narrowed | self._times() | ({"body_contains": self.q} if self.q else {})

    @property
    def narrowed(self) -> dict[str, Any]:
        """The same without times and words: what the live view can be asked."""
        low, high = self.statuses
        found = {
            "model": self.model,
            "api_key_id": self.key,
            "user_id": self.user if reads_all() else None,
            "status_code_min": low,
            "status_code_max": high,
            "tier": self.tier,
            "fusillade_batch_id": self.batch and str(identifiers.parse("batch", self.batch)),
            "min_duration_ms": self.min_ms,
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def statuses(self) -> tuple[int | None, int | None]:
        """From which status to which."""
        return _bounds(self.status)

    @property
    def code(self) -> int | None:
        """The one status that is asked for, where it is one."""
        low, high = self.statuses
        return low if low == high else None

    @property
    def path(self) -> dict[str, Any]:
        """Whose calls, where the operations of one account answer."""
        if reads_all():
            return {}
        return {"user_id": account(self.user)}

    @property
    def has_end(self) -> bool:
        """Whether it is about a time that is over, so that nothing comes any more."""
        return not self.range.is_relative

    def _times(self) -> dict[str, str]:
        found = {"timestamp_after": rfc3339(self.range.since)}
        if self.has_end:
            # (The operation's bound is within; the range's end is not.)
            found["timestamp_before"] = rfc3339(self.range.until - _LEAST)
        return found


NAMES: Final = tuple(field.name for field in fields(Asked) if field.name != "range")


def asked() -> Asked:
    """What the request's address asks. Raises Invalid for what the operations could not be asked."""
    given = {name: request.args.get(name, "").strip() for name in NAMES}
    for name, value in given.items():
        if len(value) > _LONGEST:
            raise Invalid(f"{name}: longer than {_LONGEST} characters", param=name)
    found = Asked(ranges.asked(), **{name: value or None for name, value in given.items()})
    _bounds(found.status)
    if found.min_ms and not (
        found.min_ms.isascii() and found.min_ms.isdigit() and len(found.min_ms) < 16
    ):
        raise Invalid("min_ms: a number of milliseconds", param="min_ms")
    return found


def reads_all() -> bool:
    """Whether the caller reads everybody's calls."""
    return may_all(guard.identify(), Resource.REQUESTS, Operation.READ)


def listing() -> operations.View:
    """The operation that lists what the caller may see."""
    return log.list_requests if reads_all() else log.list_user_requests


def exporting() -> operations.View:
    """The one that downloads it."""
    return log.export_requests if reads_all() else log.export_user_requests


def watching() -> operations.View:
    """The one that tells of it as it is written down."""
    return log.watch_requests if reads_all() else log.watch_user_requests


def chips(asked: Asked, names: Mapping[str, str]) -> Iterator[Filter]:
    """The filters that are set, in words; `names`: what keys and accounts are called, by id."""
    labels = {
        "model": "Model",
        "key": "Key",
        "user": "Account",
        "status": "Outcome",
        "tier": "Tier",
        "batch": "Batch",
        "q": "Words",
        "min_ms": "Took at least",
    }
    for name, value in asked.values.items():
        shown = names.get(value, value)
        if name == "status":
            shown = STATUSES.get(value, value)
        elif name == "min_ms":
            shown = f"{value} ms"
        yield Filter(name, labels[name], shown)


def _bounds(status: str | None) -> tuple[int | None, int | None]:
    """From which status to which. Raises Invalid."""
    if status is None:
        return None, None
    if status in _BOUNDS:
        return _BOUNDS[status]
    if status.isascii() and status.isdigit() and len(status) == 3:
        return int(status), int(status)
    raise Invalid(f"status: {', '.join(_BOUNDS)}, or a code such as 429", param="status")


def usual_account() -> UUID:
    """Whose calls are shown where the address names nobody: those of the account for which the caller acts, as on other pages, if they may read them; else their own."""
    caller = guard.identify()
    return caller.owner_id if may_list(caller.owner_id) else caller.user_id


def behind(range: str, *, of: UUID | None = None, **filters: Any) -> str | None:
    """The address of the list of the very calls that a figure adds up. None where the reader may know the sum and not see the calls.

    of: whose they are; by default what `breakdowns` adds up for the reader.
    """
    if not reads_all():
        if of is None and breakdowns.is_everybodys():
            return None
        of = of or guard.identify().owner_id
        if not may_list(of):
            return None
        if of == usual_account():
            of = None
    return url_for("ui_requests.show", range=range, **{"user": of, **filters})


def may_list(account: UUID) -> bool:
    """Whether the caller may have an account's calls listed."""
    return operations.may(log.list_user_requests, user_id=account)


def account(text: str | None) -> UUID | str:
    """Of whom an operation's path speaks. Raises Invalid."""
    if text is None:
        usual = usual_account()
        return "current" if usual == guard.identify().user_id else usual
    try:
        return UUID(text)
    except ValueError:
        raise Invalid("user: the id of an account", param="user") from None
