"""How an answer names the fields of its request that were left out."""

from __future__ import annotations

from collections.abc import Iterable

IGNORED_FIELDS_HEADER = "x-ignored-fields"
_MOST_CHARS = 1000


def named(names: Iterable[str]) -> str:
    """The header's value. What no header can hold is shown as its escape; what is too much is cut."""
    shown = (name.encode("unicode_escape").decode("ascii") for name in names)
    return ", ".join(shown)[:_MOST_CHARS]
