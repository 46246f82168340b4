"""API keys as pages: made, found, changed, rotated, revoked, by whom they may be."""

from __future__ import annotations

import logging
import re
import time
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dwctl.analytics import writing
from dwctl.dashboard import keys
from tests.analytics.made import Made, final
from tests.cast import Cast
from tests.dashboard import forms
from tests.identity.doors import insert_organization, unique

SECRET = re.compile(r"sk-[A-Za-z0-9_-]{43}")
HOSTILE = '"><img src=x onerror=alert(1)> (a) [b]{c}|d\\ e.f'
Sql = psycopg.Connection[Any]


def api(client: FlaskClient, who: str, method: str, path: str, body: Any = None) -> Any:
    answer = client.open(f"/admin/api/v1{path}", method=method, json=body, headers=Cast.headers(who))  # fmt: skip
    assert answer.status_code < 300, answer.text
    return answer.json


def made(client: FlaskClient, who: str, **body: Any) -> dict[str, Any]:
    found: dict[str, Any] = api(client, who, "POST", "/users/current/api-keys", {"name": unique("key"), **body})  # fmt: skip
    return found


def make(client: FlaskClient, who: str, owner: UUID, **fields: str) -> TestResponse:
    return forms.submit(client, who, "/keys/new", "/keys/new", {"user": str(owner), **fields})


def key_called(client: FlaskClient, who: str, name: str) -> dict[str, Any]:
    (key,) = api(client, who, "GET", f"/api-keys?search={name}")["data"]
    return dict(key)


# --- made


def test_a_key_made_by_the_form_is_the_one_that_the_api_would_have_made(client: FlaskClient, cast: Cast) -> None:  # fmt: skip
    name = unique("key")
    fields = {
        "description": "CI & co",
        "purpose": "realtime",
        "requests_per_second": "90",
        "rate_unit": "minute",
        "burst_size": "5",
        "capacity": "3",
        "tokens_per_minute": "20,000",
        "spend_limit": "12.50",
        "spend_limit_interval": "weekly",
        "expires_at": "2031-06-30T12:00",
        "log_sample": "25",
        "zero_data_retention.shown": "1",
        "zero_data_retention": "true",
    }
    client.set_cookie("dw_zone", "Europe%2FBerlin")
    assert make(client, "alice", cast["alice"], name=name, **fields).status_code == 200
    made_by_api = {
        "description": "CI & co",
        "purpose": "realtime",
        "requests_per_second": 1.5,
        "burst_size": 5,
        "capacity": 3,
        "tokens_per_minute": 20000,
        "spend_limit": "12.500000000000000",
        "spend_limit_interval": "weekly",
        "expires_at": "2031-06-30T10:00:00Z",
        "log_sample": 0.25,
        "zero_data_retention": True,
        "user_id": str(cast["alice"]),
        "created_by": str(cast["alice"]),
    }
    key = key_called(client, "alice", name)
    assert {field: key[field] for field in made_by_api} == made_by_api


def test_what_a_form_leaves_empty_is_not_set(client: FlaskClient, cast: Cast) -> None:
    name = unique("key")
    empty = dict.fromkeys(("description", "requests_per_second", "burst_size", "capacity", "tokens_per_minute", "spend_limit", "spend_limit_interval", "expires_at", "log_sample"), "")  # fmt: skip
    assert make(client, "alice", cast["alice"], name=name, rate_unit="minute", **empty).status_code == 200  # fmt: skip
    key = key_called(client, "alice", name)
    assert {key[field] for field in empty} == {None}


def test_the_form_as_it_opens_needs_a_name_alone(client: FlaskClient, cast: Cast) -> None:
    name = unique("key")
    as_opened = {field: str(value) for field, value in keys.NEW.items() if value is not False}
    assert make(client, "alice", cast["alice"], **{**as_opened, "name": name}).status_code == 200
    key = key_called(client, "alice", name)
    assert (key["spend_limit"], key["spend_limit_interval"]) == (None, None)


