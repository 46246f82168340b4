import hashlib
import re
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from dwctl.db import db
from dwctl.identity import api_keys
from tests.announced import announced
from tests.cast import Cast
from tests.identity.doors import (
    NIL,
    NOBODY,
    Doors,
    insert_key,
    insert_organization,
    insert_user,
    unique,
)

MINE = "/users/current/api-keys"
FIELDS = {
    "id", "name", "description", "key_prefix", "purpose", "user_id", "created_by", "created_at", "last_used", "model_access",
    "requests_per_second", "burst_size", "capacity", "tokens_per_minute", "expires_at", "retired_secrets",
    "spend_limit", "spend_limit_interval", "spend", "spend_resets_at",
    "zero_data_retention", "log_sample",
}  # fmt: skip


LIMITS = {
    "requests_per_second": 0.01,
    "burst_size": 5,
    "capacity": 2,
    "tokens_per_minute": 2**40,
}


def body(**more: Any) -> dict[str, Any]:
    return {"name": unique("key"), **more}


class TestCreate:
    def test_the_secret_is_shown_once_and_stored_as_its_hash(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        answer = call("alice", "POST", MINE, body(description="for tests"))
        assert answer.status_code == 201
        made = answer.json
        assert set(made) == FIELDS | {"key"}
        assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", made["key"])
        assert made["key"].startswith(made["key_prefix"])
        assert len(made["key_prefix"]) == 10
        assert made["user_id"] == made["created_by"] == str(cast["alice"])
        assert (made["purpose"], made["last_used"], made["description"]) == ("realtime", None, "for tests")  # fmt: skip
        row = sql.execute(
            "SELECT secret_hash FROM api_keys WHERE id = %s", (made["id"],)
        ).fetchone()
        assert row == (hashlib.sha256(made["key"].encode()).digest(),)
        again = call("alice", "GET", f"{MINE}/{made['id']}").json
        assert again == {name: value for name, value in made.items() if name != "key"}
        assert made["key"] not in call("alice", "GET", MINE).text

    def test_limits_are_kept(self, call: Doors) -> None:
        made = call("alice", "POST", MINE, body(**LIMITS)).json
        assert made.items() >= LIMITS.items()
        assert call("alice", "GET", f"{MINE}/{made['id']}").json.items() >= LIMITS.items()

    def test_it_works_at_once(self, call: Doors, cast: Cast) -> None:
        secret = call("alice", "POST", MINE, body(purpose="platform")).json["key"]
        assert call.with_key(secret).json["id"] == str(cast["alice"])

    def test_routing_is_told_of_it(self, call: Doors, sql: psycopg.Connection) -> None:
        with announced(sql, 1) as found:
            made = call("alice", "POST", MINE, body()).json
        assert found.tables == ["api_keys"]
        assert found.rows == [f"api_keys:{made['id']}"]

    def test_a_name_is_free_again_once_its_key_is_deleted(self, call: Doors) -> None:
        wanted = body()
        first = call("alice", "POST", MINE, wanted).json["id"]
        taken = call("alice", "POST", MINE, wanted)
        assert taken.status_code == 409
        assert (taken.json["message"], taken.json["resource"]) == ("Resource already exists", "unknown")  # fmt: skip
        call("alice", "DELETE", f"{MINE}/{first}")
        assert call("alice", "POST", MINE, wanted).status_code == 201

    @pytest.mark.parametrize(
        ("change", "status", "message"),
        [
            ({"name": "  "}, 400, "API key name cannot be empty"),
            ({"purpose": "batch"}, 400, "Cannot manually create API keys with 'batch' or 'playground' purpose. These are reserved for internal system use."),
            ({"purpose": "playground"}, 400, "Cannot manually create API keys with 'batch' or 'playground' purpose. These are reserved for internal system use."),
            ({"purpose": "world"}, 422, "purpose: Must be one of: platform, realtime, batch, playground."),
            ({"name": None}, 422, "name: Field may not be null."),
            ({"requests_per_second": 0}, 422, "requests_per_second: Must be greater than 0."),
            ({"burst_size": 0}, 422, "burst_size: Must be greater than or equal to 1 and less than or equal to 2147483647."),
            ({"burst_size": 1.5}, 422, "burst_size: Not a valid integer."),
            ({"member_id": "x"}, 422, "member_id: Not a valid UUID."),
            ({"spend_limit": "0"}, 400, "spend_limit must be greater than zero; null lifts it"),
            ({"spend_limit": "-1"}, 400, "spend_limit must be greater than zero; null lifts it"),
            ({"spend_limit": "1e400"}, 422, "spend_limit: Not a plain decimal number."),
            ({"spend_limit": "NaN"}, 422, "spend_limit: Not a plain decimal number."),
            ({"spend_limit": "0.0000000000000001"}, 400, "spend_limit must not exceed 999999999.999999999999999 or have more than 15 decimals"),
            ({"spend_limit_interval": "daily"}, 400, "spend_limit_interval says when a spend_limit begins anew: set both"),
            ({"spend_limit": "1", "spend_limit_interval": "hourly"}, 422, "spend_limit_interval: Must be one of: daily, weekly, monthly."),
        ],
    )  # fmt: skip
    def test_wrong_keys_are_refused(
        self, call: Doors, change: dict[str, Any], status: int, message: str
    ) -> None:
        for who in ("alice", "admin"):
            answer = call(who, "POST", MINE, body() | change)
            assert (answer.status_code, answer.json["message"]) == (status, message)

    def test_a_spending_limit_is_shown_changed_and_lifted_with_its_interval(
        self, call: Doors
    ) -> None:
        given = {"spend_limit": "12.5", "spend_limit_interval": "monthly"}
        made = call("alice", "POST", MINE, body() | given).json
        assert (made["spend_limit_interval"], Decimal(made["spend_limit"])) == ("monthly", Decimal("12.5"))  # fmt: skip
        assert Decimal(made["spend"]) == 0
        assert made["spend_resets_at"].endswith("-01T00:00:00Z")
        path = f"{MINE}/{made['id']}"
        ever = call("alice", "PATCH", path, {"spend_limit_interval": None}).json
        assert (ever["spend_limit"], ever["spend_resets_at"]) == (made["spend_limit"], None)
        lifted = call("alice", "PATCH", path, {"spend_limit": None}).json
        assert {lifted[name] for name in ("spend_limit", "spend_limit_interval", "spend")} == {None}

    def test_an_administrator_makes_one_for_somebody(self, call: Doors, cast: Cast) -> None:
        made = call("admin", "POST", f"/users/{cast['alice']}/api-keys", body()).json
        assert made["user_id"] == made["created_by"] == str(cast["alice"])
        assert call("alice", "GET", f"{MINE}/{made['id']}").status_code == 200

    @pytest.mark.parametrize("nobody", [NIL, NOBODY])
    def test_nobody_gets_none(self, call: Doors, nobody: str) -> None:
        answer = call("admin", "POST", f"/users/{nobody}/api-keys", body())
        assert (answer.status_code, answer.json["message"]) == (404, f"User with ID {nobody} not found")  # fmt: skip


class TestRead:
    def test_newest_first_in_pages(self, call: Doors, sql: psycopg.Connection) -> None:
        path = f"/users/{insert_user(sql)}/api-keys"
        names = [call("admin", "POST", path, body()).json["name"] for _ in range(3)]
        page = call("admin", "GET", f"{path}?limit=2").json
        assert [key["name"] for key in page["data"]] == names[:0:-1]
        assert (page["total_count"], page["skip"], page["limit"]) == (3, 0, 2)
        assert all(set(key) == FIELDS for key in page["data"])

    def test_hidden_and_deleted_keys_are_not_there(
        self, call: Doors, app: Flask, sql: psycopg.Connection
    ) -> None:
        user = insert_user(sql)
        path = f"/users/{user}/api-keys"
        deleted = call("admin", "POST", path, body()).json["id"]
        call("admin", "DELETE", f"{path}/{deleted}")
        with app.app_context():
            hidden = api_keys.hidden_key(db.session(), user, user, "batch").id
            db.session.commit()
        assert call("admin", "GET", path).json["data"] == []
        for key in (hidden, deleted):
            for method, change in (("GET", None), ("DELETE", None), ("PATCH", {})):
                assert call("admin", method, f"{path}/{key}", change).status_code == 404

    def test_a_key_of_somebody_else_is_404_under_ones_own_name(
        self, call: Doors, cast: Cast
    ) -> None:
        key = call("alice", "POST", MINE, body()).json["id"]
        for method, change in (("GET", None), ("DELETE", None), ("PATCH", {})):
            answer = call("bob", method, f"{MINE}/{key}", change)
            assert (answer.status_code, answer.json["message"]) == (404, f"API key with ID {key} not found")  # fmt: skip
        assert call("admin", "GET", f"/users/{cast['bob']}/api-keys/{key}").status_code == 404
        assert call("admin", "GET", f"/users/{cast['alice']}/api-keys/{key}").status_code == 200

    @pytest.mark.parametrize(
        ("method", "tail", "operation"),
        [
            ("GET", "", "Read"),
            ("GET", f"/{NOBODY}", "Read"),
            ("POST", "", "Create"),
            ("PATCH", f"/{NOBODY}", "Update"),
            ("DELETE", f"/{NOBODY}", "Delete"),
        ],
    )
    def test_another_users_keys_are_refused(
        self, call: Doors, cast: Cast, method: str, tail: str, operation: str
    ) -> None:
        alice = cast["alice"]
        answer = call("bob", method, f"/users/{alice}/api-keys{tail}", {} if method in ("POST", "PATCH") else None)  # fmt: skip
        assert answer.status_code == 403
        assert answer.json["message"] == f"Insufficient permissions to {operation} API keys for user {alice}"  # fmt: skip

    def test_models_are_those_of_the_owners_groups_and_everyone(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        user = insert_user(sql)
        group = call("admin", "POST", "/groups", {"name": unique("team")}).json["id"]
        call("admin", "POST", f"/groups/{group}/users/{user}")
        endpoint = sql.execute(
            "INSERT INTO inference_endpoints (name, url, created_by) VALUES (%s, 'http://x', %s) RETURNING id",
            (unique("e"), NIL),
        ).fetchone()
        assert endpoint
        models = []
        for granted_to in (group, NIL, group, None):
            model = sql.execute(
                "INSERT INTO deployed_models (model_name, alias, created_by, hosted_on) VALUES ('m', %s, %s, %s) RETURNING id",
                (unique("m"), NIL, endpoint[0]),
            ).fetchone()
            assert model
            models.append(str(model[0]))
            if granted_to:
                sql.execute(
                    "INSERT INTO deployment_groups (deployment_id, group_id, granted_by) VALUES (%s, %s, %s)",
                    (model[0], granted_to, NIL),
                )
        sql.execute("UPDATE deployed_models SET deleted = true WHERE id = %s", (models[2],))
        path = f"/users/{user}/api-keys"
        made = call("admin", "POST", path, body()).json
        assert made["model_access"] == models[:2]
        assert call("admin", "GET", path).json["data"][0]["model_access"] == models[:2]
        assert call("admin", "GET", f"{path}/{made['id']}").json["model_access"] == models[:2]


class TestChange:
    def test_what_is_given_changes_and_null_clears(self, call: Doors) -> None:
        made = call("alice", "POST", MINE, body(description="d")).json
        path = f"{MINE}/{made['id']}"
        made.pop("key")
        assert call("alice", "PATCH", path, {}).json == made
        wanted = LIMITS | {"name": unique("renamed"), "description": None}
        changed = call("alice", "PATCH", path, wanted)
        assert (changed.status_code, changed.json) == (200, made | wanted)
        kept = call("alice", "PATCH", path, {"name": None, "capacity": 3}).json
        assert kept == made | wanted | {"capacity": 3}
        cleared = call("alice", "PATCH", path, dict.fromkeys(LIMITS)).json
        assert cleared == made | wanted | dict.fromkeys(LIMITS)
        assert call("admin", "PATCH", f"/users/{made['user_id']}/api-keys/{made['id']}", {"capacity": 9}).json["capacity"] == 9  # fmt: skip
        call("alice", "PATCH", path, {"requests_per_second": 5, "burst_size": 9})
        assert call("alice", "PATCH", path, {"requests_per_second": None}).json["burst_size"] is None  # fmt: skip
        ignored = call("alice", "PATCH", path, {"purpose": "platform", "key": "sk-x"})
        assert ignored.headers["x-ignored-fields"] == "key, purpose"
        assert ignored.json["purpose"] == "realtime"

    @pytest.mark.parametrize(
        ("change", "status"),
        [({"name": " "}, 400), ({"name": 5}, 422)]
        + [({name: value}, 422) for name in LIMITS for value in (0, -1, "many", True, [])]
        + [({name: 1.5}, 422) for name in ("burst_size", "capacity", "tokens_per_minute")],
        ids=str,
    )
    def test_what_makes_no_sense_is_refused(
        self, call: Doors, change: dict[str, Any], status: int
    ) -> None:
        made = call("alice", "POST", MINE, body()).json
        made.pop("key")
        refused = call("alice", "PATCH", f"{MINE}/{made['id']}", change)
        assert refused.status_code == status, refused.text
        assert next(iter(change)) in refused.text
        assert call("alice", "GET", f"{MINE}/{made['id']}").json == made

    def test_a_taken_name_is_refused(self, call: Doors) -> None:
        taken = call("alice", "POST", MINE, body()).json["name"]
        other = call("alice", "POST", MINE, body()).json["id"]
        assert call("alice", "PATCH", f"{MINE}/{other}", {"name": taken}).status_code == 409

    @pytest.mark.parametrize("name", LIMITS)
    def test_routing_is_told_of_each_limit(
        self, call: Doors, sql: psycopg.Connection, name: str
    ) -> None:
        id = call("alice", "POST", MINE, body()).json["id"]
        with announced(sql, 1) as found:
            call("alice", "PATCH", f"{MINE}/{id}", {name: LIMITS[name]})
        assert found.rows == [f"api_keys:{id}"]


class TestOfAnOrganisation:
    @pytest.fixture
    def organization(self, sql: psycopg.Connection, cast: Cast) -> UUID:
        return insert_organization(sql, owner=cast["alice"], member=cast["bob"])

    def test_each_member_sees_the_keys_they_made(
        self, call: Doors, cast: Cast, organization: UUID
    ) -> None:
        path = f"/users/{organization}/api-keys"
        made = call("alice", "POST", path, body()).json
        assert (made["user_id"], made["created_by"]) == (str(organization), str(cast["alice"]))
        assert call("alice", "GET", path).json["total_count"] == 1
        assert call("bob", "GET", path).json["total_count"] == 0
        assert call("bob", "GET", f"{path}/{made['id']}").status_code == 404
        assert call("bob", "DELETE", f"{path}/{made['id']}").status_code == 404
        assert call("bob", "PATCH", f"{path}/{made['id']}", {"capacity": 1}).status_code == 404
        assert call("alice", "PATCH", f"{path}/{made['id']}", {"capacity": 1}).json["capacity"] == 1
        assert call("admin", "GET", path).json["total_count"] == 1
        assert call("alice", "DELETE", f"{path}/{made['id']}").status_code == 204

    def test_strangers_see_none(self, call: Doors, organization: UUID) -> None:
        path = f"/users/{organization}/api-keys"
        assert call("viewer", "GET", path).status_code == 403
        assert call("viewer", "POST", path, body()).status_code == 403

    def test_an_administrator_makes_one_for_a_member(
        self, call: Doors, cast: Cast, organization: UUID
    ) -> None:
        path = f"/users/{organization}/api-keys"
        made = call("admin", "POST", path, body(member_id=str(cast["bob"]))).json
        assert made["created_by"] == str(cast["bob"])
        own = call("admin", "POST", path, body()).json
        assert own["created_by"] == str(cast["admin"])

    def test_the_member_must_be_one(self, call: Doors, cast: Cast, organization: UUID) -> None:
        path = f"/users/{organization}/api-keys"
        stranger = call("admin", "POST", path, body(member_id=str(cast["viewer"])))
        assert stranger.status_code == 400
        person = call("admin", "POST", MINE, body(member_id=str(cast["bob"])))
        assert person.status_code == 400
        forbidden = call("alice", "POST", path, body(member_id=str(cast["bob"])))
        assert forbidden.status_code == 403

    def test_the_same_name_serves_two_members(self, call: Doors, organization: UUID) -> None:
        path, wanted = f"/users/{organization}/api-keys", body()
        for who in ("alice", "bob"):
            assert call(who, "POST", path, wanted).status_code == 201


class TestHidden:
    def test_there_is_one_a_pair_and_purpose(
        self, app: Flask, cast: Cast, sql: psycopg.Connection
    ) -> None:
        owner, creator = insert_organization(sql, owner=cast["alice"]), cast["alice"]
        with app.app_context():
            session = db.session()
            batch = api_keys.hidden_key(session, owner, creator, "batch")
            assert batch.name == f"Internal batch Key ({str(creator)[:8]})"
            assert batch.hidden
            assert batch.secret_hash is None
            assert api_keys.hidden_key(session, owner, creator, "batch").id == batch.id
            assert api_keys.hidden_key(session, owner, creator, "playground").id != batch.id
            own = api_keys.hidden_key(session, creator, creator, "batch")
            assert own.name == "Internal batch Key"

    def test_a_name_that_is_taken_is_no_obstacle(
        self, app: Flask, call: Doors, sql: psycopg.Connection
    ) -> None:
        user = insert_user(sql)
        call("admin", "POST", f"/users/{user}/api-keys", body(name="Internal batch Key"))
        with app.app_context():
            key = api_keys.hidden_key(db.session(), user, user, "batch")
            assert key.hidden
            assert key.name.startswith("Internal batch Key ")


@pytest.mark.parametrize("purpose", ["platform", "realtime"])
def test_keys_of_an_administrator_are_made_by_administrators(
    call: Doors, sql: psycopg.Connection, purpose: str
) -> None:
    chief = insert_user(sql, is_admin=True)
    organization = insert_organization(sql, owner=chief)
    manager = insert_key(sql, insert_user(sql, "PLATFORMMANAGER"))
    other_chief = insert_key(sql, insert_user(sql, is_admin=True))
    for path, more in ((chief, {}), (organization, {"member_id": str(chief)})):
        for secret, status in ((manager, 403), (other_chief, 201)):
            answer = call(
                None,
                "POST",
                f"/users/{path}/api-keys",
                {"name": unique("key"), "purpose": purpose, **more},
                headers={"Authorization": f"Bearer {secret}"},
            )
            assert answer.status_code == status, answer.text
