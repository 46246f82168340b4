import re
import uuid
from typing import Any

import psycopg
import pytest
import requests
from flask import Flask
from flask.testing import FlaskClient
from requests_mock import Mocker

from dwctl.catalog.tables import TIMEOUTS
from dwctl.db import db
from dwctl.web import current
from tests.cast import Cast
from tests.catalog.conftest import ADMIN, Admin, unique

URL = "http://models.example/v1"


def serve(requests_mock: Mocker, *names: str) -> None:
    """What the upstream lists from now on."""
    data = [{"id": name, "object": "model", "created": 1, "owned_by": "me"} for name in names]
    requests_mock.get(f"{URL}/models", json={"object": "list", "data": data})


def models_of(sql: psycopg.Connection, endpoint: str) -> dict[str, tuple[str, str, str | None]]:
    """{model name: (alias, state, type)}."""
    rows = sql.execute(
        "SELECT model_name, alias, CASE WHEN deleted THEN 'deleted' ELSE status END, type FROM deployed_models WHERE hosted_on = %s",
        (endpoint,),
    )
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


def count(sql: psycopg.Connection, name: str) -> int:
    row = sql.execute(
        "SELECT count(*) FROM inference_endpoints WHERE name = %s", (name,)
    ).fetchone()
    assert row
    return int(row[0])


def test_an_endpoint_without_sync_is_neither_resolved_nor_called(
    admin: Admin, cast: Cast, requests_mock: Mocker
) -> None:
    body = {"name": unique("e"), "url": "http://no-such-host.invalid", "auto_sync_models": False}
    answer = admin.post("/endpoints", body)
    assert answer.status_code == 201
    made = answer.json
    assert made == {
        "id": made["id"],
        "name": body["name"],
        "description": None,
        "url": "http://no-such-host.invalid/",
        "model_filter": None,
        "requires_api_key": False,
        "auth_header_name": "Authorization",
        "auth_header_prefix": "Bearer ",
        "created_by": str(cast["admin"]),
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
        **dict.fromkeys(TIMEOUTS),
    }
    assert requests_mock.call_count == 0


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ({}, True),
        ({"sync": None, "auto_sync_models": None}, True),
        ({"sync": False}, False),
        ({"auto_sync_models": False}, False),
        ({"sync": True, "auto_sync_models": False}, True),
        ({"sync": False, "auto_sync_models": True}, False),
    ],
)
def test_sync_is_the_default_and_wins_over_its_other_name(
    admin: Admin, requests_mock: Mocker, flags: dict[str, Any], asked: bool
) -> None:
    serve(requests_mock)
    answer = admin.post("/endpoints", {"name": unique("e"), "url": URL} | flags)
    assert answer.status_code == 201
    assert bool(requests_mock.call_count) is asked


def test_the_api_key_is_sealed_and_never_shown(
    admin: Admin, app: Flask, sql: psycopg.Connection
) -> None:
    id = admin.endpoint(api_key="upstream-secret")
    shown = admin.get(f"/endpoints/{id}")
    assert shown.json["requires_api_key"] is True
    assert "upstream-secret" not in shown.text
    row = sql.execute(
        "SELECT api_key_sealed FROM inference_endpoints WHERE id = %s", (id,)
    ).fetchone()
    assert row
    assert "upstream-secret" not in row[0]
    assert current.parts(app).sealer.open(row[0]) == "upstream-secret"


