import uuid
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask.testing import FlaskClient

from tests.cast import Cast

URL = "/admin/api/v1/transactions"
pytestmark = pytest.mark.usefixtures("cast")


@pytest.fixture
def account(sql: psycopg.Connection) -> dict[str, Any]:
    """A standard user without entries."""
    name = uuid.uuid4().hex
    email = f"{name}@cast.example"
    row = sql.execute(
        "INSERT INTO users (username, email, external_user_id) VALUES (%s, %s, %s) RETURNING id",
        (name, email, email),
    ).fetchone()
    assert row
    sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, 'STANDARDUSER')", row)
    return {"id": row[0], "headers": Cast.headers(name)}


def body(user_id: UUID, amount: Any = "12.50", **more: Any) -> dict[str, Any]:
    return {
        "user_id": str(user_id),
        "transaction_type": "admin_grant",
        "amount": amount,
        "source_id": uuid.uuid4().hex,
    } | more


def grant(
    client: FlaskClient, user_id: UUID, amount: Any = "12.50", by: str = "admin", **more: Any
) -> Any:
    return client.post(URL, json=body(user_id, amount, **more), headers=Cast.headers(by))


def use(
    sql: psycopg.Connection, user_id: UUID, amount: str, batch: UUID | None = None, at: str = "now"
) -> UUID:
    """A usage entry as the recorder writes it."""
    id = uuid.uuid4()
    sql.execute(
        """WITH entry AS (
               INSERT INTO credits_transactions (id, user_id, transaction_type, amount, source_id, description, fusillade_batch_id, created_at)
               VALUES (%s, %s, 'usage', %s, %s, 'API usage: chat', %s, %s::timestamptz) RETURNING *)
           INSERT INTO user_balance_checkpoints AS b (user_id, checkpoint_seq, balance) SELECT user_id, seq, -amount FROM entry
           ON CONFLICT (user_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance""",
        (id, user_id, amount, str(id), batch, at),
    )
    return id


def listed(client: FlaskClient, who: dict[str, str], **query: Any) -> Any:
    answer = client.get(URL, query_string=query, headers=who)
    assert answer.status_code == 200, answer.json
    return answer.json


def test_a_grant_is_answered_with_the_entry(
    client: FlaskClient, cast: Cast, account: dict[str, Any], sql: psycopg.Connection
) -> None:
    answer = grant(client, account["id"], source_id="gift-1", description="Welcome")
    assert answer.status_code == 201
    made = answer.json
    assert made == {
        "id": made["id"],
        "user_id": str(account["id"]),
        "transaction_type": "admin_grant",
        "batch_id": None,
        "amount": "12.500000000000000",
        "source_id": "gift-1",
        "description": "Welcome",
        "created_at": made["created_at"],
    }
    assert made["created_at"].endswith("Z")
    row = sql.execute(
        "SELECT created_by FROM credits_transactions WHERE id = %s", (made["id"],)
    ).fetchone()
    assert row == (cast["admin"],)


@pytest.mark.parametrize(
    ("amount", "stored"),
    [
        pytest.param(1000, "1000.000000000000000", id="integer"),
        pytest.param(2.25, "2.250000000000000", id="float"),
        pytest.param("0.000000000000001", "0.000000000000001", id="smallest"),
        pytest.param("999999999.999999999999999", "999999999.999999999999999", id="largest"),
    ],
)
def test_amounts_come_as_number_or_text_and_are_kept_exactly(
    client: FlaskClient, account: dict[str, Any], amount: Any, stored: str
) -> None:
    assert grant(client, account["id"], amount).json["amount"] == stored


def test_a_json_number_keeps_all_its_digits(client: FlaskClient, account: dict[str, Any]) -> None:
    text = (
        f'{{"user_id": "{account["id"]}", "transaction_type": "admin_grant", '
        '"source_id": "digits", "amount": 123456789.123456789012345}'
    )
    answer = client.post(
        URL, data=text, content_type="application/json", headers=Cast.headers("admin")
    )
    assert answer.json["amount"] == "123456789.123456789012345"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        pytest.param({"amount": 0}, 400, id="zero"),
        pytest.param({"amount": -1}, 400, id="negative"),
        pytest.param({"amount": "0.0000000000000001"}, 400, id="too precise"),
        pytest.param({"amount": 1e40}, 400, id="out of range"),
        pytest.param({"amount": "much"}, 422, id="a word"),
        pytest.param({"amount": "1e40"}, 422, id="no plain decimal"),
        pytest.param({"amount": True}, 422, id="a boolean"),
        pytest.param({"amount": None}, 422, id="null"),
        pytest.param({"transaction_type": "usage"}, 422, id="usage"),
        pytest.param({"transaction_type": "purchase"}, 422, id="purchase"),
        pytest.param({"source_id": "a\x00b"}, 422, id="NUL"),
        pytest.param({"user_id": "nobody"}, 422, id="malformed user"),
        pytest.param({"user_id": str(uuid.uuid4())}, 404, id="unknown user"),
    ],
)
def test_a_bad_grant_is_refused_and_writes_nothing(
    client: FlaskClient, account: dict[str, Any], change: dict[str, Any], status: int
) -> None:
    answer = client.post(URL, json=body(account["id"]) | change, headers=Cast.headers("admin"))
    assert answer.status_code == status, answer.json
    assert listed(client, account["headers"])["total_count"] == 0


