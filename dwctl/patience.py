"""A time-out for what others answer, in which the time does not count that this process stood still itself.

An ordinary one runs out together with a stall of the loop, and takes an answer that has long been there for an absent one.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import gevent

_STEPS = 16
_LATE = 1.5
"""A step that took longer, in steps, was a stall."""
_STALLS_IN_A_STEP = 4
"""So many count as one: a loop that does nothing but stall must come to an end, too."""


class Patience(gevent.Timeout):  # type: ignore[misc]  # gevent has no types here
    """Raised in its own block, by its own greenlet, when the loop has been there for about `seconds`; use it as `gevent.Timeout`.

    The time is counted in sixteenths, each of which needs a turn of the loop. One that comes late counts for a quarter of itself, however
    late it is: who needs ten turns for an answer (a connection is made) has them also where each takes as long as that.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(None)
        self._seconds = seconds
        self._step_s = seconds / _STEPS
        self._left_s = seconds
        self._ticked_at = 0.0
        self._ticks: Any = None

    def __enter__(self) -> Self:
        self._left_s = self._seconds
        self._ticked_at = time.monotonic()
        self._ticks = gevent.get_hub().loop.timer(self._step_s, self._step_s)
        self._ticks.start(self._tick, gevent.getcurrent())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._count()
        self._ticks.stop()
        self._ticks.close()

    @property
    def left_s(self) -> float:
        """What had not run out when its block ended."""
        return self._left_s

    def _tick(self, waiting: gevent.Greenlet) -> None:
        self._count()
        if self._left_s < self._step_s / 2:
            self._ticks.stop()
            waiting.throw(self)

    def _count(self) -> None:
        now = time.monotonic()
        passed_s, self._ticked_at = now - self._ticked_at, now
        is_late = passed_s > self._step_s * _LATE
        self._left_s -= self._step_s / _STALLS_IN_A_STEP if is_late else passed_s
