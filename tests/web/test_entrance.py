"""Through real processes: whose word about a request's origin counts, and for which hosts requests are taken."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import requests
from flask.testing import FlaskClient

from dwctl.config import FORWARDED_HEADERS
from dwctl.web import hosts
from tests.cast import Cast
from tests.processes import Process, Service

SIGN_INS = 2
HERE = "127.0.0.0/8,::1/128"


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_AUTH__NATIVE__THROTTLE__SIGN_INS_PER_MINUTE": str(SIGN_INS),
        "DWCTL_FORWARDED_HEADERS": ",".join(FORWARDED_HEADERS),
        "DWCTL_AUTH__SECURITY__ALLOWED_HOSTS": '["127.0.0.1", "gate.example", "*.models.example"]',
        "DWCTL_AUTH__SECURITY__HSTS_MAX_AGE": "600",
    }


@pytest.fixture(scope="module")
def behind_a_proxy(service: Service) -> Process:
    """Its proxy is us."""
    return service.webs[0]


@pytest.fixture(scope="module")
def alone(environ: dict[str, str], cast: Cast) -> Iterator[Process]:
    """It believes somebody else; who somebody is may be said from here."""
    more = {
        "DWCTL_TRUSTED_PROXIES": "10.0.0.0/8",
        "DWCTL_AUTH__PROXY_HEADER__TRUSTED_PROXIES": HERE,
    }
    with Service(environ | more) as running:
        yield running.start_web()


def sign_ins(process: Process, *chains: str) -> list[int]:
    """The statuses of sign-ins that say where they come from."""
    return [
        requests.post(
            f"{process.url}/authentication/login",
            json={"email": f"{uuid.uuid4().hex}@x.example", "password": "x"},
            headers={"X-Forwarded-For": chain},
            timeout=10,
        ).status_code
        for chain in chains
    ]


def test_sign_ins_are_counted_for_the_client_that_the_proxy_has_seen(behind_a_proxy: Process) -> None:  # fmt: skip
    # What a client has written itself stands further left.
    chains = [f"198.51.100.{n}, 203.0.113.7" for n in range(3)]
    assert sign_ins(behind_a_proxy, *chains) == [401, 401, 429]
    assert sign_ins(behind_a_proxy, "203.0.113.8") == [401]
    # Another spelling of the same address is the same address.
    assert sign_ins(behind_a_proxy, "::ffff:203.0.113.7", "203.0.113.7:4711") == [429, 429]


def test_whoever_is_no_proxy_cannot_lift_the_limit(alone: Process) -> None:
    assert sign_ins(alone, "203.0.113.50", "203.0.113.51", "203.0.113.52") == [401, 401, 429]


def test_who_may_name_people_is_a_question_of_its_own(alone: Process, cast: Cast) -> None:
    answer = requests.get(
        f"{alone.url}/admin/api/v1/users/current", headers=cast.headers("alice"), timeout=10
    )
    assert answer.status_code == 200


def test_the_scheme_is_what_the_proxy_says(behind_a_proxy: Process, alone: Process) -> None:
    header = "Strict-Transport-Security"
    for process, said, found in (
        (behind_a_proxy, "https", "max-age=600"),
        (behind_a_proxy, "http", None),
        (behind_a_proxy, "", None),
        (alone, "https", None),
    ):
        answer = requests.get(f"{process.url}/", headers={"X-Forwarded-Proto": said}, timeout=10)
        assert answer.headers.get(header) == found, said


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "gate.example"}, 200),
        ({"Host": "GATE.example:8080"}, 200),
        ({"Host": "eu.models.example"}, 200),
        ({"Host": "models.example"}, 421),
        ({"Host": "gate.example.evil.example"}, 421),
        ({"Host": "evil.example"}, 421),
        ({"Host": "gate.example", "X-Forwarded-Host": "evil.example"}, 421),
        ({"Host": "internal", "X-Forwarded-Host": "gate.example"}, 200),
    ],
)
def test_only_known_hosts_are_served(behind_a_proxy: Process, headers: dict[str, str], status: int) -> None:  # fmt: skip
    answer = requests.get(f"{behind_a_proxy.url}/", headers=headers, timeout=10)
    assert answer.status_code == status, answer.text
    if status == 421:
        assert answer.json()["code"] == "unknown_host"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_know_no_names(behind_a_proxy: Process, path: str) -> None:
    answer = requests.get(behind_a_proxy.url + path, headers={"Host": "10.0.0.7:3001"}, timeout=10)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("host", "pattern", "allowed"),
    [
        ("gate.example", "gate.example", True),
        ("gate.example:81", "gate.example", True),
        ("gate.example:81", "gate.example:81", True),
        ("gate.example", "gate.example:81", False),
        ("gate.example:82", "gate.example:81", False),
        ("[::1]:80", "[::1]", True),
        ("[::1]", "[::1]", True),
        ("a.b.example", "*.example", True),
        (".example", "*.example", False),
        ("example", "*.example", False),
        ("badexample", "*.example", False),
        ("", "gate.example", False),
        ("gate.example.", "gate.example", False),
        ("user@gate.example", "gate.example", False),
    ],
)
def test_a_host_is_one_of_the_list(host: str, pattern: str, allowed: bool) -> None:
    assert hosts.is_allowed(host, (pattern,)) is allowed
    # An empty list lets any in.
    hosts.check(host, "/", ())


def test_what_is_asked_for_by_a_whole_address_is_judged_by_that(client: FlaskClient) -> None:
    answer = client.get("/", environ_overrides={"RAW_URI": "http://evil.example/", "HTTP_HOST": "gate.example"})  # fmt: skip
    assert answer.status_code == 421
