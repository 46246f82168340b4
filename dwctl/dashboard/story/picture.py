"""The steps of a call as bars on one scale of time: the waterfall. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dwctl.dashboard.story.telling import Step

WIDTH = 1000
"""Units of the drawing; it is stretched to its place."""
_THINNEST = 4
"""What took no time to speak of is a line all the same."""


@dataclass(frozen=True, slots=True)
class Bar:
    """Where one step stands: `x` and `width` in units of the drawing."""

    x: float
    width: float


def bars(steps: Sequence[Step]) -> list[Bar | None]:
    """One for each step; None for a step whose time is not known."""
    whole = max(
        (one.begin_ms + (one.length_ms or 0) for one in steps if one.begin_ms is not None),
        default=0,
    )
    return [_bar(one, whole) for one in steps]


def _bar(step: Step, whole_ms: float) -> Bar | None:
    if step.begin_ms is None:
        return None
    scale = WIDTH / whole_ms if whole_ms else 0
    width = max(_THINNEST, (step.length_ms or 0) * scale)
    return Bar(round(min(step.begin_ms * scale, WIDTH - width), 1), round(width, 1))
