"""One metrics page for all processes of one gunicorn: each leaves its numbers in a file, whoever is asked adds them up.

A router gives a scrape to any process, and a page that shows another process's counters each time is of no use. Files are written every
few seconds, before each page (so that no other process shows less a moment later, also if this one dies) and at the end of a process;
counters of processes that have ended stay in the sum (a counter must not go down), their gauges do not. The folder is named after the
gunicorn master and its start; folders of masters that are gone are removed.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import gevent
import msgspec

from dwctl.figures.adding import Total
from dwctl.figures.families import Family
from dwctl.pace import Pace

log = logging.getLogger(__name__)

PUBLISH_EVERY_S = 2.0
_PREFIX = "dwctl-metrics-"
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Family]).decode


class Siblings:
    """The processes with the same parent as this one."""

    def __init__(self, collect: Callable[[], Iterable[Family]], folder: Path | None = None) -> None:
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

    def summed(self) -> list[Family]:
        """Own numbers as they are now, the others' as they were published."""
        pace = Pace()
        total = Total(pace)
        own = list(self._collect())
        self._write(own)
        total.add(own)
        for pid, families in self._others():
            pace()
            total.add(families, alive=_exists(pid))
        return total.families()

    def _run(self) -> None:
        while True:
            try:
                self._publish()
            except Exception:
                # Whatever one look meets, the others' pages must not show this process as it was then for ever.
                log.exception("metrics not published")
            gevent.sleep(PUBLISH_EVERY_S)

    def _publish(self) -> None:
        self._write(list(self._collect()))

    def _write(self, own: list[Family]) -> None:
        unfinished = self._file.with_suffix(".new")
        try:
            unfinished.write_bytes(_encode(own))
            unfinished.replace(self._file)
        except (OSError, ValueError) as error:
            log.warning("metrics not published", extra={"reason": str(error)})

    def _others(self) -> Iterator[tuple[int, list[Family]]]:
        for path in sorted(self._folder.glob("*.json")):
            if path != self._file:
                try:
                    yield int(path.stem), _decode(path.read_bytes())
                except (OSError, ValueError, msgspec.DecodeError):
                    continue


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
