"""The places of a model, taken by several workers at once: never more than there are, and next to none of them empty."""

from __future__ import annotations

import pytest

from tests.faults.test_lines import batch, chat, ended
from tests.gateway import Gateway, marker
from tests.processes import QUICK

PLACES, LINES = 16, 640


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


@pytest.mark.parametrize("workers", [1, 2])
def test_they_are_all_taken_and_no_more(stage: Gateway, workers: int) -> None:
    for _ in range(workers - len(stage.service.workers)):
        stage.service.start_worker()
    model, said = stage.flexible("slow-50", batch_capacity=PLACES), marker()
    stage.upstream.reset()
    _, lines = batch(stage, [chat(model, user=said)] * LINES)
    rows = ended(stage, lines, 60)
    assert {row.state for row in rows} == {"completed"}
    assert stage.upstream.active()["peak"] == PLACES
    assert len(stage.sent(said)) == LINES
    assert stage.unbalanced() == []
