"""How many bytes of large bodies a worker holds at once: a claim brings hundreds of requests, and each may have 20 MB."""

from __future__ import annotations

from collections.abc import Callable

from gevent.event import Event

_LOOK_EVERY_S = 1.0


class LargeBodies:
    """Room for `most` bytes (0: any number). One that is larger than all of it gets in when it is alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._left = Event()

    def take(self, size: int, gives_up: Callable[[], bool]) -> bool:
        """Wait for room; False, and nothing is taken, as soon as `gives_up`."""
        while self._most and self._held and self._held + size > self._most:
            if gives_up():
                return False
            self._left.clear()
            self._left.wait(_LOOK_EVERY_S)
        self._held += size
        return True

    def give_back(self, size: int) -> None:
        """The body is not needed any more."""
        self._held -= size
        self._left.set()
