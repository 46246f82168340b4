"""Two people at the same form, and one who only looks: nobody's change is undone without a word, and what is only looked at stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from tests.cast import Cast
from tests.dashboard import forms

ADMIN = "/admin/api/v1"
ODD = 1 / 7 + 1000
"""More digits than a form shows."""


@dataclass(frozen=True)
class Thing:
    """What can be changed: where its form is and goes to, its address at the API, a field of the form, and one that others change meanwhile."""

    page: str
    action: str
    api: str
    field: str
    other: dict[str, Any]


def _send(client: FlaskClient, method: str, path: str, body: Any) -> Any:
    answer = client.open(ADMIN + path, method=method, json=body, headers=Cast.headers("admin"))
    assert answer.status_code < 300, answer.text
    return answer.json


def _key(client: FlaskClient, cast: Cast) -> Thing:
    of = f"/users/{cast['bob']}/api-keys"
    body = {"name": f"key {uuid4()}", "requests_per_second": ODD, "log_sample": 0.123456789, "expires_at": "2126-01-01T00:00:00.123456Z"}  # fmt: skip
    id = _send(client, "POST", of, body)["id"]
    return Thing(f"/keys/{id}/edit", f"/keys/{id}/edit", f"{of}/{id}", "description", {"capacity": 7})  # fmt: skip


def _person(client: FlaskClient, cast: Cast) -> Thing:
    name = f"p{uuid4().hex[:8]}"
    id = _send(
        client,
        "POST",
        "/users",
        {"username": name, "email": f"{name}@two.example", "roles": ["StandardUser"]},
    )["id"]
    _send(client, "PATCH", f"/users/{id}", {"log_sample": 0.123456789})
    return Thing(f"/people/{id}/edit", f"/people/{id}/edit", f"/users/{id}", "display_name", {"low_balance_threshold": 5})  # fmt: skip


def _organization(client: FlaskClient, cast: Cast) -> Thing:
    name = f"o{uuid4().hex[:8]}.example"
    id = _send(client, "POST", "/organizations", {"name": name, "email": f"office@{name}"})["id"]
    page = f"/people/organizations/{id}"
    return Thing(page, f"{page}/edit", f"/organizations/{id}", "display_name", {"low_balance_threshold": 5})  # fmt: skip


def _group(client: FlaskClient, cast: Cast) -> Thing:
    id = _send(client, "POST", "/groups", {"name": f"group {uuid4()}"})["id"]
    return Thing(f"/people/groups/{id}", f"/people/groups/{id}/edit", f"/groups/{id}", "description", {"name": f"group {uuid4()}"})  # fmt: skip


def _endpoint(client: FlaskClient, cast: Cast) -> Thing:
    body = {"name": f"e{uuid4()}", "url": "http://127.0.0.1:9/v1", "sync": False}
    id = _send(client, "POST", "/endpoints", body)["id"]
    page = f"/endpoints/{id}/edit"
    return Thing(page, page, f"/endpoints/{id}", "description", {"name": f"e{uuid4()}"})  # fmt: skip


def _model(client: FlaskClient, cast: Cast) -> Thing:
    endpoint = _endpoint(client, cast).api.rpartition("/")[2]
    body = {"type": "standard", "model_name": "m", "alias": f"m{uuid4()}", "hosted_on": endpoint, "requests_per_second": ODD, "throughput": ODD}  # fmt: skip
    id = _send(client, "POST", "/models", body)["id"]
    return Thing(f"/models/-/{id}/edit", "", f"/models/{id}", "description", {"capacity": 7})


def _composite(client: FlaskClient, cast: Cast) -> Thing:
    body = {"type": "composite", "model_name": "c", "alias": f"c{uuid4()}", "provider_pricing": {"mode": "hourly", "rate": "1.234567891", "input_token_cost_ratio": "0.25"}, "metadata": {"context_window": 8192}}  # fmt: skip
    id = _send(client, "POST", "/models", body)["id"]
    return Thing(f"/models/-/{id}/edit", "", f"/models/{id}", "description", {"capacity": 7})


MAKERS = [_key, _person, _organization, _group, _endpoint, _model, _composite]


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__[1:])
def thing(request: pytest.FixtureRequest, client: FlaskClient, cast: Cast) -> Thing:
    made: Thing = request.param(client, cast)
    return made


def _stands(client: FlaskClient, thing: Thing) -> Any:
    shown = client.get(ADMIN + thing.api, headers=Cast.headers("admin")).json
    assert shown
    return {name: value for name, value in shown.items() if name != "updated_at"}


def _opened(client: FlaskClient, thing: Thing) -> dict[str, Any]:
    return forms.fields(forms.get(client, "admin", thing.page).text, thing.action)


def _saved(client: FlaskClient, thing: Thing, fields: dict[str, Any]) -> Any:
    return client.post(thing.action or thing.page, data=fields, headers=Cast.headers("admin"))


def test_a_form_that_is_saved_as_it_was_opened_changes_nothing(client: FlaskClient, thing: Thing) -> None:  # fmt: skip
    before = _stands(client, thing)
    assert _saved(client, thing, _opened(client, thing)).status_code == 303
    assert _stands(client, thing) == before


def test_what_another_has_changed_meanwhile_is_not_undone(client: FlaskClient, thing: Thing) -> None:  # fmt: skip
    sent = _opened(client, thing) | {thing.field: "mine"}
    _send(client, "PATCH", thing.api, thing.other)
    theirs = _stands(client, thing)
    refused = _saved(client, thing, sent)
    assert refused.status_code == 422
    assert "changed by somebody else" in refused.text
    assert "mine" in refused.text
    assert _stands(client, thing) == theirs
    # Who saves again has been told.
    again = forms.fields(refused.text, thing.action)
    assert _saved(client, thing, again).status_code == 303
    assert _stands(client, thing)[thing.field] == "mine"
