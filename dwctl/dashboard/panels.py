"""Parts of a page that fail alone: what one of them cannot show is said in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dwctl.errors import DwctlError


@dataclass(frozen=True, slots=True)
class Panel:
    """What a panel shows, or why it does not."""

    value: Any = None
    problem: str | None = None


def attempt(read: Callable[[], Any]) -> Panel:
    """What `read` gives; where it is refused or fails in a way that has a name, the reason in the API's words."""
    try:
        return Panel(read())
    except DwctlError as error:
        return Panel(problem=error.message)
