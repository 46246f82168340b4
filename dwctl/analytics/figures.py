"""How the recorder keeps up, in figures: what it wrote, how long after its call, and what lies elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dwctl.figures.families import Family, Merge, counter, gauge, histogram
from dwctl.figures.spreads import Spreads

if TYPE_CHECKING:
    from dwctl.analytics.recorder import Recorder

LAG_S = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
GROUP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Figures:
    """What recorder, writer and drainer of one process count together."""

    def __init__(self) -> None:
        self.lag_s = Spreads(LAG_S)
        self.group_s = Spreads(GROUP_S)
        self.errors: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()

    def wrote_group(self, seconds: float, *, failed: bool) -> None:
        """One group was written, or was not, in that time."""
        self.group_s.add((), seconds)
        if failed:
            self.errors["write"] += 1


def families(recorder: Recorder) -> Iterator[Family]:
    """For the metrics page."""
    yield from _written(recorder)
    yield from _waiting(recorder)


def _written(recorder: Recorder) -> Iterator[Family]:
    counts, figures = recorder.counts, recorder.figures
    lag = "Seconds from the end of an answer until its record was in the database."
    yield histogram("dwctl_analytics_lag_seconds", lag, (), figures.lag_s)
    duration = "Seconds that writing a group of records took."
    yield histogram("dwctl_analytics_batch_duration_seconds", duration, (), figures.group_s)
    for name, text, value in (
        ("dwctl_analytics_batched_records", "Records of calls that were committed.", "flushed"),
        ("dwctl_recorder_groups", "Commits that wrote them.", "groups"),
        (
            "dwctl_recorder_spooled",
            "Records that went to the spool because the database was away.",
            "spooled",
        ),
        ("dwctl_recorder_shed", "Refusals that were not written down, and words left by streams, because too much waited.", "shed"),
        ("dwctl_request_log_shed", "Calls whose headers and bodies are not in the request log because too much waited.", "details_shed"),
        (
            "dwctl_recorder_bodies_shed",
            "Records that were written without bodies and headers, because too much waited.",
            "details_shed",
        ),
        (
            "dwctl_recorder_rejected",
            "Records that the database refused for good; they lie beside the spool.",
            "rejected",
        ),
        (
            "dwctl_analytics_send_errors",
            "Records that neither the database nor the spool took; their callers were told.",
            "lost",
        ),
    ):  # fmt: skip
        yield counter(f"{name}_total", text, (), counts[value])
    errors = "Groups of records that were not written at once, or not at all, and why."
    yield _by_one_label("dwctl_analytics_batch_errors_total", errors, "phase", figures.errors)
    retries = "Further tries at a statement of the recorder's, and those that succeeded."
    yield _by_one_label("dwctl_analytics_batch_retries_total", retries, "outcome", figures.retries)


def _waiting(recorder: Recorder) -> Iterator[Family]:
    text = "Records that wait to be committed."
    yield gauge("dwctl_recorder_depth", text, (), recorder.depth)
    text = "Seconds for which the record that came first has waited, in the process where that is longest."
    yield gauge("dwctl_recorder_oldest_seconds_max", text, (), recorder.oldest_s, Merge.LARGEST)
    away_s = 0.0 if recorder.away_since is None else time.monotonic() - recorder.away_since
    text = "Seconds for which the database has been away, in the process that misses it longest."
    yield gauge("dwctl_recorder_away_seconds_max", text, (), away_s, Merge.LARGEST)
    try:
        size = recorder.spool.pending_bytes
    except OSError:
        return
    text = "Size of the spool on this machine."
    yield gauge("dwctl_recorder_spool_bytes_max", text, (), size, Merge.LARGEST)


def _by_one_label(name: str, text: str, label: str, counts: Counter[str]) -> Family:
    return counter(name, text, (label,), {(value,): count for value, count in counts.items()})
