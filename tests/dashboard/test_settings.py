"""Settings in force and the audit log, as pages."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.cast import Cast
from tests.dashboard import forms

TITLE = "Models <b>& more</b>"


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_METADATA__TITLE": TITLE}


def test_what_is_set_stands_with_where_it_is_written(client: FlaskClient, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    # Where a process runs its settings are in its environment; the application of a test is given its own.
    monkeypatch.setenv("DWCTL_METADATA__TITLE", TITLE)
    page = forms.get(client, "admin", "/settings").text
    assert "metadata" in page
    assert "DWCTL_METADATA__TITLE" in page
    assert "<b>& more" not in page
    assert "a-secret-key-for-tests-only" not in page


def test_a_change_that_waits_for_a_restart_is_named(client: FlaskClient, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("DWCTL_CREDITS__RESERVE_BELOW", "77")
    page = forms.get(client, "admin", "/settings?q=credits.reserve").text
    assert "restart to take it" in page


def test_a_file_that_cannot_be_read_does_not_hide_the_state(client: FlaskClient, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("DWCTL_LIMITS__REQUESTS__MAX_BODY_SIZE", "much")
    answer = forms.get(client, "admin", "/settings")
    assert answer.status_code == 200
    assert 'role="alert"' in answer.text
    assert "Database" in answer.text


def test_the_audit_log_shows_who_changed_what(client: FlaskClient, cast: Cast) -> None:
    made = client.post("/admin/api/v1/groups", json={"name": "<i>hostile</i>"}, headers=Cast.headers("admin"))  # fmt: skip
    assert made.status_code == 201
    page = forms.get(client, "admin", "/settings/audit?action=group.").text
    assert "group.created" in page
    assert "&lt;i&gt;hostile" in page
    entry = re.findall(r'href="/settings/audit/(\d+)"', page)[0]
    shown = forms.get(client, "admin", f"/settings/audit/{entry}").text
    assert "&lt;i&gt;hostile" in shown
    assert 'aria-current="true">All time' in page
    assert '<a href="/settings/audit?action=group.&amp;range=24h">' in page
    bounded = forms.get(client, "admin", "/settings/audit?action=group.&range=1h").text
    assert '<a href="/settings/audit?action=group.">All time</a>' in bounded
    file = forms.get(client, "admin", "/settings/audit/export?format=csv&action=group.")
    assert file.mimetype == "text/csv"
    assert "group.created" in file.text


def test_an_entry_says_to_whom_credit_was_granted(client: FlaskClient, cast: Cast) -> None:
    body = {"user_id": str(cast["alice"]), "transaction_type": "admin_grant", "amount": "5", "source_id": str(cast["admin"])}  # fmt: skip
    made = client.post("/admin/api/v1/transactions", json=body, headers=Cast.headers("admin"))
    assert made.status_code == 201, made.text
    rows = forms.get(client, "admin", "/settings/audit?action=credit.granted").text
    assert f'resource_id={cast["alice"]}">alice</a>' in rows
    entry = re.findall(r'href="/settings/audit/(\d+)"', rows)[0]
    assert ">alice</a>" in forms.get(client, "admin", f"/settings/audit/{entry}").text


def test_who_signed_in_is_named(app: Flask, client: FlaskClient, cast: Cast) -> None:
    door = app.test_client(use_cookies=False)
    person = {"email": "ada@new.example", "password": "a-good-password"}
    made = door.post("/authentication/register", json=person | {"username": "ada"})
    assert made.status_code == 201, made.text
    assert door.post("/authentication/login", json=person).status_code == 200
    named = f'<a href="/people/{made.json["user"]["id"]}">ada</a>'  # type: ignore[index]
    rows = forms.get(client, "admin", "/settings/audit?action=user.signed_in").text
    assert named in rows
    entry = re.findall(r'href="/settings/audit/(\d+)"', rows)[0]
    assert f"<dt>Who</dt><dd>{named}" in forms.get(client, "admin", f"/settings/audit/{entry}").text


def test_members_see_neither(client: FlaskClient, cast: Cast) -> None:
    for path in ("/settings", "/settings/audit", "/settings/audit/1", "/settings/audit/export"):
        assert forms.get(client, "alice", path).status_code in (403, 404), path
