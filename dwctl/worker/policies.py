"""By what this worker claims: settings, and each model's concurrency as its snapshot knows it.

During a change two workers may know different numbers: each keeps to its own, so the smaller one holds as soon as both know it.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from dwctl.catalog.routing import Routing
from dwctl.config import BatchDaemon
from dwctl.queue.leases import Policy

log = logging.getLogger(__name__)


class Policies:
    """Made anew when the routing value changes."""

    def __init__(self, settings: BatchDaemon) -> None:
        self._settings = settings
        self._routing: Routing | None = None
        self._caps: Mapping[str, int] = {}
        self._escalations: Mapping[str, tuple[str, float]] = {}
        self._missing: frozenset[str] = frozenset()

    def of(
        self, routing: Routing, resting: Collection[str], unknown: Collection[str] = ()
    ) -> Policy:
        """`resting`: models of which nothing is claimed here now; `unknown`: those that are not there, whose requests end without a call."""
        if routing is not self._routing:
            self._routing = routing
            self._caps = self._caps_of(routing)
            self._escalations = self._escalations_of(routing)
        settings = self._settings
        ending = dict.fromkeys(unknown, settings.claim_batch_size)
        return Policy(
            caps={**self._caps, **ending, **dict.fromkeys(resting, 0)},
            default_cap=settings.default_model_concurrency,
            urgent_s=settings.urgent_ms / 1000,
            urgency_weight=settings.urgency_weight,
            escalations=self._escalations,
        )

    def _caps_of(self, routing: Routing) -> Mapping[str, int]:
        """How many of a model may be in flight over all workers, where that is not the default. Never more than it runs at once at all."""
        default = self._settings.default_model_concurrency
        caps = {}
        for model in routing.models.values():
            if model.batch_capacity or model.limits.capacity:
                cap = model.batch_capacity or default
                caps[model.alias] = min(cap, model.limits.capacity or cap)
        return caps

    def _escalations_of(self, routing: Routing) -> Mapping[str, tuple[str, float]]:
        """Those whose model is there; requests are served by their own model where it is not."""
        given = self._settings.model_escalations
        missing = frozenset(
            one.escalation_model
            for one in given.values()
            if one.escalation_model not in routing.models
        )
        for name in sorted(missing - self._missing):
            log.warning("escalation model unknown", extra={"model": name})
        self._missing = missing
        return {
            model: (one.escalation_model, one.escalation_threshold_seconds)
            for model, one in given.items()
            if one.escalation_model not in missing
        }
