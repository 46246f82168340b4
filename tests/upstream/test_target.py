import uuid

import pytest

from dwctl.errors import Invalid
from dwctl.upstream.target import Origin, Target, Timeouts, request_path


def make_target(base_url: str, auth_header: tuple[str, str] | None = None) -> Target:
    return Target(
        base_url=base_url,
        model_name="m",
        auth_header=auth_header,
        timeouts=Timeouts(),
        endpoint_id=uuid.uuid4(),
        endpoint_name="server",
        trusted=False,
    )


@pytest.mark.parametrize(
    ("base_url", "path", "expected"),
    [
        ("https://h/v1", "/chat/completions", "/v1/chat/completions"),
        ("https://h/v1/", "/chat/completions", "/v1/chat/completions"),
        ("https://h", "/chat/completions", "/chat/completions"),
        ("https://h/", "/chat/completions", "/chat/completions"),
        ("https://h/v1", "/v1/chat/completions", "/v1/chat/completions"),
        ("https://h/v1", "/v1", "/v1"),
        ("https://h/v1", "/v1?a=b", "/v1?a=b"),
        ("https://h/v1", "/v1beta/models", "/v1/v1beta/models"),
        ("https://h/a/b", "/a/b/c", "/a/b/c"),
        ("https://h/a/b", "/a/c", "/a/b/a/c"),
        ("https://h/v1", "/models?limit=2", "/v1/models?limit=2"),
        ("https://h/v1?api-version=7", "/models", "/v1/models?api-version=7"),
        ("https://h/v1?api-version=7", "/models?limit=2", "/v1/models?limit=2&api-version=7"),
        ("https://h/v1", "models", "/v1/models"),
        ("https://h/v1", "/models/org/a b", "/v1/models/org/a%20b"),
        ("https://h/v1", "/models/grüße%2Fx", "/v1/models/gr%C3%BC%C3%9Fe%2Fx"),
        ("https://h/v1", "/a\r\nx: y", "/v1/a%0D%0Ax:%20y"),
        ("https://h/v1", "/.well-known/x", "/v1/.well-known/x"),
        ("https://h/v1", "/search?q=/../x", "/v1/search?q=/../x"),
    ],
)
def test_the_request_path_is_the_callers_below_the_servers_own(
    base_url: str, path: str, expected: str
) -> None:
    assert request_path(base_url, path) == expected
    assert make_target(base_url).request_path(path) == expected


@pytest.mark.parametrize("path", ["/../admin", "/a/..", "..", "/%2e%2E/admin", "/a/.%2e/b", "/./a"])
def test_a_path_cannot_climb_out_of_the_base_path(path: str) -> None:
    with pytest.raises(Invalid) as caught:
        request_path("https://h/tenant/v1", path)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("base_url", "origin", "host"),
    [
        ("http://127.0.0.1:8000/v1", Origin("http", "127.0.0.1", 8000), "127.0.0.1:8000"),
        ("http://Host/v1", Origin("http", "host", 80), "host"),
        ("https://host:443", Origin("https", "host", 443), "host"),
        ("https://host:8443", Origin("https", "host", 8443), "host:8443"),
        ("http://[::1]:8000", Origin("http", "::1", 8000), "[::1]:8000"),
        ("https://bücher.example", Origin("https", "xn--bcher-kva.example", 443), None),
    ],
)
def test_a_base_url_says_whom_to_connect_to(
    base_url: str, origin: Origin, host: str | None
) -> None:
    target = make_target(base_url)
    assert target.origin == origin
    assert target.fixed_lines.startswith(f"host: {host or origin.host}\r\n")


@pytest.mark.parametrize(
    "base_url",
    ["", "host/v1", "ftp://host", "https://", "https://user:word@host/v1", "http://host:port/"],
)
def test_a_base_url_that_leads_nowhere_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError):
        make_target(base_url)


def test_a_credential_is_sent_and_never_shown() -> None:
    target = make_target("https://h", ("X-Key", "Token sk-1"))
    assert "X-Key: Token sk-1\r\n" in target.fixed_lines
    assert "sk-1" not in repr(target)


def test_a_credential_cannot_smuggle_a_header() -> None:
    with pytest.raises(ValueError):
        make_target("https://h", ("authorization", "Bearer a\r\nx-admin: 1"))