def test_the_same_source_again_is_409_and_names_the_first(
    client: FlaskClient, account: dict[str, Any]
) -> None:
    first = grant(client, account["id"], source_id="twice").json
    again = grant(client, account["id"], source_id="twice")
    assert again.status_code == 409
    assert "source_id" in again.json["message"]
    assert again.json["transaction_id"] == first["id"]
    assert again.json["resource"] == "unknown"


@pytest.mark.parametrize(
    ("who", "status"),
    [("alice", 403), ("viewer", 403), ("biller", 201), ("admin", 201)],
)
def test_who_may_grant(client: FlaskClient, account: dict[str, Any], who: str, status: int) -> None:
    answer = grant(client, account["id"], by=who)
    assert answer.status_code == status
    if status == 403:
        assert answer.json["message"] == "Insufficient permissions to Create Credits"


def test_a_missing_permission_wins_over_a_bad_body(client: FlaskClient) -> None:
    assert client.post(URL, json={}, headers=Cast.headers("alice")).status_code == 403
    assert client.post(URL, json={}, headers=Cast.headers("biller")).status_code == 422
    assert client.post(URL, json={}).status_code == 401


def test_an_entry_is_shown_to_its_owner_and_to_those_who_read_all(
    client: FlaskClient, account: dict[str, Any]
) -> None:
    url = f"{URL}/{grant(client, account['id']).json['id']}"
    assert client.get(url, headers=account["headers"]).status_code == 200
    assert client.get(url, headers=Cast.headers("biller")).status_code == 200
    assert client.get(url, headers=Cast.headers("viewer")).status_code == 404
    assert client.get(f"{URL}/{uuid.uuid4()}", headers=Cast.headers("admin")).status_code == 404
    assert client.get(f"{URL}/nonsense").status_code == 400


def test_members_read_the_entries_of_their_organisation(
    client: FlaskClient, cast: Cast, sql: psycopg.Connection
) -> None:
    row = sql.execute(
        "INSERT INTO users (username, email, user_type) VALUES ('acme', 'a@acme.example', 'organization') RETURNING id"
    ).fetchone()
    assert row
    organisation = row[0]
    sql.execute(
        "INSERT INTO user_organizations (user_id, organization_id) VALUES (%s, %s)",
        (cast["alice"], organisation),
    )
    made = grant(client, organisation).json
    alice, bob = Cast.headers("alice"), Cast.headers("bob")
    assert client.get(f"{URL}/{made['id']}", headers=alice).status_code == 200
    assert listed(client, alice, user_id=organisation)["total_count"] == 1
    assert client.get(f"{URL}/{made['id']}", headers=bob).status_code == 404
    in_its_name = alice | {"x-organization-id": str(organisation)}
    assert listed(client, in_its_name)["total_count"] == 0


def test_another_users_entries_need_read_all(
    client: FlaskClient, cast: Cast, account: dict[str, Any]
) -> None:
    grant(client, account["id"])
    refused = client.get(
        URL, query_string={"user_id": account["id"]}, headers=Cast.headers("alice")
    )
    assert refused.status_code == 403
    assert listed(client, Cast.headers("biller"), user_id=account["id"])["total_count"] == 1
    everybody = {"all": "true", "user_id": str(cast["bob"])}
    assert client.get(URL, query_string=everybody, headers=account["headers"]).status_code == 403
    page = listed(client, Cast.headers("biller"), **everybody)
    assert page["data"][0]["user_id"] == str(account["id"])
    assert page["page_start_balance"] == "0"


def test_the_running_balance_can_be_followed_down_the_pages(
    client: FlaskClient, account: dict[str, Any], sql: psycopg.Connection
) -> None:
    for amount, kind in (("10", "admin_grant"), ("2.5", "admin_removal"), ("7", "admin_grant")):
        grant(client, account["id"], amount, transaction_type=kind)
    use(sql, account["id"], "0.000000000000001")
    first = listed(client, account["headers"], limit=2)
    assert first["page_start_balance"] == "14.499999999999999"
    assert (first["total_count"], first["skip"], first["limit"]) == (4, 0, 2)
    running = Decimal(first["page_start_balance"])
    for entry in first["data"]:
        plus = entry["transaction_type"] in ("admin_grant", "purchase")
        running -= Decimal(entry["amount"]) if plus else -Decimal(entry["amount"])
    second = listed(client, account["headers"], limit=2, skip=2)
    assert Decimal(second["page_start_balance"]) == running == Decimal("7.5")
    beyond = listed(client, account["headers"], skip=50)
    assert beyond["data"] == []
    assert beyond["total_count"] == 4
    assert beyond["page_start_balance"] == "0"


