"""Which spelling of a path is served, and that it is the only one: pure, and through a real process."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest
import requests

from dwctl.web import paths
from tests.gateway import Gateway

SERVED = (
    "/", "/healthz", "/ai/v1/models", "/ai/v1/models/gpt-4.1", "/ai/v1/models/meta-llama/Llama-3", "/ai/v1/models/meta-llama%2FLlama-3",
    "/ai/v1/models/a:b@c+d~e", "/ai/v1/models/M%C3%BCller%20%28x%29", "/ai/v1/responses/resp%5F0199a8f1", "/admin/docs/", "/a.b/..c/d..",
)  # fmt: skip
REFUSED = (
    "", "healthz", "*", "//", "//healthz", "/healthz//", "/./healthz", "/a/../healthz", "/healthz/.", "/healthz/..", "/%2e/healthz", "/a/%2E%2e/healthz",
    "/%2fhealthz", "/ai/v1/models/%2F%2Fx", "/healthz;x", "/healthz;", "/healthz%00", "/healthz%0a", "/healthz%7f", "/healthz%c2%85",
    "/healthz%", "/healthz%2", "/healthz%zz", "/healthz\\", "/healthz%5c", "/%ff", "/%c0%af", "/%ed%a0%80", "/\xe9", "/a b", "/a\tb", "/a\x00", '/a"b',
    "/<x>", "/{x}", "/a|b", "/a^b", "/a`b", "/a#b", "/" + "a" * paths.LONGEST, "/" + "%41" * paths.LONGEST,
)  # fmt: skip


@pytest.mark.parametrize("path", SERVED)
def test_one_spelling_is_canonical(path: str) -> None:
    assert paths.is_canonical(path)


@pytest.mark.parametrize("path", REFUSED, ids=[f"{n}" for n in range(len(REFUSED))])
def test_every_other_one_is_not(path: str) -> None:
    assert not paths.is_canonical(path)


@pytest.mark.parametrize(
    ("target", "path", "authority"),
    [
        ("/a?b=/c", "/a", None),
        ("/?//x", "/", None),
        ("http://gate.example/a?b", "/a", "gate.example"),
        ("HTTP://gate.example:80/a", "/a", "gate.example:80"),
        ("http://gate.example", "/", "gate.example"),
        ("http://gate.example?x", "", "gate.example"),
        ("//gate.example/a", "//gate.example/a", None),
        ("/http://x/a", "/http://x/a", None),
        ("*", "*", None),
        ("http://[bad/a", "/a", ""),
    ],
)
def test_a_target_has_a_path_and_perhaps_a_host(target: str, path: str, authority: str | None) -> None:  # fmt: skip
    assert paths.path_in(target) in (path, path or "/")
    assert paths.authority_in(target) == authority


@pytest.mark.parametrize(
    ("path", "rule", "holds"),
    [
        ("/ai/v1/models/a%2Fb", "/ai/v1/models/<path:alias>", True),
        ("/ai/v1/models/a/b%20c", "/ai/v1/models/<path:alias>", True),
        ("/ai/v1/%6dodels/a", "/ai/v1/models/<path:alias>", False),
        ("/ai/v1/models%2Fa", "/ai/v1/models/<path:alias>", False),
        ("/users/%30/groups/1", "/users/<id:user_id>/groups/<id:group_id>", True),
        ("/users/0/gr%6Fups/1", "/users/<id:user_id>/groups/<id:group_id>", False),
        ("/healthz", "/healthz", True),
        ("/health%7A", "/healthz", False),
        ("/a.c", "/abc", False),
    ],
)
def test_what_is_literal_in_a_route_is_written_as_it_is(path: str, rule: str, holds: bool) -> None:
    assert paths.spells_out(path, rule) is holds


# --- through a real process


def ask(stage: Gateway, target: str, method: str = "GET", **headers: str) -> tuple[int, bytes, str]:
    """A request whose target no client has tidied up."""
    connection = http.client.HTTPConnection(urlsplit(stage.url).netloc, timeout=20)
    connection._validate_path = lambda url: None  # type: ignore[attr-defined]
    connection._encode_request = lambda line: line.encode("latin-1")  # type: ignore[attr-defined]
    connection.request(method, target, headers=headers)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body, answer.headers.get("content-type", "")


ALIASES = ("/{}", "/.{}", "/x/..{}", "{}/.", "{};x", "{}%00", "{}%20", "{}%2f", "{}%5c", "{}%ff", "{}.", "{}/x")  # fmt: skip
NAMES_SOMETHING = {(path, "{}/x") for path in ("/ai/v1/models", "/admin/api/v1/users")}


@pytest.mark.parametrize(
    "path",
    ["/internal/metrics", "/healthz", "/authentication/login", "/admin/api/v1/users", "/ai/v1/models"],
)  # fmt: skip
@pytest.mark.parametrize("alias", ALIASES)
def test_another_spelling_of_a_path_is_404_in_its_own_form(stage: Gateway, path: str, alias: str) -> None:  # fmt: skip
    target = alias.format(path)
    if (path, alias) in NAMES_SOMETHING:
        return
    status, body, kind = ask(stage, target, **stage.alice.authorization)
    assert status == 404, (target, body)
    assert kind.startswith("application/json")
    shown = json.loads(body)
    assert shown["error" if target.startswith("/ai/") else "code"]


@pytest.mark.parametrize(
    "target",
    ["/%69nternal/metrics", "/internal%2fmetrics", "/internal/metric%73", "/%61dmin/api/v1/users/current", "/ai%2Fv1/models", "/ai/v1/%6dodels",
     "/%61i/v1/models/x", "/ai/v1/model%73/x"],
)  # fmt: skip
def test_encoded_letters_of_a_route_are_404(stage: Gateway, target: str) -> None:
    assert ask(stage, target, **stage.alice.authorization)[0] == 404


@pytest.mark.parametrize("path", ["/chat/%63ompletions", "/chat%2Fcompletions", "/%72esponses", "/embeddings;x", "/./embeddings", "//embeddings"])  # fmt: skip
def test_an_inference_route_has_one_name_too(stage: Gateway, path: str) -> None:
    status, body, _ = ask(stage, f"/ai/v1{path}", "POST", **stage.alice.authorization)
    assert (status, set(json.loads(body))) == (404, {"error"})


def test_a_models_name_may_be_encoded_as_clients_like(stage: Gateway) -> None:
    alias = stage.model("ok", alias="meta-llama/Llama-3.1 (ü)")
    for spelt in ("meta-llama%2FLlama-3.1%20%28%C3%BC%29", "meta-llama/Llama-3.1%20(%C3%BC)", "%6deta%2Dllama%2fLlama%2D3%2E1%20%28%c3%bc%29"):  # fmt: skip
        status, body, _ = ask(stage, f"/ai/v1/models/{spelt}", **stage.alice.authorization)
        assert status == 200, (spelt, body)
        assert json.loads(body)["id"] == alias


def test_an_id_may_be_encoded_as_clients_like(stage: Gateway) -> None:
    made = stage.respond(stage.model("ok")).json()["id"]
    for spelt in (made, made.replace("_", "%5F").replace("-", "%2D"), made.replace("r", "%72", 1)):
        status, body, _ = ask(stage, f"/ai/v1/responses/{spelt}", **stage.alice.authorization)
        assert (status, json.loads(body)["id"]) == (200, made)


def test_a_target_with_a_host_is_served_as_its_path(stage: Gateway) -> None:
    assert ask(stage, f"{stage.url}/healthz")[0] == 200
    assert ask(stage, f"{stage.url}//healthz")[0] == 404


def test_nobody_but_a_trusted_proxy_says_where_we_are(stage: Gateway) -> None:
    for name in ("SCRIPT_NAME", "Script-Name", "X-Script-Name", "X-Original-URL", "X-Rewrite-URL"):
        answer = requests.get(f"{stage.url}/healthz", headers={name: "/internal"}, timeout=10)
        assert (answer.status_code, answer.text) == (200, "OK")
