"""Browsers on other origins: only the configured ones are let in, on the hot routes as on all others."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

APP = "https://app.example"


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_AUTH__SECURITY__CORS__ALLOWED_ORIGINS": f"{APP}/"}


@pytest.mark.parametrize("path", ["/ai/v1/chat/completions", "/admin/api/v1/users/current"])
def test_an_allowed_origin_may_read_the_answer(client: FlaskClient, path: str) -> None:
    answer = client.post(path, json={}, headers={"Origin": APP})
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("path", ["/ai/v1/chat/completions", "/admin/api/v1/users/current"])
def test_another_origin_is_told_nothing(client: FlaskClient, path: str) -> None:
    answer = client.post(path, json={}, headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_of_an_allowed_origin_is_answered(client: FlaskClient) -> None:
    asked = {"Origin": APP, "Access-Control-Request-Method": "POST"}
    answer = client.options("/ai/v1/chat/completions", headers=asked)
    assert answer.status_code == 204
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"]
    assert answer.headers["access-control-max-age"] == "3600"