def test_dates_are_inclusive_and_the_balance_follows_them(
    client: FlaskClient, account: dict[str, Any]
) -> None:
    made = [grant(client, account["id"], str(amount)).json for amount in (1, 2, 4)]
    middle = made[1]["created_at"]
    page = listed(client, account["headers"], start_date=middle, end_date=middle)
    assert [entry["id"] for entry in page["data"]] == [made[1]["id"]]
    assert Decimal(page["page_start_balance"]) == 3
    bad = client.get(URL, query_string={"start_date": "yesterday"}, headers=account["headers"])
    assert bad.status_code == 400


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"transaction_types": "admin_grant"}, 2),
        ({"transaction_types": "admin_removal,nonsense"}, 1),
        ({"transaction_types": "nonsense"}, 0),
        ({"transaction_types": ""}, 3),
        ({"search": "WELC"}, 1),
        ({"search": "100%"}, 1),
        ({"search": "%"}, 1),
        ({"search": "  "}, 3),
        ({"search": "welcome", "transaction_types": "admin_removal"}, 0),
    ],
)
def test_search_and_types_filter_without_changing_the_balance(
    client: FlaskClient,
    account: dict[str, Any],
    query: dict[str, str],
    found: int,
) -> None:
    grant(client, account["id"], "5", description="Welcome")
    grant(client, account["id"], "5", description="100% off")
    grant(client, account["id"], "1", transaction_type="admin_removal")
    page = listed(client, account["headers"], **query)
    assert (page["total_count"], len(page["data"])) == (found, found)
    assert Decimal(page["page_start_balance"]) == 9


def test_the_usage_of_a_batch_is_folded_into_one_entry(
    client: FlaskClient, cast: Cast, account: dict[str, Any], sql: psycopg.Connection
) -> None:
    batch, file = uuid.uuid4(), uuid.uuid4()
    sql.execute("INSERT INTO fusillade.files (id, name) VALUES (%s, 'november.jsonl')", (file,))
    sql.execute(
        "INSERT INTO fusillade.batches (id, file_id, completion_window, expires_at, metadata) VALUES (%s, %s, '24h', now(), %s)",
        (batch, file, '{"request_source": "frontend"}'),
    )
    grant(client, account["id"], "10")
    for amount in ("1", "2", "3"):
        use(sql, account["id"], amount, batch)
    use(sql, cast["bob"], "100", batch)
    single = use(sql, account["id"], "0.5")
    sql.execute(
        "INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms) VALUES (%s, now(), 'POST', '/', 200, 1)",
        (single,),
    )
    page = listed(client, account["headers"], group_batches="true")
    kinds = [(entry["transaction_type"], entry["batch_id"]) for entry in page["data"]]
    assert kinds == [("usage", None), ("usage", str(batch)), ("admin_grant", None)]
    one, folded, granted = page["data"]
    assert folded["id"] == folded["source_id"] == str(batch)
    assert folded["description"] == "Batch"
    assert Decimal(folded["amount"]) == 6
    assert (folded["request_origin"], folded["batch_sla"]) == ("frontend", "24h")
    assert folded["batch_request_count"] == 3
    assert folded["input_file_name"] == "november.jsonl"
    assert "input_file_name" not in one
    assert (one["request_origin"], one["batch_sla"]) == ("api", "")
    assert "batch_request_count" not in one
    assert "request_origin" not in granted
    assert (page["total_count"], Decimal(page["page_start_balance"])) == (3, Decimal("3.5"))
    rest = listed(client, account["headers"], group_batches="true", skip=2)
    assert Decimal(rest["page_start_balance"]) == 10
    assert (
        listed(client, account["headers"], group_batches="true", search="bat")["total_count"] == 1
    )
    assert listed(client, account["headers"])["total_count"] == 5
    everybody = listed(client, Cast.headers("admin"), group_batches="true", all="true", limit=101)
    assert all(entry["batch_id"] is None for entry in everybody["data"])


def test_a_batch_that_is_gone_is_still_folded(
    client: FlaskClient, account: dict[str, Any], sql: psycopg.Connection
) -> None:
    use(sql, account["id"], "1", uuid.uuid4())
    (entry,) = listed(client, account["headers"], group_batches="true")["data"]
    assert (entry["request_origin"], entry["batch_sla"]) == ("fusillade", "")
    assert "batch_request_count" not in entry


@pytest.mark.parametrize(
    ("query", "skip", "limit"),
    [({"skip": -5, "limit": 0}, 0, 1), ({"limit": 5000}, 0, 101), ({}, 0, 10)],
)
def test_paging_is_moved_into_range(
    client: FlaskClient, query: dict[str, int], skip: int, limit: int
) -> None:
    page = listed(client, Cast.headers("alice"), **query)
    assert (page["skip"], page["limit"]) == (skip, limit)
    bad = client.get(URL, query_string={"limit": "many"}, headers=Cast.headers("alice"))
    assert bad.status_code == 400
