"""Every operation of both documents is called, and answers what its document says."""

from __future__ import annotations

import pytest

from tests.gateway import Gateway
from tests.operations.documented import judge, operations
from tests.operations.world import NOBODY, World, all_cases
from tests.processes import QUICK


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK | {"DWCTL_OUTBOUND__SOURCES": "private"}


@pytest.fixture(scope="module")
def world(stage: Gateway) -> World:
    return World(stage)


def test_every_operation_has_a_case() -> None:
    assert operations().keys() - all_cases().keys() == set(), "tests/operations/cases/ lacks them"
    assert all_cases().keys() - operations().keys() == set()


@pytest.mark.parametrize("id", sorted(all_cases()))
def test_the_answer_is_the_documented_one(world: World, id: str) -> None:
    world.operation = operations()[id]
    case = all_cases()[id]
    answer = case(world)
    expected = getattr(case, "refused", None)
    said = answer.text[:500]
    assert answer.status_code == expected if expected else answer.ok, (answer.status_code, said)
    judge(world.operation, answer)


@pytest.mark.parametrize("id", sorted(operations()))
def test_refusals_are_documented_ones(world: World, id: str) -> None:
    """By nobody, and by somebody without a role, of what there is not; by an administrator, with malformed ids. With an empty body."""
    operation = world.operation = operations()[id]
    names = [name for place, name in operation.parameters if place == "path"]
    body = {} if "requestBody" in operation.described else None
    for who in (None, "bob"):
        judge(operation, world.ask(dict.fromkeys(names, NOBODY), json=body, by=who))
    if names:
        judge(operation, world.ask(dict.fromkeys(names, "no-id"), json=body))
