"""The numbers in the bar: how much waits, how many batches run. Asked for after a page stands, and never worth a statement of its own."""

from __future__ import annotations

from flask import Response, current_app, jsonify

from dwctl.access import guard
from dwctl.access.ownership import listed_owner
from dwctl.access.permissions import Operation, Resource, may_all, may_own
from dwctl.dashboard import pages
from dwctl.monitoring import outline
from dwctl.monitoring.outline import Outline
from dwctl.polled import Polled
from dwctl.web import current

blueprint = pages.screen("badges")

_EXTENSION = "dwctl.outline"


@blueprint.get("/badges")
def show() -> Response:
    """By screen, what its badge says; nothing for a screen with nothing to say."""
    caller, known = guard.identify(), _outline()()
    found: dict[str, int] = {}
    if may_all(caller, Resource.SYSTEM, Operation.READ):
        found["queue"] = known.pending or 0
    if may_own(caller, Resource.BATCHES, Operation.READ):
        owner = listed_owner(caller, Resource.BATCHES)
        counts = known.batches
        found["batches"] = sum(counts.values()) if owner is None else counts.get(owner, 0)
    answer = jsonify({name: count for name, count in found.items() if count})
    answer.headers["Cache-Control"] = "no-store"
    return answer


def _outline() -> Polled[Outline]:
    """The process's own."""
    found: Polled[Outline] = current_app.extensions.setdefault(
        _EXTENSION, outline.polled(current.parts().connections)
    )
    return found
