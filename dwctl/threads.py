"""Native threads for what would stop the loop: names, files and hashes, each with a pool of its own.

gevent's one pool has ten threads for everything: ten look-ups of a name that does not resolve would keep an fsync waiting.
The greenlet that calls waits; the loop goes on. Pools are made by the loop that uses them, so after forking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gevent import monkey
from gevent.threadpool import ThreadPool

T = TypeVar("T")

_SIZES = {"names": 8, "files": 2, "hashes": 4}


class _Pools(monkey.get_original("_thread", "_local")):  # type: ignore[misc]  # gevent has no types
    """The pools of one native thread: a pool serves the loop that made it, and no other."""

    def __init__(self) -> None:
        self.by_kind: dict[str, ThreadPool] = {}


_pools = _Pools()


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
    pool = _pools.by_kind.get(kind)
    if pool is None:
        pool = _pools.by_kind[kind] = ThreadPool(_SIZES[kind])
    result, error = pool.apply(_outcome, (function, arguments))
    if error is not None:
        raise error
    found: T = result
    return found


def _outcome(
    function: Callable[..., T], arguments: tuple[Any, ...]
) -> tuple[T | None, Exception | None]:
    """What is raised is its caller's business; gevent would print it where it happens, each name that does not resolve with its stack."""
    try:
        return function(*arguments), None
    except Exception as error:
        return None, error
