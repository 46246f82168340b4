"""How many connections, and how many unfinished bodies, one peer and all of them may have open in this process.

A peer is an address; of IPv6 the network that one site has (/64). Our own proxies carry the connections of others: they are nobody's, and
only the bound over all holds for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

from dwctl.config import Networks
from dwctl.web.proxies import is_trusted
from dwctl.web.refusals import TooManyBodies


def peer_of(address: object, trusted: Networks) -> str:
    """Who a socket's address belongs to; nothing where it tells nobody apart (a trusted proxy, a socket in the file system)."""
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    return "" if is_trusted(host, trusted) else network_of(host)


@lru_cache(4096)
def network_of(text: str) -> str:
    """Who one address stands for: an IPv6 address its /64, which one subscriber has; an IPv4 address inside of IPv6 that one."""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ip_network((found, 64), strict=False))
    return str(found)


@dataclass(slots=True)
class Peers:
    """The counts of one process. 0 switches a bound off."""

    connections_per_peer: int = 0
    bodies: int = 0
    bodies_per_peer: int = 0
    _connections: Counter[str] = field(default_factory=Counter)
    _waiting: dict[Hashable, tuple[str, Callable[[], None]]] = field(default_factory=dict)
    _waiting_of: Counter[str] = field(default_factory=Counter)

    def enter(self, peer: str) -> bool:
        """A connection opens; False where its peer has as many as it may. `leave` must follow in any case."""
        self._connections[peer] += 1
        most = self.connections_per_peer
        return not most or not peer or self._connections[peer] <= most

    def leave(self, peer: str) -> None:
        """It is closed."""
        self._connections[peer] -= 1
        if not self._connections[peer]:
            del self._connections[peer]

    def begin_waiting(self, who: Hashable, peer: str, give_up: Callable[[], None]) -> None:
        """`who` waits for the rest of a body. Raises TooManyBodies where its peer has too many of them.

        When there are too many of all, the one that waits longest is made to give up: honest bodies are short.
        """
        most = self.bodies_per_peer
        if most and peer and self._waiting_of[peer] >= most:
            raise TooManyBodies(retry_after_s=1)
        if self.bodies and len(self._waiting) >= self.bodies:
            oldest = next(iter(self._waiting))
            _, make_it = self._waiting[oldest]
            self.end_waiting(oldest)
            make_it()
        self._waiting[who] = (peer, give_up)
        self._waiting_of[peer] += 1

    def end_waiting(self, who: Hashable) -> None:
        """It has come, or nobody waits for it any more. Without effect the second time."""
        found = self._waiting.pop(who, None)
        if found is None:
            return
        peer = found[0]
        self._waiting_of[peer] -= 1
        if not self._waiting_of[peer]:
            del self._waiting_of[peer]
