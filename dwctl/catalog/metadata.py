"""What routing takes from a model's metadata. It is free JSON: nothing in it is sure to be of any type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OWNER = "dwctl"
"""Whom a model is said to be from where its metadata names no provider: endpoints' names are for operators, not for callers."""

_LENGTHS = ("context_length", "context_window", "max_model_len", "max_context_length")
"""The names that servers and catalogues use for it."""
_LONGEST = 2**53
_REASONING_NAMES = ("reasoning_content", "reasoning")


def context_length(metadata: Any) -> int | None:
    """How many tokens fit into a call with its answer; from the metadata, or else from its `extra`. None where that is not said."""
    for place in _places(metadata):
        for name in _LENGTHS:
            length = _whole(place.get(name))
            if 0 < length <= _LONGEST:
                return length
    return None


def reasoning_input(metadata: Any) -> str | None:
    """The member of the assistant's messages in which the model's server wants earlier reasoning back, as `reasoning_input` says it.
    None where it is to get none: many servers refuse a member that they do not know.
    """
    for place in _places(metadata):
        if place.get("reasoning_input") in _REASONING_NAMES:
            return str(place["reasoning_input"])
    return None


def owner(metadata: Any) -> str:
    """What callers see as `owned_by`: the provider."""
    provider = metadata.get("provider") if isinstance(metadata, Mapping) else None
    name = provider.strip() if isinstance(provider, str) else ""
    return name or OWNER


def _places(metadata: Any) -> list[Mapping[str, Any]]:
    if not isinstance(metadata, Mapping):
        return []
    return [place for place in (metadata, metadata.get("extra")) if isinstance(place, Mapping)]


def _whole(value: Any) -> int:
    """Zero for what is no whole number."""
    whole = isinstance(value, float) and value.is_integer()
    whole = whole or (isinstance(value, int) and not isinstance(value, bool))
    return int(value) if whole else 0
