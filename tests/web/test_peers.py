"""Who counts as one peer, and what one and all of them may have open."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from dwctl.web.peers import Peers, peer_of
from dwctl.web.refusals import TooManyBodies


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("10.0.0.1", 5), "10.0.0.1"),
        (("::ffff:10.0.0.1", 5, 0, 0), "10.0.0.1"),
        (("2001:db8:1:2:3:4:5:6", 5, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 5, 0, 2), "fe80::/64"),
        ("", ""),
        (b"/run/x.sock", ""),
        (None, ""),
    ],
)
def test_a_peer_is_an_address_or_a_site(address: object, peer: str):
    assert peer_of(address, ()) == peer


def test_connections_of_one_peer_are_bounded():
    peers = Peers(connections_per_peer=2)
    assert [peers.enter("10.0.0.1") for _ in range(3)] == [True, True, False]
    assert peers.enter("10.0.0.2")
    peers.leave("10.0.0.1")
    peers.leave("10.0.0.1")
    assert peers.enter("10.0.0.1")


@pytest.mark.parametrize("address", ["127.0.0.1", "2001:db8::7", "::ffff:127.0.0.2"])
def test_our_own_proxies_carry_the_connections_of_others(address: str):
    trusted = (ip_network("127.0.0.0/8"), ip_network("2001:db8::/32"))
    peer = peer_of((address, 80), trusted)
    peers = Peers(connections_per_peer=1, bodies_per_peer=1)
    assert [peers.enter(peer) for _ in range(3)] == [True] * 3
    for who in range(3):
        peers.begin_waiting(who, peer, lambda: None)


def test_bodies_of_one_peer_are_bounded():
    peers = Peers(bodies_per_peer=1)
    peers.begin_waiting(1, "10.0.0.1", lambda: None)
    with pytest.raises(TooManyBodies):
        peers.begin_waiting(2, "10.0.0.1", lambda: None)
    peers.begin_waiting(3, "10.0.0.2", lambda: None)
    peers.end_waiting(1)
    peers.end_waiting(1)
    peers.begin_waiting(2, "10.0.0.1", lambda: None)


def test_the_body_that_is_waited_for_longest_makes_room():
    gone: list[int] = []
    peers = Peers(bodies=2, bodies_per_peer=2)
    for who in range(4):
        peers.begin_waiting(
            who, "10.0.0.1" if who < 2 else "10.0.0.2", lambda who=who: gone.append(who)
        )  # type: ignore[misc]
    assert gone == [0, 1]
    for who in range(4):
        peers.end_waiting(who)
    assert not peers._waiting_of
