"""Gunicorn's gevent worker with a connection loop of our own. Imported by gunicorn before gevent patches: nothing here, and nothing that is
imported here, keeps what patching replaces.

Gunicorn stays what manages processes: sockets, signals, settings, the access log's form. What it does with a connection is replaced by
`connection.Connection`, for three reasons: it costs a third of the CPU of a call, it waits without limit for callers that stop reading or
sending, and only here can a credential be judged before the body is read (docs/decisions/0012).

Told to end, it hangs up on callers that keep an idle connection open. Whoever has a request under way is answered first; `end_requests`
ends what takes too long, before gunicorn kills the process.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import timedelta
from functools import partial
from time import monotonic
from types import SimpleNamespace
from typing import Any

import gevent
from gunicorn.http.wsgi import base_environ
from gunicorn.workers.ggevent import GeventWorker

from dwctl.config import Networks, RequestLimits, Settings
from dwctl.errors import DwctlError
from dwctl.sampling import Sample
from dwctl.web.connection import Connection, Door
from dwctl.web.head import Head
from dwctl.web.peers import Peers, peer_of
from dwctl.web.refusals import TooManyConnections
from dwctl.web.responses import Writer

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 1.0
_MakeContext = Callable[[Any, Callable[[], Any]], Any]


class Server(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """`worker_class` of web and worker processes."""

    alive: bool
    wsgi: Callable[..., Iterable[bytes]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.limits = RequestLimits()
        self.peers = Peers()
        self._trusted: Networks = ()
        self._named = Sample(10)
        self.turned_away: Counter[str] = Counter()
        """Refused before there was a request, by code."""
        self.door: Door | None = None
        self.environ: dict[str, Any] = {}
        self.keepalive_s = float(self.cfg.keepalive)
        self.logs_access = bool(self.cfg.accesslog or self.cfg.logconfig or self.cfg.syslog)
        self._connections: dict[Connection, gevent.Greenlet] = {}

    def prepare(self, settings: Settings, door: Door | None = None) -> None:
        """Called when the application is there, before the first connection."""
        self.limits = settings.limits.requests
        self.door = door
        bounds = settings.limits.connections
        self.peers = Peers(
            bounds.per_peer,
            bounds.awaiting_body,
            bounds.awaiting_body_per_peer,
        )
        self._trusted = settings.trusted_proxies
        self._named = Sample(settings.log_strangers_per_minute)

    def run(self) -> None:
        """Accept and serve until told to end."""
        self.environ = {**base_environ(self.cfg), "wsgi.multithread": True}
        gevent.spawn(self._look_after)
        self.cfg.set("ssl_context", _without_handshake(self.cfg.ssl_context))
        super().run()

    def handle(self, listener: Any, client: Any, address: Any) -> None:
        """Serve one connection."""
        peer = peer_of(address, self._trusted)
        try:
            if not self.peers.enter(peer):
                refusal = TooManyConnections(retry_after_s=1)
                self.turn_away(refusal, peer)
                _answer(client, refusal)
                return
            connection = Connection(self, client, peer, address, listener.getsockname())
            self._connections[connection] = gevent.getcurrent()
            try:
                connection.serve()
            finally:
                del self._connections[connection]
        finally:
            self.peers.leave(peer)
            client.close()

    def count(self) -> None:
        """A request has been read: `max_requests` of gunicorn."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
            gevent.spawn(self._hang_up)

    def turn_away(self, error: DwctlError, peer: str) -> None:
        """Count somebody who is refused before there is a request, and name some of them."""
        self.turned_away[error.code] += 1
        left_out = self._named.take()
        if left_out is not None:
            log.info(
                "connection refused", extra={"code": error.code, "peer": peer, "left_out": left_out}
            )

    def access(self, head: Head, writer: Writer, environ: dict[str, Any], took_s: float) -> None:
        """A line of the access log, in gunicorn's form."""
        headers = [(name.upper(), value) for name, value in head.headers]
        self.log.access(
            writer, SimpleNamespace(headers=headers), environ, timedelta(seconds=took_s)
        )

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM. A signal's handler must not block, so the rest is done beside it."""
        super().handle_exit(sig, frame)
        gevent.spawn(self._hang_up)

    def end_requests(self) -> None:
        """Kill every connection's greenlet: the relay tells its callers, and writes down what they had."""
        gevent.killall(list(self._connections.values()), block=False)

    def _hang_up(self) -> None:
        for connection in list(self._connections):
            connection.hang_up()

    def _look_after(self) -> None:
        while True:
            gevent.sleep(_LOOK_EVERY_S)
            now = monotonic()
            for connection in list(self._connections):
                connection.look(now)


def _without_handshake(make: _MakeContext) -> _MakeContext:
    """Gunicorn's hook for a TLS context: the same one, but connections come without their handshake, which would be waited for without end."""

    def made(config: Any, default: Callable[[], Any]) -> Any:
        context = make(config, default)
        context.wrap_socket = partial(context.wrap_socket, do_handshake_on_connect=False)
        return context

    return made


def _answer(client: Any, refusal: DwctlError) -> None:
    try:
        client.setblocking(False)
        client.send(Writer.refusal(refusal, ""))
        # What is unread when a socket closes resets the connection, and the answer is lost.
        client.recv(65_536)
    except OSError:
        return
