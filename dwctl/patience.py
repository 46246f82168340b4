"""A time-out for what others answer, in which the time does not count that this process stood still itself.

An ordinary one runs out together with a stall of the loop, and takes an answer that has long been there for an absent one.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import gevent

_STEPS = 4


class Patience(gevent.Timeout):  # type: ignore[misc]  # gevent has no types here
    """Raised in its own block, by its own greenlet, when the loop has been at work for about `seconds`; use it as `gevent.Timeout`.

    The time is counted in quarters, each of which needs a turn of the loop: in a stall of any length one passes.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(None)
        self._step_s = seconds / _STEPS
        self._left = _STEPS
        self._ticks: Any = None

    def __enter__(self) -> Self:
        self._left = _STEPS
        self._ticks = gevent.get_hub().loop.timer(self._step_s, self._step_s)
        self._ticks.start(self._tick, gevent.getcurrent())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ticks.stop()
        self._ticks.close()

    def _tick(self, waiting: gevent.Greenlet) -> None:
        self._left -= 1
        if self._left == 0:
            self._ticks.stop()
            waiting.throw(self)
