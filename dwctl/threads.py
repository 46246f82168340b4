"""Native threads for what would stop the loop: names, files and hashes, each with a pool of its own.

gevent's one pool has ten threads for everything: ten look-ups of a name that does not resolve would keep an fsync waiting.
The greenlet that calls waits; the loop goes on. Pools are made in the process that uses them, so after forking.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from gevent.threadpool import ThreadPool

T = TypeVar("T")

_SIZES = {"names": 8, "files": 2, "hashes": 4}


def in_names(function: Callable[..., T], *arguments: Any) -> T:
    """Run a look-up of a host name."""
    return _run("names", function, arguments)


def in_files(function: Callable[..., T], *arguments: Any) -> T:
    """Run something that waits for a disk."""
    return _run("files", function, arguments)


def in_hashes(function: Callable[..., T], *arguments: Any) -> T:
    """Run something that is meant to be slow, such as a password's hash."""
    return _run("hashes", function, arguments)


def _run(kind: str, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
    result: T = _pool(kind).apply(function, arguments)
    return result


@cache
def _pool(kind: str) -> ThreadPool:
    return ThreadPool(_SIZES[kind])
