"""Where an address leads, and who may call it."""

from __future__ import annotations

import socket

import pytest

from dwctl.config import Outbound
from dwctl.resolver import Address
from dwctl.upstream.addresses import Kind, Policy, Purpose, kind_of, policy_for
from dwctl.upstream.errors import AddressNotAllowed

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255",
    "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "168.63.129.15", "2000::1", "2606:4700:4700::1111", "2001:200::1", "2a00:1450:4001::1", "3ffe::1",
    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:0:8.8.8.8", "::8.8.8.8",
]  # fmt: skip
PRIVATE = [
    "10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255", "100.64.0.0", "100.127.255.255",
    "198.18.0.1", "198.19.255.255", "127.0.0.0", "127.0.0.1", "127.255.255.255", "::1", "fc00::1", "fd00::1", "fdff:ffff::1",
    "::ffff:10.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1", "64:ff9b::10.0.0.1", "64:ff9b::127.0.0.1", "2002:a00:1::1", "2002:7f00:1::",
    "::ffff:0:192.168.0.1", "::127.0.0.1", "::10.0.0.1",
    "0.0.0.0", "::", "::ffff:0.0.0.0", "64:ff9b::0.0.0.0",
]  # fmt: skip
SPECIAL = [
    "0.0.0.1", "0.1.2.3", "169.254.0.1", "169.254.169.254", "169.254.170.2", "169.254.255.255", "100.100.100.200", "192.0.0.1", "192.0.0.192",
    "192.0.2.1", "192.88.99.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
    "168.63.129.16", "::2", "::ffff", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254",
    "fd00:c1::a9fe:a9fe", "fd00:42::42", "2001::1", "2001:10::1", "2001:db8::1", "3fff::1", "64:ff9b:1::1", "100::1", "4000::1", "5f00::1",
    "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "::169.254.169.254",
    "::ffff:0:169.254.169.254", "::ffff:100.100.100.200", "64:ff9b::100.100.100.200", "2002:6464:64c8::1", "::ffff:0.0.0.1", "::ffff:224.0.0.1",
    "64:ff9b::0.1.2.3",
]  # fmt: skip
CASES = [
    *((address, Kind.PUBLIC) for address in PUBLIC),
    *((address, Kind.PRIVATE) for address in PRIVATE),
    *((address, Kind.SPECIAL) for address in SPECIAL),
]


@pytest.mark.parametrize(("address", "kind"), CASES)
def test_an_address_leads_where_the_registries_say(address: str, kind: Kind) -> None:
    assert kind_of(address) is kind


@pytest.mark.parametrize(
    ("reach", "kinds"),
    [
        ("public", {Kind.PUBLIC}),
        ("private", {Kind.PUBLIC, Kind.PRIVATE}),
        ("any", {Kind.PUBLIC, Kind.PRIVATE, Kind.SPECIAL}),
    ],
)
@pytest.mark.parametrize("purpose", list(Purpose))
def test_a_reach_allows_its_kinds(purpose: Purpose, reach: str, kinds: set[Kind]) -> None:
    policy = Policy(purpose, reach)
    assert {kind for address, kind in CASES if policy.allows(address)} == kinds
    assert {kind for address, kind in CASES if not policy.allows(address)} == set(Kind) - kinds


def test_endpoints_and_tools_may_be_private_by_default_the_rest_not() -> None:
    reaches = {purpose: policy_for(Outbound(), purpose).reach for purpose in Purpose}
    assert reaches == {
        Purpose.ENDPOINTS: "private",
        Purpose.WEBHOOKS: "public",
        Purpose.IMAGES: "public",
        Purpose.SOURCES: "public",
        Purpose.TOOLS: "private",
    }


def found(*hosts: str) -> list[Address]:
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 80)) for host in hosts]


def test_of_several_addresses_those_that_may_be_called_are_left() -> None:
    public = Policy(Purpose.WEBHOOKS, "public")
    assert public.judge(found("127.0.0.1", "8.8.8.8", "10.0.0.1")) == found("8.8.8.8")
    with pytest.raises(AddressNotAllowed) as refused:
        public.judge(found("127.0.0.1", "10.0.0.1"))
    assert not refused.value.retryable
