"""Requests that schemathesis makes up from the documents, right ones and wrong ones, against a real process: no answer that is not documented.

The same requests each time (`derandomize`), some for each operation. Ids are those of things that there are, where the operation does not delete them.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import one_of
from schemathesis.generation import GenerationMode

from tests.cast import Cast
from tests.gateway import EVERYONE, Gateway
from tests.operations.documented import Operation, documents, judge, operations
from tests.operations.world import World

EXAMPLES = int(os.environ.get("MADE_UP_REQUESTS", "6"))
"""For each operation; more of them by hand: MADE_UP_REQUESTS=200."""
BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
_WAITS = {"background": False, "service_tier": None, "stream": False}
"""What would keep a call of a model waiting for a worker, or its answer from being one body."""


@cache
def schema_of(document: str) -> Any:
    return schemathesis.openapi.from_dict(documents()[document])


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {"DWCTL_OUTBOUND__SOURCES": "private"}


@pytest.fixture(scope="module")
def world(stage: Gateway, nothing_fell_over: None) -> World:
    return World(stage)


@pytest.mark.parametrize("id", sorted(operations()))
def test_what_is_answered_is_documented(id: str, world: World) -> None:
    operation = operations()[id]
    made = schema_of(operation.document).find_operation_by_id(operation.id)
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

    @BOUNDED
    @given(one_of(*(made.as_strategy(generation_mode=mode) for mode in modes)))
    def ask(case: Any) -> None:
        _ask(case, world, operation)

    ask()


def _ask(case: Any, world: World, operation: Operation) -> None:
    if case.method != "DELETE":
        _name_what_is_there(case, world)
    credential = Cast.headers("admin")
    if operation.document == "ai":
        credential = world.stage.alice.authorization
        _hurry(case, world)
    base = world.stage.url + operation.path.removesuffix(case.path)
    judge(operation, case.call(base_url=base, headers=credential, timeout=30))


def _hurry(case: Any, world: World) -> None:
    """A call of a model names one that there is, and does not wait for a worker."""
    if case.media_type == "application/json" and isinstance(case.body, dict):
        case.body |= {k: v for k, v in _WAITS.items() if k in case.body}
        if isinstance(case.body.get("model"), str):
            case.body["model"] = world.alias


def _name_what_is_there(case: Any, world: World) -> None:
    known = {
        "user_id": world.user,
        "group_id": EVERYONE if case.method == "PATCH" else world.group,
        "deployment_id": world.model,
        "component_id": world.model,
        "model": world.alias,
        "file_id": world.file,
        "response_id": world.response,
        "id": world.composite if "/components" in case.path else _of_room(case.path, world),
    }
    for name in case.path_parameters or {}:
        if name in known:
            case.path_parameters[name] = str(known[name])


def _of_room(path: str, world: World) -> str:
    if path.startswith("/models"):
        return world.model
    if path.startswith("/endpoints"):
        return world.stage.endpoint()
    return world.key
