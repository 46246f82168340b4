"""The one way in which `requests` is used: sessions that call only addresses which their policy allows.

A connection's name is resolved here, off the loop, and goes to the addresses that were judged; certificates are for the name all the same.
Neither proxies nor `.netrc` of the environment have a part in it unless `outbound.use_environment_proxies` says so. Then the proxy resolves
names and decides what is reached: its own address is the operator's choice.

Answers are read in turns: a server that sends faster than it is read (interim answers or trailers without end) would keep the loop to itself,
and no time-out would be noticed.
"""

from __future__ import annotations

import socket
import ssl
from http.client import HTTPResponse
from io import BufferedReader, RawIOBase
from time import monotonic
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from dwctl import resolver
from dwctl.pace import Pace
from dwctl.upstream.addresses import Policy

_CONNECT_TIMEOUT_S = 10.0


def session(policy: Policy, *, use_environment_proxies: bool = False) -> requests.Session:
    """A session whose calls raise what those of `requests` do, and AddressNotAllowed. Certificates are judged as calls of the relay do."""
    made = requests.Session()
    made.trust_env = use_environment_proxies
    made.verify = ssl.get_default_verify_paths().cafile or True
    adapter = _Adapter(policy)
    for scheme in ("http://", "https://"):
        made.mount(scheme, adapter)
    return made


class _Adapter(HTTPAdapter):
    """Connects to judged addresses."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self._policy)


def _pools(policy: Policy) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        response_class = _Answer

        def _new_conn(self) -> socket.socket:
            return _connect(self, policy)

    class Tls(HTTPSConnection):
        response_class = _Answer

        def _new_conn(self) -> socket.socket:
            return _connect(self, policy)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}


class _Answer(HTTPResponse):
    """Reads through `_Paced`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp: BufferedReader = BufferedReader(_Paced(self.fp.detach()))


class _Paced(RawIOBase):
    """A socket's bytes; between two reads others may have their turn."""

    def __init__(self, raw: RawIOBase) -> None:
        self._raw = raw
        self._pace = Pace()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._pace()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _connect(asking: HTTPConnection, policy: Policy) -> socket.socket:
    """What urllib3's own `_new_conn` does, and raises, with the look-up and the judgement in between."""
    timeout = asking.timeout
    limit_s = float(timeout) if isinstance(timeout, int | float) else _CONNECT_TIMEOUT_S
    due = monotonic() + limit_s
    try:
        found = resolver.addresses(asking.host, asking.port or 0, timeout_s=limit_s)
        return _first(policy.judge(found), asking, due)
    except (resolver.LookupTimeout, TimeoutError) as error:
        raise ConnectTimeoutError(asking, "not connected in time") from error
    except (socket.gaierror, UnicodeError) as error:
        unknown = error if isinstance(error, socket.gaierror) else socket.gaierror(str(error))
        raise NameResolutionError(asking.host, asking, unknown) from error
    except OSError as error:
        raise NewConnectionError(asking, str(error)) from error


def _first(allowed: list[resolver.Address], asking: HTTPConnection, due: float) -> socket.socket:
    """A socket to the first address that answers."""
    failure = OSError("no address")
    for tried, address in enumerate(allowed):
        # An address that swallows packets must leave time for the next.
        share_s = (due - monotonic()) / (len(allowed) - tried)
        if share_s <= 0:
            raise TimeoutError
        try:
            return _open(address, asking, share_s)
        except OSError as error:
            failure = error
    raise failure


def _open(address: resolver.Address, asking: HTTPConnection, limit_s: float) -> socket.socket:
    family, kind, protocol, _, where = address
    made = socket.socket(family, kind, protocol)
    try:
        for option in asking.socket_options or ():
            made.setsockopt(*option)
        made.settimeout(limit_s)
        made.connect(where)
    except BaseException:
        made.close()
        raise
    return made
