"""The attempts of a call to a composite model, one target after the other, until one gives what the caller is to get.

Which target comes next is chosen (`selection`) by what `upstream.health` knows; whether one does, by the model's settings (`fallback`).
Nothing is sent twice once a byte was shown, so a stream counts as answered with its first event. A call that is stopped stops here at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

import msgspec

from dwctl.ai import fallback, outcomes
from dwctl.ai.admission import Admitted, component_demands, tokens_of
from dwctl.ai.attempt import Result
from dwctl.ai.in_progress import Flight
from dwctl.ai.live import Live
from dwctl.ai.outcomes import Outcome
from dwctl.ai.selection import Selection, Standing
from dwctl.analytics.records import Tried
from dwctl.catalog.routing import Component, Model
from dwctl.db import DatabaseAway
from dwctl.limits.limiter import Permit
from dwctl.limits.standing import LimitReached
from dwctl.printable import printable
from dwctl.upstream.target import Target

if TYPE_CHECKING:
    from dwctl.ai.gateway import Gateway

Ask = Callable[[Model, Target, float], Result]
"""Runs one attempt: the model that has the target, the target, and until when (monotonic)."""

_MOST_OF_NAME = 256


class Attempts:
    """Those of one call. `ask` runs one."""

    def __init__(self, gateway: Gateway, admitted: Admitted, flight: Flight, ask: Ask) -> None:
        self._gateway = gateway
        self._health = gateway.health
        self._admitted = admitted
        self._flight = flight
        self._ask = ask
        self._permit: Permit | None = None

    def run(self) -> Result:
        """What the last of them came to. Raises Stopped."""
        pool = self._admitted.served_by
        selection = Selection(pool)
        due = time.monotonic() + max((_total_s(one) for one in selection.all), default=inf)
        failed: list[tuple[Outcome, Component]] = []

        def standing(component: Component) -> Standing:
            return self._standing(component, is_only_one=len(selection.all) == 1 and not failed)

        why: str | None = None
        while time.monotonic() < due and (component := selection.next(standing)):
            if failed:
                self._next_because(why)
            result = self._try(component, due)
            why = None if isinstance(result, Live) else fallback.why_next(pool.fallback, result)
            if why is None or isinstance(result, Live):
                return result
            self._give_back(result)
            failed.append((result, component))
        if not failed:
            return self._nobody_asked(selection)
        number, chosen = fallback.verdict([outcome for outcome, _ in failed])
        component = failed[number][1]
        self._flight.target, self._flight.provider = _target(component), component.model
        return chosen

    def _try(self, component: Component, due: float) -> Result:
        """One component, and its line of the story."""
        target, began = _target(component), time.monotonic()
        result: Result | None = None
        try:
            self._take_limits(component)
        except (LimitReached, DatabaseAway) as refusal:
            result = outcomes.over_limit(refusal)
        try:
            result = result or self._ask(component.model, target, due)
        finally:
            self._flight.tried.append(_line(target, began, result))
        return result

    def _take_limits(self, component: Component) -> None:
        """What the component's own limits allow for one attempt. Raises LimitReached, DatabaseAway."""
        admitted = self._admitted
        demands = component_demands(admitted.served_by, component.model)
        self._permit = None
        if demands:
            tokens = tokens_of(admitted, demands)
            self._permit = self._gateway.limiter.take(demands, tokens)
            self._flight.permits = [*self._flight.permits, self._permit]

    def _give_back(self, result: Outcome) -> None:
        """What a component's limits had allowed, where another one is tried now."""
        permit, self._permit = self._permit, None
        if permit is not None:
            self._flight.permits = [one for one in self._flight.permits if one is not permit]
            permit.give_back(result.usage.total_tokens if result.usage else 0)

    def _next_because(self, why: str | None) -> None:
        tried = self._flight.tried
        tried[-1] = msgspec.structs.replace(tried[-1], next=why)

    def _standing(self, component: Component, *, is_only_one: bool) -> Standing:
        target = _target(component)
        if self._health.rests_for(target) and not is_only_one:
            return Standing.RESTING
        return Standing.LEFT_OUT if self._health.is_left_out(target) else Standing.READY

    def _nobody_asked(self, selection: Selection) -> Outcome:
        """All of them wait for a time that they have named."""
        health, targets = self._health, [_target(one) for one in selection.all]
        soonest = min(targets, key=health.rests_for)
        status = health.asked_for_rest_with(soonest)
        return outcomes.all_resting(status, max(1.0, health.rests_for(soonest)))


def _target(component: Component) -> Target:
    target = component.model.target
    assert target is not None  # `components_of` gives no others
    return target


def _total_s(component: Component) -> float:
    total_s = _target(component).timeouts.total_s
    return inf if total_s is None else total_s


def _line(target: Target, began: float, result: Result | None) -> Tried:
    """`result` is None where the attempt was stopped."""
    status, failure = (None, "stopped") if result is None else (200, None)
    if isinstance(result, Outcome):
        status, failure = result.upstream_status, result.error_code
    return Tried(
        endpoint=printable(target.endpoint_name, _MOST_OF_NAME),
        model=printable(target.model_name, _MOST_OF_NAME),
        ms=int((time.monotonic() - began) * 1000),
        status=status,
        failure=failure,
    )
