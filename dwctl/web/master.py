"""What gunicorn's master knows of our settings. Imported before gevent patches, in a process that never does: config alone.

A process that begins while the file has a mistake goes on with what was in force: it is forked from the master, which looks at the file
as the others do.
"""

from __future__ import annotations

from typing import Any

from dwctl import config
from dwctl.config import ConfigError, Settings


def follow_settings(server: Any) -> None:
    """From now on. gunicorn has no hook that comes by at all times; `manage_workers`, which begins processes, does each second."""
    manage = server.manage_workers

    def look_and_manage() -> None:
        look(server)
        manage()

    server.manage_workers = look_and_manage


def look(server: Any) -> None:
    """Keep the settings as they are now, unless they have a mistake, which is told once."""
    try:
        config.remember()
    except ConfigError as error:
        server.log.error("settings not read again: %s", error)


def reload(server: Any) -> None:
    """SIGHUP: gunicorn has forgotten what it knew of our settings, and begins new processes at once."""
    look(server)
    set_grace(server, config.load_or_remembered())


def set_log_form(server: Any, settings: Settings) -> None:
    """What gunicorn says itself (a port that is taken, a process that was killed) is JSON, too, where the log is.

    `dwctl.logs` does that in each process; here it would bring the database's driver in before gevent has patched.
    """
    if settings.log_format == "json":
        from pythonjsonlogger.json import JsonFormatter

        for handler in server.log.error_log.handlers:
            handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))


def set_grace(server: Any, settings: Settings) -> None:
    """We end by ourselves when our grace is over; after this gunicorn kills (and Heroku after 30 s)."""
    server.cfg.set("graceful_timeout", round(settings.shutdown.grace) + 3)
