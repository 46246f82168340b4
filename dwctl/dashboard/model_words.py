"""What pages say of a model in few words: whether it answers, what it costs, how much of it there is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from dwctl.dashboard import formatting

Model = Mapping[str, Any]
"""A model as the API shows it."""

_MANY = 0.5
"""From this share of errors on, a model is said to fail."""
_SOME = 0.05


class State(NamedTuple):
    """A word, and how it looks (`ui.state`)."""

    word: str
    kind: str


def state(model: Model) -> State:
    """Whether it can be called, and what has become of the last hour's calls as far as that is shown."""
    if model.get("deleted"):
        return State("deleted", "")
    if model.get("activity_status") == "inactive":
        return State("gone from its server", "bad")
    if model.get("is_composite") and "components" in model and not any(map(_serves, model["components"])):  # fmt: skip
        return State("no component", "bad")
    calls = model.get("calls")
    if calls is None:
        return State("", "")
    return _of_calls(calls)


def of_endpoint(endpoint: Mapping[str, Any]) -> State:
    """The same of all models on an endpoint."""
    models = endpoint["models"]
    if not models["active"]:
        return State("no model" if not models["inactive"] else "its models are gone", "warn")
    return _of_calls(models)


def price(model: Model) -> Mapping[str, Any] | None:
    """Its tariff for realtime calls; None where there is none."""
    tariffs = model.get("tariffs") or ()
    return next((one for one in tariffs if one["api_key_purpose"] == "realtime"), None)


def limits(model: Model) -> list[str]:
    """Each in units that people use."""
    return list(_limits(model))


def rate(per_second: float) -> tuple[float, str]:
    """A rate as a number and the unit of time by which it is a whole one; else by which it is not below one, where there is such a unit."""
    by_unit = {unit: round(per_second * seconds, 6) for unit, seconds in UNITS.items()}
    whole = [unit for unit, number in by_unit.items() if number >= 1 and number == int(number)]
    large = [unit for unit, number in by_unit.items() if number >= 1]
    unit = next(iter([*whole, *large, "hour"]))
    return by_unit[unit], unit


def rate_field(per_second: float | None) -> tuple[str, str]:
    """The text and the unit that a form shows of it; no text for none."""
    if not per_second:
        return "", "second"
    number, unit = rate(per_second)
    return f"{number:g}", unit


UNITS = {"second": 1, "minute": 60, "hour": 3600}
"""Units of time for rates, in seconds."""
_A = {"second": "a second", "minute": "a minute", "hour": "an hour"}


def _serves(component: Mapping[str, Any]) -> bool:
    return bool(component["enabled"])


def _of_calls(found: Mapping[str, int]) -> State:
    """A refused call (4xx) says nothing of a server: most were never sent to one."""
    if not found["last_hour_requests"]:
        return State("no calls for an hour", "")
    calls = found["last_hour_requests"] - found["last_hour_refused"]
    if not calls:
        return State("only refused calls", "")
    errors = found["last_hour_errors"] - found["last_hour_refused"]
    share = errors / calls
    if share < _SOME:
        return State("answers", "good")
    word = f"{formatting.percent(errors, calls)} errors"
    return State(word, "bad" if share >= _MANY else "warn")


def _limits(model: Model) -> Iterator[str]:
    if per_second := model.get("requests_per_second") or model.get("burst_size"):
        number, unit = rate(per_second)
        burst = f", {model['burst_size']:,} at once" if model.get("burst_size") else ""
        yield f"{number:,g} requests {_A[unit]}{burst}"
    if model.get("tokens_per_minute"):
        yield f"{model['tokens_per_minute']:,} tokens a minute"
    if model.get("capacity"):
        yield f"{formatting.counted(model['capacity'], 'call')} at the same time"
    if model.get("batch_capacity"):
        yield f"{model['batch_capacity']:,} queued requests at the same time"
    if model.get("throughput"):
        number, unit = rate(model["throughput"])
        yield f"batches by {number:,g} requests {_A[unit]}"
