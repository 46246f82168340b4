"""Which targets this process had better not call now: those that keep failing, and those that said when to come back.

    answers --`failures` in a row--> keeps failing --`open_for` later, one call--> probed --answers--> answers
                                          ^                                          | fails
                                          +------------------------------------------+

Counted in memory, by process and by target (endpoint and name of the model there), for models of every kind. Who has another target leaves
out the one that keeps failing; who has none calls it all the same. A target that answers well costs nothing here.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from uuid import UUID

from dwctl.config import Circuit
from dwctl.upstream.target import Target

log = logging.getLogger(__name__)

LONGEST_REST_S = 600.0
"""A target that wants to be left alone for longer is asked again after that."""
_MOST_KEPT = 1000

Key = tuple[UUID, str]


class _State:
    """What is known of one target. `rests_until`, `out_until`: monotonic; `status`: with which it asked for rest."""

    __slots__ = ("failures", "named", "out_until", "probed", "rests_until", "status")

    def __init__(self, target: Target) -> None:
        self.named = {"endpoint": target.endpoint_name, "model": target.model_name}
        self.failures = 0
        self.out_until: float | None = None
        self.probed = False
        self.rests_until = 0.0
        self.status = 503


class Health:
    """The targets that are in trouble."""

    def __init__(self, settings: Circuit, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._states: dict[Key, _State] = {}
        self.failed: Counter[tuple[str, str, str]] = Counter()
        """Attempts that failed, by endpoint, model and reason."""

    def is_left_out(self, target: Target) -> bool:
        """Whether it keeps failing, and nobody should find out now whether it still does."""
        state = self._states.get(_key(target)) if self._states else None
        if state is None or state.out_until is None:
            return False
        return state.probed or self._clock() < state.out_until

    def rests_for(self, target: Target) -> float:
        """Seconds until it may be asked again, by its own words."""
        state = self._states.get(_key(target)) if self._states else None
        return 0.0 if state is None else max(0.0, state.rests_until - self._clock())

    def asked_for_rest_with(self, target: Target) -> int:
        """The status of the answer by which it did."""
        state = self._states.get(_key(target))
        return 503 if state is None else state.status

    def begins(self, target: Target) -> None:
        """A call is sent to it. If its time is over, this one finds out whether it still fails, and others keep away meanwhile."""
        state = self._states.get(_key(target)) if self._states else None
        if state and state.out_until is not None and self._clock() >= state.out_until:
            state.probed = True

    def answers(self, target: Target) -> None:
        """It has begun to answer as it should. One failure more, and a target that was just probed is out again."""
        if not self._states or (state := self._states.get(_key(target))) is None:
            return
        if state.out_until is not None:
            state.out_until, state.probed = None, False
            log.info("target answers again", extra=state.named)

    def answered(self, target: Target) -> None:
        """It gave a whole answer: what was before is forgotten, but not when it wants to be asked again. (This call may have begun before that
        was said, and ended after.)
        """
        if not self._states or (state := self._states.get(_key(target))) is None:
            return
        self.answers(target)
        if self._clock() < state.rests_until:
            state.failures = 0
        else:
            del self._states[_key(target)]

    def failed_with(self, target: Target, reason: str) -> None:
        """It did not answer, or not as a server that is well."""
        self.failed[target.endpoint_name, target.model_name, reason] += 1
        state = self._state(target)
        state.failures += 1
        state.probed = False
        most = self._settings.failures
        if not most or state.failures < most:
            return
        if state.out_until is None:
            extra = {**state.named, "failures": state.failures, "reason": reason}
            log.warning("target keeps failing", extra=extra)
        state.out_until = self._clock() + self._settings.open_for

    def refused(self, target: Target, reason: str) -> None:
        """It is well, and does not want this call."""
        self.failed[target.endpoint_name, target.model_name, reason] += 1
        self.answered(target)

    def rests(self, target: Target, seconds: float, status: int) -> None:
        """It has answered with that status, and is to be asked again so many seconds later."""
        state = self._state(target)
        state.rests_until = self._clock() + min(seconds, LONGEST_REST_S)
        state.status = status

    def gave_up(self, target: Target) -> None:
        """Nothing was learnt: nobody waited for what it would say, or it was more than is taken in."""
        if self._states and (state := self._states.get(_key(target))):
            state.probed = False

    def left_out(self) -> Iterator[tuple[str, str]]:
        """Endpoint and model of each target that keeps failing."""
        for state in list(self._states.values()):
            if state.out_until is not None:
                yield state.named["endpoint"], state.named["model"]

    def forget(self) -> None:
        """Every target counts as well again."""
        self._states.clear()

    def _state(self, target: Target) -> _State:
        key = _key(target)
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= _MOST_KEPT:
                del self._states[next(iter(self._states))]
            state = self._states[key] = _State(target)
        return state


def _key(target: Target) -> Key:
    return target.endpoint_id, target.model_name
