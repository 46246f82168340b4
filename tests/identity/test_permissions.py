"""What refusals say, and when. Who may use which route stands in docs/permissions.md, and is tested in tests/access."""

import pytest

from tests.cast import Cast
from tests.identity.doors import NOBODY, Doors


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
