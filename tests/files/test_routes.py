"""`/ai/v1/files`: what is shown of files, to whom, and in which order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import event

from dwctl.db import db
from tests.applications import application
from tests.files.shelf import Shelf, unique

NOBODY = "11111111-1111-4111-8111-111111111111"
SOON = datetime.now(UTC) + timedelta(days=1)


def test_a_file_is_shown_with_who_made_it_and_for_whom(shelf: Shelf) -> None:
    alice = shelf.cast["alice"]
    key = shelf.hidden_key(alice, alice)
    id = shelf.file(alice, size_bytes=472, expires_at=SOON, api_key_id=key)
    answer = shelf("alice", "GET", f"/{id}")
    assert answer.status_code == 200
    shown = answer.json
    assert shown is not None
    assert isinstance(shown.pop("created_at"), int)
    assert shown == {
        "id": id,
        "object": "file",
        "bytes": 472,
        "filename": "input.jsonl",
        "purpose": "batch",
        "status": "processed",
        "expires_at": int(SOON.timestamp()),
        "created_by_email": "alice@cast.example",
        "owner_email": "alice@cast.example",
        "context_name": "Personal",
        "context_type": "personal",
    }
    for spelt in (f"file-{id}", f"file_{id}", id.upper()):
        assert shelf("alice", "GET", f"/{spelt}").json["id"] == id  # type: ignore[index]
    assert shelf("alice", "GET").json["data"][0]["id"] == id  # type: ignore[index]


def test_an_organisations_file_shows_its_name_and_its_member(shelf: Shelf) -> None:
    org = shelf.organization("alice", "bob")
    key = shelf.hidden_key(org, shelf.cast["bob"])
    id = shelf.file(org, api_key_id=key)
    shown = shelf(f"alice@{org}", "GET", f"/{id}").json
    assert shown is not None
    assert shown["created_by_email"] == "bob@cast.example"
    assert shown["context_type"] == "organization"
    assert "owner_email" not in shown
    assert shown["context_name"].startswith("org-")
    shelf.sql.execute("UPDATE users SET display_name = 'Acme' WHERE id = %s", (org,))
    assert shelf(f"alice@{org}", "GET", f"/{id}").json["context_name"] == "Acme"  # type: ignore[index]


def test_output_and_error_files_have_the_size_that_their_batch_says(shelf: Shelf) -> None:
    alice = shelf.cast["alice"]
    key = shelf.hidden_key(alice, alice)
    output = shelf.file(alice, purpose="batch_output", name="o.jsonl", api_key_id=key)
    error = shelf.file(alice, purpose="batch_error", name="e.jsonl", api_key_id=key)
    shelf.batch(
        None,
        alice,
        output_file_id=output,
        error_file_id=error,
        output_bytes=892,
        error_bytes=2**40,
    )
    shown = shelf("alice", "GET", f"/{output}").json
    assert shown is not None
    assert shown["bytes"] == 892
    assert "expires_at" not in shown
    assert "created_by_email" not in shown
    assert shown["owner_email"] == "alice@cast.example"
    assert shown["context_type"] == "personal"
    sizes = {f["id"]: f["bytes"] for f in shelf("alice", "GET").json["data"]}  # type: ignore[index]
    assert (sizes[output], sizes[error]) == (892, 2**40)


def test_what_is_wrong_with_an_id_is_said_as_clients_expect(shelf: Shelf) -> None:
    hers = shelf.file(shelf.cast["alice"])
    for id in (NOBODY, hers):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/cost-estimate")):
            answer = shelf("bob", method, f"/{id}{path}")
            assert answer.status_code == 404
            assert answer.json["error"]["message"] == f"File with ID {id} not found"  # type: ignore[index]
    for id in ("nonsense", "file-", f"{NOBODY}0", "0" * 31):
        answer = shelf("bob", "GET", f"/{id}")
        assert answer.status_code == 400, id
        assert answer.json["error"]["message"] == "Invalid file ID format"  # type: ignore[index]


@pytest.fixture
def three(shelf: Shelf) -> tuple[str, list[str]]:
    """A user with three files, oldest first; the first two were made at the same moment."""
    name = unique("owner")
    owner = shelf.user(name, "STANDARDUSER", "BATCHAPIUSER")
    at = datetime.now(UTC) - timedelta(hours=1)
    made = sorted(shelf.file(owner, name=f"{n}_input%.jsonl", created_at=at) for n in (1, 2))
    return name, [*made, shelf.file(owner, name="other.jsonl")]


def test_pages_follow_each_other_in_both_directions(shelf: Shelf, three: Any) -> None:
    who, files = three
    for order, expected in (("asc", files), ("desc", files[::-1])):
        seen, after = [], ""
        while True:
            query = {"limit": 1, "order": order} | ({"after": after} if after else {})
            page = shelf(who, "GET", query_string=query).json
            assert page is not None
            assert page["first_id"] == page["last_id"] == page["data"][0]["id"]
            seen.append(after := page["last_id"])
            if not page["has_more"]:
                break
        assert seen == expected
    assert shelf(who, "GET").json["has_more"] is False  # type: ignore[index]
    last = shelf(who, "GET", query_string={"after": files[0]}).json
    assert last == {"object": "list", "data": [], "has_more": False}


def test_a_cursor_that_has_been_deleted_still_holds(shelf: Shelf, three: Any) -> None:
    who, files = three
    assert shelf(who, "DELETE", f"/{files[2]}").status_code == 200
    assert shelf.ids(who, after=files[2]) == files[1::-1]
    assert shelf.ids(who, after=f"file-{files[1]}") == files[:1]


def test_a_cursor_that_is_none_is_ignored(shelf: Shelf, three: Any) -> None:
    who, files = three
    stranger = shelf.file(shelf.cast["alice"], created_at=datetime(2020, 1, 1, tzinfo=UTC))
    for after in ("nonsense", NOBODY, stranger, ""):
        assert shelf.ids(who, after=after) == files[::-1]


def test_lists_are_narrowed_by_purpose_and_name(shelf: Shelf, three: Any) -> None:
    who, files = three
    for query, expected in (
        ({"search": "INPUT"}, files[1::-1]),
        ({"search": "_input%"}, files[1::-1]),
        ({"search": "i_put"}, []),
        ({"search": "%"}, files[1::-1]),
        ({"search": "\\"}, []),
        ({"search": "  other "}, files[2:]),
        ({"search": ""}, files[::-1]),
        ({"purpose": "batch"}, files[::-1]),
        ({"purpose": "batch_output"}, []),
        ({"purpose": "fine-tune"}, []),
        ({"limit": 0}, files[2:]),
        ({"limit": -5}, files[2:]),
        ({"limit": 10**30}, files[::-1]),
        ({"own": "true"}, files[::-1]),
        ({"unknown": "x"}, files[::-1]),
    ):
        assert shelf.ids(who, **query) == expected, query


@pytest.mark.parametrize(
    "query",
    [{"order": "up"}, {"limit": "x"}, {"own": "maybe"}, {"member_id": "x"}, {"search": "a\x00"},
     {"order": ""}, {"search": "x" * 2001}],
    ids=str,
)  # fmt: skip
def test_a_bad_query_is_400(shelf: Shelf, query: dict[str, str]) -> None:
    answer = shelf("alice", "GET", query_string=query)
    assert answer.status_code == 400
    if "order" in query:
        assert answer.json["error"]["message"] == "Order must be 'asc' or 'desc'"  # type: ignore[index]


def test_a_file_without_a_purpose_counts_as_one_for_batches(shelf: Shelf) -> None:
    who = unique("owner")
    id = shelf.file(shelf.user(who, "STANDARDUSER", "BATCHAPIUSER"), purpose=None)
    assert shelf.ids(who, purpose="batch") == [id]
    assert shelf(who, "GET", f"/{id}").json["purpose"] == "batch"  # type: ignore[index]


def test_containers_of_single_requests_are_nobodys_files(shelf: Shelf) -> None:
    alice = shelf.cast["alice"]
    container = shelf.file(alice, name="single_request", single=True)
    named_so = shelf.file(alice, name="single_request")
    for who in ("alice", "admin"):
        shown = shelf.ids(who, search="single_request")
        assert named_so in shown
        assert container not in shown
        for method in ("GET", "DELETE"):
            assert shelf(who, method, f"/{container}").status_code == 404


# Who may do what. `mine`: made by the caller. `other`: another person's. `ours`: of the caller's organisation, which is active. `theirs`: of the same
# organisation, which is not active. The answers are to GET, cost estimate and DELETE, and whether a list shows it.
NO, GONE, YES = 403, 404, 200
ROLES = {
    "StandardUser": ((), {"mine": (NO, NO, NO, None), "other": (NO, NO, NO, None), "ours": (NO, NO, NO, None), "theirs": (NO, NO, NO, None)}),
    "RequestViewer": (("REQUESTVIEWER",), {"mine": (NO, NO, NO, None), "other": (NO, NO, NO, None), "ours": (NO, NO, NO, None), "theirs": (NO, NO, NO, None)}),
    "BillingManager": (("BILLINGMANAGER",), {"mine": (NO, NO, NO, None), "other": (NO, NO, NO, None), "ours": (NO, NO, NO, None), "theirs": (NO, NO, NO, None)}),
    "BatchAPIUser": (("BATCHAPIUSER",), {"mine": (YES, YES, YES, True), "other": (GONE, GONE, GONE, False), "ours": (YES, YES, YES, True), "theirs": (GONE, GONE, GONE, False)}),
    "ConnectionsUser": (("CONNECTIONSUSER",), {"mine": (YES, YES, NO, True), "other": (GONE, GONE, NO, False), "ours": (YES, YES, NO, True), "theirs": (GONE, GONE, NO, False)}),
    "PlatformManager": (("PLATFORMMANAGER",), {"mine": (YES, YES, YES, True), "other": (YES, YES, YES, True), "ours": (YES, YES, YES, True), "theirs": (YES, YES, YES, True)}),
    "is_admin": ((), {"mine": (YES, YES, YES, True), "other": (YES, YES, YES, True), "ours": (YES, YES, YES, True), "theirs": (YES, YES, YES, True)}),
}  # fmt: skip


@pytest.mark.parametrize("by", ["header", "key"])
@pytest.mark.parametrize("role", ROLES)
def test_who_may_do_what(shelf: Shelf, role: str, by: str) -> None:
    roles, expected = ROLES[role]
    name = unique("caller")
    me = shelf.user(name, "STANDARDUSER", *roles)
    if role == "is_admin":
        shelf.sql.execute("UPDATE users SET is_admin = true WHERE id = %s", (me,))
    org = shelf.organization(name)
    owners: dict[str, UUID] = {"mine": me, "other": shelf.cast["bob"], "ours": org, "theirs": org}
    for whose, answers in expected.items():
        file = shelf.file(owners[whose])
        active = whose == "ours"
        if by == "key":
            who = shelf.key(org if active else me, me, "batch")
        else:
            who = f"{name}@{org}" if active else name
        listed = shelf(who, "GET")
        assert listed.status_code == (NO if answers[3] is None else YES), whose
        if answers[3] is not None:
            assert (file in shelf.ids(who)) is answers[3], whose
        asked = (("GET", ""), ("GET", "/cost-estimate"), ("DELETE", ""))
        found = tuple(shelf(who, method, f"/{file}{path}").status_code for method, path in asked)
        assert found == answers[:3], whose


def test_a_missing_permission_is_said_before_anything_else(shelf: Shelf) -> None:
    shelf.user(who := unique("caller"), "STANDARDUSER")
    for method, path in (("GET", "/nonsense"), ("DELETE", "/nonsense"), ("GET", "?limit=x")):
        assert shelf(who, method, path).status_code == 403
    client = shelf.app.test_client()
    assert client.get("/ai/v1/files").status_code == 401


def test_an_organisation_hides_what_is_personal_and_shows_members(shelf: Shelf) -> None:
    org = shelf.organization("alice", "bob")
    alice, bob = shelf.cast["alice"], shelf.cast["bob"]
    personal = shelf.file(alice)
    hers = shelf.file(org, api_key_id=shelf.hidden_key(org, alice))
    his = shelf.file(org, api_key_id=shelf.hidden_key(org, bob))
    who = f"alice@{org}"
    assert shelf.ids(who) == [his, hers]
    assert shelf.ids(who, own="true") == [hers]
    assert shelf.ids(who, member_id=bob) == [his]
    assert shelf.ids(who, member_id=NOBODY) == []
    # What is one's own stays so in the name of an organisation.
    assert shelf(who, "GET", f"/{personal}").status_code == 200
    refused = shelf("alice", "GET", query_string={"member_id": str(bob)})
    assert refused.status_code == 400
    assert (
        refused.json["error"]["message"]  # type: ignore[index]
        == "member_id filter is only available in organization context or for platform managers"
    )


def test_managers_see_everything_or_only_theirs_or_one_members(shelf: Shelf) -> None:
    admin, bob = shelf.cast["admin"], shelf.cast["bob"]
    mine = shelf.file(admin)
    his = shelf.file(bob, api_key_id=shelf.hidden_key(bob, bob))
    assert {mine, his} <= set(shelf.ids("admin", limit=101))
    own = shelf.ids("admin", own="true", limit=101)
    assert mine in own
    assert his not in own
    assert his in shelf.ids("admin", member_id=bob, limit=101)
    assert mine not in shelf.ids("admin", member_id=bob, limit=101)


def test_the_number_of_statements_does_not_grow_with_the_page(shelf: Shelf) -> None:
    for n in range(30):
        owner = shelf.user(unique("owner"))
        file = shelf.file(owner, api_key_id=shelf.hidden_key(owner, owner))
        output = shelf.file(owner, purpose="batch_output", name=f"{n}.jsonl")
        shelf.batch(file, owner, output_file_id=output)
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        seen.append(statement)

    with shelf.app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        assert len(shelf.ids("admin", limit=60)) == 60
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(seen) <= 12


def test_a_database_that_does_not_answer_is_no_missing_file(
    shelf: Shelf, environ: dict[str, str], database_url: str
) -> None:
    file = shelf.file(shelf.cast["alice"])
    impatient = environ | {"DWCTL_DATABASE__STATEMENT_TIMEOUT": "200ms"}
    with application(impatient) as app, psycopg.connect(database_url) as other:
        waiting = Shelf(app, shelf.cast, shelf.sql)
        other.execute("LOCK TABLE fusillade.files IN ACCESS EXCLUSIVE MODE")
        asked = (("GET", ""), ("GET", f"/{file}"), ("GET", f"/{file}/cost-estimate"), ("DELETE", f"/{file}"))  # fmt: skip
        for method, path in asked:
            answer = waiting("alice", method, path)
            assert answer.status_code == 503, (method, path)
            assert answer.headers["Retry-After"]
            assert set(answer.json["error"]) == {"message", "type", "param", "code"}  # type: ignore[index]
        other.rollback()
        assert waiting("alice", "GET", f"/{file}").status_code == 200


def test_a_file_from_a_connection_says_so(shelf: Shelf) -> None:
    alice = shelf.cast["alice"]
    connection = shelf.one(
        "INSERT INTO connections (owner_id, created_by, name, provider, config_sealed) VALUES (%s, %s, 'Our bucket', 's3', '') RETURNING id",
        alice, alice,
    )  # fmt: skip
    id = shelf.file(alice, source_connection_id=connection)
    for shown in (
        shelf("alice", "GET", f"/{id}").json,
        shelf("alice", "GET", query_string={"limit": 1}).json["data"][0],  # type: ignore[index]
    ):
        assert (shown["source"], shown["source_name"]) == ("sync", "Our bucket")
