"""No test reaches the network: a connection to anything but this machine fails the test, whatever library makes it.

An audit hook sees what every Python socket does, gevent's too, and cannot be got around by catching exceptions: what it raises is no
Exception.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from typing import Any

import pytest


def install() -> None:
    """From now on, for the life of this process."""
    sys.addaudithook(_refuse_strangers)


def _refuse_strangers(event: str, arguments: tuple[Any, ...]) -> None:
    if event != "socket.connect":
        return
    connection, address = arguments
    if connection.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(address[0]):
        pytest.fail(f"a test wanted to connect to {address}: tests reach this machine only")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "")
