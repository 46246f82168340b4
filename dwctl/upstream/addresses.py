"""Where the server may call: which addresses a purpose reaches (settings `outbound.*`). Pure.

An address is judged after its name was resolved, and the connection goes to what was judged: a name that changes its mind between two
look-ups gains nothing. Where several addresses are found, those that may not be called are left out.

The ranges are those of IANA's special-purpose address registries. Addresses that carry an IPv4 address (mapped, translated, 6to4) are what
they carry, since that is where packets for them end up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from dwctl.config import Outbound
from dwctl.resolver import Address
from dwctl.upstream.errors import AddressNotAllowed

_Ip = IPv4Address | IPv6Address


class Purpose(StrEnum):
    """What is called; the names are those of the settings."""

    ENDPOINTS = "endpoints"
    WEBHOOKS = "webhooks"
    IMAGES = "images"
    SOURCES = "sources"
    TOOLS = "tools"


class Kind(Enum):
    """Where an address leads."""

    PUBLIC = "public"
    PRIVATE = "private"
    """Networks of an organisation's own, and this machine."""
    SPECIAL = "special"
    """Link-local, a cloud's metadata, many receivers at once, or nobody at all."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How far one purpose reaches: `public`, `private` (that and private networks) or `any`."""

    purpose: Purpose
    reach: str

    def judge(self, found: Sequence[Address]) -> list[Address]:
        """Those of a name's addresses that may be called. Raises AddressNotAllowed where there is none."""
        allowed = [address for address in found if self.allows(str(address[4][0]))]
        if not allowed:
            raise AddressNotAllowed
        return allowed

    def allows(self, address: str) -> bool:
        """Whether an address (as text, with or without a zone) may be called."""
        if self.reach == "any":
            return True
        kind = kind_of(address)
        return kind is Kind.PUBLIC or (kind is Kind.PRIVATE and self.reach == "private")


def policy_for(outbound: Outbound, purpose: Purpose) -> Policy:
    """What the settings say."""
    return Policy(purpose, getattr(outbound, purpose.value))


def kind_of(address: str) -> Kind:
    """Where it leads. ValueError for what is no address."""
    ip = ip_address(address.partition("%")[0])
    while (carried := _carried(ip)) is not None:
        ip = carried
    if ip in _METADATA:
        return Kind.SPECIAL
    if _in(ip, _PRIVATE):
        return Kind.PRIVATE
    if _in(ip, _SPECIAL) or not _in(ip, _UNICAST):
        return Kind.SPECIAL
    return Kind.PUBLIC


def _carried(ip: _Ip) -> IPv4Address | None:
    """The IPv4 address for which an IPv6 address stands."""
    if isinstance(ip, IPv4Address):
        return None
    if ip in _SIX_TO_FOUR:
        return IPv4Address(int(ip) >> 80 & 0xFFFFFFFF)
    if _in(ip, _LAST_BITS) and int(ip) >> 16:  # `::` and `::1` are addresses of their own
        return IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def _in(ip: _Ip, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    return any(ip in network for network in networks)


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, texts))


_SIX_TO_FOUR = IPv6Network("2002::/16")
_LAST_BITS = _networks(
    "::/96",  # IPv4-compatible
    "::ffff:0:0/96",  # IPv4-mapped
    "::ffff:0:0:0/96",  # IPv4-translated
    "64:ff9b::/96",  # NAT64
)

_METADATA = frozenset(
    map(
        ip_address,
        (
            "169.254.169.254",  # most clouds
            "169.254.170.2",  # Amazon's containers
            "fd00:ec2::254",  # Amazon
            "fd00:ec2::23",  # Amazon's containers
            "fd20:ce::254",  # Google
            "fd00:c1::a9fe:a9fe",  # Oracle
            "fd00:42::42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "192.0.0.192",  # Oracle
            "168.63.129.16",  # Azure's wire server
        ),
    )
)
"""Who asks there is given the machine's own credentials. Some stand in ranges that are otherwise private or public."""

_PRIVATE = _networks(
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",  # shared by a provider's customers; also overlay networks
    "198.18.0.0/15",  # benchmarks of networks; also made-up addresses of local proxies
    "127.0.0.0/8",
    "::1/128",
    "0.0.0.0/32",  # this machine as well, to whoever connects; servers print it as their address
    "::/128",
    "fc00::/7",
)

_SPECIAL = _networks(
    "0.0.0.0/8",
    "169.254.0.0/16",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "2001::/23",  # Teredo, ORCHID and other protocols' own
    "2001:db8::/32",
    "3fff::/20",
)

_UNICAST = _networks("0.0.0.0/0", "2000::/3")
"""All that IANA has given out for use in public; of IPv6 nothing else is reachable, whatever it may become."""
