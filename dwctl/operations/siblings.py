"""One metrics page for all processes of one gunicorn: each leaves its numbers in a file, whoever is asked adds them up.

A router gives a scrape to any process, and a page that shows another process's counters each time is of no use. Files are written every
few seconds and at the end of a process; counters of processes that have ended stay in the sum (a counter must not go down), their gauges
do not. The folder is named after the gunicorn master and its start; folders of masters that are gone are removed.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import gevent
import orjson
from prometheus_client.core import Metric

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 2.0
_PREFIX = "dwctl-metrics-"


class Siblings:
    """The processes with the same parent as this one."""

    def __init__(self, collect: Callable[[], Iterable[Metric]], folder: Path | None = None) -> None:
        """`collect` gives this process's own numbers."""
        self._collect = collect
        self._folder = folder or _folder_of_master(os.getppid())
        self._file = self._folder / f"{os.getpid()}.json"
        self._greenlet: gevent.Greenlet | None = None

    def start(self) -> None:
        """Publish from now on. Call it after forking."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        _remove_leftovers(self._folder)
        self._greenlet = gevent.spawn(self._run)

    def stop(self) -> None:
        """Publish for the last time."""
        if self._greenlet is not None:
            self._greenlet.kill()
        self._publish()

    def summed(self) -> list[Metric]:
        """Own numbers as they are now, the others' as they were published."""
        total = _Sum()
        for metric in self._collect():
            total.add(metric, alive=True)
        for pid, metrics in self._others():
            alive = _exists(pid)
            for metric in metrics:
                total.add(metric, alive=alive)
        return list(total.metrics.values())

    def _run(self) -> None:
        while True:
            self._publish()
            gevent.sleep(PUBLISH_EVERY_S)

    def _publish(self) -> None:
        numbers = [
            [
                metric.name,
                metric.documentation,
                metric.type,
                [sample[:3] for sample in metric.samples],
            ]
            for metric in self._collect()
        ]
        unfinished = self._file.with_suffix(".new")
        try:
            unfinished.write_bytes(orjson.dumps(numbers))
            unfinished.replace(self._file)
        except OSError as error:
            log.warning("metrics not published", extra={"reason": str(error)})

    def _others(self) -> Iterator[tuple[int, list[Metric]]]:
        for path in sorted(self._folder.glob("*.json")):
            if path != self._file:
                try:
                    yield (
                        int(path.stem),
                        [_metric(*entry) for entry in orjson.loads(path.read_bytes())],
                    )
                except (OSError, ValueError):
                    continue


class _Sum:
    """Adds samples of the same name and labels; names that end in `_max` are the largest instead."""

    def __init__(self) -> None:
        self.metrics: dict[str, Metric] = {}

    def add(self, metric: Metric, *, alive: bool) -> None:
        if metric.type == "gauge" and not alive:
            return
        known = self.metrics.setdefault(
            metric.name, Metric(metric.name, metric.documentation, metric.type)
        )
        places = {(s.name, tuple(sorted(s.labels.items()))): i for i, s in enumerate(known.samples)}
        for sample in metric.samples:
            place = places.get((sample.name, tuple(sorted(sample.labels.items()))))
            if place is None:
                known.add_sample(*sample[:3])
            else:
                old = known.samples[place]
                join = max if metric.name.endswith("_max") else sum
                known.samples[place] = old._replace(value=join((old.value, sample.value)))


def _metric(name: str, documentation: str, kind: str, samples: list[Any]) -> Metric:
    metric = Metric(name, documentation, kind)
    for sample in samples:
        metric.add_sample(*sample)
    return metric


def _folder_of_master(pid: int) -> Path:
    return Path(tempfile.gettempdir(), f"{_PREFIX}{os.getuid()}-{pid}-{_started(pid)}")


def _remove_leftovers(own: Path) -> None:
    for folder in own.parent.glob(f"{_PREFIX}{os.getuid()}-*"):
        pid, _, started = folder.name.removeprefix(f"{_PREFIX}{os.getuid()}-").partition("-")
        if pid.isdecimal() and _started(int(pid)) != started:
            shutil.rmtree(folder, ignore_errors=True)


def _started(pid: int) -> str:
    """What tells a process from a later one with the same pid, where the system shows it; else whether it lives."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "0" if _exists(pid) else "gone"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