def test_the_models_of_the_list_come_with_the_endpoint(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    chat, embed, other = unique("chat"), unique("embed"), unique("other")
    serve(requests_mock, chat, embed, other)
    alias = unique("alias")
    answer = admin.post(
        "/endpoints",
        {
            "name": unique("e"),
            "url": URL,
            "api_key": "k",
            "model_filter": [chat, embed],
            "alias_mapping": {chat: f" {alias} ", "unlisted": "x"},
        },
    )
    assert answer.status_code == 201
    assert models_of(sql, answer.json["id"]) == {
        chat: (alias, "active", "CHAT"),
        embed: (embed, "active", "EMBEDDINGS"),
    }
    owners = sql.execute(
        "SELECT DISTINCT created_by FROM deployed_models WHERE hosted_on = %s",
        (answer.json["id"],),
    ).fetchall()
    assert owners == [(uuid.UUID(int=0),)]
    assert requests_mock.last_request is not None
    assert requests_mock.last_request.headers["Authorization"] == "Bearer k"


def test_a_list_by_hand_needs_no_call(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    name = unique("by-hand")
    body = {"name": unique("e"), "url": URL, "skip_fetch": True, "model_filter": [name]}
    answer = admin.post("/endpoints", body)
    assert models_of(sql, answer.json["id"]) == {name: (name, "active", "CHAT")}
    assert requests_mock.call_count == 0


def test_a_taken_alias_or_one_wanted_twice_leaves_nothing(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    taken = admin.model()["alias"]
    serve(requests_mock, "one", "two", "three")
    body = {
        "name": unique("e"),
        "url": URL,
        "alias_mapping": {"one": taken, "two": "same", "three": "same"},
    }
    answer = admin.post("/endpoints", body)
    assert answer.status_code == 409
    assert answer.json["message"] == "Alias conflicts detected during endpoint creation"
    assert answer.json["conflicts"] == [
        {"model_name": "one", "attempted_alias": taken},
        {"model_name": "three", "attempted_alias": "same"},
    ]
    assert count(sql, body["name"]) == 0
    assert admin.get("/models", search="same").json["total_count"] == 0


def test_a_list_that_cannot_be_read_is_502_with_the_reason_and_leaves_nothing(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    requests_mock.get(f"{URL}/models", status_code=401, text="who are you")
    body = {"name": unique("e"), "url": URL}
    answer = admin.post("/endpoints", body)
    assert answer.status_code == 502
    assert answer.json["message"].endswith("answered 401")
    assert answer.json["code"] == "endpoint_unreachable"
    assert count(sql, body["name"]) == 0


def test_no_connection_is_held_while_the_upstream_answers(
    admin: Admin, app: Flask, requests_mock: Mocker
) -> None:
    held: list[int] = []

    def answer(_request: Any, _context: Any) -> Any:
        with app.app_context():
            held.append(db.engine.pool.checkedout())  # type: ignore[attr-defined]
        return {"data": []}

    requests_mock.get(f"{URL}/models", json=answer)
    id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
    admin.patch(f"/endpoints/{id}", {"description": "d"})
    admin.post(f"/endpoints/{id}/synchronize")
    admin.post("/endpoints/validate", {"type": "existing", "endpoint_id": id})
    assert held == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({}, 422, id="nothing"),
        pytest.param({"name": "x"}, 422, id="no URL"),
        pytest.param({"name": " ", "url": URL}, 422, id="blank name"),
        pytest.param({"name": "x", "url": "nonsense", "sync": False}, 400, id="bad URL"),
        pytest.param({"name": "x", "url": URL, "model_filter": "a"}, 422, id="filter no list"),
        pytest.param({"name": "x", "url": URL, "auth_header_name": "a b"}, 422, id="header"),
        pytest.param({"name": "x", "url": URL, "api_key": "a\r\nb"}, 422, id="key of two lines"),
        pytest.param({"name": "x", "url": URL, "alias_mapping": {"m": " "}}, 422, id="blank alias"),
    ],
)
def test_a_bad_endpoint_is_refused(admin: Admin, body: dict[str, Any], status: int) -> None:
    answer = admin.post("/endpoints", body)
    assert answer.status_code == status, answer.json


def test_a_name_is_used_once(admin: Admin) -> None:
    name = unique("e")
    admin.endpoint(name=name)
    other = admin.endpoint()
    expected = {"message": "An endpoint with this name already exists", "resource": "endpoint"}
    for answer in (
        admin.post("/endpoints", {"name": name, "url": URL, "sync": False}),
        admin.patch(f"/endpoints/{other}", {"name": name}),
    ):
        assert answer.status_code == 409
        assert expected.items() <= answer.json.items()


def test_the_list_is_an_array_newest_first_with_its_total_in_a_header(admin: Admin) -> None:
    ids = [admin.endpoint() for _ in range(3)]
    answer = admin.get("/endpoints", limit=2)
    assert [row["id"] for row in answer.json] == [ids[2], ids[1]]
    assert int(answer.headers["X-Total-Count"]) >= 3
    assert admin.get("/endpoints", limit=1, skip=2).json[0]["id"] == ids[0]


def test_endpoints_are_found_by_name_url_and_description(admin: Admin) -> None:
    word = f"{unique('sought')}_%"
    by_name = admin.endpoint(name=f"x {word.upper()} y")
    by_url = admin.endpoint(url=f"http://x.example/{word}")
    by_text = admin.endpoint(description=word)
    admin.endpoint(name=word.replace("_", "-"))
    answer = admin.get("/endpoints", search=f" {word} ")
    assert [row["id"] for row in answer.json] == [by_text, by_url, by_name]
    assert answer.headers["X-Total-Count"] == "3"
    assert len(admin.get("/endpoints", search=" ", limit=100).json) > 3


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("POST", "", {}),
        ("POST", "/validate", {}),
        ("GET", f"/{uuid.UUID(int=1)}", None),
        ("PATCH", f"/{uuid.UUID(int=1)}", {}),
        ("DELETE", f"/{uuid.UUID(int=1)}", None),
        ("POST", f"/{uuid.UUID(int=1)}/synchronize", None),
    ],
)
def test_endpoints_are_for_platform_managers(
    client: FlaskClient, admin: Admin, method: str, path: str, body: Any
) -> None:
    for who, status in (("alice", 403), ("viewer", 403), (None, 401)):
        answer = client.open(
            f"{ADMIN}/endpoints{path}",
            method=method,
            json=body,
            headers=Cast.headers(who) if who else {},
        )
        assert answer.status_code == status
    answer = client.open(
        f"{ADMIN}/endpoints{path}", method=method, json=body, headers=admin.headers
    )
    assert answer.status_code in (200, 404, 422)
    if answer.status_code == 404:
        assert answer.json["message"] == f"Endpoint with ID {uuid.UUID(int=1)} not found"


