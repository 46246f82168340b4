"""Endpoints: tried before they are saved, compared before they follow, their keys never shown; tool sources and providers beside them."""

from __future__ import annotations

import html
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Page, expect
from requests_mock import Mocker

from tests import browser
from tests.cast import Cast
from tests.catalog.conftest import Admin, unique
from tests.catalog.test_endpoints import URL, serve
from tests.dashboard import forms
from tests.dashboard.house import House

NEW = "/endpoints/new"
KEY = "sk-upstream-secret"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nothing listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def page(client: FlaskClient, path: str) -> str:
    answer = forms.get(client, "admin", path)
    assert answer.status_code == 200, answer.text[:2000]
    return answer.text


def send(client: FlaskClient, path: str, at: str = NEW, **fields: str) -> Any:
    return forms.submit(client, "admin", at, path, fields)


def only(admin: Admin, name: str) -> dict[str, Any]:
    (found,) = admin.get("/endpoints", search=name).json
    return dict(found)


class TestRoles:
    @pytest.mark.parametrize("who", ["alice", "viewer", "biller"])
    @pytest.mark.parametrize("path", ["/endpoints", NEW, "/endpoints/{id}", "/endpoints/{id}/edit", "/tool-sources", "/tool-sources/new"])  # fmt: skip
    def test_they_are_403_by_address(
        self, admin: Admin, client: FlaskClient, who: str, path: str
    ) -> None:
        assert forms.get(client, who, path.format(id=admin.endpoint())).status_code == 403

    @pytest.mark.parametrize("path", [NEW, "/endpoints/test", *(f"/endpoints/{{id}}/{verb}" for verb in ("edit", "test", "check", "compare", "synchronise", "delete")), "/tool-sources/new", "/providers"])  # fmt: skip
    def test_no_member_changes_or_asks_anything(
        self, admin: Admin, client: FlaskClient, path: str
    ) -> None:
        fields = {"name": "x", "url": URL, "confirm": "x", "provider_key": "x"}
        answer = forms.submit(client, "alice", "/account", path.format(id=admin.endpoint()), fields)
        assert answer.status_code == 403


def test_types_have_a_column_where_a_model_says_one(admin: Admin, client: FlaskClient) -> None:
    path = f"/endpoints/{admin.model()['hosted_on']}"
    head = '<th scope="col">Type</th>'
    assert head not in page(client, path)
    admin.model(hosted_on=path.rpartition("/")[2], model_type="CHAT")
    shown = page(client, path)
    assert head in shown
    assert "<td>Chat</td>" in shown
    assert "<td>–</td>" in shown


class TestTrying:
    def test_what_the_server_lists_is_shown_and_nothing_is_saved(
        self, admin: Admin, client: FlaskClient, requests_mock: Mocker
    ) -> None:
        serve(requests_mock, "one", "<b>two</b>")
        name = unique("tried")
        tried = send(client, "/endpoints/test", name=name, url=URL, api_key=KEY)
        assert tried.status_code == 200
        assert "lists 2 models" in tried.text
        assert "&lt;b&gt;two&lt;/b&gt;" in tried.text
        assert f'value="{name}"' in tried.text, "the form is as it was"
        assert KEY not in tried.text
        assert requests_mock.last_request.headers["Authorization"] == f"Bearer {KEY}"  # type: ignore[union-attr]
        assert admin.get("/endpoints", search=name).json == []

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ({"text": "<html>"}, "did not answer JSON"),
            ({"status_code": 401}, "answered 401"),
            ({"json": {"data": []}}, "lists no models"),
        ],
    )
    def test_rubbish_is_told(
        self, client: FlaskClient, cast: Cast, requests_mock: Mocker, answer: Any, said: str
    ) -> None:
        requests_mock.get(f"{URL}/models", **answer)
        assert said in send(client, "/endpoints/test", name="x", url=URL).text

    def test_nobody_there_is_told_where_one_tries_and_where_one_saves(
        self, admin: Admin, client: FlaskClient, nowhere: str
    ) -> None:
        assert "refused the connection" in send(client, "/endpoints/test", name="x", url=nowhere).text  # fmt: skip
        fields = {"name": unique("dead"), "url": nowhere, "sync": "true", "sync.shown": "1"}
        saved = send(client, NEW, **fields)
        assert (saved.status_code, "refused the connection" in saved.text) == (422, True)
        assert f'value="{fields["name"]}"' in saved.text

    @pytest.mark.parametrize("url", ["", "no address", "ftp://x/", "javascript:alert(1)"])
    def test_what_is_no_address_is_told(self, client: FlaskClient, cast: Cast, url: str) -> None:
        tried = send(client, "/endpoints/test", name="x", url=url)
        assert tried.status_code == 422
        assert 'id="field-url-problem"' in tried.text

    def test_htmx_gets_the_part_alone(
        self, client: FlaskClient, cast: Cast, requests_mock: Mocker
    ) -> None:
        serve(requests_mock, "one")
        asked = Cast.headers("admin") | {"HX-Request": "true", "HX-Request-Type": "partial"}
        token = forms.token(page(client, NEW))
        answer = client.post("/endpoints/test", data={"url": URL, "_token": token}, headers=asked)
        assert "<html" not in answer.text
        assert "lists 1 model" in answer.text

    def test_one_that_is_known_is_asked_with_its_own_key(
        self, admin: Admin, client: FlaskClient, requests_mock: Mocker
    ) -> None:
        id = admin.endpoint(url=URL, api_key=KEY)
        serve(requests_mock, "one")
        where = f"/endpoints/{id}/edit"
        kept = forms.fields(page(client, where), where)
        answer = send(client, f"/endpoints/{id}/test", where, **kept)
        assert "lists 1 model" in answer.text
        assert requests_mock.last_request.headers["Authorization"] == f"Bearer {KEY}"  # type: ignore[union-attr]
        elsewhere = "http://elsewhere.example/v1"
        requests_mock.get(f"{elsewhere}/models", json={"data": [{"id": "x"}]})
        send(client, f"/endpoints/{id}/test", where, **kept | {"url": elsewhere})
        assert "Authorization" not in requests_mock.last_request.headers, (
            "the key is for one origin"
        )  # type: ignore[union-attr]
        assert "lists 1 model" in send(client, f"/endpoints/{id}/check", f"/endpoints/{id}").text


