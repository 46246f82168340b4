"""Synchronisation with servers that misbehave, and with others at the same time: all of it happens, or nothing and the reason is told."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask
from requests_mock import Mocker

from dwctl.catalog import discovery
from dwctl.catalog.discovery import MAX_MODELS
from tests.cast import Cast
from tests.catalog.conftest import Admin, unique
from tests.catalog.test_discovery import serve_once
from tests.catalog.test_endpoints import URL, models_of, serve
from tests.processes import eventually


@pytest.fixture
def synced(admin: Admin, requests_mock: Mocker) -> str:
    """An endpoint with one model, which no list of this module has."""
    serve(requests_mock, unique("there"))
    return str(admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"])


def entries(count: int) -> list[dict[str, str]]:
    return [{"id": f"model-{n}"} for n in range(count)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"text": "<html>"}, "did not answer JSON"),
        ({"text": '{"data": ['}, "did not answer JSON"),
        ({"text": "[" * 100_000}, "did not answer JSON"),
        ({"json": {"data": {"a": 1}}}, "did not answer a list of models"),
        ({"json": {"object": "list"}}, "did not answer a list of models"),
        ({"json": {"data": [{"name": "a"}, 5, None, {"id": 5}, {"id": " "}, {"id": "x" * 513}, {"id": "a\nb"}]}}, "no entry has an id"),
        ({"json": {"data": entries(MAX_MODELS + 1)}}, "lists 5001 models, more than the 5000 that are taken"),
        ({"json": {"data": [{"id": f"model-{n}", "owned_by": "x" * 100} for n in range(50_000)]}}, "more than the 5000"),
        ({"status_code": 302, "headers": {"Location": "http://elsewhere.example/"}}, "answered 302"),
        ({"status_code": 204}, "answered 204"),
    ],
    ids=["html", "cut", "deep", "no list", "no data", "no names", "many", "50,000", "redirect", "nothing"],
)  # fmt: skip
def test_rubbish_changes_nothing_and_the_reason_is_told(
    admin: Admin, synced: str, requests_mock: Mocker, sql: psycopg.Connection[Any], answer: dict[str, Any], reason: str
) -> None:  # fmt: skip
    before, shown = models_of(sql, synced), admin.get(f"/endpoints/{synced}").json
    requests_mock.get(f"{URL}/models", **answer)
    said = admin.post(f"/endpoints/{synced}/synchronize")
    assert (said.status_code, reason in said.json["message"]) == (502, True), said.json
    tried = admin.post("/endpoints/validate", {"type": "existing", "endpoint_id": synced})
    assert (tried.status_code, tried.json["status"], tried.json["models"]) == (200, "error", None)
    assert reason in tried.json["error"]
    refused = admin.post("/endpoints", {"name": unique("e"), "url": URL})
    assert (refused.status_code, reason in refused.json["message"]) == (502, True)
    assert models_of(sql, synced) == before
    assert admin.get(f"/endpoints/{synced}").json == shown


def test_a_gzip_bomb_is_cut_off_before_it_unfolds(admin: Admin) -> None:
    bomb = gzip.compress(b" " * (100 << 20))
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(bomb), bomb)  # fmt: skip
    url = serve_once(lambda connection: connection.sendall(answer))
    tried = admin.post("/endpoints/validate", {"type": "new", "url": url}).json
    assert tried["error"] == "The list of models is larger than 8 MiB"


TRICKLE = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent, socket
from dwctl.catalog.discovery import DiscoveryFailed, Server, list_models

listener = socket.create_server(("127.0.0.1", 0))

def trickle():
    connection = listener.accept()[0]
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\nX-Long: ")
    while True:
        connection.sendall(b"x")
        gevent.sleep(0.05)

gevent.spawn(trickle)
try:
    list_models(Server(f"http://127.0.0.1:{listener.getsockname()[1]}", None), timeout_s=0.4)
except DiscoveryFailed as error:
    print(error.message)
"""


