"""Credentials through a real gunicorn: who is let in, for how long, and what an endpoint's new address gets to see."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import requests

from tests.gateway import ADMIN, UPSTREAM_KEY, Gateway, unique
from tests.identity.doors import PASSWORD, insert_key
from tests.processes import eventually

ME = ADMIN + "/users/current"


def registered(stage: Gateway) -> tuple[requests.Session, str]:
    """Somebody who has just signed up, and their e-mail."""
    session, name = requests.Session(), unique("p")
    email = f"{name}@people.example"
    body = {"username": name, "email": email, "password": PASSWORD}
    assert session.post(stage.url + "/authentication/register", json=body, timeout=20).ok
    return session, email


def status(session: requests.Session, stage: Gateway) -> int:
    return session.get(stage.url + ME, timeout=20).status_code


@pytest.mark.parametrize(
    ("headers", "left"),
    [
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, 200),
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 401),
    ],
    ids=["a foreign link", "an image", "no browser", "a link of ours"],
)  # fmt: skip
def test_a_link_signs_out_only_from_our_own_pages(
    stage: Gateway, headers: dict[str, str], left: int
) -> None:
    session, _ = registered(stage)
    answer = session.get(
        stage.url + "/authentication/logout", headers=headers, allow_redirects=False, timeout=20
    )
    assert answer.status_code < 400
    assert status(session, stage) == left


def test_no_foreign_page_signs_anybody_out(stage: Gateway) -> None:
    session, _ = registered(stage)
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    answer = session.post(stage.url + "/authentication/logout", headers=foreign, timeout=20)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert status(session, stage) == 200


def test_a_session_ends_however_much_it_is_used(stage: Gateway, sql: psycopg.Connection) -> None:
    session, email = registered(stage)
    assert status(session, stage) == 200
    sql.execute(
        "UPDATE login_sessions SET created_at = created_at - interval '8 days'"
        " WHERE user_id = (SELECT id FROM users WHERE email = %s)",
        (email,),
    )
    assert status(session, stage) == 401


def test_who_registered_with_somebodys_address_is_out_when_that_person_comes(
    stage: Gateway,
) -> None:
    session, email = registered(stage)
    made = session.post(
        stage.url + ME + "/api-keys", json={"name": "k", "purpose": "realtime"}, timeout=20
    )
    assert made.status_code == 201
    key = {"Authorization": f"Bearer {made.json()['key']}"}
    models = stage.url + "/ai/v1/models"
    eventually(lambda: requests.get(models, headers=key, timeout=20).status_code == 200)
    owner = {"x-doubleword-user": unique("idp"), "x-doubleword-email": email}
    assert requests.get(stage.url + ME, headers=owner, timeout=20).json()["email"] == email
    assert status(session, stage) == 401
    again = {"email": email, "password": PASSWORD}
    assert requests.post(stage.url + "/authentication/login", json=again, timeout=20).status_code == 401  # fmt: skip
    eventually(lambda: requests.get(models, headers=key, timeout=20).status_code == 401)


@pytest.fixture
def listener() -> Iterator[tuple[str, list[str]]]:
    """Another server, and the heads of what it was asked."""
    heads: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heads.append(str(self.headers))
            self.send_response(200)
            body = b'{"object":"list","data":[]}'
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", heads
    server.shutdown()
    server.server_close()


def test_an_endpoints_credential_does_not_follow_it_to_another_server(
    stage: Gateway, listener: tuple[str, list[str]]
) -> None:
    url, heads = listener
    id = stage.endpoint(stage.upstream.url + "/", description="of its own")
    shown = stage.admin("PATCH", f"/endpoints/{id}", {"url": url}).json()
    assert shown["requires_api_key"] is False
    stage.admin("POST", f"/endpoints/{id}/synchronize")
    assert heads
    assert not any(UPSTREAM_KEY in head or "authorization" in head.lower() for head in heads)


def test_stored_responses_are_for_inference_keys(
    stage: Gateway, sql: psycopg.Connection[Any]
) -> None:
    """A key for the admin API may call models, and reads nothing of what is kept under /ai."""
    statuses = {"platform": 403, "realtime": 404, "batch": 404, "playground": 404}
    path = f"{stage.url}/ai/v1/responses/resp_{stage.cast['alice']}"
    for purpose, status in statuses.items():
        key = insert_key(sql, stage.cast["alice"], purpose=purpose)
        for method in ("GET", "DELETE"):

            def answered(method: str = method, key: str = key, status: int = status) -> bool:
                by_key = {"Authorization": f"Bearer {key}"}
                return requests.request(method, path, headers=by_key, timeout=20).status_code == status  # fmt: skip

            eventually(answered)
