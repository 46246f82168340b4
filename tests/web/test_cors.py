"""Browsers on other origins: only the configured ones are let in, on the hot routes as on all others."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from dwctl import config
from dwctl.web.cors import CrossOrigin

APP = "https://app.example"
CHAT = "/ai/v1/chat/completions"
OTHERS = ("https://evil.example", "null", f"{APP}.evil.example", f"{APP}:444", "http://app.example", f"{APP}/", "*", "")  # fmt: skip
OPENAI = [
    "authorization",
    "content-type",
    "x-stainless-lang",
    "x-stainless-package-version",
    "x-stainless-os",
    "x-stainless-arch",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-retry-count",
    "x-stainless-timeout",
    "x-stainless-helper-method",
    "openai-organization",
    "openai-project",
    "openai-beta",
    "idempotency-key",
    "user-agent",
    "x-request-id",
]
ANTHROPIC = ["x-api-key", "anthropic-version", "anthropic-beta", "anthropic-dangerous-direct-browser-access", "x-stainless-lang", "content-type"]  # fmt: skip


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_AUTH__SECURITY__CORS__ALLOWED_ORIGINS": f"{APP}/"}


@pytest.mark.parametrize("path", [CHAT, "/ai/v1/models", "/admin/api/v1/users/current", "/nothing"])
def test_an_allowed_origin_may_read_the_answer(client: FlaskClient, path: str) -> None:
    answer = client.post(path, json={}, headers={"Origin": APP})
    assert answer.headers.getlist("access-control-allow-origin") == [APP]
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]
    for name in ("x-request-id", "retry-after", "x-ratelimit-remaining-requests"):
        assert name in answer.headers["access-control-expose-headers"].split(", ")


@pytest.mark.parametrize("path", [CHAT, "/admin/api/v1/users/current"])
@pytest.mark.parametrize("origin", OTHERS)
def test_another_origin_is_told_nothing(client: FlaskClient, path: str, origin: str) -> None:
    answer = client.post(path, json={}, headers={"Origin": origin})
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")]
    # A cache must not give this answer to a page that would be told.
    assert "Origin" in answer.headers["vary"]


def test_a_cache_keeps_answers_without_an_origin_apart(client: FlaskClient) -> None:
    assert "Origin" in client.get("/").headers["vary"]


def preflight(client: FlaskClient, origin: str = APP, method: str = "POST", headers: str = "", **more: str):  # fmt: skip
    asked = {"Origin": origin, "Access-Control-Request-Method": method} | more
    if headers:
        asked["Access-Control-Request-Headers"] = headers
    return client.options(CHAT, headers=asked)


@pytest.mark.parametrize("names", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
def test_the_official_sdks_pass_the_preflight(client: FlaskClient, names: list[str]) -> None:
    answer = preflight(client, headers=",".join(names))
    assert answer.status_code == 204
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-max-age"] == "3600"
    allowed = answer.headers["access-control-allow-headers"].split(", ")
    assert [name for name in names if name not in allowed] == []


@pytest.mark.parametrize(
    "name", ["x-doubleword-user", "x-forwarded-for", "cookie", "*", "x-stainless-\u00e9", "openai-a b", "x-fusillade-request-id"]
)  # fmt: skip
def test_other_headers_do_not(client: FlaskClient, name: str) -> None:
    answer = preflight(client, headers=f"content-type,{name}")
    assert name not in answer.headers["access-control-allow-headers"].split(", ")


@pytest.mark.parametrize("origin", OTHERS)
def test_a_preflight_of_another_origin_allows_nothing(client: FlaskClient, origin: str) -> None:
    answer = preflight(client, origin)
    assert not [name for name, _ in answer.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize("method", ["", "TRACE", "CONNECT", "post", "GET, POST", "*"])
def test_a_preflight_for_no_method_of_ours_allows_nothing(client: FlaskClient, method: str) -> None:
    assert "access-control-allow-methods" not in preflight(client, method=method).headers


def test_public_pages_get_no_way_into_private_networks(client: FlaskClient) -> None:
    answer = preflight(client, **{"Access-Control-Request-Private-Network": "true"})
    assert answer.status_code == 204
    assert "access-control-allow-private-network" not in answer.headers


def test_any_origin_is_told_so_without_credentials() -> None:
    rule = config.Cors(allowed_origins=("*",), allow_credentials=False)
    headers = dict(CrossOrigin(rule, lambda *_: []).headers_for("https://anybody.example"))
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origins", ["*", f"{APP},null"])
def test_settings_that_let_everybody_in_with_credentials_stop_the_start(origins: str) -> None:
    with pytest.raises(config.ConfigError, match="allowed_origins"):
        config.load({"DWCTL_AUTH__SECURITY__CORS__ALLOWED_ORIGINS": origins})
