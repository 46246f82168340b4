"""Sign-in beside passwords: resets, sessions, command lines, rotated keys."""

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import requests
from requests import Response

from tests.cast import Cast
from tests.gateway import ADMIN, unique
from tests.operations.world import NOBODY, World, refused

VERIFIER = "v" * 43
_CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest())
COMMAND_LINE = {
    "port": 45678,
    "state": "s",
    "code_challenge": _CHALLENGE.decode().rstrip("="),
}


def _person(w: World) -> tuple[str, str, str]:
    """Somebody who has registered: id, e-mail, cookie."""
    name = unique("person")
    person = {"username": name, "email": f"{name}@x.example", "password": "long-enough-1"}
    made = requests.post(f"{w.stage.url}/authentication/register", json=person, timeout=20)
    assert made.ok, made.text
    cookie = f"dwctl_session={made.cookies['dwctl_session']}"
    return made.json()["user"]["id"], person["email"], cookie


def request_reset(w: World) -> Response:
    return w.ask(json={"email": _person(w)[1]}, by=None)


@refused(400)
def confirm_reset(w: World) -> Response:
    """The token stands in a mail, and nowhere else."""
    body = {"token": "x" * 43, "new_password": "long-enough-2"}
    return w.ask({"token_id": NOBODY}, json=body, by=None)


def list_sessions(w: World) -> Response:
    id, _, _ = _person(w)
    return w.ask({"user_id": id})


def end_sessions(w: World) -> Response:
    _, _, cookie = _person(w)
    return w.ask({"user_id": "current"}, {"others": "true"}, by=None, headers={"cookie": cookie})


def end_session(w: World) -> Response:
    id, _, _ = _person(w)
    (session,) = w.stage.admin("GET", f"/users/{id}/sessions").json()["data"]
    return w.ask({"user_id": id, "session_id": session["id"]})


def sign_command_line_in(w: World) -> Response:
    return w.ask(query={"port": 45678, "state": "s"}, by="alice")


def confirm_command_line(w: World) -> Response:
    return w.ask(query=COMMAND_LINE, by="alice")


def exchange_code(w: World) -> Response:
    told = requests.post(f"{w.stage.url}{ADMIN}/auth/cli-callback", params=COMMAND_LINE, headers=Cast.headers("alice"), allow_redirects=False, timeout=20)  # fmt: skip
    code = parse_qs(urlsplit(told.headers["location"]).query)["code"][0]
    return w.ask(json={"code": code, "code_verifier": VERIFIER}, by=None)


def rotate_api_key(w: World) -> Response:
    return w.ask({"user_id": w.user, "id": w.new_key()}, json={"overlap_seconds": 60})
