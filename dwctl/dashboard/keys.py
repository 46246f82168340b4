"""API keys as people read and write them: their state in a word, limits in people's units, ends in the reader's zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from flask import request
from marshmallow import Schema

from dwctl import clock
from dwctl.dashboard import forms
from dwctl.dashboard.formatting import RATE_UNITS, moment, number, rate, rate_in_units
from dwctl.dashboard.zones import zone

WINDOWS = {"": "ever", "daily": "a day", "weekly": "a week, from Monday", "monthly": "a month"}
"""When a cap begins anew."""
OVERLAPS = {
    "86400": "a day",
    "3600": "an hour",
    "604800": "a week",
    "2592000": "30 days",
    "0": "not at all",
}
"""How long earlier secrets go on working, in seconds."""
_SOON = timedelta(days=7)
_NEARLY = Decimal("0.9")

Key = Mapping[str, Any]
"""A key as the API shows it."""


def state(key: Key) -> tuple[str, str]:
    """What to know of a key first: a word, and its kind for `ui.state`."""
    now, end = clock.now(), moment(key["expires_at"])
    if end is not None and end <= now:
        return "expired", "bad"
    spent = cap_share(key)
    if spent is not None and spent >= 1:
        return "cap used up", "bad"
    if end is not None and end - now <= _SOON:
        return "expires soon", "warn"
    if spent is not None and spent >= _NEARLY:
        return "near its cap", "warn"
    return ("active", "good") if key["last_used"] else ("never used", "")


def cap_share(key: Key) -> Decimal | None:
    """Which part of its cap it has spent; None without one."""
    return Decimal(key["spend"]) / Decimal(key["spend_limit"]) if key["spend_limit"] else None


def limits(key: Mapping[str, Any]) -> list[str]:
    """What limits it, in words; also of a model. Empty where nothing does."""
    said = []
    burst = key.get("burst_size")
    if per_second := key.get("requests_per_second") or burst:
        said.append(rate(per_second) + (f", {number(burst)} at once after a rest" if burst else ""))  # fmt: skip
    if key.get("tokens_per_minute"):
        said.append(f"{number(key['tokens_per_minute'])} tokens a minute")
    if key.get("capacity"):
        said.append(f"{number(key['capacity'])} at the same time")
    return said


def body(schema: Schema | None) -> dict[str, Any]:
    """The API's body of a form that was sent. What cannot be read stays as it is, so that the API says what is wrong with it."""
    found = forms.body(schema)
    # A name that is emptied is a mistake, not a name that stays.
    if "name" in request.form:
        found["name"] = request.form["name"]
    _divide(found, "requests_per_second", RATE_UNITS.get(request.form.get("rate_unit", ""), 1))
    _divide(found, "log_sample", 100)
    # The window is always chosen in the form; without a cap it is of nothing.
    if "spend_limit" in found and found["spend_limit"] is None:
        found["spend_limit_interval"] = None
    if found.get("expires_at"):
        found["expires_at"] = _in_the_readers_zone(found["expires_at"])
    return found


def change(schema: Schema | None, key: Key) -> dict[str, Any]:
    """The same of a form that changes a key. What stands there as it was shown was rounded for the eye, and stays as it is."""
    found, shown = body(schema), values(key)
    for names in (("requests_per_second", "rate_unit"), ("expires_at",), ("log_sample",)):
        if all(request.form.get(name) == shown[name] for name in names):
            found.pop(names[0], None)
    return found


def values(key: Key) -> dict[str, Any]:
    """What the fields of its form hold."""
    unit, amount = rate_in_units(key["requests_per_second"] or 1.0)
    end = moment(key["expires_at"])
    share = key["log_sample"]
    return {
        **key,
        "requests_per_second": f"{amount:.6g}" if key["requests_per_second"] else "",
        "rate_unit": unit,
        "expires_at": f"{end.astimezone(zone()):%Y-%m-%dT%H:%M:%S}" if end else "",
        "spend_limit": f"{Decimal(key['spend_limit']).normalize():f}" if key["spend_limit"] else "",
        "log_sample": "" if share is None else f"{share * 100:g}",
    }


NEW: dict[str, Any] = {
    **dict.fromkeys(("description", "requests_per_second", "burst_size", "capacity", "tokens_per_minute", "spend_limit", "log_sample", "expires_at", "name"), ""),
    "purpose": "realtime",
    "rate_unit": "second",
    "spend_limit_interval": "monthly",
    "zero_data_retention": False,
}  # fmt: skip
"""The same of a key that is still to be made."""


def _divide(found: dict[str, Any], name: str, by: int) -> None:
    if isinstance(found.get(name), float):
        found[name] /= by


def _in_the_readers_zone(text: str) -> str:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return text
    return (at if at.tzinfo else at.replace(tzinfo=zone())).isoformat()
