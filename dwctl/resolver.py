"""Host names to addresses, off the loop: each name once at a time, however many ask for it.

A name that does not resolve keeps a thread for as long as the system's resolver tries (often ten seconds and more), whatever its callers do
meanwhile. So look-ups have threads of their own (`dwctl.threads`), and a name takes one of them at most.
"""

from __future__ import annotations

import _socket
import socket
from typing import Any

import gevent
from gevent.hub import Hub

from dwctl import threads

Address = tuple[int, int, int, str, Any]
"""Family, kind, protocol, canonical name and socket address, as `socket.getaddrinfo` gives them."""

_running: dict[tuple[Hub, str, int], gevent.Greenlet] = {}


class LookupTimeout(OSError):
    """The name was not resolved in time."""


def addresses(host: str, port: int, *, timeout_s: float) -> list[Address]:
    """The addresses of a host for TCP, in the order in which to try them. A numeric address needs no look-up.

    Raises: LookupTimeout; OSError (gaierror) and UnicodeError as the system's resolver does.
    """
    try:
        return _look_up(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass  # a name, then
    key = (gevent.get_hub(), host, port)
    running = _running.get(key)
    if running is None:
        running = _running[key] = gevent.spawn(_look_up_elsewhere, key)
    with gevent.Timeout(timeout_s, LookupTimeout("the name was not resolved in time")):
        running.join()
    found: list[Address] | Exception = running.value
    if isinstance(found, Exception):
        raise found
    return found


def _look_up_elsewhere(key: tuple[Hub, str, int]) -> list[Address] | Exception:
    """Goes on when those who asked have gone: whoever asks again for the same name meanwhile waits for the same thread."""
    _hub, host, port = key
    try:
        return threads.in_names(_look_up, host, port)
    except (OSError, UnicodeError) as error:
        return error
    finally:
        del _running[key]


def _look_up(host: str, port: int, flags: int = 0) -> list[Address]:
    return _socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, flags)
