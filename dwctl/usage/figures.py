"""How far the sums of usage are behind the calls, for the metrics page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dwctl.db import Connections
from dwctl.figures.families import Family, Merge, gauge
from dwctl.polled import Polled
from dwctl.usage import folding

_KEPT_S = 5.0


def collector(connections: Connections) -> Callable[[], Iterator[Family]]:
    """Two gauges; without numbers where the database does not answer in time."""
    backlog: Polled[tuple[int, float] | None]
    backlog = Polled(connections, folding.backlog, None, kept_s=_KEPT_S)

    def collect() -> Iterator[Family]:
        found = backlog()
        for name, text, place in (
            ("deltas", "Changes of sums of usage that wait to be added.", 0),
            ("deltas_oldest_seconds", "Seconds for which the first of them has waited.", 1),
        ):
            values = {} if found is None else {(): found[place]}
            yield gauge(f"dwctl_usage_{name}", text, (), values, Merge.SAME)

    return collect