def test_a_head_that_trickles_is_cut_off_by_time() -> None:
    done = subprocess.run([sys.executable, "-c", TRICKLE], capture_output=True, text=True, timeout=60, check=True)  # fmt: skip
    assert done.stdout.strip().endswith("did not answer within 0.4 s")


def test_as_many_as_are_taken_come_go_and_come_back(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection[Any]
) -> None:
    mine = unique("many")
    names = [f"{mine}-{n}" for n in range(MAX_MODELS)]
    serve(requests_mock, *names)
    id = admin.post("/endpoints", {"name": mine, "url": URL}).json["id"]
    assert len(models_of(sql, id)) == MAX_MODELS
    serve(requests_mock)
    gone = admin.post(f"/endpoints/{id}/synchronize").json
    assert (gone["models_deactivated"], gone["changes_made"]) == (MAX_MODELS, MAX_MODELS)
    serve(requests_mock, *names)
    assert admin.post(f"/endpoints/{id}/synchronize").json["models_reactivated"] == MAX_MODELS
    sql.execute("DELETE FROM inference_endpoints WHERE id = %s", (id,))


def test_names_that_are_none_are_left_out_and_repeated_ones_count_once(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection[Any]
) -> None:
    a, spaced, long = unique("a"), f" {unique('b')} ", unique("c").ljust(512, "\u20ac")
    data = [{"id": a}, {"id": a, "owned_by": "x"}, {"id": spaced}, {"id": long}, {"id": "x" * 513},
            {"id": "a\x1b[31m"}, {"id": "a\x00"}, {"id": None}, {"id": ["x"]}, "x", {}]  # fmt: skip
    requests_mock.get(f"{URL}/models", json={"data": data})
    id = admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"]
    found = models_of(sql, id)
    assert {name: row[0] for name, row in found.items()} == {a: a, spaced: spaced.strip(), long: long}  # fmt: skip
    assert admin.post(f"/endpoints/{id}/synchronize").json["total_models_fetched"] == 3


@pytest.mark.parametrize(
    ("meanwhile", "status", "code"),
    [("patch", 409, "endpoint_changed"), ("delete", 404, "not_found")],
)
def test_an_endpoint_that_is_moved_or_deleted_while_its_list_is_read_gets_nothing_of_it(
    admin: Admin, app: Flask, synced: str, requests_mock: Mocker, sql: psycopg.Connection[Any], meanwhile: str, status: int, code: str
) -> None:  # fmt: skip
    before = models_of(sql, synced)
    other = Admin(app.test_client())

    def answer(_request: Any, _context: Any) -> str:
        if meanwhile == "delete":
            other.delete(f"/endpoints/{synced}")
        else:
            other.patch(f"/endpoints/{synced}", {"url": "http://moved.example/", "alias_mapping": {}})  # fmt: skip
        return json.dumps({"data": [{"id": unique("foreign")}]})

    requests_mock.get(f"{URL}/models", text=answer)
    said = admin.post(f"/endpoints/{synced}/synchronize")
    assert (said.status_code, said.json["code"]) == (status, code)
    assert models_of(sql, synced) == (before if meanwhile == "patch" else {})


