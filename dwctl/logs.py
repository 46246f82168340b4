"""Log lines: an event name and fields, as text or as JSON. Never a secret, a prompt or a body.

A record is one line, whatever its fields hold; only the stack of an exception takes more, indented, in text. What an exception says is
cut, and of the database's errors nothing is quoted that may be a row's values.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import psycopg
from pythonjsonlogger.json import JsonFormatter
from sqlalchemy.exc import DBAPIError

from dwctl.config import Settings
from dwctl.printable import printable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MOST_OF_FIELD = 1000
_MOST_OF_REASON = 300
_MOST_LINKS = 8
_QUOTED = re.compile(r'".*"', re.DOTALL)

_AT_HAND: ContextVar[tuple[object, str | None] | None] = ContextVar(
    "dwctl.logs.at_hand", default=None
)

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _TextFormatter(logging.Formatter):
    """`time level logger event key=value ...`"""

    def format(self, record: logging.LogRecord) -> str:
        record.message = printable(record.getMessage(), _MOST_OF_FIELD)
        record.asctime = self.formatTime(record)
        fields = [f"{k}={_shown(v)}" for k, v in vars(record).items() if k not in _STANDARD]
        line = " ".join([self.formatMessage(record), *fields])
        stack = [self.formatException(record.exc_info)] if record.exc_info else []
        stack += [record.stack_info] if record.stack_info else []
        return "\n".join([line, *(_indented(text) for text in stack)])

    def formatException(self, ei: _ExcInfo) -> str:
        return stack_of(ei[1])


class _JsonFormatter(JsonFormatter):
    """One object a line; everything that is no ASCII is escaped."""

    def formatException(self, ei: _ExcInfo) -> str:
        return stack_of(ei[1])


class _Naming(logging.Filter):
    """Every line says of which request it is, and of which trace, where that is known."""

    def filter(self, record: logging.LogRecord) -> bool:
        at_hand = _AT_HAND.get()
        if at_hand is not None:
            request_id, trace_id = at_hand
            members = vars(record)
            members.setdefault("request_id", str(request_id))
            if trace_id is not None:
                members.setdefault("trace_id", trace_id)
        return True


def about(request_id: object, trace_id: str | None = None) -> None:
    """From here on this greenlet's lines are about that request, until `forget`."""
    _AT_HAND.set((request_id, trace_id))


def forget() -> None:
    """From here on they are about none."""
    _AT_HAND.set(None)


def init(settings: Settings) -> None:
    """Send the log of `dwctl`, and warnings of the libraries, to standard error, once a process."""
    ours = logging.getLogger("dwctl")
    ours.setLevel(settings.log_level.upper())
    if ours.handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    form = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(
        _JsonFormatter(form) if settings.log_format == "json" else _TextFormatter(form)
    )
    handler.addFilter(_Naming())
    ours.addHandler(handler)
    ours.propagate = False
    libraries = logging.getLogger()
    if not libraries.handlers:
        libraries.addHandler(handler)
    # Gunicorn has a handler of its own by now, and a form that is neither of ours.
    gunicorn = logging.getLogger("gunicorn.error")
    if gunicorn.handlers:
        gunicorn.handlers = [handler]


def stack_of(error: BaseException | None) -> str:
    """The stack of an exception and of what caused it, with the reasons that may be shown."""
    links: list[str] = []
    known: set[int] = set()
    while error is not None and id(error) not in known and len(links) < _MOST_LINKS:
        known.add(id(error))
        frames = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)))
        links.append(f"{frames}{type(error).__qualname__}: {reason_of(error)}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n\n".join(reversed(links))


def reason_of(error: BaseException) -> str:
    """What an exception says, on one line and cut. Of the database's errors: the message without values, and the state (SQLSTATE)."""
    if isinstance(error, DBAPIError) and error.orig is not None:
        return f"{reason_of(error.orig)} [SQL: {printable(error.statement or '', _MOST_OF_REASON)}]"
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        # DETAIL and CONTEXT hold rows and parameters; what class 22 quotes is the value that it could not read.
        said = error.diag.message_primary or ""
        said = _QUOTED.sub('"..."', said) if error.sqlstate.startswith("22") else said
        return f"{printable(said, _MOST_OF_REASON)} ({error.sqlstate})"
    return printable(str(error), _MOST_OF_REASON)


def _shown(value: Any) -> str:
    return printable(str(value), _MOST_OF_FIELD)


def _indented(text: str) -> str:
    return "\n".join(f"    {printable(line)}" for line in text.split("\n"))
