"""Calls of priced models for which there is no tariff, or whose answers do not say their tokens: said once for each kind, so that an
operator hears of what is given away.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from uuid import UUID

from dwctl.ai.admission import Admitted
from dwctl.billing import tariffs
from dwctl.printable import printable
from dwctl.protocols.modes import Tier

log = logging.getLogger(__name__)

_MOST_REMEMBERED = 10_000
_MOST_OF_PATH = 100

Kind = tuple[UUID, str, str | None]
"""A model, and of which calls of it: a purpose and a window, or that what they used is not said."""


class Unpriced:
    """What was said by this process."""

    def __init__(self) -> None:
        self._said: set[Kind] = set()

    def note(self, admitted: Admitted, *, unsaid: bool = False) -> None:
        """A call was run. unsaid: it was answered, and nobody knows how many tokens that took."""
        if unsaid and admitted.price is not None:
            self._note_unsaid(admitted)
            return
        model, request = admitted.asked_for, admitted.request
        queued = request.tier is Tier.FLEX
        # A realtime call that has a price has its own.
        if not model.tariffs or not (queued or admitted.price is None):
            return
        purpose, window = (
            (tariffs.BATCH, request.window) if queued else (admitted.key.purpose, None)
        )
        if (model.id, purpose, window) in self._said:
            return
        at = datetime.fromtimestamp(request.asked.created_at, UTC)
        gap = tariffs.gap(model.tariffs, purpose=purpose, window=window, at=at)
        if gap is None:
            return
        self._say("no tariff", admitted, (model.id, purpose, window), gap)

    def _note_unsaid(self, admitted: Admitted) -> None:
        """Of a model once: paths are of callers' making."""
        kind = (admitted.asked_for.id, "unsaid", None)
        if kind not in self._said:
            path = printable(admitted.request.surface.path, _MOST_OF_PATH)
            self._say("not priced", admitted, kind, f"Answers of /{path} do not say their tokens.")

    def _say(self, event: str, admitted: Admitted, kind: Kind, reason: str) -> None:
        if len(self._said) >= _MOST_REMEMBERED:
            self._said.clear()
        self._said.add(kind)
        log.warning(event, extra={"alias": admitted.asked_for.alias, "reason": reason})
