"""Queue: what waits for workers, what holds it up, and who works."""

from __future__ import annotations

from flask import Response

from dwctl.dashboard import calls, operations, pages, panels
from dwctl.monitoring import routes as monitoring

blueprint = pages.screen("queue")


@blueprint.get("/queue")
def show() -> Response:
    """The screen; its parts refresh themselves."""
    queue = operations.run(monitoring.get_queue)
    workers = panels.attempt(_workers)
    return pages.render(
        "queue/page.html",
        title="Queue",
        fragment="queue/_state.html",
        queue=queue,
        workers=workers,
        reads_all=calls.reads_all(),
        snippet=operations.snippet(monitoring.get_queue),
    )


def _workers() -> list[dict[str, object]]:
    """Processes that run, and those that ended without saying so or a short while ago."""
    found = operations.run(monitoring.list_daemons)["daemons"]
    return [one for one in found if one["status"] != "dead" or "stopped_at" not in one][:50]
