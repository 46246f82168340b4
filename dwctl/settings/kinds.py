"""Kinds of values that settings have, and how each is written in a YAML file or in the environment."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

from marshmallow import ValidationError, fields

LONGEST_DAYS = 36_500
"""A hundred years: what dates can hold."""
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)\s*")


class ConfigError(Exception):
    """A setting is unknown or has a bad value; the text names it. `problems`: where there are several."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def seconds_of(text: str) -> float:
    """Seconds of a human duration: `24h`, `1h 30m`, `250ms`, or a bare number of seconds. ValueError otherwise."""
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text):
            raise ValueError(f"not a duration: {text!r}") from None
        return sum(float(n) * _UNITS[unit] for n, unit in parts)


def duration_text(seconds: float) -> str:
    """What `seconds_of` reads as these seconds, as people write it: `250ms`, `30s`, `5m`, `24h`, `7d`."""
    if seconds <= 0:
        return "0s"
    if seconds < 1:
        return f"{_digits(seconds * 1000)}ms"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0 and (unit != "d" or seconds > size):
            return f"{_digits(seconds / size)}{unit}"
    return f"{_digits(seconds)}s"


def _digits(value: float) -> str:
    """Without an exponent: a unit may follow."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def window_seconds(text: str) -> float:
    """Seconds of a completion window: a human duration with its units, longer than nothing and not above a hundred years. ValueError otherwise."""
    seconds = seconds_of(text)
    if text.strip()[-1:].isdigit() or not 0 < seconds <= LONGEST_DAYS * 86400:
        raise ValueError(f"not a completion window: {text!r}")
    return seconds


class DurationField(fields.Field[float]):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        try:
            seconds = seconds_of(str(value))
        except ValueError as error:
            raise ValidationError(str(error)) from error
        if not 0 <= seconds < math.inf:
            raise ValidationError("must be finite and not negative")
        return seconds


class ListField(fields.Field[tuple[str, ...]]):
    """A YAML list, or in the environment a comma-separated text or a JSON array."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> tuple[str, ...]:
        if isinstance(value, str):
            value = listed(value)
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            raise ValidationError("must be a list of texts")
        return tuple(part for part in value if part)


def listed(text: str) -> Any:
    """The parts of a comma list, or what a JSON array holds; None for half an array."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    try:
        return json.loads(text)
    except ValueError:
        return None


class IntListField(ListField):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, list):
            value = [str(part) for part in value]
        try:
            return tuple(int(part) for part in super()._deserialize(value, attr, data))
        except ValueError as error:
            raise ValidationError("must be a list of whole numbers") from error


class NetworkListField(ListField):
    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            return tuple(
                ip_network(part, strict=False) for part in super()._deserialize(value, attr, data)
            )
        except ValueError as error:
            raise ValidationError(f"must be a list of networks: {error}") from error


Networks = tuple[IPv4Network | IPv6Network, ...]
"""Written as a list of addresses (`10.1.2.3`) and networks (`10.0.0.0/8`)."""

Duration = Annotated[float, DurationField]
"""Seconds; written as `30s`, `24h` or a number of seconds."""


class FactorsField(fields.Field[Mapping[str, float]]):
    """A YAML mapping, or in the environment a JSON object or one variable for each name."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> Mapping[str, float]:
        try:
            given = json.loads(value) if isinstance(value, str) else value
            found = {str(name): float(factor) for name, factor in given.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValidationError(f"must be numbers by name: {error}") from error
        if not all(0 <= factor < math.inf for factor in found.values()):
            raise ValidationError("must be finite and not negative")
        return types.MappingProxyType(found)


Factors = Annotated[Mapping[str, float], FactorsField]
"""Numbers by name."""


@dataclass(frozen=True)
class Escalation:
    """What is due within the threshold is served by that model in place of its own."""

    escalation_model: str
    escalation_threshold_seconds: float = 900.0


class EscalationsField(fields.Field[Mapping[str, Escalation]]):
    """A YAML mapping, or in the environment a JSON object or one variable for each member."""

    def _deserialize(
        self, value: Any, attr: str | None, data: Any, **kwargs: Any
    ) -> Mapping[str, Escalation]:
        try:
            given = json.loads(value) if isinstance(value, str) else value
            found = {str(model): self._read(model, one) for model, one in given.items()}
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValidationError(
                f"must be escalation_model and escalation_threshold_seconds by model: {error}"
            ) from error
        return found

    def _read(self, model: str, given: Mapping[str, Any]) -> Escalation:
        unknown = set(given) - {"escalation_model", "escalation_threshold_seconds"}
        if unknown:
            raise ValueError(f"{model}: unknown member {sorted(unknown)[0]}")
        threshold_s = float(given.get("escalation_threshold_seconds", 900))
        if not 0 <= threshold_s < math.inf:
            raise ValueError(f"{model}: the threshold must be finite and not negative")
        to = given["escalation_model"]
        if not isinstance(to, str) or not to or to == model:
            raise ValueError(f"{model}: escalation_model must name another model")
        return Escalation(to, threshold_s)


Escalations = Annotated[Mapping[str, Escalation], EscalationsField]
"""Escalations by model."""
