"""The routes of the audit log: who sees what, filters, pages, exports."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from dwctl.audit import reading
from dwctl.audit.exporting import PAGE
from dwctl.audit.reading import Filters, Scope
from dwctl.web.pagination import page
from tests.cast import Cast
from tests.identity.doors import ADMIN, Doors, insert_organization, insert_user, unique
from tests.plans import plan_of

LOG = "/audit-log"
FIELDS = {
    "id", "at", "action", "actor_id", "actor_name", "through", "api_key_id", "address", "request_id", "method", "route",
    "resource_type", "resource_id", "resource_name", "related_id", "related_name", "organization_id", "before", "after",
}  # fmt: skip


@pytest.fixture
def group(call: Doors) -> TestResponse:
    answer = call("admin", "POST", "/groups", {"name": unique("group")})
    assert answer.status_code == 201
    return answer


def ask(call: Doors, who: str = "admin", **query: Any) -> dict[str, Any]:
    answer = call(who, "GET", LOG, query_string=query)
    assert answer.status_code == 200, answer.text
    return dict(answer.json)


def fill(sql: psycopg.Connection[Any], how_many: int, kind: str, name: str = "n") -> None:
    sql.execute(
        "INSERT INTO audit_log (action, through, resource_type, resource_id, resource_name)"
        " SELECT %s || '.updated', 'command', %s, n::text, %s FROM generate_series(1, %s) n",
        (kind, kind, name, how_many),
    )


def test_the_newest_comes_first_and_can_be_asked_for_alone(
    call: Doors, group: TestResponse
) -> None:
    page = ask(call, limit=1)
    (entry,) = page["data"]
    assert set(entry) == FIELDS
    assert entry["resource_id"] == group.json["id"]
    assert page["total_count"] > 1
    assert call("admin", "GET", f"{LOG}/{entry['id']}").json == entry


@pytest.mark.parametrize("id", ["0", "999999999999", "9" * 40])
def test_an_entry_that_never_was_is_404(call: Doors, id: str) -> None:
    assert call("admin", "GET", f"{LOG}/{id}").status_code == 404


class TestFilters:
    def test_each_narrows(
        self, call: Doors, cast: Cast, group: TestResponse, sql: psycopg.Connection[Any]
    ) -> None:
        id, name = group.json["id"], group.json["name"]
        person = str(insert_user(sql))
        added = call("admin", "POST", f"/groups/{id}/users/{person}")
        request = added.headers["x-request-id"]
        whole = ask(call, resource_id=id)["data"]
        assert [entry["action"] for entry in whole] == ["group.member_added", "group.created"]
        newest, oldest = whole
        for query, expected in (
            ({"resource_id": person}, [newest]),
            ({"request_id": request}, [newest]),
            ({"resource_id": id, "action": "group.cre"}, [oldest]),
            ({"resource_id": id, "action": "group.created"}, [oldest]),
            ({"resource_id": id, "action": "group_created"}, []),
            ({"resource_id": id, "action": "%"}, []),
            ({"resource_id": id, "resource_type": "group"}, whole),
            ({"resource_id": id, "resource_type": "user"}, []),
            ({"search": name.upper()}, whole),
            ({"search": name, "action": "group.member"}, [newest]),
            ({"search": "no_such_name"}, []),
            ({"actor_id": str(cast["admin"]), "resource_id": id}, whole),
            ({"actor_id": str(cast["bob"]), "resource_id": id}, []),
            ({"since": newest["at"], "resource_id": id}, [newest]),
            ({"until": newest["at"], "resource_id": id}, [oldest]),
            ({"organization_id": person, "resource_id": id}, []),
        ):
            assert ask(call, **query)["data"] == expected, query

    @pytest.mark.parametrize(
        "query", [{"actor_id": "x"}, {"since": "yesterday"}, {"resource_id": "a\nb"}, {"limit": "many"}],
    )  # fmt: skip
    def test_what_makes_no_sense_is_400(self, call: Doors, query: dict[str, str]) -> None:
        assert call("admin", "GET", LOG, query_string=query).status_code == 400


class TestWhoReads:
    @pytest.mark.parametrize("path", [LOG, f"{LOG}/export", f"{LOG}/1"])
    @pytest.mark.parametrize(
        ("who", "status"),
        [(None, 401), ("alice", 403), ("viewer", 403), ("biller", 403), ("admin", 200)],
    )
    def test_managers_of_the_platform_alone(
        self, call: Doors, path: str, who: str | None, status: int
    ) -> None:
        assert call(who, "GET", path).status_code == status

    @pytest.mark.parametrize(("role", "status"), [("owner", 200), ("admin", 200), ("member", 403)])
    def test_those_who_run_an_organisation_read_what_belongs_to_it(
        self, call: Doors, cast: Cast, sql: psycopg.Connection[Any], role: str, status: int
    ) -> None:
        name, person = unique(), unique()
        reader = insert_user(sql, username=person, email=f"{person}@cast.example", external_user_id=f"{person}@cast.example")  # fmt: skip
        theirs = insert_organization(sql, owner=cast["bob"], **({role: reader} if role != "owner" else {}))  # fmt: skip
        if role == "owner":
            sql.execute("INSERT INTO user_organizations (user_id, organization_id, role) VALUES (%s, %s, 'owner')", (reader, theirs))  # fmt: skip
        others = insert_organization(sql, owner=cast["bob"])
        assert call("bob", "POST", f"/users/{theirs}/api-keys", {"name": name}).status_code == 201
        assert call("bob", "POST", f"/users/{others}/api-keys", {"name": name}).status_code == 201
        body = {"user_id": str(theirs), "transaction_type": "admin_grant", "amount": "2", "source_id": unique()}  # fmt: skip
        assert call("admin", "POST", "/transactions", body).status_code == 201
        answer = call(person, "GET", LOG)
        assert answer.status_code == status
        if status != 200:
            return
        granted, made = answer.json["data"]
        assert (granted["action"], made["action"]) == ("credit.granted", "api_key.created")
        assert {entry["organization_id"] for entry in (granted, made)} == {str(theirs)}
        # Where its members act from, but not where the platform's own people sit.
        assert (granted["address"], made["address"]) == (None, "127.0.0.1")
        assert ask(call, person, organization_id=theirs)["total_count"] == 2
        assert call(person, "GET", LOG, query_string={"organization_id": others}).status_code == 403
        foreign = ask(call, resource_type="api_key", organization_id=others)["data"][0]
        assert call(person, "GET", f"{LOG}/{foreign['id']}").status_code == 404
        assert call(person, "GET", f"{LOG}/{made['id']}").json["action"] == "api_key.created"
        lines = call(person, "GET", f"{LOG}/export").text.splitlines()
        assert [json.loads(line) for line in lines] == [granted, made]


class TestExport:
    def test_lines_are_what_the_list_shows(self, call: Doors, group: TestResponse) -> None:
        answer = call("admin", "GET", f"{LOG}/export", query_string={"resource_id": group.json["id"]})  # fmt: skip
        assert answer.content_type == "application/x-ndjson"
        assert 'filename="audit-log.jsonl"' in answer.headers["Content-Disposition"]
        listed = ask(call, resource_id=group.json["id"])["data"]
        assert [json.loads(line) for line in answer.text.splitlines()] == listed

    @pytest.mark.parametrize("format", ["jsonl", "csv"])
    @pytest.mark.parametrize("how_many", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
    def test_all_of_them_are_there_once(
        self, call: Doors, sql: psycopg.Connection[Any], format: str, how_many: int
    ) -> None:
        kind = unique("kind")
        fill(sql, how_many, kind)
        answer = call("admin", "GET", f"{LOG}/export", query_string={"resource_type": kind, "format": format})  # fmt: skip
        assert answer.status_code == 200
        rows = (
            list(csv.DictReader(io.StringIO(answer.text)))
            if format == "csv"
            else [json.loads(line) for line in answer.text.splitlines()]
        )
        wanted = [str(n) for n in range(how_many, 0, -1)]
        assert [row["resource_id"] for row in rows] == wanted

    @pytest.mark.parametrize(
        "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "=cmd|' /C calc'!A0"]
    )
    def test_a_hostile_name_is_text_in_a_spreadsheet(
        self, call: Doors, sql: psycopg.Connection[Any], name: str
    ) -> None:
        kind = unique("kind")
        fill(sql, 1, kind, name)
        answer = call("admin", "GET", f"{LOG}/export", query_string={"resource_type": kind, "format": "csv"})  # fmt: skip
        (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert row["resource_name"] == f"'{name}"

    def test_quotes_commas_and_lines_stay_in_their_cell(
        self, call: Doors, sql: psycopg.Connection[Any]
    ) -> None:
        kind, name = unique("kind"), 'a,"b"\n€;c'
        fill(sql, 1, kind, name)
        answer = call("admin", "GET", f"{LOG}/export", query_string={"resource_type": kind, "format": "csv"})  # fmt: skip
        (row,) = csv.DictReader(io.StringIO(answer.text, newline=""))
        assert row["resource_name"] == name

    def test_another_format_is_refused(self, call: Doors) -> None:
        answer = call("admin", "GET", f"{LOG}/export", query_string={"format": "xml"})
        assert answer.status_code == 400

    def test_no_connection_is_held_between_pages(
        self, app: Flask, sql: psycopg.Connection[Any], cast: Cast
    ) -> None:
        kind = unique("kind")
        fill(sql, 2 * PAGE + 1, kind)
        client = app.test_client()
        path = f"{ADMIN}{LOG}/export?resource_type={kind}"
        answer = client.get(path, headers=Cast.headers("admin"), buffered=False)
        pages = answer.iter_encoded()
        with app.app_context():
            pool: Any = exporting_pool(app)
            for page in pages:
                assert page.count(b"\n") in (PAGE, 1)
                assert pool.checkedout() == 0
        answer.close()


def test_both_sides_have_names(call: Doors, group: TestResponse, cast: Cast) -> None:
    assert call("admin", "POST", f"/groups/{group.json['id']}/users/{cast['alice']}").status_code in (200, 204)  # fmt: skip
    (entry,) = ask(call, action="group.member_added", resource_id=group.json["id"])["data"]
    assert (entry["related_id"], entry["related_name"]) == (str(cast["alice"]), "alice")
    assert entry["resource_name"] == group.json["name"]


def test_numbers_of_any_size_are_exported(call: Doors) -> None:
    made = call("admin", "POST", "/models", {"type": "composite", "model_name": unique("model"), "metadata": {"extra": {"n": 1e29}}})  # fmt: skip
    asked = {"resource_id": made.json["id"]}
    for format in ("jsonl", "csv"):
        answer = call("admin", "GET", f"{LOG}/export", query_string=asked | {"format": format})
        assert answer.status_code == 200
        assert "1" + 29 * "0" in answer.text


def exporting_pool(app: Flask) -> Any:
    return app.extensions["sqlalchemy"].engine.pool


@pytest.mark.parametrize("query", [{"action": "rare.up"}, {"resource_type": "rare"}], ids=str)
def test_what_is_rare_is_found_along_an_index(app: Flask, sql: psycopg.Connection[Any], query: dict[str, str]) -> None:  # fmt: skip
    fill(sql, 5000, "frequent")
    fill(sql, 3, "rare")
    sql.execute("ANALYZE audit_log")
    wanted = reading.newest_first(Scope(), Filters(**query))
    plan = plan_of(app, lambda session: page(session, wanted, skip=0, limit=10), "SELECT audit_log")
    assert "audit_log_action_idx" in plan
