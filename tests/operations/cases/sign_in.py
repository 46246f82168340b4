"""Resets, login sessions, the command line."""

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import requests
from requests import Response

from tests.cast import Cast
from tests.gateway import unique
from tests.operations.world import NOBODY, World, refused

_VERIFIER = "v" * 43
_CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(_VERIFIER.encode()).digest()).rstrip(b"=").decode()  # fmt: skip
_QUERY = {"port": 8999, "state": "abc"}


def request_reset(w: World) -> Response:
    return w.ask(json={"email": f"{unique('forgot')}@x.example"}, by=None)


@refused(400)
def confirm_reset(w: World) -> Response:
    return w.ask({"token_id": NOBODY}, json={"token": "x" * 43, "new_password": "long-enough-1"}, by=None)  # fmt: skip


def _signed_in() -> dict[str, str]:
    name = unique("here")
    return {"username": name, "email": f"{name}@x.example", "password": "long-enough-1"}


def _cookie(w: World) -> dict[str, str]:
    made = requests.post(f"{w.stage.url}/authentication/register", json=_signed_in(), timeout=20)
    return {"cookie": f"dwctl_session={made.cookies['dwctl_session']}"}


def list_sessions(w: World) -> Response:
    return w.ask({"user_id": "current"}, {"limit": 5}, by=None, headers=_cookie(w))


def end_sessions(w: World) -> Response:
    return w.ask({"user_id": "current"}, {"others": "true"}, by=None, headers=_cookie(w))


def end_session(w: World) -> Response:
    cookie = _cookie(w)
    mine = f"{w.stage.url}/admin/api/v1/users/current/sessions"
    (only,) = requests.get(mine, headers=cookie, timeout=20).json()["data"]
    return w.ask({"user_id": "current", "session_id": only["id"]}, by=None, headers=cookie)


def sign_command_line_in(w: World) -> Response:
    return w.ask(query=_QUERY)


def confirm_command_line(w: World) -> Response:
    return w.ask(query=_QUERY | {"code_challenge": _CHALLENGE})


def exchange_code(w: World) -> Response:
    asking = f"{w.stage.url}/admin/api/v1/auth/cli-callback"
    sent = requests.post(asking, params=_QUERY | {"code_challenge": _CHALLENGE}, headers=Cast.headers("alice"), allow_redirects=False, timeout=20)  # fmt: skip
    (code,) = parse_qs(urlsplit(sent.headers["location"]).query)["code"]
    return w.ask(json={"code": code, "code_verifier": _VERIFIER}, by=None)
