"""A WSGI application that shows what it was called with, and answers in every way that PEP 3333 allows. Served by gunicorn in tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Environ = dict[str, Any]

closed: list[str] = []
"""Paths of the answers whose `close` was called."""


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    answer = _ANSWERS.get(environ["PATH_INFO"], _shown)
    return answer(environ, start_response)


def _shown(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    seen = {
        key: value for key, value in environ.items() if isinstance(value, (str, int, bool, tuple))
    }
    seen["body"] = environ["wsgi.input"].read().decode("latin-1")
    seen["more"] = environ["wsgi.input"].read().decode("latin-1")
    return _json(seen, start_response)


def _json(value: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = json.dumps(value, sort_keys=True).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])  # fmt: skip
    return [body]


def _in_parts(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The body by every way that `wsgi.input` can be read."""
    stream = environ["wsgi.input"]
    parts = [stream.read(3), stream.readline(), stream.readline(2), *stream.readlines(), stream.read()]  # fmt: skip
    return _json([part.decode("latin-1") for part in parts], start_response)


def _iterated(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    return _json([line.decode("latin-1") for line in environ["wsgi.input"]], start_response)


def _unread(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    return _json("unread", start_response)


def _generated(_environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    yield b""
    yield b"two"


def _generated_with_length(
    _environ: Environ, start_response: Callable[..., Any]
) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Length", "6")])
    yield b"one"
    yield b"two"


def _empty(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("X-Kind", "empty")])
    return []


def _no_content(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return []


def _not_modified(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("304 Not Modified", [("ETag", '"x"')])
    return []


def _written(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"written ")
    return [b"returned"]


def _many_headers(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    headers = [
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("X-Latin", "\xe4\xff"),
        ("X-Empty", ""),
    ]
    start_response("299 Strange Reason", [*headers, ("Content-Length", "2")])
    return [b"ok"]


def _closing(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Connection", "close"), ("Content-Length", "2")])
    return [b"ok"]


class _Closable:
    def __init__(self, path: str, pieces: Iterable[bytes]) -> None:
        self._path, self._pieces = path, pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    def close(self) -> None:
        closed.append(self._path)


def _closable(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "6")])
    return _Closable(environ["PATH_INFO"], [b"one", b"two"])


def _closable_error(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    return _Closable(environ["PATH_INFO"], _broken(environ, start_response))


def _closed(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    found, closed[:] = list(closed), []
    return _json(found, start_response)


def _replaced(_environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Headers that were not sent yet are replaced."""
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("later")
    except ValueError:
        start_response("503 Service Unavailable", [("Content-Length", "5")], sys.exc_info())
    return [b"later"]


def _broken(_environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"one"
    raise RuntimeError("in the middle")


def _raises(_environ: Environ, _start_response: Callable[..., Any]) -> Iterable[bytes]:
    raise RuntimeError("before the start")


_ANSWERS: dict[str, Callable[[Environ, Callable[..., Any]], Iterable[bytes]]] = {
    "/parts": _in_parts,
    "/iterated": _iterated,
    "/unread": _unread,
    "/generated": _generated,
    "/generated-with-length": _generated_with_length,
    "/empty": _empty,
    "/no-content": _no_content,
    "/not-modified": _not_modified,
    "/written": _written,
    "/many-headers": _many_headers,
    "/closing": _closing,
    "/closable": _closable,
    "/closable-error": _closable_error,
    "/closed": _closed,
    "/replaced": _replaced,
    "/broken": _broken,
    "/raises": _raises,
}