class TestForms:
    def test_one_made_by_the_form_is_the_one_that_the_api_makes(
        self, admin: Admin, client: FlaskClient, requests_mock: Mocker
    ) -> None:
        names = unique("form"), unique("api")
        models = unique("m"), unique("n")
        serve(requests_mock, *models, unique("unwanted"))
        made = send(
            client, NEW, name=names[0], url=URL, api_key=KEY, description="d", model_filter=f"{models[0]}\n{models[1]}\n",
            alias_mapping=f"{models[0]} = a={models[0]}", auth_header_name="X-Key", auth_header_prefix="", first_byte_timeout_seconds="2.5",
            **{"sync": "true", "sync.shown": "1"},
        )  # fmt: skip
        assert made.status_code == 303, made.text
        body = {"name": names[1], "url": URL, "api_key": KEY, "description": "d", "model_filter": list(models), "auth_header_name": "X-Key", "first_byte_timeout_seconds": 2.5, "sync": False}  # fmt: skip
        admin.post("/endpoints", body)
        one, other = (only(admin, name) for name in names)
        own = {"id", "name", "created_at", "updated_at"}
        assert {k: v for k, v in one.items() if k not in own} == {k: v for k, v in other.items() if k not in own}  # fmt: skip
        listed = admin.get("/models", endpoint=one["id"]).json["data"]
        assert {model["alias"] for model in listed} == {f"a={models[0]}", models[1]} or {model["alias"] for model in listed} == {models[0], models[1]}  # fmt: skip
        assert KEY not in page(client, f"/endpoints/{one['id']}") + page(client, f"/endpoints/{one['id']}/edit")  # fmt: skip

    def test_saved_as_it_stands_it_changes_nothing_and_asks_nobody(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        id = admin.endpoint(api_key=KEY, idle_timeout_seconds=7, description="d")
        admin.model(hosted_on=id)
        before, where = admin.get(f"/endpoints/{id}", include="models").json, f"/endpoints/{id}/edit"  # fmt: skip
        assert send(client, where, where, **forms.fields(page(client, where), where)).status_code == 303  # fmt: skip
        after = admin.get(f"/endpoints/{id}", include="models").json
        assert after | {"updated_at": ""} == before | {"updated_at": ""}
        assert after["requires_api_key"]

    def test_its_key_is_taken_away_on_request(self, admin: Admin, client: FlaskClient) -> None:
        id = admin.endpoint(api_key=KEY)
        where = f"/endpoints/{id}/edit"
        send(client, where, where, **forms.fields(page(client, where), where) | {"api_key.clear": "1"})  # fmt: skip
        assert not admin.get(f"/endpoints/{id}").json["requires_api_key"]

    def test_a_taken_name_and_a_wrong_number_are_told(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        name = unique("taken")
        admin.endpoint(name=name)
        taken = send(client, NEW, name=name, url=URL, **{"sync.shown": "1"})
        assert (taken.status_code, 'role="alert"' in taken.text) == (422, True)
        wrong = send(client, NEW, name=unique("e"), url=URL, api_key=KEY, idle_timeout_seconds="-1", **{"sync.shown": "1"})  # fmt: skip
        assert 'id="field-idle_timeout_seconds-problem"' in wrong.text
        assert KEY not in wrong.text

    def test_deleting_takes_the_typed_name_and_its_models(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        name = unique("gone (really) [1]")
        id = admin.endpoint(name=name)
        model = admin.model(hosted_on=id)
        at = f"/endpoints/{id}"
        assert "1 model of it would go as well" in page(client, at)
        assert send(client, f"{at}/delete", at, confirm="other").status_code == 422
        assert send(client, f"{at}/delete", at, confirm=name).status_code == 303
        assert admin.get(f"/models/{model['id']}").status_code == 404


class TestComparing:
    def test_the_difference_is_shown_and_the_chosen_part_applied(
        self, admin: Admin, client: FlaskClient, requests_mock: Mocker
    ) -> None:
        goes, comes, stays_out = unique("goes"), unique("<i>comes"), unique("out")
        serve(requests_mock, goes)
        id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
        serve(requests_mock, comes, stays_out)
        at = f"/endpoints/{id}"
        compared = send(client, f"{at}/compare", at)
        assert html.escape(comes) in compared.text
        for words in ("new: is added", "gone: becomes inactive"):
            assert words in compared.text
        fields = forms.fields(compared.text, f"{at}/synchronise")
        assert set(fields["model"]) == {comes, stays_out}, "what is gone is for people to choose"
        done = send(client, f"{at}/synchronise", at, model=comes)
        assert done.status_code == 303
        listed = admin.get("/models", endpoint=id).json["data"]
        assert {one["alias"] for one in listed} == {goes, comes}

    def test_a_server_that_fails_is_told(
        self, admin: Admin, client: FlaskClient, nowhere: str
    ) -> None:
        at = f"/endpoints/{admin.endpoint(url=nowhere)}"
        assert "refused the connection" in send(client, f"{at}/compare", at).text
        assert send(client, f"{at}/synchronise", at).status_code == 422


class TestToolsAndProviders:
    def test_tool_sources_are_made_changed_and_deleted(
        self, admin: Admin, client: FlaskClient
    ) -> None:
        name, new = unique("tool"), "/tool-sources/new"
        fields = {"name": name, "url": "https://tools.example/x", "parameters": '{"type": "object"}', "api_key": KEY, "timeout_secs": "5"}  # fmt: skip
        assert send(client, new, new, **fields).status_code == 303
        (made,) = [one for one in admin.get("/tool-sources").json if one["name"] == name]
        assert (made["parameters"], made["has_api_key"], made["timeout_secs"]) == ({"type": "object"}, True, 5)  # fmt: skip
        where = f"/tool-sources/{made['id']}"
        text = page(client, where)
        assert KEY not in text
        assert send(client, where, where, **forms.fields(text, "") | {"timeout_secs": "6"}).status_code == 303  # fmt: skip
        changed = admin.get(where).json
        assert changed | {"updated_at": ""} == made | {"timeout_secs": 6, "updated_at": ""}
        wrong = send(client, new, new, **fields | {"name": unique("t"), "parameters": "{"})
        assert 'id="field-parameters-problem"' in wrong.text
        assert send(client, f"{where}/delete", where).status_code == 303
        assert admin.get(where).status_code == 404

    def test_providers_are_named_and_forgotten(self, admin: Admin, client: FlaskClient) -> None:
        key = unique("acme/labs")
        at = "/providers"
        assert send(client, at, at, provider_key=key, display_name="Acme").status_code == 303
        assert send(client, f"{at}/{key}/save", at, display_name="Acme Inc.", icon="").status_code == 303  # fmt: skip
        assert admin.get(f"/provider-display-configs/{key}").json["display_name"] == "Acme Inc."
        assert send(client, f"{at}/{key}/forget", at).status_code == 303
        assert send(client, at, at, provider_key="..").status_code == 422
        assert forms.get(client, "alice", at).status_code == 200


@pytest.mark.parametrize("path", [f"/endpoints/{UUID(int=9)}", f"/endpoints/{UUID(int=9)}/edit", f"/tool-sources/{UUID(int=9)}"])  # fmt: skip
def test_what_there_is_not_is_said_in_words(client: FlaskClient, cast: Cast, path: str) -> None:
    answer = forms.get(client, "admin", path)
    assert answer.status_code in (400, 404)
    assert "<h1>" in answer.text


def test_an_endpoint_is_tried_and_made_by_keyboard(page: Page, house: House) -> None:
    name = unique("typed")
    page.goto(NEW)
    page.get_by_label("Name required").focus()
    for text in (name, f"{house.gateway.upstream.url.removesuffix('/v1')}/as/models-{unique('a')},{unique('b')}/v1"):  # fmt: skip
        page.keyboard.type(text)
        page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Test")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("and lists 2 models")).to_be_visible()
    page.get_by_label("Address").press("Enter")
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
    expect(page.get_by_role("region", name="Models").get_by_role("row")).to_have_count(3)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [browser.WIDE, browser.NARROW])
def test_pages_of_endpoints_are_for_everybody(page: Page, house: House) -> None:
    id = house.gateway.endpoint()
    found = {}
    for path in ("/endpoints", f"/endpoints/{id}", f"/endpoints/{id}/edit", "/tool-sources/new", "/providers"):  # fmt: skip
        page.goto(path)
        found[path] = browser.axe(page)
    assert found == {path: [] for path in found}
