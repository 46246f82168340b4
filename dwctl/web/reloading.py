"""Settings that change while a process runs: the files that hold them are looked at, and read again when they have changed and rest.

What is live takes effect with the next request (`settings.live`); what is not is named in the log. Mistakes change nothing. Each process
looks for itself, so none is missed. Looking is a `stat` through links, because a Kubernetes ConfigMap changes by a link that is swapped.
"""

from __future__ import annotations

import logging
import os

import gevent
from flask import Flask

from dwctl import config, logs, threads
from dwctl.config import ConfigError, Loaded
from dwctl.settings import live, sources
from dwctl.web import current

log = logging.getLogger(__name__)


class Reloading:
    """Of one application."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._files = sources.files(os.environ, config.names())
        # The first look reads in any case: the file may have changed since the application was made.
        self._read: sources.Look = ()
        self._seen: sources.Look = ()
        self._waiting: list[str] = []

    def run(self) -> None:
        """For ever."""
        while True:
            gevent.sleep(current.parts(self._app).settings.reload_interval)
            try:
                self.look()
            except Exception:
                log.exception("settings not looked at")

    def look(self) -> None:
        """Read again what has changed since it was read, and not since the last look: nobody is writing any more."""
        seen = threads.in_files(sources.look, self._files)
        rests, self._seen = seen == self._seen, seen
        if not rests or seen == self._read:
            return
        self._read = seen
        try:
            # Parsing takes tens of milliseconds: not on the loop.
            self._take(threads.in_files(config.read_again))
        except ConfigError as error:
            log.error("settings not read again", extra={"reason": str(error)})

    def _take(self, loaded: Loaded) -> None:
        before = current.parts(self._app).settings
        after = live.merged(before, loaded.settings)
        taken = live.changed(before, after)
        if taken:
            current.put_in_force(self._app, after)
            logs.init(after)
            log.info("settings read again", extra={"settings": taken})
            config.tell(loaded.remarks)
        waiting = live.changed(after, loaded.settings)
        if waiting and waiting != self._waiting:
            log.warning("settings wait for a restart", extra={"settings": waiting})
        self._waiting = waiting


def start(app: Flask) -> None:
    """Follow the files from now on, beside what this process does."""
    gevent.spawn(Reloading(app).run)
