"""Log lines: an event name and fields, as text or as JSON. Never a secret, a prompt or a body."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from dwctl.config import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _TextFormatter(logging.Formatter):
    """`time level logger event key=value ...`"""

    def format(self, record: logging.LogRecord) -> str:
        fields = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        text = super().format(record)
        if not fields:
            return text
        shown = " ".join(f"{key}={value}" for key, value in fields.items())
        first, newline, rest = text.partition("\n")
        return f"{first} {shown}{newline}{rest}"


def init(settings: Settings) -> None:
    """Send the log of `dwctl` to standard error, once a process."""
    root = logging.getLogger("dwctl")
    root.setLevel(settings.log_level.upper())
    if root.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(
        JsonFormatter(form) if settings.log_format == "json" else _TextFormatter(form)
    )
    root.addHandler(handler)
    root.propagate = False
