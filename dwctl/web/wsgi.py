"""The door to Flask: a request as PEP 3333 has it, and its answer written as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from dwctl.web.body import Body
from dwctl.web.head import Head
from dwctl.web.responses import Writer

if TYPE_CHECKING:
    from dwctl.web.connection import Connection

Environ = dict[str, Any]

_VARIABLES = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}


def environ_of(base: Environ, head: Head, body: Body, connection: Connection) -> Environ:
    """The bare truth: the peer's own address, no prefix, the scheme of this connection. Who believes a proxy does so behind this."""
    environ = {
        **base,
        "wsgi.input": body,
        "wsgi.url_scheme": "https" if connection.is_tls else "http",
        "gunicorn.socket": connection.client,
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(head.path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": head.query,
        "RAW_URI": head.target,
        "SERVER_PROTOCOL": "HTTP/1.1" if head.is_1_1 else "HTTP/1.0",
    }
    for name, value in head.headers:
        variable = _VARIABLES.get(name) or "HTTP_" + name.replace("-", "_").upper()
        if variable in environ:
            value = f"{environ[variable]},{value}"
        environ[variable] = value
    _add_addresses(environ, connection.address, connection.server_address)
    return environ


def run(app: Callable[..., Iterable[bytes]], environ: Environ, writer: Writer) -> None:
    """Have an application answer."""
    pieces = app(environ, writer.start_response)
    try:
        for piece in pieces:
            writer.write(piece)
        writer.end()
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _add_addresses(environ: Environ, peer: Any, server: Any) -> None:
    if isinstance(peer, tuple):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = peer[0], str(peer[1])
    else:
        environ["REMOTE_ADDR"] = peer.decode() if isinstance(peer, bytes) else str(peer or "")
    if isinstance(server, tuple):
        environ["SERVER_NAME"], environ["SERVER_PORT"] = server[0], str(server[1])
        return
    # A socket in the file system has neither: the host that the caller named, as PEP 3333 must have something.
    host, _, port = environ.get("HTTP_HOST", "").rpartition(":")
    environ["SERVER_NAME"] = host or port or "localhost"
    environ["SERVER_PORT"] = port if host and port.isdecimal() else "80"