def test_deleting_an_endpoint_takes_its_models_with_it(
    admin: Admin, sql: psycopg.Connection
) -> None:
    id = admin.endpoint()
    model = admin.model(hosted_on=id, everyone=True)
    assert admin.delete(f"/endpoints/{id}").status_code == 204
    assert models_of(sql, id) == {}
    assert admin.get(f"/models/{model['id']}", deleted="true").status_code == 404
    assert admin.delete(f"/endpoints/{id}").status_code == 404


# --- validation


def test_validating_lists_the_models(admin: Admin, requests_mock: Mocker) -> None:
    serve(requests_mock, "a")
    for candidate in (
        {"type": "new", "url": URL},
        {"type": "existing", "endpoint_id": admin.endpoint(url=URL)},
    ):
        answer = admin.post("/endpoints/validate", candidate)
        assert answer.status_code == 200
        said = answer.json
        assert said.pop("milliseconds") > 0
        assert said == {
            "status": "success",
            "models": {
                "object": "list",
                "data": [{"id": "a", "object": "model", "created": 1, "owned_by": "me"}],
            },
            "error": None,
        }


def test_validating_says_what_is_wrong_with_the_server(admin: Admin, requests_mock: Mocker) -> None:
    requests_mock.get(f"{URL}/models", exc=requests.ReadTimeout)
    answer = admin.post("/endpoints/validate", {"type": "new", "url": URL})
    assert answer.status_code == 200
    assert answer.json["status"] == "error"
    assert answer.json["models"] is None
    assert "did not answer within 10 s" in answer.json["error"]
    serve(requests_mock)
    empty = admin.post("/endpoints/validate", {"type": "new", "url": URL}).json
    assert (empty["status"], empty["error"]) == ("error", "The endpoint lists no models")


@pytest.mark.parametrize(
    ("candidate", "status"),
    [
        ({"type": "new", "url": "not a url"}, 400),
        ({"type": "new"}, 422),
        ({"type": "existing"}, 422),
        ({"type": "other", "url": URL}, 422),
        ({"type": "existing", "endpoint_id": str(uuid.uuid4())}, 404),
    ],
)
def test_a_bad_candidate_is_refused(admin: Admin, candidate: dict[str, Any], status: int) -> None:
    assert admin.post("/endpoints/validate", candidate).status_code == status


# --- changes


def test_absent_fields_stay_and_null_clears_some(admin: Admin, requests_mock: Mocker) -> None:
    serve(requests_mock)
    requests_mock.get("http://elsewhere.example/models", status_code=404)
    id = admin.endpoint(url=URL, api_key="k", description="d", model_filter=["m"])
    kept = admin.patch(f"/endpoints/{id}", {"auth_header_name": None, "name": None}).json
    assert (kept["requires_api_key"], kept["description"], kept["model_filter"]) == (True, "d", ["m"])  # fmt: skip
    assert kept["auth_header_name"] == "Authorization"
    cleared = admin.patch(
        f"/endpoints/{id}", {"api_key": None, "description": None, "model_filter": None}
    ).json
    assert (cleared["requires_api_key"], cleared["description"], cleared["model_filter"]) == (False, None, None)  # fmt: skip
    moved = admin.patch(f"/endpoints/{id}", {"url": "http://elsewhere.example"})
    assert moved.json["url"] == "http://elsewhere.example/"
    assert admin.patch(f"/endpoints/{id}", {"url": "nonsense"}).status_code == 400


