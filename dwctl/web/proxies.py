"""Who a request really comes from, and under which address it was asked for: what proxies in front say, where they are trusted.

Each proxy appends to `x-forwarded-for` whom it was called by, so only the entries that trusted proxies have added mean anything: read from the
right, the first one that is no trusted proxy is the client. The other headers hold what the nearest proxy has written. Anything
malformed counts as not written.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from dwctl.config import Networks
from dwctl.web.paths import is_canonical

_KEY = "dwctl.origin"
_HOPS = 50
_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_WITH_PORT = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<four>[0-9.]+))(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from.

    peer: the other end of the connection (empty for a unix socket). client: who called the outermost trusted proxy, else the peer; in its shortest spelling.
    scheme, host, prefix: what the client asked for, None where no proxy has said so.
    forwarded: somebody claims to pass the request on, trusted or not.
    """

    peer: str
    client: str
    scheme: str | None = None
    host: str | None = None
    prefix: str | None = None
    forwarded: bool = False


def origin_of(
    peer: str, headers: Mapping[str, str], trusted: Networks, believed: Collection[str]
) -> Origin:
    """The origin of a request of this peer. `headers` by lower-case name, repeated ones joined by commas; `believed`: which of them count."""
    forwarded = any(name in headers for name in _CLAIMS)
    if not forwarded or not is_trusted(peer, trusted):
        return Origin(peer, _shortest(peer), forwarded=forwarded)
    told = {name: headers[name] for name in believed if name in headers}
    return Origin(
        peer,
        _client(peer, told.get("x-forwarded-for", ""), trusted),
        scheme=_scheme(_nearest(told.get("x-forwarded-proto"))),
        host=_host(_nearest(told.get("x-forwarded-host"))),
        prefix=_prefix(_nearest(told.get("x-forwarded-prefix"))),
        forwarded=True,
    )


def is_trusted(peer: str, trusted: Networks) -> bool:
    """Whether a peer is one of these; unix sockets (no address) are ours."""
    return not peer or _is_within(peer, trusted)


def apply(environ: dict[str, Any], trusted: Networks, believed: Collection[str]) -> Origin:
    """Write the origin into a WSGI environment: address, scheme, host and prefix are those that the client saw."""
    origin = origin_of(environ.get("REMOTE_ADDR") or "", _claims(environ), trusted, believed)
    environ[_KEY] = origin
    environ["REMOTE_ADDR"] = origin.client
    environ["SCRIPT_NAME"] = origin.prefix or ""
    if origin.scheme:
        environ["wsgi.url_scheme"] = origin.scheme
    if origin.host:
        environ["HTTP_HOST"] = origin.host
    return origin


def origin_in(environ: Mapping[str, Any]) -> Origin:
    """What `apply` found; without it, the peer alone."""
    found: Origin | None = environ.get(_KEY)
    peer = environ.get("REMOTE_ADDR") or ""
    return found or Origin(peer, _shortest(peer), forwarded=True)


_CLAIMS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "x-real-ip",
    "forwarded",
    "via",
)


def _claims(environ: Mapping[str, Any]) -> dict[str, str]:
    keys = ((name, "HTTP_" + name.upper().replace("-", "_")) for name in _CLAIMS)
    return {name: environ[key] for name, key in keys if key in environ}


def _client(peer: str, chain: str, trusted: Networks) -> str:
    client = _shortest(peer)
    for entry in reversed(chain.split(",")[-_HOPS:]):
        address = _address(entry.strip())
        if address is None:
            break
        client = str(address)
        if not _is_within(client, trusted):
            break
    return client


def _nearest(value: str | None) -> str:
    return (value or "").rpartition(",")[2].strip()


def _scheme(value: str) -> str | None:
    return value.lower() if value.lower() in ("http", "https") else None


def _host(value: str) -> str | None:
    return value if _HOST.fullmatch(value) else None


def _prefix(value: str) -> str | None:
    prefix = value.rstrip("/")
    return prefix if prefix and "%" not in prefix and is_canonical(prefix) else None


def _shortest(address: str) -> str:
    parsed = _address(address)
    return address if parsed is None else str(parsed)


@lru_cache(1024)
def _is_within(address: str, networks: Networks) -> bool:
    parsed = _address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as proxies write it: with a port or without, IPv4 also inside of IPv6; None for anything else."""
    match = _WITH_PORT.fullmatch(text)
    if match:
        text = match["six"] or match["four"] or ""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address