def test_the_secret_is_shown_once_and_stands_nowhere_else(client: FlaskClient, cast: Cast, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    name = unique("key")
    answer = make(client, "alice", cast["alice"], name=name)
    secret, *again = SECRET.findall(answer.text)
    # Beside the secret itself, in the call that works as it stands.
    assert set(again) == {secret}
    assert "never shown again" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert secret not in str(answer.headers)
    assert secret not in caplog.text
    key = key_called(client, "alice", name)
    for path in ("/keys", f"/keys/{key['id']}", f"/keys/{key['id']}/edit", f"/keys?q={name}"):
        shown = forms.get(client, "alice", path)
        assert shown.status_code == 200
        assert secret[:10] in shown.text or path.endswith("edit")
        assert secret not in shown.text
    assert client.get("/admin/api/v1/users/current", headers={"Authorization": f"Bearer {secret}"}).status_code == 401  # fmt: skip


def test_the_same_form_sent_twice_makes_one_key_and_shows_no_secret(client: FlaskClient, cast: Cast) -> None:  # fmt: skip
    name = unique("key")
    assert make(client, "alice", cast["alice"], name=name).status_code == 200
    again = make(client, "alice", cast["alice"], name=name)
    assert again.status_code == 422
    assert "has this name already" in again.text
    assert not SECRET.search(again.text)
    assert key_called(client, "alice", name)


@pytest.mark.parametrize(
    ("fields", "field", "said"),
    [
        ({"name": "  "}, "name", "cannot be empty"),
        ({"name": "x" * 256}, "name", "Longer than maximum length 255"),
        ({"requests_per_second": "many"}, "requests_per_second", "Not a valid number"),
        ({"requests_per_second": "-1"}, "requests_per_second", "Must be greater than 0"),
        ({"capacity": "1.5"}, "capacity", "Not a valid integer"),
        ({"tokens_per_minute": "9" * 40}, "tokens_per_minute", "Not a valid integer"),
        ({"spend_limit": "a lot"}, "spend_limit", "Not a plain decimal number"),
        ({"expires_at": "2001-01-01T00:00"}, "expires_at", "must be in the future"),
        ({"expires_at": "soon"}, "expires_at", "Not a valid datetime"),
        ({"log_sample": "150"}, "log_sample", "Must be"),
        ({"purpose": "batch"}, "purpose", "Cannot manually create"),
    ],
)
def test_what_is_wrong_stands_beside_its_field_in_the_words_of_the_api(client: FlaskClient, cast: Cast, fields: dict[str, str], field: str, said: str) -> None:  # fmt: skip
    answer = make(client, "alice", cast["alice"], **{"name": unique("key"), **fields})  # fmt: skip
    assert answer.status_code == 422
    problem = re.search(f'<p class="problem" id="field-{field}-problem">([^<]+)', answer.text)
    assert problem
    assert said in problem[1]
    for value in fields.values():
        assert value in answer.text


def test_a_form_without_its_token_makes_nothing(client: FlaskClient, cast: Cast) -> None:
    name = unique("key")
    fields = {"user": str(cast["alice"]), "name": name}
    for more in ({}, {"_token": "0" * 32}):
        answer = client.post("/keys/new", data=fields | more, headers=Cast.headers("alice"))
        assert answer.status_code == 403
    assert api(client, "alice", "GET", f"/api-keys?search={name}")["data"] == []


def test_the_first_call_names_a_model_that_the_key_may_call(client: FlaskClient, cast: Cast, sql: Sql) -> None:  # fmt: skip
    nothing = make(client, "bob", cast["bob"], name=unique("key"))
    assert "/ai/v1/models" in nothing.text
    alias = unique("a-model")
    row = sql.execute("INSERT INTO deployed_models (model_name, alias, type, created_by, is_composite) VALUES ('m', %s, 'CHAT', %s, true) RETURNING id", (alias, cast["admin"])).fetchone()  # fmt: skip
    assert row
    group = api(client, "admin", "POST", "/groups", {"name": unique("group")})["id"]
    for path in (f"/groups/{group}/models/{row[0]}", f"/groups/{group}/users/{cast['bob']}"):
        client.post(f"/admin/api/v1{path}", headers=Cast.headers("admin"))
    answer = make(client, "bob", cast["bob"], name=unique("key"))
    assert "http://localhost/ai/v1/chat/completions" in answer.text
    assert alias in answer.text
    platform = make(client, "bob", cast["bob"], name=unique("key"), purpose="platform")
    assert "http://localhost/admin/api/v1/users/current" in platform.text


# --- found


def test_members_find_their_own_keys_and_managers_everybodys(client: FlaskClient, cast: Cast) -> None:  # fmt: skip
    theirs, others = made(client, "alice"), made(client, "bob")
    seen = forms.get(client, "alice", "/keys").text
    assert theirs["name"] in seen
    assert others["name"] not in seen
    everybodys = forms.get(client, "admin", "/keys").text
    assert theirs["name"] in everybodys
    assert others["name"] in everybodys
    of_bob = forms.get(client, "admin", f"/keys?user={cast['bob']}").text
    assert others["name"] in of_bob
    assert theirs["name"] not in of_bob


@pytest.mark.parametrize("path", ["/keys?user={bob}", "/keys/new?user={bob}"])
def test_nobody_looks_at_a_strangers_keys(client: FlaskClient, cast: Cast, path: str) -> None:
    assert forms.get(client, "alice", path.format(bob=cast["bob"])).status_code == 403


@pytest.mark.parametrize("page", ["", "/edit"])
def test_a_strangers_key_does_not_exist(client: FlaskClient, cast: Cast, page: str) -> None:
    key = made(client, "bob")
    assert forms.get(client, "alice", f"/keys/{key['id']}{page}").status_code == 404
    assert forms.get(client, "admin", f"/keys/{key['id']}{page}").status_code == 200
    for change in ("rotate", "end-old-secrets", "revoke", "edit"):
        fields = {"confirm": key["name"], "replaces": key["key_prefix"], "name": "mine"}
        answer = forms.submit(client, "alice", "/keys/new", f"/keys/{key['id']}/{change}", fields)
        assert answer.status_code == 404
    assert key_called(client, "bob", key["name"])["key_prefix"] == key["key_prefix"]


def test_a_role_without_keys_is_refused(client: FlaskClient, cast: Cast, sql: Sql) -> None:
    sql.execute("DELETE FROM user_roles WHERE user_id = %s AND role = 'STANDARDUSER'", [cast["viewer"]])  # fmt: skip
    assert forms.get(client, "viewer", "/keys").status_code == 403
    assert forms.get(client, "viewer", "/keys/new").status_code == 403
    sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, 'STANDARDUSER')", [cast["viewer"]])  # fmt: skip


