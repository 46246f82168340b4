"""Sign in, register, forgotten passwords, and one's own account, as a browser does it without script."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.dashboard import forms

PASSWORD = "a-good-password"


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_AUTH__NATIVE__ENABLED": "true",
        "DWCTL_AUTH__NATIVE__ALLOW_REGISTRATION": "true",
        "DWCTL_AUTH__NATIVE__SESSION__COOKIE_SECURE": "false",
    }


@pytest.fixture(scope="module")
def people() -> list[int]:
    return [0]


@pytest.fixture
def email(client: FlaskClient, people: list[int]) -> str:
    """Somebody who has just registered by the page; the client is signed in."""
    people[0] += 1
    email = f"p{people[0]}@sign.example"
    answer = client.post(
        "/register", data={"email": email, "username": f"p{people[0]}", "password": PASSWORD}
    )
    assert answer.status_code == 303, answer.text
    return email


def test_signing_in_leads_where_one_wanted(client: FlaskClient, email: str) -> None:
    client.delete_cookie("dwctl_session")
    given = {"email": email, "password": PASSWORD, "next": "/requests?range=7d"}
    answer = client.post("/sign-in", data=given)
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/requests?range=7d"
    # Whoever is signed in need not sign in.
    assert client.get("/sign-in?next=/usage").headers["Location"] == "/usage"


@pytest.mark.parametrize("next", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/\n/evil", "evil", "\t//evil.example"])  # fmt: skip
def test_signing_in_leads_nowhere_else(client: FlaskClient, email: str, next: str) -> None:
    answer = client.post("/sign-in", data={"email": email, "password": PASSWORD, "next": next})
    assert answer.status_code == 303
    assert answer.headers["Location"] == "/"


def test_a_wrong_password_is_said_and_nothing_of_it_kept(client: FlaskClient, email: str) -> None:
    answer = client.post("/sign-in", data={"email": email, "password": "not-this-one"})
    assert answer.status_code == 401
    assert email in answer.text
    assert "not-this-one" not in answer.text
    assert "WWW-Authenticate" not in answer.headers


def test_a_foreign_page_cannot_sign_anybody_in(client: FlaskClient, email: str) -> None:
    answer = client.post(
        "/sign-in",
        data={"email": email, "password": PASSWORD},
        headers={"Origin": "https://evil.example"},
    )
    assert answer.status_code == 403


def test_what_is_wrong_with_a_registration_stands_at_its_field(client: FlaskClient) -> None:
    answer = client.post("/register", data={"email": "no", "username": "x", "password": PASSWORD})
    assert answer.status_code == 422
    assert 'id="field-email-problem"' in answer.text
    assert PASSWORD not in answer.text


def test_the_password_is_changed_on_the_account_page(client: FlaskClient, email: str) -> None:
    page = client.get("/account").text
    assert email in page
    token = forms.token(page)
    wrong = client.post("/account/password", data={"_token": token, "current_password": "x", "new_password": "another-password", "again": "another-password"})  # fmt: skip
    assert wrong.status_code == 422
    differs = client.post("/account/password", data={"_token": token, "current_password": PASSWORD, "new_password": "another-password", "again": "y"})  # fmt: skip
    assert "different" in differs.text
    done = client.post("/account/password", data={"_token": token, "current_password": PASSWORD, "new_password": "another-password", "again": "another-password"})  # fmt: skip
    assert done.status_code == 303
    assert client.post("/sign-in", data={"email": email, "password": "another-password"}).status_code == 303  # fmt: skip


def test_signing_out_ends_it(client: FlaskClient, email: str) -> None:
    token = forms.token(client.get("/account").text)
    answer = client.post("/account/sign-out", data={"_token": token})
    assert answer.headers["Location"] == "/sign-in"
    assert client.get("/account").status_code == 303


def test_one_browser_signs_another_out(client: FlaskClient, email: str) -> None:
    other = client.application.test_client()
    assert other.post("/sign-in", data={"email": email, "password": PASSWORD}).status_code == 303
    page = client.get("/account").text
    assert page.count("Sign out</button>") >= 2
    ended = client.post("/account/sessions/end-others", data={"_token": forms.token(page)})
    assert ended.status_code == 303
    assert other.get("/account").status_code == 303
    assert client.get("/account").status_code == 200


def test_a_form_of_an_earlier_sign_in_is_stale(client: FlaskClient, email: str) -> None:
    token = forms.token(client.get("/account").text)
    client.post("/sign-in", data={"email": email, "password": PASSWORD})
    answer = client.post("/account/act-as", data={"_token": token})
    assert answer.status_code == 403
    assert "stale_form" in answer.text


def test_a_forgotten_password_is_answered_alike_for_everybody(client: FlaskClient, email: str) -> None:  # fmt: skip
    known, unknown = (
        client.post("/forgot-password", data={"email": one}) for one in (email, "no@one.example")
    )
    assert known.status_code == unknown.status_code == 200
    # Times stand on no page of who is not signed in.
    assert known.text == unknown.text
