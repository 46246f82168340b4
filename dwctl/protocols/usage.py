"""Token counts, read from whatever an upstream calls them.

Nothing here raises: a strange count is worth less than the answer that it came with, and must not lose it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

_MOST = 2**31 - 1  # more than this in one call is nonsense, and would not fit the log's columns


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """What one call used, in LLM tokens; `reasoning` is part of `completion`, `cached` of `prompt`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0


def usage_of(body: object) -> TokenUsage | None:
    """The usage of an answer of any endpoint, or of a stream's chunk; None where it names no count."""
    if not isinstance(body, Mapping):
        return None
    return read_usage(body.get("usage"))


def read_usage(usage: object) -> TokenUsage | None:
    """A `usage` object of chat, completions, embeddings or responses."""
    if not isinstance(usage, Mapping):
        return None
    prompt = _first(usage, "prompt_tokens", "input_tokens")
    completion = _first(usage, "completion_tokens", "output_tokens")
    total = _first(usage, "total_tokens")
    if prompt is None and completion is None and total is None:
        return None
    return TokenUsage(
        prompt or 0,
        completion or 0,
        total or min((prompt or 0) + (completion or 0), _MOST),
        _detail(usage, ("completion_tokens_details", "output_tokens_details"), "reasoning_tokens"),
        _detail(usage, ("prompt_tokens_details", "input_tokens_details"), "cached_tokens"),
    )


def count(value: object) -> int | None:
    """A token count, where it is one: a number, or digits, that is not negative."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return min(max(int(value), 0), _MOST)


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        found = count(usage.get(name))
        if found is not None:
            return found
    return None


def _detail(usage: Mapping[str, Any], groups: tuple[str, ...], name: str) -> int:
    for group in groups:
        details = usage.get(group)
        if isinstance(details, Mapping):
            return count(details.get(name)) or 0
    return 0