def at_once(app: Flask, *calls: Callable[[Admin], Any]) -> list[Any]:
    """The answers of these calls, all made at the same time."""
    answers: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def run(place: int, call: Callable[[Admin], Any]) -> None:
        admin = Admin(app.test_client())
        start.wait()
        answers[place] = call(admin)

    threads = [threading.Thread(target=run, args=each) for each in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_synchronisations_of_one_endpoint_at_once_add_each_model_once(
    admin: Admin, app: Flask, synced: str, requests_mock: Mocker, sql: psycopg.Connection[Any]
) -> None:
    names = [unique("n") for _ in range(50)]
    serve(requests_mock, *names)
    answers = at_once(app, *[lambda admin: admin.post(f"/endpoints/{synced}/synchronize")] * 4)
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sorted(answer.json["new_models_created"] for answer in answers) == [0, 0, 0, 50]
    assert len(models_of(sql, synced)) == 51


def test_endpoints_that_list_the_same_models_at_once_share_them_out(
    app: Flask, admin: Admin, requests_mock: Mocker
) -> None:
    names = [unique("n") for _ in range(200)]
    ids = [admin.endpoint(url=f"http://{n}.example/") for n in range(4)]
    for n in range(4):
        order = names if n % 2 else names[::-1]
        requests_mock.get(f"http://{n}.example/models", json={"data": [{"id": name} for name in order]})  # fmt: skip
    answers = at_once(app, *[lambda admin, id=id: admin.post(f"/endpoints/{id}/synchronize") for id in ids])  # fmt: skip
    assert [answer.status_code for answer in answers] == [200] * 4
    assert sum(answer.json["new_models_created"] for answer in answers) == 200
    assert sum(len(answer.json["conflicts"]) for answer in answers) == 600


def test_one_alias_wanted_by_many_at_once_is_had_by_one(app: Flask, admin: Admin) -> None:
    body = {"type": "standard", "model_name": "m", "alias": unique("raced"), "hosted_on": admin.endpoint()}  # fmt: skip
    renamed = [admin.model()["id"] for _ in range(2)]
    answers = at_once(
        app,
        *[lambda admin: admin.post("/models", body)] * 4,
        *[lambda admin, id=id: admin.patch(f"/models/{id}", {"alias": body["alias"]}) for id in renamed],
    )  # fmt: skip
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 409, 409, 409, 409, 409]
    refused = [answer.json for answer in answers if answer.status_code == 409]
    assert {answer["resource"] for answer in refused} == {"deployment"}


def test_a_credential_that_cannot_be_read_is_no_crash_when_it_is_tried(
    admin: Admin, cast: Cast, sql: psycopg.Connection[Any]
) -> None:
    id = admin.endpoint(api_key="k")
    sql.execute("UPDATE inference_endpoints SET api_key_sealed = 'v1:00000000:AAAA' WHERE id = %s", (id,))  # fmt: skip
    tried = admin.post("/endpoints/validate", {"type": "existing", "endpoint_id": id})
    assert (tried.status_code, tried.json["status"]) == (200, "error")
    assert "secret_key" in tried.json["error"]


def test_the_bound_of_bytes_is_said(monkeypatch: pytest.MonkeyPatch, admin: Admin, requests_mock: Mocker) -> None:  # fmt: skip
    monkeypatch.setattr(discovery, "MAX_BYTES", 1 << 20)
    requests_mock.get(f"{URL}/models", text=json.dumps({"data": entries(5000), "x": "y" * (1 << 20)}))  # fmt: skip
    tried = admin.post("/endpoints/validate", {"type": "new", "url": URL}).json
    assert "larger than 1 MiB" in tried["error"]


Call = Callable[[Admin], Any]


def meanwhile(app: Flask, sql: psycopg.Connection[Any], statement: str, call: Call) -> Any:
    """The answer of a call that is made while the statement is executed, but not yet committed."""
    with sql.transaction():
        sql.execute(statement)  # type: ignore[call-overload]
        answers: list[Any] = []
        thread = threading.Thread(target=lambda: answers.append(call(Admin(app.test_client()))))
        thread.start()
        with psycopg.connect(
            sql.info.dsn, password=sql.info.password or None, autocommit=True
        ) as looking:
            eventually(
                lambda: looking.execute(
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                ).fetchone()
            )
    thread.join()
    return answers[0]


