"""What every page has in common: who sees it, errors, tokens, and addresses that hold."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict

from dwctl.access import guard
from dwctl.catalog.routes import models
from dwctl.dashboard import formatting, navigation, operations, pages
from dwctl.dashboard import forms as dashboard_forms
from dwctl.identity.routes import api_keys
from tests.cast import Cast
from tests.dashboard import forms


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_FORWARDED_HEADERS": "x-forwarded-prefix"}


SCREENS = [item.name for item in navigation.ITEMS]


def path_of(app: Flask, name: str) -> str:
    with app.test_request_context():
        from flask import url_for

        return url_for(f"ui_{name}.show")


@pytest.mark.parametrize("name", [*SCREENS, "account"])
def test_whoever_is_not_signed_in_is_led_to_the_sign_in_and_back(app: Flask, client: FlaskClient, name: str) -> None:  # fmt: skip
    path = path_of(app, name)
    answer = client.get(path + "?range=7d")
    assert answer.status_code == 303
    assert answer.headers["Location"] == f"/sign-in?next={path}?range%3D7d"


def back(location: str) -> str:
    """Where one comes after signing in."""
    return parse_qs(urlsplit(location).query).get("next", ["/"])[0]


@pytest.mark.parametrize("path", ["/models/a%3Fb%23c%2520d/e%20f?tab=code&range=7d", "/requests?q=%26%23+%C3%A9&model=%D7%A9"])  # fmt: skip
def test_a_link_whose_path_and_query_are_encoded_leads_back_as_it_was(client: FlaskClient, path: str) -> None:  # fmt: skip
    assert back(client.get(path).headers["Location"]) == path


@pytest.mark.parametrize("root", ["", "/llm"])
def test_a_part_of_a_page_leads_the_whole_page_to_the_sign_in_and_back(client: FlaskClient, root: str) -> None:  # fmt: skip
    page = f"http://localhost{root}/?range=7d"
    part = {
        "HX-Request": "true",
        "HX-Request-Type": "partial",
        "Referer": page,
        "X-Forwarded-Prefix": root,
    }
    answer = client.get("/overview/now?range=7d", headers=part)  # fmt: skip
    assert answer.headers["HX-Redirect"].startswith(f"{root}/sign-in")
    assert back(answer.headers["HX-Redirect"]) == "/?range=7d"


@pytest.mark.parametrize(
    ("referrer", "leads_to"),
    [
        ("http://localhost/people/new?x=1", "/people/new?x=1"),
        ("http://elsewhere.example/people/new", "/"),
        ("", "/"),
    ],
)
def test_a_form_whose_session_has_ended_leads_back_to_its_page(client: FlaskClient, referrer: str, leads_to: str) -> None:  # fmt: skip
    answer = client.post("/people/new", data={"email": "x"}, headers={"Referer": referrer})
    assert (answer.status_code, back(answer.headers["Location"])) == (303, leads_to)


@pytest.mark.parametrize(
    ("who", "count"), [("alice", 7), ("bob", 7), ("viewer", 5), ("biller", 7), ("admin", 13)]
)
def test_each_role_sees_its_items(client: FlaskClient, cast: Cast, who: str, count: int) -> None:
    # alice and bob run batches; a member who does not sees five.
    page = forms.get(client, who, "/account").text
    assert len(re.findall(r'data-go="', page)) == count


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/requests/not-an-id", 400, "is not a UUID"),
        ("/keys/1/2", 404, "There is nothing here"),
    ],
)
def test_an_unknown_address_is_a_page_for_people_and_json_for_programs(
    client: FlaskClient, path: str, status: int, words: str
) -> None:
    read = client.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert (read.status_code, read.mimetype) == (status, "text/html")
    assert words in read.text
    assert read.headers["Content-Security-Policy"]
    for accept in ("*/*", "application/json"):
        asked = client.get(path, headers={"Accept": accept})
        assert (asked.status_code, asked.mimetype) == (status, "application/json")


@pytest.mark.parametrize("path", ["/ai/v1/nothing", "/admin/api/v1/nothing", "/authentication/x"])
def test_an_unknown_address_of_an_api_is_json_for_everybody(client: FlaskClient, path: str) -> None:
    assert client.get(path, headers={"Accept": "text/html"}).mimetype == "application/json"


def test_an_address_that_takes_forms_alone_says_so(client: FlaskClient) -> None:
    path = f"/people/organizations/{UUID(int=1)}/invitations"
    for accept in ("text/html", "application/json"):
        read = client.get(path, headers={"Accept": accept})
        assert (read.status_code, read.mimetype) == (405, accept)
        assert "POST" in read.headers["Allow"]


@pytest.mark.parametrize("path", ["/queue", "/endpoints", "/settings"])
def test_what_a_role_may_not_see_is_403_by_address(client: FlaskClient, cast: Cast, path: str) -> None:  # fmt: skip
    answer = forms.get(client, "alice", path)
    assert answer.status_code == 403
    assert answer.mimetype == "text/html"
    assert "Insufficient permissions" in answer.text


def test_pages_are_kept_by_nobody_and_load_nothing_foreign(client: FlaskClient, cast: Cast) -> None:
    answer = forms.get(client, "admin", "/account")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Frame-Options"] == "DENY"
    policy = answer.headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r'<[^>]+ (?:style|on\w+)="', answer.text)
    assert not re.search(r'(?:src|href)="(?:https?:)?//', answer.text)


class TestForms:
    CHANGE = "/account/act-as"

    def test_need_their_token(self, client: FlaskClient, cast: Cast) -> None:
        answer = client.post(self.CHANGE, data={"organization_id": ""}, headers=Cast.headers("alice"))  # fmt: skip
        assert answer.status_code == 403
        assert "stale_form" in answer.text

    def test_do_not_take_somebody_elses(self, client: FlaskClient, cast: Cast) -> None:
        theirs = forms.token(forms.get(client, "bob", "/account").text)
        answer = client.post(self.CHANGE, data={"_token": theirs}, headers=Cast.headers("alice"))
        assert answer.status_code == 403

    @pytest.mark.parametrize("origin", ["https://evil.example", "null"])
    def test_are_not_taken_from_elsewhere(self, client: FlaskClient, cast: Cast, origin: str) -> None:  # fmt: skip
        mine = forms.token(forms.get(client, "alice", "/account").text)
        answer = client.post(
            self.CHANGE, data={"_token": mine}, headers=Cast.headers("alice") | {"Origin": origin}
        )
        assert answer.status_code == 403
        assert "foreign_origin" in answer.text

    def test_hold_with_it(self, client: FlaskClient, cast: Cast) -> None:
        assert forms.submit(client, "alice", "/account", self.CHANGE, {}).status_code == 303


def test_an_organisation_that_is_not_ones_own_is_refused(client: FlaskClient, cast: Cast) -> None:
    answer = forms.submit(client, "alice", "/account", "/account/act-as", {"organization_id": str(uuid4())})  # fmt: skip
    assert answer.status_code == 403


@pytest.mark.parametrize("range", ["x", "5y", "..", "2026-01-02..2026-01-01", "0d", "2020-01-01..2026-01-01", "9" * 40, "é..ü", "2026-01-01..2026-01-02..2026-01-03"])  # fmt: skip
def test_a_range_that_is_none_is_400_in_words(client: FlaskClient, cast: Cast, range: str) -> None:
    answer = client.get("/settings/audit", query_string={"range": range}, headers=Cast.headers("admin"))  # fmt: skip
    assert answer.status_code == 400
    assert "range:" in answer.text


def test_a_prefix_is_in_every_address(client: FlaskClient, cast: Cast) -> None:
    headers = Cast.headers("admin") | {"X-Forwarded-Prefix": "/a/b"}
    page = client.get("/account", headers=headers).text
    addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
    assert len(addresses) > 20
    assert [one for one in addresses if not one.startswith("/a/b/")] == []


def test_operations_refuse_as_their_routes_do(app: Flask, cast: Cast) -> None:
    with app.test_request_context(headers=Cast.headers("alice")):
        assert operations.may(api_keys.list_api_keys, user_id="current")
        assert not operations.may(api_keys.list_api_keys, user_id=cast["bob"])
        guard.identify()


def test_the_snippet_is_the_call(app: Flask, cast: Cast) -> None:
    with app.test_request_context("/", base_url="https://gate.example/p"):
        shown = operations.snippet(
            api_keys.create_api_key, body={"name": "it's"}, user_id="current"
        )
    assert shown.url == "https://gate.example/p/admin/api/v1/users/current/api-keys"
    assert shown.curl.startswith("curl https://gate.example/p/admin/api/v1/users/current/api-keys")
    assert """'{\n  "name": "it'"'"'s"\n}'""" in shown.curl
    compile(shown.python, "snippet", "exec")


def test_here_changes_the_address_and_forgets_the_cursor(app: Flask) -> None:
    with app.test_request_context("/requests?range=7d&model=a%26b&after=x"):
        assert pages.here(model=None) == "/requests?range=7d"
        assert pages.here(status="error") == "/requests?range=7d&model=a%26b&status=error"


@pytest.mark.parametrize("odd", ["endpoint=x", "_external=1&_scheme=javascript", "_anchor=x", "_method=POST", "self=1"])  # fmt: skip
@pytest.mark.parametrize("path", ["/requests", "/settings/audit"])
def test_a_parameter_of_any_name_is_only_that(client: FlaskClient, cast: Cast, path: str, odd: str) -> None:  # fmt: skip
    answer = forms.get(client, "admin", f"{path}?{odd}&range=7d")
    assert answer.status_code == 200
    assert f"{path}?{odd}&amp;range=1h".split("&")[0] in answer.text
    assert "javascript:" not in answer.text


def test_a_page_with_a_refused_form_leads_on_from_where_it_stands(app: Flask, client: FlaskClient, cast: Cast) -> None:  # fmt: skip
    """What is only there for POST cannot be followed."""
    group = client.post("/admin/api/v1/groups", json={"name": "readers"}, headers=Cast.headers("admin")).json["id"]  # type: ignore[index]  # fmt: skip
    page = f"/people/groups/{group}"
    answer = forms.submit(client, "admin", page, f"{page}/edit", {"name": ""})
    assert answer.status_code == 422
    assert f'method="get" action="{page}"' in answer.text
    addresses = re.findall(r'(?:href|action)="(/[^"]*)"', re.sub(r"<form[^>]*method=.post.*?>", "", answer.text))  # fmt: skip
    assert {client.get(one, headers=Cast.headers("admin")).status_code for one in addresses} <= {200, 302, 303, 308}  # fmt: skip
    with app.test_request_context(f"{page}/edit?x=1", method="POST"):
        pages.stands_at(page, show="models")
        assert pages.here() == f"{page}?show=models"


class TestFields:
    @pytest.mark.parametrize("text", ["9" * 5000, "-" + "9" * 5000, "²", "1e3", "--1", "-"])
    def test_what_is_no_number_of_ours_goes_on_as_text(self, app: Flask, text: str) -> None:
        with app.app_context():
            schema = operations.of(models.create_model).body
        body = dashboard_forms.body(schema, MultiDict({"capacity": text, "fallback_on_status": text}))  # fmt: skip
        assert body == {"capacity": text, "fallback_on_status": [text]}

    def test_people_write_numbers_with_commas(self, app: Flask) -> None:
        with app.app_context():
            schema = operations.of(models.create_model).body
        body = dashboard_forms.body(schema, MultiDict({"capacity": " 1,000 ", "fallback_on_status": "500\n 503 "}))  # fmt: skip
        assert body == {"capacity": 1000, "fallback_on_status": [500, 503]}

    @pytest.mark.parametrize("text", ["1e1000000", "1e999999", "-1e-999999999", "sNaN", "Infinity", "9" * 5000, "much"])  # fmt: skip
    def test_a_price_that_is_none_goes_on_as_text(self, text: str) -> None:
        assert dashboard_forms.price_of_one(text) == text

    def test_a_price_is_that_of_one(self) -> None:
        assert dashboard_forms.price_of_one("$2.50") == "0.0000025"
        assert dashboard_forms.price_of_one("0") == "0"


@pytest.mark.parametrize(("path", "key"), [("/batches", "API_KEY"), ("/files", "API_KEY"), ("/models", "PLATFORM_KEY")])  # fmt: skip
def test_the_call_beside_a_page_takes_the_key_of_its_surface(client: FlaskClient, cast: Cast, path: str, key: str) -> None:  # fmt: skip
    """A platform key is refused under /ai."""
    (call,) = re.findall(r"<details class=\"popup api\">.*?</details>", client.get(path, headers=Cast.headers("admin")).text, re.DOTALL)  # fmt: skip
    assert set(re.findall(r"\b(?:API|PLATFORM)_KEY\b", call)) == {key}
    assert f"purpose “{'realtime' if key == 'API_KEY' else 'platform'}”" in call


@pytest.mark.parametrize(("value", "shown"), [(0, "0 calls"), (1, "1 call"), (2, "2 calls"), (1234567, "1,234,567 calls")])  # fmt: skip
def test_things_are_counted_as_people_do(value: int, shown: str) -> None:
    assert formatting.counted(value, "call") == shown
