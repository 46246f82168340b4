"""The attempts of one call, one target after the other, until one gives what the caller is to get.

A model that has one target is asked there, and that is all. A composite one chooses (`selection`), and goes on where its settings say so
(`fallback`); nothing is sent twice once a byte was shown, so a stream counts as answered with its first event. What `upstream.health` knows
of the targets is asked before, and told after, each attempt. A call that is stopped stops here at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from dwctl.ai import fallback, outcomes
from dwctl.ai.admission import Admitted
from dwctl.ai.attempt import Attempt
from dwctl.ai.in_progress import Flight
from dwctl.ai.live import Live
from dwctl.ai.outcomes import Done, End, Failed, Outcome
from dwctl.ai.selection import Selection, Standing
from dwctl.analytics.records import Tried
from dwctl.catalog.routing import Component, Model
from dwctl.errors import DwctlError
from dwctl.printable import printable
from dwctl.upstream.errors import ResponseTooLarge, UpstreamError
from dwctl.upstream.target import Target

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

Result = Outcome | Live
Step = Callable[[Attempt], Result]

_SAY_WHEN = frozenset({429, 503})
_MOST_OF_NAME = 256


class Attempts:
    """Those of one call. `current`: the last one that was begun."""

    def __init__(self, gateway: Gateway, admitted: Admitted, flight: Flight) -> None:
        self.current: Attempt | None = None
        self._gateway = gateway
        self._health = gateway.health
        self._admitted = admitted
        self._flight = flight

    def whole(self) -> Outcome:
        """The answer in one piece. Raises Stopped."""
        result = self._first(Attempt.whole)
        assert isinstance(result, Outcome)
        return result

    def opened(self) -> Result:
        """A stream that has begun, or what else the call came to. Raises Stopped."""
        pool = self._admitted.served_by
        may_go_on = pool.is_composite and pool.fallback.enabled
        return self._first(Attempt.begun if may_go_on else Attempt.opened)

    def ended(self, end: End) -> None:
        """What became of the stream that the last attempt had begun."""
        if self.current is None:
            return
        if isinstance(end, Failed):
            self._health.failed_with(self.current.target, end.code)
        elif isinstance(end, Done):
            self._health.answered(self.current.target)

    def _first(self, step: Step) -> Result:
        pool = self._admitted.served_by
        if pool.is_composite:
            return self._walk(pool, step)
        assert pool.target is not None
        return self._attempt(pool, pool.target, step, inf)

    def _attempt(self, provider: Model, target: Target, step: Step, due: float) -> Result:
        self._flight.target = target
        self._health.begins(target)
        try:
            self.current = Attempt(
                self._gateway, self._admitted, self._flight, provider, target, due
            )
            result = step(self.current)
        except UpstreamError as error:
            result = outcomes.unreachable(error)
        except BaseException:
            self._health.gave_up(target)
            raise
        self._tell_health(target, result)
        return result

    def _tell_health(self, target: Target, result: Result) -> None:
        health = self._health
        if isinstance(result, Live):
            health.answers(target)
            return
        end, status = result.end, result.upstream_status or 0
        if not isinstance(end, Failed):
            health.answered(target)
        elif 300 <= status < 500:
            health.refused(target, end.code)
        elif end.code != ResponseTooLarge.code:
            health.failed_with(target, end.code)
        if status in _SAY_WHEN and isinstance(end, Failed) and end.retry_after_s:
            health.rests(target, end.retry_after_s, status)

    # --- a choice of targets

    def _walk(self, pool: Model, step: Step) -> Result:
        selection = Selection(pool)
        due = time.monotonic() + max((_total_s(one) for one in selection.all), default=inf)
        failed: list[tuple[Outcome, Target | None]] = []

        def standing(component: Component) -> Standing:
            return self._standing(component, is_only_one=len(selection.all) == 1 and not failed)

        while time.monotonic() < due and (component := selection.next(standing)):
            result = self._try(pool, component, step, due)
            if isinstance(result, Live) or self._flight.tried[-1].next is None:
                return result
            failed.append((result, self._flight.target))
        if not failed:
            return self._nobody_asked(selection)
        chosen = fallback.verdict([outcome for outcome, _ in failed])
        self._flight.target = next(
            where for outcome, where in failed if outcome.body is chosen.body
        )
        return chosen

    def _try(self, pool: Model, component: Component, step: Step, due: float) -> Result:
        """One component, and its line of the story."""
        model, began = component.model, time.monotonic()
        assert model.target is not None
        try:
            give_back = _take_limits(self._gateway, component)
        except DwctlError as refusal:
            return self._told(pool, model.target, began, outcomes.over_limit(refusal))
        try:
            result = self._attempt(model, model.target, step, due)
        except BaseException:
            give_back()
            self._flight.tried.append(_line(model.target, began, None, "stopped", None))
            raise
        self._told(pool, model.target, began, result)
        if self._flight.tried[-1].next is None:
            self._flight.give_back = give_back
        else:
            give_back()
        return result

    def _told(self, pool: Model, target: Target, began: float, result: Result) -> Result:
        if isinstance(result, Outcome):
            why = fallback.why_next(pool.fallback, result)
            line = _line(target, began, result.upstream_status, result.error_code, why)
        else:
            line = _line(target, began, result.response.status, None, None)
        self._flight.tried.append(line)
        return result

    def _standing(self, component: Component, *, is_only_one: bool) -> Standing:
        target = component.model.target
        assert target is not None
        if self._health.rests_for(target) and not is_only_one:
            return Standing.RESTING
        return Standing.LEFT_OUT if self._health.is_left_out(target) else Standing.READY

    def _nobody_asked(self, selection: Selection) -> Outcome:
        """All of them wait for a time that they have named."""
        rests = [
            (self._health.rests_for(one.model.target), one.model.target)
            for one in selection.all
            if one.model.target is not None
        ]
        seconds, soonest = min(rests, key=lambda rest: rest[0], default=(0.0, None))
        status = 503 if soonest is None else self._health.asked_for_rest_with(soonest)
        return outcomes.all_resting(status, max(1.0, seconds))


def _take_limits(gateway: Gateway, component: Component) -> Callable[[], None]:
    """Take what the component's own limits (`component.model.limits`) allow for one attempt; gives what gives it back.

    Raises DwctlError (429) where a limit is reached.
    """
    return _nothing_taken


def _nothing_taken() -> None:
    pass


def _total_s(component: Component) -> float:
    target = component.model.target
    total_s = target.timeouts.total_s if target is not None else None
    return inf if total_s is None else total_s


def _line(
    target: Target, began: float, status: int | None, failure: str | None, why: str | None
) -> Tried:
    return Tried(
        endpoint=printable(target.endpoint_name, _MOST_OF_NAME),
        model=printable(target.model_name, _MOST_OF_NAME),
        ms=int((time.monotonic() - began) * 1000),
        status=status,
        failure=failure,
        next=why,
    )
