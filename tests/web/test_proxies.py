"""What is believed of a request's origin, and of whom: a table of peers and what they say."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from dwctl.config import FORWARDED_HEADERS
from dwctl.web.proxies import Origin, origin_of

TRUSTED = tuple(map(ip_network, ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "2001:db8:1::/48")))
FOR, PROTO, HOST, PREFIX = FORWARDED_HEADERS


def seen(peer: str, **headers: str) -> Origin:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return origin_of(peer, named, TRUSTED, FORWARDED_HEADERS)


@pytest.mark.parametrize(
    ("peer", "chain", "client"),
    [
        # Nobody whose word counts.
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("192.168.1.1", "1.2.3.4", "192.168.1.1"),
        ("100.64.0.1", "1.2.3.4", "100.64.0.1"),
        ("2001:db8:2::1", "1.2.3.4", "2001:db8:2::1"),
        ("nonsense", "1.2.3.4", "nonsense"),
        # One proxy: what it has added is at the right, whatever its client has written before.
        ("10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "6.6.6.6, 1.2.3.4", "1.2.3.4"),
        ("10.0.0.1", "127.0.0.1, 1.2.3.4", "1.2.3.4"),
        ("127.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("::1", "1.2.3.4", "1.2.3.4"),
        ("::ffff:10.0.0.1", "1.2.3.4", "1.2.3.4"),
        ("2001:db8:1::7", "1.2.3.4", "1.2.3.4"),
        ("", "1.2.3.4", "1.2.3.4"),
        # Two of them.
        ("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"),
        ("127.0.0.1", "1.2.3.4,10.0.0.3,\t10.0.0.2", "1.2.3.4"),
        # A client on a trusted network, or nobody else at all.
        ("127.0.0.1", "10.0.0.5", "10.0.0.5"),
        ("127.0.0.1", "10.0.0.5, 10.0.0.6", "10.0.0.5"),
        # Spellings.
        ("10.0.0.1", "1.2.3.4:5678", "1.2.3.4"),
        ("10.0.0.1", "[2001:DB8:2::1]:443", "2001:db8:2::1"),
        ("10.0.0.1", "[2001:db8:2:0::1]", "2001:db8:2::1"),
        ("10.0.0.1", "2001:db8:2::0:1", "2001:db8:2::1"),
        ("10.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
        # Malformed: the nearest hop that makes sense.
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "unknown", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, _hidden", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4, nonsense, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "1.2.3.4,,10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "1.2.3", "10.0.0.1"),
        ("10.0.0.1", "999.1.1.1", "10.0.0.1"),
        ("10.0.0.1", "01.02.03.04", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%eth0", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4\x00", "10.0.0.1"),
        ("10.0.0.1", "1.2.3.4 5.6.7.8", "10.0.0.1"),
        ("10.0.0.1", "for=1.2.3.4", "10.0.0.1"),
        ("10.0.0.1", ", ".join(["10.0.0.2"] * 5000), "10.0.0.2"),
    ],
)
def test_the_client_is_the_last_one_that_no_trusted_proxy_is(peer: str, chain: str, client: str) -> None:  # fmt: skip
    assert seen(peer, x_forwarded_for=chain).client == client


@pytest.mark.parametrize(
    ("header", "value", "member", "believed"),
    [
        (PROTO, "https", "scheme", "https"),
        (PROTO, "HTTPS", "scheme", "https"),
        (PROTO, "http, https", "scheme", "https"),
        (PROTO, "https, http", "scheme", "http"),
        (PROTO, "javascript", "scheme", None),
        (PROTO, "", "scheme", None),
        (HOST, "gate.example", "host", "gate.example"),
        (HOST, "evil.example, gate.example:8443", "host", "gate.example:8443"),
        (HOST, "[::1]:80", "host", "[::1]:80"),
        (HOST, "gate.example/path", "host", None),
        (HOST, "user@gate.example", "host", None),
        (HOST, "gate.example:port", "host", None),
        (HOST, "a b", "host", None),
        (HOST, "", "host", None),
        (PREFIX, "/llm", "prefix", "/llm"),
        (PREFIX, "/llm/", "prefix", "/llm"),
        (PREFIX, "/", "prefix", None),
        (PREFIX, "//evil.example", "prefix", None),
        (PREFIX, "/\\evil.example", "prefix", None),
        (PREFIX, "/a/../b", "prefix", None),
        (PREFIX, "https://evil.example", "prefix", None),
        (PREFIX, "/%2fevil", "prefix", None),
        (PREFIX, "llm", "prefix", None),
        (PREFIX, "/a\r\nb", "prefix", None),
    ],
)
def test_scheme_host_and_prefix_are_what_the_nearest_proxy_says(header: str, value: str, member: str, believed: str | None) -> None:  # fmt: skip
    named = {header.replace("-", "_"): value}
    assert getattr(seen("10.0.0.1", **named), member) == believed
    assert getattr(seen("203.0.113.9", **named), member) is None
    assert getattr(origin_of("10.0.0.1", {header: value}, TRUSTED, ()), member) is None


@pytest.mark.parametrize("name", [*FORWARDED_HEADERS, "forwarded", "via", "x-real-ip"])
@pytest.mark.parametrize("peer", ["10.0.0.1", "203.0.113.9", ""])
def test_it_is_known_that_somebody_passed_a_request_on(peer: str, name: str) -> None:
    assert origin_of(peer, {name: ""}, TRUSTED, ()).forwarded
    assert not origin_of(peer, {}, TRUSTED, ()).forwarded
