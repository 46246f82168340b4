from uuid import UUID

import psycopg
import pytest
from flask import Flask

from tests.cast import Cast
from tests.identity.doors import ADMIN, NOBODY, Doors, app_with, insert_organization, register

CHOICE = f"{ADMIN}/session/organization"


def test_the_dashboard_learns_what_it_needs(call: Doors) -> None:
    assert call("alice", "GET", "/config").json == {
        "region": None,
        "organization": None,
        "payment_enabled": False,
        "docs_url": "/ai/docs",
        "docs_jsonl_url": "/ai/docs",
        "onwards": {"strict_mode": False},
        "batches": {
            "enabled": True,
            "allowed_completion_windows": ["24h", "1h"],
            "allowed_url_paths": [
                "/v1/chat/completions",
                "/v1/completions",
                "/v1/embeddings",
                "/v1/responses",
            ],
            "async_requests": {"enabled": True, "completion_window": "1h"},
        },
    }


def test_strangers_do_not(call: Doors) -> None:
    assert call(None, "GET", "/config").status_code == 401


def test_what_is_set_is_shown_and_what_is_off_is_not(environ: dict[str, str], cast: Cast) -> None:
    settings = {
        "metadata__region": "eu",
        "metadata__docs_url": "https://docs.example",
        "metadata__ai_api_base_url": "https://ai.example",
        "batches__enabled": "false",
        "onwards__strict_mode": "true",
    }
    with app_with(environ, **settings) as app:
        shown = Doors(app)("alice", "GET", "/config").json
    assert (shown["region"], shown["ai_api_base_url"]) == ("eu", "https://ai.example")
    assert shown["docs_url"] == shown["docs_jsonl_url"] == "https://docs.example"
    assert shown["onwards"] == {"strict_mode": True}
    assert "batches" not in shown


def test_an_organisation_is_chosen_and_left(app: Flask, sql: psycopg.Connection) -> None:
    client, user = register(app)
    organization = str(insert_organization(sql, member=UUID(user["id"])))
    chosen = client.post(CHOICE, json={"organization_id": organization})
    assert chosen.json == {"active_organization_id": organization}
    cookie = chosen.headers["Set-Cookie"]
    assert cookie.startswith(f"dw_active_org={organization};")
    for part in ("HttpOnly", "Path=/", "SameSite=Strict", "Max-Age=2592000"):
        assert part in cookie
    me = f"{ADMIN}/users/current"
    assert client.get(me).json["active_organization_id"] == organization
    left = client.post(CHOICE, json={"organization_id": None})
    assert left.json == {"active_organization_id": None}
    assert "Max-Age=0" in left.headers["Set-Cookie"]
    assert "active_organization_id" not in client.get(me).json


@pytest.mark.parametrize(
    ("wanted", "status", "message"),
    [
        (NOBODY, 403, f"Insufficient permissions to Read Organization {NOBODY}"),
        ("x", 422, "organization_id: Not a valid UUID."),
    ],
)
def test_a_wrong_choice_is_refused(app: Flask, wanted: str, status: int, message: str) -> None:
    client, _ = register(app)
    answer = client.post(CHOICE, json={"organization_id": wanted})
    assert (answer.status_code, answer.json["message"]) == (status, message)
    assert "Set-Cookie" not in answer.headers