def test_filters_narrow_the_list_and_stay_in_the_address(client: FlaskClient, cast: Cast) -> None:
    word = unique("filtered")
    platform = made(client, "alice", name=f"{word} platform", purpose="platform")
    realtime = made(client, "alice", name=f"{word} realtime")
    page = forms.get(client, "alice", f"/keys?q={word}&purpose=platform").text
    assert platform["name"] in page
    assert realtime["name"] not in page
    assert f'value="{word}"' in page
    assert realtime["key_prefix"] in forms.get(client, "alice", f"/keys?q={realtime['key_prefix']}").text  # fmt: skip
    nothing = forms.get(client, "alice", f"/keys?q={word}&state=expired").text
    assert "No key matches" in nothing
    part = client.get(f"/keys?q={word}", headers={**Cast.headers("alice"), "HX-Request": "true", "HX-Request-Type": "partial"}).text  # fmt: skip
    assert part.lstrip().startswith('<div id="keys"')
    assert realtime["name"] in part


@pytest.mark.parametrize("query", ["user=nobody", "purpose=else", "state=dead", "after=forged"])
def test_odd_addresses_are_refused_in_words(client: FlaskClient, cast: Cast, query: str) -> None:
    answer = forms.get(client, "alice", f"/keys?{query}")
    assert answer.status_code == 400
    assert "cannot be used" in answer.text


