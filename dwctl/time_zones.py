"""Time zones by their IANA names."""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

LONGEST_NAME = 64
_OF_THE_MACHINE = ("localtime", "posixrules", "Factory")
"""They stand among the zones, and say where the server is."""
_OTHER_COUNTS = ("right/", "posix/")
"""The same zones once more; `right` counts leap seconds, which nobody else here does."""


@lru_cache(maxsize=256)
def named(name: str) -> ZoneInfo | None:
    """The zone of that name; None for what is none, and for the files beside the zones."""
    if len(name) > LONGEST_NAME or name in _OF_THE_MACHINE or name.startswith(_OTHER_COUNTS):
        return None
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
