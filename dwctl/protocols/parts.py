"""How many choices, calls and items one answer may have."""

from __future__ import annotations

_MOST_PARTS = 4_096


class TooMuch(Exception):
    """A stream has more choices, calls or items than anyone asks for."""


class PartsBudget:
    """How many choices, calls and items one stream may begin: each costs a hundred times the bytes that begin it."""

    __slots__ = ("_left",)

    def __init__(self, most: int = _MOST_PARTS) -> None:
        self._left = most

    def spend(self) -> None:
        """One more. Raises TooMuch."""
        self._left -= 1
        if self._left < 0:
            raise TooMuch("The upstream provider sent too many choices or calls.")
