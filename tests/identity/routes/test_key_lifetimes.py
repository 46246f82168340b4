"""Keys that expire, and secrets that are replaced while the old one works on for a while."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from dwctl import config
from dwctl.identity import api_keys, duties
from dwctl.web.schemas import rfc3339
from tests.announced import announced
from tests.cast import Cast
from tests.identity.doors import (
    NOBODY,
    Doors,
    insert_key,
    insert_organization,
    unique,
    waits_for_lock,
)

MINE = "/users/current/api-keys"
LATER = "2031-05-06T07:08:09.123456Z"


def make(call: Doors, who: str = "alice", path: str = MINE, **more: Any) -> dict[str, Any]:
    answer = call(who, "POST", path, {"name": unique("key"), "purpose": "platform", **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json
    return made


def rotate(call: Doors, key: dict[str, Any], overlap: int | None = None, who: str = "alice") -> dict[str, Any]:  # fmt: skip
    path = f"/users/{key['user_id']}/api-keys/{key['id']}/rotate"
    answer = call(who, "POST", path, {} if overlap is None else {"overlap_seconds": overlap})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json
    return made


def expire(sql: psycopg.Connection, key: dict[str, Any]) -> None:
    sql.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", (key["id"],))


def _make_with(call: Doors, key: dict[str, Any]) -> int:
    """The status of making another key with this one."""
    by = {"Authorization": f"Bearer {key['key']}"}
    return call(None, "POST", MINE, {"name": unique("key")}, headers=by).status_code


class TestExpiry:
    def test_it_is_set_shown_moved_and_cleared(self, call: Doors) -> None:
        key = make(call, expires_at=LATER)
        path = f"{MINE}/{key['id']}"
        assert key["expires_at"] == call("alice", "GET", path).json["expires_at"] == LATER
        assert call.with_key(key["key"]).status_code == 200
        moved = call("alice", "PATCH", path, {"expires_at": "2032-01-01T00:00:00+02:00"}).json
        assert moved["expires_at"] == "2031-12-31T22:00:00Z"
        assert call("alice", "PATCH", path, {"name": unique("n")}).json["expires_at"] == moved["expires_at"]  # fmt: skip
        assert call("alice", "PATCH", path, {"expires_at": None}).json["expires_at"] is None

    def test_an_expired_key_is_refused_and_says_when(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        key = make(call)
        expire(sql, key)
        refused = call.with_key(key["key"])
        assert (refused.status_code, refused.json["code"]) == (401, "api_key_expired")
        shown = call("alice", "GET", f"{MINE}/{key['id']}")
        assert shown.status_code == 200
        when = datetime.fromisoformat(shown.json["expires_at"]).replace(microsecond=0)
        assert refused.json["message"].startswith(f"This API key expired at {rfc3339(when)}.")
        later = {"expires_at": LATER}
        assert call("alice", "PATCH", f"{MINE}/{key['id']}", later).status_code == 200
        assert call.with_key(key["key"]).status_code == 200

    @pytest.mark.parametrize(
        ("at", "status"),
        [
            ("2020-01-01T00:00:00Z", 400),
            ("0001-01-01T00:00:00Z", 400),
            ("soon", 422),
            (1893456000, 422),
            ("", 422),
        ],
    )
    def test_a_time_that_is_over_or_none_is_refused(
        self, call: Doors, at: Any, status: int
    ) -> None:
        refused = call("alice", "POST", MINE, {"name": unique("key"), "expires_at": at})
        assert (refused.status_code, "expires_at" in refused.json["message"]) == (status, True)
        key = make(call)
        assert call("alice", "PATCH", f"{MINE}/{key['id']}", {"expires_at": at}).status_code == status  # fmt: skip

    def test_the_end_of_time_is_a_time(self, call: Doors) -> None:
        key = make(call, expires_at="9999-12-31T23:59:59Z")
        assert call.with_key(key["key"]).status_code == 200

    def test_the_database_takes_no_time_that_nobody_can_read(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        key = make(call)
        for at in ("infinity", "-infinity", "20000-01-01"):
            with pytest.raises(psycopg.errors.CheckViolation):
                sql.execute("UPDATE api_keys SET expires_at = %s WHERE id = %s", (at, key["id"]))

    def test_routing_is_told_of_it(self, call: Doors, sql: psycopg.Connection) -> None:
        key = make(call)
        with announced(sql, 1) as found:
            call("alice", "PATCH", f"{MINE}/{key['id']}", {"expires_at": LATER})
        assert found.rows == [f"api_keys:{key['id']}"]

    def test_an_expired_key_makes_nothing_more(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        """One that expires between the door and the transaction that makes another key."""
        key = make(call)
        answers: list[int] = []
        with psycopg.connect(sql.info.dsn, password=sql.info.password) as holder:
            holder.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (cast["alice"],))
            making = threading.Thread(target=lambda: answers.append(_make_with(call, key)))
            making.start()
            waits_for_lock(sql)
            expire(sql, key)
        making.join(10)
        assert answers == [401]


class TestRotation:
    def test_both_secrets_work_and_are_one_key(self, call: Doors) -> None:
        key = make(call, requests_per_second=0.5, expires_at=LATER)
        new = rotate(call, key)
        assert re.fullmatch(r"sk-[A-Za-z0-9_-]{43}", new["key"])
        assert new["key"] != key["key"]
        assert new["key"].startswith(new["key_prefix"])
        (retired,) = new["retired_secrets"]
        assert retired["key_prefix"] == key["key_prefix"]
        end = datetime.fromisoformat(retired["expires_at"]) - datetime.now(UTC)
        assert timedelta(hours=23, minutes=59) < end < timedelta(hours=24, minutes=1)
        same = {k: v for k, v in key.items() if k not in ("key", "key_prefix", "retired_secrets")}
        assert new.items() >= same.items()
        for secret in (key["key"], new["key"]):
            assert call.with_key(secret).status_code == 200
        shown = call("alice", "GET", f"{MINE}/{key['id']}").json
        assert shown == {k: v for k, v in new.items() if k != "key"} | {"last_used": shown["last_used"]}  # fmt: skip
        (listed,) = (one for one in call("alice", "GET", f"{MINE}?limit=100").json["data"] if one["id"] == key["id"])  # fmt: skip
        assert listed == shown

    @pytest.mark.parametrize("body", [{"data": b""}, {"json": {}}, {"json": {"overlap_seconds": 86400}}], ids=str)  # fmt: skip
    def test_a_body_is_not_needed(self, call: Doors, body: dict[str, Any]) -> None:
        key = make(call)
        answer = call("alice", "POST", f"{MINE}/{key['id']}/rotate", **body)
        assert answer.status_code == 200
        assert len(answer.json["retired_secrets"]) == 1

    def test_without_overlap_the_old_one_ends_at_once(self, call: Doors) -> None:
        key = make(call)
        new = rotate(call, key, 0)
        refused = call.with_key(key["key"])
        assert (refused.status_code, refused.json["code"]) == (401, "api_key_expired")
        assert "was replaced" in refused.json["message"]
        assert call.with_key(new["key"]).status_code == 200
        assert new["retired_secrets"] == []

    def test_each_rotation_brings_earlier_ends_forward_and_none_back(self, call: Doors) -> None:
        first = make(call)
        second = rotate(call, first, 100)
        third = rotate(call, second, 3600)
        ends = [datetime.fromisoformat(one["expires_at"]) - datetime.now(UTC) for one in third["retired_secrets"]]  # fmt: skip
        assert [one["key_prefix"] for one in third["retired_secrets"]] == [second["key_prefix"], first["key_prefix"]]  # fmt: skip
        assert ends[0] > timedelta(seconds=3000)
        assert ends[1] < timedelta(seconds=101)
        fourth = rotate(call, third, 0)
        assert [call.with_key(one["key"]).status_code for one in (first, second, third, fourth)] == [401, 401, 401, 200]  # fmt: skip

    def test_there_is_a_bound(self, call: Doors, sql: psycopg.Connection) -> None:
        key = newest = make(call)
        for _ in range(api_keys.MOST_RETIRED):
            newest = rotate(call, newest)
        path = f"{MINE}/{key['id']}/rotate"
        refused = call("alice", "POST", path)
        assert (refused.status_code, refused.json["resource"]) == (409, "api_key")
        assert call.with_key(key["key"]).status_code == call.with_key(newest["key"]).status_code == 200  # fmt: skip
        for _ in range(3):
            newest = rotate(call, newest, 0)
        count = "SELECT count(*) FROM retired_api_key_secrets WHERE api_key_id = %s"
        assert sql.execute(count, (key["id"],)).fetchone() == (api_keys.MOST_RETIRED,)

    @pytest.mark.parametrize("overlap", [-1, 30 * 86_400 + 1, 1.5, "1", None, True, []], ids=str)
    def test_an_overlap_is_a_number_of_seconds_up_to_thirty_days(
        self, call: Doors, overlap: Any
    ) -> None:
        key = make(call)
        refused = call("alice", "POST", f"{MINE}/{key['id']}/rotate", {"overlap_seconds": overlap})
        assert refused.status_code == 422
        assert "overlap_seconds" in refused.json["message"]
        assert call.with_key(key["key"]).status_code == 200

    def test_an_expired_key_is_not_rotated(self, call: Doors, sql: psycopg.Connection) -> None:
        key = make(call)
        expire(sql, key)
        refused = call("alice", "POST", f"{MINE}/{key['id']}/rotate")
        assert (refused.status_code, "has expired" in refused.json["message"]) == (400, True)

    def test_an_earlier_secret_ends_with_its_key(
        self, call: Doors, sql: psycopg.Connection
    ) -> None:
        key = make(call)
        new = rotate(call, key)
        expire(sql, key)
        for secret in (key["key"], new["key"]):
            assert call.with_key(secret).json["code"] == "api_key_expired"
        sql.execute("UPDATE api_keys SET expires_at = NULL WHERE id = %s", (key["id"],))
        call("alice", "DELETE", f"{MINE}/{key['id']}")
        for secret in (key["key"], new["key"]):
            refused = call.with_key(secret)
            assert (refused.status_code, refused.json["code"]) == (401, "invalid_api_key")

    def test_two_at_once_follow_each_other(self, call: Doors, sql: psycopg.Connection) -> None:
        key = make(call)
        found: list[dict[str, Any]] = []
        with psycopg.connect(sql.info.dsn, password=sql.info.password) as other:
            other.execute("SELECT FROM api_keys WHERE id = %s FOR UPDATE", (key["id"],))
            both = [threading.Thread(target=lambda: found.append(rotate(call, key))) for _ in "12"]
            for one in both:
                one.start()
            waits_for_lock(sql, 2)
        for one in both:
            one.join(10)
        assert len(found) == 2
        secrets = {key["key"], *(one["key"] for one in found)}
        assert [call.with_key(secret).status_code for secret in secrets] == [200] * 3
        assert len(call("alice", "GET", f"{MINE}/{key['id']}").json["retired_secrets"]) == 2


class TestWhose:
    def test_not_somebody_elses(self, call: Doors, cast: Cast) -> None:
        key = make(call, "bob")
        for path, status in ((MINE, 404), (f"/users/{cast['bob']}/api-keys", 403)):
            assert call("alice", "POST", f"{path}/{key['id']}/rotate").status_code == status
        assert call("alice", "POST", f"{MINE}/{NOBODY}/rotate").status_code == 404
        assert call(None, "POST", f"{MINE}/{key['id']}/rotate").status_code == 401
        assert call.with_key(key["key"]).status_code == 200

    def test_an_administrator_rotates_those_of_others(self, call: Doors, cast: Cast) -> None:
        key = make(call, "bob")
        new = rotate(call, key, who="admin")
        assert call.with_key(new["key"]).json["id"] == str(cast["bob"])
        assert new["created_by"] == str(cast["bob"])

    def test_those_of_an_administrator_are_rotated_by_administrators(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        key = make(call, "bob")
        sql.execute("UPDATE users SET is_admin = true WHERE id = %s", (cast["bob"],))
        try:
            path = f"/users/{cast['bob']}/api-keys/{key['id']}/rotate"
            assert call("admin", "POST", path).status_code == 403
            assert call("bob", "POST", path).status_code == 200
        finally:
            sql.execute("UPDATE users SET is_admin = false WHERE id = %s", (cast["bob"],))

    def test_a_member_rotates_their_own_of_the_organisation(
        self, call: Doors, cast: Cast, sql: psycopg.Connection
    ) -> None:
        organization = insert_organization(sql, owner=cast["alice"], member=cast["bob"])
        path = f"/users/{organization}/api-keys"
        key = make(call, "bob", path)
        assert call("alice", "POST", f"{path}/{key['id']}/rotate").status_code == 404
        assert rotate(call, key, who="bob")["created_by"] == str(cast["bob"])

    def test_a_hidden_key_has_no_secret_to_rotate(
        self, call: Doors, app: Flask, cast: Cast, sql: psycopg.Connection
    ) -> None:
        row = sql.execute(
            "INSERT INTO api_keys (name, user_id, created_by, purpose, hidden) VALUES ('Internal batch Key', %s, %s, 'batch', true)"
            " ON CONFLICT DO NOTHING RETURNING id",
            (cast["alice"], cast["alice"]),
        ).fetchone()
        assert row
        for method, tail, body in (("POST", "/rotate", {}), ("PATCH", "", {}), ("GET", "", None), ("DELETE", "", None)):  # fmt: skip
            assert call("admin", method, f"/users/{cast['alice']}/api-keys/{row[0]}{tail}", body).status_code == 404  # fmt: skip


class TestFilters:
    @pytest.fixture
    def organization(self, sql: psycopg.Connection, cast: Cast) -> UUID:
        return insert_organization(sql, owner=cast["alice"], member=cast["bob"])

    def test_by_text_purpose_and_creator(self, call: Doors, cast: Cast, organization: UUID) -> None:
        path = f"/users/{organization}/api-keys"
        mine = make(call, "alice", path, name="Nightly 100%", description="evaluation run")
        yours = make(call, "bob", path, purpose="realtime", name="nightly_100")

        def found(who: str, query: str) -> list[str]:
            page = call(who, "GET", f"{path}?{query}").json
            assert page["total_count"] == len(page["data"])
            return [one["id"] for one in page["data"]]

        both = [yours["id"], mine["id"]]
        assert found("admin", "search=NIGHTLY") == both
        assert found("admin", "search=100%25") == [mine["id"]]
        assert found("admin", "search=y_1") == [yours["id"]]
        assert found("admin", "search=evaluation") == [mine["id"]]
        assert found("admin", f"search={mine['key_prefix']}") == [mine["id"]]
        assert found("admin", "purpose=realtime") == [yours["id"]]
        assert found("admin", f"created_by={cast['alice']}") == [mine["id"]]
        assert found("alice", "") == [mine["id"]]
        assert found("alice", f"created_by={cast['bob']}") == []
        assert call("admin", "GET", f"{path}?purpose=none").status_code == 400
        assert call("admin", "GET", f"{path}?created_by=bob").status_code == 400


def test_a_secret_that_is_rotated_away_makes_no_key_meanwhile(
    call: Doors, cast: Cast, sql: psycopg.Connection
) -> None:
    """Whoever found it may be making another key at the moment in which it is taken from them."""
    key = make(call)
    with psycopg.connect(sql.info.dsn, password=sql.info.password) as holder:
        holder.execute("SELECT FROM users WHERE id = %s FOR UPDATE", (cast["alice"],))
        rotating = threading.Thread(target=rotate, args=(call, key, 0))
        rotating.start()
        waits_for_lock(sql)
        answers: list[int] = []
        making = threading.Thread(target=lambda: answers.append(_make_with(call, key)))
        making.start()
        waits_for_lock(sql, 2)
    rotating.join(10)
    making.join(10)
    assert answers == [401]


def test_secrets_that_ended_are_forgotten_after_a_while(
    call: Doors, sql: psycopg.Connection
) -> None:
    key = make(call)
    rotate(call, rotate(call, key, 0), 0)
    (old, new) = [row[0] for row in sql.execute("SELECT secret_hash FROM retired_api_key_secrets WHERE api_key_id = %s ORDER BY retired_at", (key["id"],)).fetchall()]  # fmt: skip
    move = "UPDATE retired_api_key_secrets SET expires_at = now() - %s::interval WHERE secret_hash = %s"
    sql.execute(move, ("8 days", old))
    sql.execute(move, ("6 days", new))
    duties.forget_secrets(sql, config.load({}))
    kept = sql.execute("SELECT secret_hash FROM retired_api_key_secrets WHERE api_key_id = %s", (key["id"],))  # fmt: skip
    assert kept.fetchall() == [(new,)]


def test_a_key_by_sql_alone_has_no_end(call: Doors, cast: Cast, sql: psycopg.Connection) -> None:
    assert call.with_key(insert_key(sql, cast["bob"])).status_code == 200
