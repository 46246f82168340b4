"""Long work on the loop in short turns, so that nobody who waits for the loop notices it.

A positive rest, because `gevent.sleep(0)` only lets greenlets run that are ready already: no socket is looked at.
"""

from __future__ import annotations

from time import monotonic

import gevent

TURN_S = 0.005
REST_S = 0.001


class Pace:
    """Call it after each small step (well under a turn): it rests when the turn is over."""

    def __init__(self, turn_s: float = TURN_S, rest_s: float = REST_S) -> None:
        self._turn_s = turn_s
        self._rest_s = rest_s
        self.begin()

    def __call__(self) -> None:
        """Let others run if it is their turn."""
        if monotonic() >= self._until:
            self.rest()

    def rest(self) -> None:
        """Let others run now: before a step that takes a whole turn."""
        gevent.sleep(self._rest_s)
        self.begin()

    def begin(self) -> None:
        """A turn begins: others have run just now."""
        self._until = monotonic() + self._turn_s
