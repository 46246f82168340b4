"""Who may use which door, as a table. `yes` stands for "not refused", whatever the door then says to the arguments."""

from typing import Any

import psycopg
import pytest

from tests.cast import Cast
from tests.identity.doors import NIL, NOBODY, Doors, insert_user

ROLES = (
    "PLATFORMMANAGER",
    "STANDARDUSER",
    "REQUESTVIEWER",
    "BILLINGMANAGER",
    "BATCHAPIUSER",
    "CONNECTIONSUSER",
)

# {self} is the caller, {alice} somebody else.
DOORS = {
    ("GET", "/users"): "PLATFORMMANAGER BILLINGMANAGER",
    ("POST", "/users"): "PLATFORMMANAGER",
    ("GET", "/users/current"): " ".join(ROLES[:4]),
    ("GET", "/users/{self}"): " ".join(ROLES[:4]),
    ("GET", "/users/{alice}"): "PLATFORMMANAGER BILLINGMANAGER",
    ("PATCH", "/users/{self}"): "PLATFORMMANAGER STANDARDUSER",
    ("PATCH", "/users/{alice}"): "PLATFORMMANAGER",
    ("DELETE", f"/users/{NOBODY}"): "PLATFORMMANAGER",
    ("GET", "/users/{self}/groups"): " ".join(ROLES[:4]),
    ("GET", "/users/{alice}/groups"): "PLATFORMMANAGER BILLINGMANAGER",
    ("POST", f"/users/{{alice}}/groups/{NOBODY}"): "PLATFORMMANAGER",
    ("DELETE", f"/users/{{alice}}/groups/{NOBODY}"): "PLATFORMMANAGER",
    ("GET", "/users/current/api-keys"): "PLATFORMMANAGER STANDARDUSER",
    ("POST", "/users/current/api-keys"): "PLATFORMMANAGER STANDARDUSER",
    ("DELETE", f"/users/current/api-keys/{NOBODY}"): "PLATFORMMANAGER STANDARDUSER",
    ("GET", "/users/{alice}/api-keys"): "PLATFORMMANAGER",
    ("POST", "/users/{alice}/api-keys"): "PLATFORMMANAGER",
    ("GET", "/groups"): "PLATFORMMANAGER",
    ("POST", "/groups"): "PLATFORMMANAGER",
    ("GET", f"/groups/{NIL}"): "PLATFORMMANAGER",
    ("PATCH", f"/groups/{NOBODY}"): "PLATFORMMANAGER",
    ("DELETE", f"/groups/{NOBODY}"): "PLATFORMMANAGER",
    ("GET", f"/groups/{NIL}/users"): "PLATFORMMANAGER BILLINGMANAGER",
    ("POST", f"/groups/{NOBODY}/users/{NOBODY}"): "PLATFORMMANAGER",
    ("DELETE", f"/groups/{NOBODY}/users/{NOBODY}"): "PLATFORMMANAGER",
    ("GET", "/config"): " ".join(ROLES),
    ("POST", "/session/organization"): " ".join(ROLES),
}


@pytest.fixture(scope="module")
def holders(database_url: str, cast: Cast) -> dict[str, tuple[Any, dict[str, str]]]:
    """One user with each role alone, and one without any who is an administrator."""
    found: dict[str, tuple[Any, dict[str, str]]] = {}
    with psycopg.connect(database_url, autocommit=True) as sql:
        for role in (*ROLES, "is_admin"):
            email = f"{role.lower()}@roles.example"
            columns = {"email": email, "is_admin": role == "is_admin"}
            user = insert_user(sql, role if role in ROLES else "CONNECTIONSUSER", **columns)
            found[role] = (user, {"x-doubleword-user": email})
    return found


@pytest.mark.parametrize(("method", "path"), DOORS, ids=lambda part: str(part))
def test_each_role_at_each_door(
    call: Doors,
    cast: Cast,
    holders: dict[str, tuple[Any, dict[str, str]]],
    method: str,
    path: str,
) -> None:
    let_in = set()
    for role, (user_id, headers) in holders.items():
        real = path.replace("{self}", str(user_id)).replace("{alice}", str(cast["alice"]))
        body = {} if method in ("POST", "PATCH") else None
        answer = call(None, method, real, body, headers=headers)
        assert answer.status_code != 401
        if answer.status_code == 403:
            assert answer.json["message"].startswith("Insufficient permissions to ")
        else:
            let_in.add(role)
    assert let_in == {*DOORS[method, path].split(), "is_admin"}


@pytest.mark.parametrize(("method", "path"), DOORS, ids=lambda part: str(part))
def test_strangers_stay_outside(call: Doors, cast: Cast, method: str, path: str) -> None:
    real = path.replace("{self}", NOBODY).replace("{alice}", str(cast["alice"]))
    # The caller is judged before the body is.
    answer = call(None, method, real, data="{")
    assert (answer.status_code, answer.json["message"]) == (401, "Authentication required")


def test_a_refusal_comes_before_a_look_at_the_body(call: Doors, cast: Cast) -> None:
    for method, path in (("POST", "/users"), ("POST", "/groups"), ("PATCH", f"/users/{cast['bob']}")):  # fmt: skip
        assert call("alice", method, path, {"roles": 7}).status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "/users", "Insufficient permissions to Read Users"),
        ("POST", "/users", "Insufficient permissions to Create Users"),
        ("DELETE", f"/users/{NOBODY}", "Insufficient permissions to Delete Users"),
        ("GET", "/groups", "Insufficient permissions to Read Groups"),
        ("POST", "/groups", "Insufficient permissions to Create Groups"),
        ("DELETE", f"/groups/{NOBODY}", "Insufficient permissions to Delete Groups"),
    ],
)
def test_refusals_say_what_is_missing(call: Doors, cast: Cast, method: str, path: str, message: str) -> None:  # fmt: skip
    answer = call("alice", method, path, {} if method == "POST" else None)
    assert (answer.status_code, answer.json["message"]) == (403, message)