def test_a_change_is_followed_by_a_synchronisation(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    name = unique("m")
    serve(requests_mock, name)
    id = admin.endpoint(url=URL)
    assert admin.patch(f"/endpoints/{id}", {"description": "d"}).status_code == 200
    assert models_of(sql, id) == {name: (name, "active", "CHAT")}


def test_a_change_of_time_outs_leaves_the_models_alone(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    id = admin.endpoint(url=URL)
    name = unique("unlisted")
    admin.post("/models", {"type": "standard", "model_name": name, "hosted_on": id})
    serve(requests_mock)
    answer = admin.patch(f"/endpoints/{id}", {"idle_timeout_seconds": 7})
    assert (answer.status_code, answer.json["idle_timeout_seconds"]) == (200, 7)
    assert models_of(sql, id)[name][1] == "active"
    assert requests_mock.call_count == 0
    admin.patch(f"/endpoints/{id}", {"idle_timeout_seconds": 7, "description": "d"})
    assert models_of(sql, id)[name][1] == "inactive"


def test_a_synchronisation_that_fails_does_not_change_the_answer(
    admin: Admin, requests_mock: Mocker
) -> None:
    requests_mock.get(f"{URL}/models", exc=requests.ConnectionError)
    answer = admin.patch(f"/endpoints/{admin.endpoint(url=URL)}", {"description": "saved"})
    assert (answer.status_code, answer.json["description"]) == (200, "saved")


def test_a_mapping_renames_adds_and_deletes_without_asking(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    kept, gone, new = unique("kept"), unique("gone"), unique("new")
    serve(requests_mock, kept, gone)
    id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
    calls = requests_mock.call_count
    alias, other = unique("alias"), unique("other")
    answer = admin.patch(
        f"/endpoints/{id}",
        {"model_filter": [kept, new], "alias_mapping": {kept: alias, new: other}},
    )
    assert answer.status_code == 200
    assert models_of(sql, id) == {
        kept: (alias, "active", "CHAT"),
        gone: (gone, "deleted", "CHAT"),
        new: (other, "active", None),
    }
    assert requests_mock.call_count == calls


def test_two_models_can_swap_their_aliases(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    a, b = unique("a"), unique("b")
    serve(requests_mock, a, b)
    id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
    assert admin.patch(f"/endpoints/{id}", {"alias_mapping": {a: b, b: a}}).status_code == 200
    assert {name: row[0] for name, row in models_of(sql, id).items()} == {a: b, b: a}


def test_a_mapping_that_conflicts_changes_nothing(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    taken = admin.model()["alias"]
    a, b = unique("a"), unique("b")
    serve(requests_mock, a, b)
    id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
    for mapping, conflicts in (({a: taken}, 1), ({a: "same", b: "same"}, 2), ({a: b}, 1)):
        answer = admin.patch(
            f"/endpoints/{id}", {"description": "unsaved", "alias_mapping": mapping}
        )
        assert answer.status_code == 409
        assert len(answer.json["conflicts"]) == conflicts
    assert {name: row[0] for name, row in models_of(sql, id).items()} == {a: a, b: b}
    assert admin.get(f"/endpoints/{id}").json["description"] is None


# --- synchronisation


def test_a_synchronisation_follows_the_list(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    a, b, c, clash = unique("a"), unique("b-embed"), unique("c"), admin.model()["alias"]
    serve(requests_mock, a, b)
    id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
    sql.execute("UPDATE deployed_models SET type = NULL WHERE model_name = %s", (a,))
    serve(requests_mock, a, c, clash)
    first = admin.post(f"/endpoints/{id}/synchronize").json
    assert first == {
        "endpoint_id": id,
        "changes_made": 2,
        "new_models_created": 1,
        "models_reactivated": 0,
        "models_deactivated": 1,
        "models_deleted": 0,
        "total_models_fetched": 3,
        "filtered_models_count": 3,
        "synced_at": first["synced_at"],
        "conflicts": [{"model_name": clash, "attempted_alias": clash}],
    }
    assert models_of(sql, id) == {
        a: (a, "active", "CHAT"),
        b: (b, "inactive", "EMBEDDINGS"),
        c: (c, "active", "CHAT"),
    }
    serve(requests_mock, a, b, c)
    assert admin.post(f"/endpoints/{id}/synchronize").json["models_reactivated"] == 1
    assert admin.post(f"/endpoints/{id}/synchronize").json["changes_made"] == 0


def test_what_was_deleted_stays_deleted_and_the_filter_deletes(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection
) -> None:
    a, b = unique("a"), unique("b")
    serve(requests_mock, a, b)
    id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
    sql.execute("UPDATE deployed_models SET deleted = true WHERE model_name = %s", (b,))
    assert admin.post(f"/endpoints/{id}/synchronize").json["changes_made"] == 0
    sql.execute("UPDATE inference_endpoints SET model_filter = %s WHERE id = %s", ([b], id))
    done = admin.post(f"/endpoints/{id}/synchronize").json
    assert (done["models_deleted"], done["filtered_models_count"]) == (1, 1)
    assert {row[1] for row in models_of(sql, id).values()} == {"deleted"}


def test_synchronising_with_nobody_is_502_with_the_reason(
    admin: Admin, requests_mock: Mocker
) -> None:
    requests_mock.get(f"{URL}/models", status_code=503)
    answer = admin.post(f"/endpoints/{admin.endpoint(url=URL)}/synchronize")
    assert answer.status_code == 502
    assert "answered 503" in answer.json["message"]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"url": "http://models.example/v2"}, True),
        ({"url": "http://MODELS.example:80/v1"}, True),
        ({"description": "the same"}, True),
        ({"url": "http://models.example:8080/v1"}, False),
        ({"url": "https://models.example/v1"}, False),
        ({"url": "http://models.example.evil.example/v1"}, False),
        ({"url": "http://evil.example/v1", "api_key": None}, False),
        ({"url": "http://evil.example/v1", "api_key": "new"}, True),
    ],
)
def test_a_credential_stays_with_its_origin(
    admin: Admin, requests_mock: Mocker, changes: dict[str, Any], kept: bool
) -> None:
    requests_mock.get(re.compile(".*"), json={"data": []})
    id = admin.endpoint(url="http://models.example/v1", api_key="old")
    changed = admin.patch(f"/endpoints/{id}", changes)
    assert (changed.status_code, changed.json["requires_api_key"]) == (200, kept)
    admin.post("/endpoints/validate", {"type": "existing", "endpoint_id": id})
    wanted = f"Bearer {changes.get('api_key', 'old')}" if kept else None
    assert requests_mock.call_count
    for asked in requests_mock.request_history:
        assert asked.headers.get("Authorization") == wanted


# --- time-outs


def test_an_endpoint_has_time_outs_of_its_own(admin: Admin) -> None:
    own = dict(zip(TIMEOUTS, (0.5, 30, 86400, 900.25), strict=True))
    id = admin.endpoint(**own)
    assert admin.get(f"/endpoints/{id}").json.items() >= own.items()
    changed = admin.patch(f"/endpoints/{id}", {"idle_timeout_seconds": 7, "alias_mapping": {}})
    own["idle_timeout_seconds"] = 7
    assert (changed.status_code, changed.json.items() >= own.items()) == (200, True)
    cleared = admin.patch(f"/endpoints/{id}", {**dict.fromkeys(TIMEOUTS), "alias_mapping": {}})
    assert cleared.json.items() >= dict.fromkeys(TIMEOUTS).items()
    shown = {one["id"]: one for one in admin.get("/endpoints", limit=100).json}
    assert shown[id] == cleared.json


@pytest.mark.parametrize("name", TIMEOUTS)
def test_a_time_out_is_a_positive_number_of_seconds_up_to_a_day(admin: Admin, name: str) -> None:
    id = admin.endpoint()
    for value in (0, -1, 86400.5, 1e300, "soon", True, [1]):
        for refused in (
            admin.patch(f"/endpoints/{id}", {name: value, "alias_mapping": {}}),
            admin.post("/endpoints", {"name": unique("e"), "url": "http://127.0.0.1:9", "sync": False, name: value}),
        ):  # fmt: skip
            assert (refused.status_code, name in refused.json["message"]) == (422, True), value