def test_what_goes_while_somebody_changes_it_is_404(
    admin: Admin, app: Flask, sql: psycopg.Connection[Any]
) -> None:
    everyone = "00000000-0000-0000-0000-000000000000"
    calls: list[Callable[[str, str], Call]] = [
        lambda _on, model: lambda admin: admin.delete(f"/models/{model}"),
        lambda _on, model: lambda admin: admin.patch(f"/models/{model}", {"description": "x"}),
        lambda _on, model: lambda admin: admin.post(f"/groups/{everyone}/models/{model}"),
        lambda on, _model: lambda admin: admin.delete(f"/endpoints/{on}"),
        lambda on, _model: lambda admin: admin.patch(f"/endpoints/{on}", {"alias_mapping": {}}),
    ]
    for call in calls:
        on = admin.endpoint()
        model = admin.model(hosted_on=on)["id"]
        gone = f"DELETE FROM inference_endpoints WHERE id = '{on}'"
        assert meanwhile(app, sql, gone, call(on, model)).status_code == 404


def compared(admin: Admin, id: str) -> tuple[dict[str, str], int]:
    answer = admin.post(f"/endpoints/{id}/compare")
    assert answer.status_code == 200, answer.json
    assert answer.json["milliseconds"] >= 0
    return {row["model_name"]: row["change"] for row in answer.json["differences"]}, answer.json["unchanged"]  # fmt: skip


def test_what_would_change_is_told_and_nothing_changes(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection[Any]
) -> None:
    stays, goes, comes, taken = (unique(name) for name in ("stays", "goes", "comes", "taken"))
    admin.model(alias=taken)
    serve(requests_mock, stays, goes)
    id = str(admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"])
    assert compared(admin, id) == ({}, 2)
    serve(requests_mock, stays, comes, taken)
    before = models_of(sql, id)
    assert compared(admin, id) == ({comes: "new", goes: "gone", taken: "taken"}, 1)
    assert models_of(sql, id) == before
    admin.post(f"/endpoints/{id}/synchronize")
    serve(requests_mock, goes)
    assert compared(admin, id) == ({goes: "back", stays: "gone", comes: "gone"}, 0)


def test_models_outside_of_the_filter_are_told_apart(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection[Any]
) -> None:
    kept, other = unique("kept"), unique("other")
    serve(requests_mock, kept, other)
    id = str(admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"])
    sql.execute("UPDATE inference_endpoints SET model_filter = %s WHERE id = %s", ([kept], id))
    assert compared(admin, id) == ({other: "outside"}, 1)


def test_only_what_is_chosen_changes(
    admin: Admin, requests_mock: Mocker, sql: psycopg.Connection[Any]
) -> None:
    goes, wanted, unwanted = unique("goes"), unique("wanted"), unique("unwanted")
    serve(requests_mock, goes)
    id = str(admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"])
    serve(requests_mock, wanted, unwanted)
    done = admin.post(f"/endpoints/{id}/synchronize", {"models": [wanted]}).json
    assert (done["new_models_created"], done["models_deactivated"]) == (1, 0)
    assert compared(admin, id) == ({goes: "gone", unwanted: "new"}, 1)
    assert admin.post(f"/endpoints/{id}/synchronize", {"models": []}).json["changes_made"] == 0


def test_endpoints_say_what_is_on_them(admin: Admin, requests_mock: Mocker) -> None:
    serve(requests_mock, unique("a"), unique("b"))
    id = str(admin.post("/endpoints", {"name": unique("e"), "url": URL}).json["id"])
    none = admin.get(f"/endpoints/{id}").json
    assert "models" not in none
    serve(requests_mock)
    admin.post(f"/endpoints/{id}/synchronize")
    shown = admin.get(f"/endpoints/{id}", include="models").json["models"]
    assert shown.pop("last_sync") is not None
    assert shown == {
        "active": 0,
        "inactive": 2,
        "last_hour_requests": 0,
        "last_hour_errors": 0,
        "last_hour_refused": 0,
    }
    listed = admin.get("/endpoints", include="models", limit=100).json
    assert next(one for one in listed if one["id"] == id)["models"]["inactive"] == 2