def test_a_list_goes_on_behind_its_first_page(client: FlaskClient, cast: Cast, sql: Sql) -> None:
    word = unique("many")
    sql.execute(
        "INSERT INTO api_keys (name, user_id, created_by, secret_hash, secret_prefix)"
        " SELECT %(word)s || '-' || n, %(id)s, %(id)s, sha256((%(word)s || n)::bytea), 'sk-' || n FROM generate_series(1, 60) n",
        {"word": word, "id": cast["bob"]},
    )
    first = forms.get(client, "bob", f"/keys?q={word}").text
    further = re.search(r'rel="next" href="([^"]+)"', first)
    assert further
    second = forms.get(client, "bob", "/keys" + further[1].replace("&amp;", "&")).text
    names = re.compile(rf">({word}-\d+)</a>")
    assert (len(names.findall(first)), len(names.findall(second))) == (50, 10)
    assert not set(names.findall(first)) & set(names.findall(second))


def test_an_organisations_keys_are_seen_by_who_made_them(client: FlaskClient, cast: Cast, sql: Sql) -> None:  # fmt: skip
    organization = insert_organization(sql, owner=cast["bob"], member=cast["alice"])
    name = unique("key")
    assert make(client, "alice", organization, name=name).status_code == 200
    assert name in forms.get(client, "alice", f"/keys?user={organization}").text
    assert name not in forms.get(client, "bob", f"/keys?user={organization}").text
    assert name in forms.get(client, "admin", f"/keys?user={organization}").text
    key = key_called(client, "alice", name)
    assert (key["owner"]["id"], key["creator"]["id"]) == (str(organization), str(cast["alice"]))
    assert forms.get(client, "viewer", f"/keys?user={organization}").status_code == 403


def test_names_are_text_wherever_they_stand(client: FlaskClient, cast: Cast) -> None:
    key = made(client, "alice", name=unique(HOSTILE), description=HOSTILE)
    for path in ("/keys", f"/keys/{key['id']}", f"/keys/{key['id']}/edit"):
        page = forms.get(client, "alice", path).text
        assert "<img src=x" not in page
        assert "&lt;img src=x" in page


# --- the words of a key


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"requests_per_second": 0.5}, "30 requests a minute"),
        ({"requests_per_second": 1 / 60}, "1 request a minute"),
        ({"requests_per_second": 2.5, "burst_size": 9}, "2.5 requests a second, 9 at once after a rest"),
        ({"tokens_per_minute": 20000}, "20,000 tokens a minute"),
        ({"capacity": 4}, "4 at the same time"),
        ({"spend_limit": "12.5", "spend_limit_interval": "daily"}, "$0.00 of $12.50"),
    ],
)  # fmt: skip
def test_limits_are_told_in_units_that_people_use(client: FlaskClient, cast: Cast, body: dict[str, Any], said: str) -> None:  # fmt: skip
    key = made(client, "alice", **body)
    assert said in forms.get(client, "alice", f"/keys/{key['id']}").text
    assert said in forms.get(client, "alice", f"/keys?q={key['name']}").text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("expires_at = now() - interval '1 minute'", "expired"),
        ("expires_at = now() + interval '3 days'", "expires soon"),
        ("spend_limit = 10", "never used"),
        ("last_used = now()", "active"),
    ],
)
def test_the_state_says_what_to_know_first(client: FlaskClient, cast: Cast, sql: Sql, change: str, said: str) -> None:  # fmt: skip
    key = made(client, "alice")
    sql.execute(f"UPDATE api_keys SET {change} WHERE id = %s", [key["id"]])  # type: ignore[arg-type]
    assert re.search(rf'class="state [a-z]*">{said}<', forms.get(client, "alice", f"/keys/{key['id']}").text)  # fmt: skip


# --- changed, rotated, revoked


