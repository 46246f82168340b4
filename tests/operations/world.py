"""What the cases of all operations stand on: one of each thing, made through the routes; calls by operation id."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any
from urllib.parse import quote

import orjson
import requests

from tests.cast import Cast
from tests.gateway import Gateway, unique
from tests.operations import cases
from tests.operations.documented import Operation, operations
from tests.processes import eventually

Json = dict[str, Any]
Case = Callable[["World"], requests.Response]
OVER = ("completed", "failed")
NOBODY = "00000000-0000-4000-8000-00000000dead"


def refused(status: int) -> Callable[[Case], Case]:
    """The case is answered with this, as its success cannot be had here."""

    def decorate(case: Case) -> Case:
        case.refused = status  # type: ignore[attr-defined]
        return case

    return decorate


@cache
def all_cases() -> dict[str, Case]:
    """By document and operation id; a module says in `DOCUMENT` whose operations it calls (`admin` if it does not)."""
    found = {}
    for module in pkgutil.iter_modules(cases.__path__):
        room = importlib.import_module(f"{cases.__name__}.{module.name}")
        for name, case in inspect.getmembers(room, inspect.isfunction):
            if case.__module__ == room.__name__ and not name.startswith("_"):
                found[f"{getattr(room, 'DOCUMENT', 'admin')} {name.rstrip('_')}"] = case
    return found


class World:
    """One of each: `model`, `composite`, `group`, `user`, `file`, `batch` (done) and so on, made when first asked for."""

    def __init__(self, stage: Gateway) -> None:
        self.stage = stage
        self.operation: Operation | None = None

    def ask(
        self,
        path: dict[str, Any] | None = None,
        query: dict[str, Any] | None = None,
        json: Any = None,
        *,
        by: str | None = "admin",
        key: bool = False,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> requests.Response:
        """Call the operation at hand, as one of the cast, as nobody (`by=None`) or by alice's API key."""
        assert self.operation
        address = self.stage.url + self.operation.path
        for name, value in (path or {}).items():
            assert "{" + name + "}" in address, f"{address} has no {name}"
            address = address.replace("{" + name + "}", quote(str(value), safe=""))
        for name in query or {}:
            assert ("query", name) in self.operation.parameters, f"there is no parameter {name}"
        sent = Cast.headers(by) if by else {}
        if key:
            sent = dict(self.stage.alice.authorization)
        return requests.request(
            self.operation.method,
            address,
            params=query,
            json=json,
            headers={**sent, **(headers or {})},
            timeout=30,
            allow_redirects=False,
            **more,
        )

    def made(self, path: str, body: Json) -> str:
        """The id of what a POST below the admin API made."""
        found: str = self.stage.admin("POST", path, body).json()["id"]
        return found

    @cached_property
    def alias(self) -> str:
        return self.stage.model("ok")

    @cached_property
    def model(self) -> str:
        self.alias  # noqa: B018 - makes it
        return self.stage.model_id(self.alias)

    def new_model(self) -> str:
        body = {"type": "standard", "model_name": "ok", "alias": unique("m"), "hosted_on": self.stage.endpoint()}  # fmt: skip
        return self.made("/models", body)

    @cached_property
    def composite(self) -> str:
        id = self.made("/models", {"type": "composite", "model_name": unique("c")})
        self.stage.admin("POST", f"/models/{id}/components/{self.model}", {"weight": 40})
        return id

    @cached_property
    def group(self) -> str:
        id = self.new_group()
        self.stage.admin("POST", f"/groups/{id}/users/{self.user}")
        self.stage.admin("POST", f"/groups/{id}/models/{self.model}")
        return id

    def new_group(self) -> str:
        return self.made("/groups", {"name": unique("group"), "description": "of the world"})

    @cached_property
    def user(self) -> str:
        return self.new_user()

    def new_user(self) -> str:
        name = unique("user")
        body = {"username": name, "email": f"{name}@x.example", "roles": ["StandardUser"]}
        return self.made("/users", body)

    @cached_property
    def key(self) -> str:
        return self.new_key()

    def new_key(self) -> str:
        return self.made(f"/users/{self.user}/api-keys", {"name": unique("key")})

    def new_endpoint(self) -> str:
        body = {"name": unique("e"), "url": self.stage.upstream.url, "sync": False}
        return self.made("/endpoints", body)

    # --- alice's files and batches

    def new_file(self, model: str | None = None) -> str:
        found: str = self.upload(model).json()["id"]
        return found

    def upload(self, model: str | None = None) -> requests.Response:
        body = {"model": model or self.alias, "messages": [{"role": "user", "content": unique("n")}]}  # fmt: skip
        line = {
            "custom_id": "a",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": body,
        }
        return requests.post(
            f"{self.stage.url}/ai/v1/files",
            files={"file": ("in.jsonl", orjson.dumps(line) + b"\n")},
            data={"purpose": "batch"},
            headers=self.stage.alice.authorization,
            timeout=30,
        )

    @cached_property
    def file(self) -> str:
        return self.new_file()

    def new_batch(self, model: str | None = None, *, done: bool = False) -> str:
        body = {
            "input_file_id": self.new_file(model),
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        answer = self.stage.post("/batches", body)
        assert answer.status_code == 201, answer.text
        id: str = answer.json()["id"]
        if done:
            self.stage.service.worker()
            eventually(lambda: self.stage.get(f"/batches/{id}").json()["status"] in OVER, 20)
        return id

    @cached_property
    def batch(self) -> str:
        return self.new_batch(done=True)

    @cached_property
    def failed_batch(self) -> str:
        return self.new_batch(self.stage.model("fail-400"), done=True)

    @cached_property
    def response(self) -> str:
        return self.new_response()

    def new_response(self) -> str:
        answer = self.stage.respond(self.alias)
        assert answer.status_code == 200, answer.text
        found: str = answer.json()["id"]
        return found


def operation_of(id: str) -> Operation:
    return operations()[id]