def test_a_change_by_the_form_sets_and_clears(client: FlaskClient, cast: Cast) -> None:
    key = made(client, "alice", requests_per_second=0.5, capacity=3, expires_at="2031-01-01T00:00:00Z")  # fmt: skip
    page = f"/keys/{key['id']}/edit"
    shown = forms.get(client, "alice", page).text
    assert 'value="30"' in shown
    assert '<option value="minute" selected>' in shown
    fields = {"name": key["name"], "requests_per_second": "30", "rate_unit": "minute", "capacity": "", "expires_at": ""}  # fmt: skip
    assert forms.submit(client, "alice", page, page, fields).status_code == 303
    now = key_called(client, "alice", key["name"])
    assert (now["requests_per_second"], now["capacity"], now["expires_at"]) == (0.5, None, None)
    wrong = forms.submit(client, "alice", page, page, {**fields, "name": " "})
    assert wrong.status_code == 422
    assert "cannot be empty" in wrong.text


def test_a_rotation_shows_the_new_secret_once_and_until_when_the_old_one_works(client: FlaskClient, cast: Cast) -> None:  # fmt: skip
    key = made(client, "alice", purpose="platform")
    page = f"/keys/{key['id']}"
    fields = {"replaces": key["key_prefix"], "overlap_seconds": "3600"}
    rotated = forms.submit(client, "alice", page, f"{page}/rotate", fields)
    new = SECRET.findall(rotated.text)[0]
    assert new != key["key"]
    assert works(client, new)
    assert works(client, key["key"])
    shown = forms.get(client, "alice", page).text
    assert "works until" in shown
    assert new not in shown
    # The page that was sent once more rotates nothing.
    again = forms.submit(client, "alice", page, f"{page}/rotate", fields)
    assert again.status_code == 422
    assert not SECRET.search(again.text)
    assert works(client, new)
    assert forms.submit(client, "alice", page, f"{page}/end-old-secrets", {}).status_code == 303
    assert works(client, new)
    assert not works(client, key["key"])
    assert "works until" not in forms.get(client, "alice", page).text


def test_a_key_is_revoked_where_its_name_was_typed(client: FlaskClient, cast: Cast) -> None:
    key = made(client, "alice", purpose="platform")
    page = f"/keys/{key['id']}"
    for typed in ({}, {"confirm": ""}, {"confirm": key["name"].upper()}):
        answer = forms.submit(client, "alice", page, f"{page}/revoke", typed)
        assert answer.status_code == 422
        assert "Nothing was changed" in answer.text
    assert works(client, key["key"])
    assert forms.submit(client, "alice", page, f"{page}/revoke", {"confirm": key["name"]}).status_code == 303  # fmt: skip
    assert not works(client, key["key"])
    assert forms.get(client, "alice", page).status_code == 404


def works(client: FlaskClient, secret: str) -> bool:
    shown = {"Authorization": f"Bearer {secret}"}
    return client.get("/admin/api/v1/users/current", headers=shown).status_code == 200


# --- shown nowhere any more


def test_where_a_page_names_a_key_of_dwctls_own_its_link_says_what_that_is(
    client: FlaskClient, cast: Cast, sql: Sql
) -> None:
    """Lines of batches are counted under it, so it stands in lists; it is shown nowhere, as a revoked one is."""
    key = uuid4()
    sql.execute(
        "INSERT INTO api_keys (id, name, user_id, created_by, purpose, hidden) VALUES (%s, %s, %s, %s, 'playground', true)",
        (key, f"Internal playground Key ({uuid4().hex[:8]})", cast["alice"], cast["alice"]),
    )
    made = Made(uuid4(), cast["alice"], track=False, created_at=time.time() - 60, model="m")
    writing.record(sql, [final(made, tokens=1, cost=Decimal("0.5"), api_key_id=key)])
    for path in ("/", "/usage?by=key", "/requests"):
        listed = client.get(path, headers=Cast.headers("alice")).text
        assert re.search(rf'/keys/{key}[^"]*">Playground</a>', listed), path
        assert "Internal playground" not in listed, path
    page = client.get(f"/keys/{key}", headers=Cast.headers("alice"))
    assert page.status_code == 404
    for link in ("/requests?", "/usage?"):
        (href,) = re.findall(rf'href="({re.escape(link)}[^"]*{key}[^"]*)"', page.text)
        assert client.get(href.replace("&amp;", "&"), headers=Cast.headers("alice")).status_code == 200  # fmt: skip
