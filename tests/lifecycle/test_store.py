"""`store: false`: of a call nothing is kept but the bill, in any mode, on any surface."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway import (
    FLEX,
    REALTIME,
    Gateway,
    Json,
    assert_openai_error,
    cost,
    marker,
    request_id,
)
from tests.processes import eventually

MODES: dict[str, Json] = {
    "blocking": {},
    "stream": {"stream": True},
    "flex": {"service_tier": "flex"},
    "flex stream": {"service_tier": "flex", "stream": True},
}
_TEXTS = """
    SELECT table_schema || '.' || table_name AS name, column_name AS column FROM information_schema.columns
     WHERE table_schema IN ('public', 'fusillade') AND data_type IN ('text', 'json', 'jsonb', 'character varying', 'ARRAY')
       AND (table_schema, table_name) IN (SELECT schemaname, tablename FROM pg_tables)
"""


def places_of(stage: Gateway, said: str) -> list[str]:
    """Every column of the database in which that text is."""
    found = []
    for name, column in stage.all(_TEXTS):
        statement = f"SELECT FROM {name} WHERE strpos({column}::text, %s) > 0 LIMIT 1"
        if stage.all(statement, said):
            found.append(f"{name}.{column}")
    return found


def call(stage: Gateway, path: str, model: str, said: str, **more: Any) -> Any:
    ask = stage.respond if path == "/responses" else stage.converse
    return ask(model, said, **more)


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_nothing_is_kept_but_the_bill(stage: Gateway, path: str, mode: Json) -> None:
    mark = marker()
    # It lasts long enough to have a row while it runs, and echoes: neither question nor answer may stay.
    model = stage.flexible("echo+slow-1300")
    answer = call(stage, path, model, mark, store=False, **mode)
    assert answer.status_code == 200, answer.text
    assert mark in answer.text
    id = answer.headers["x-request-id"]
    assert stage.log_of(id).status_code == 200
    price = FLEX if mode.get("service_tier") else REALTIME
    assert stage.charges(f"resp_{id}") == [cost(price)]
    for refused in (
        stage.get(f"/responses/{id}"),
        stage.get(f"/responses/resp_{id}/input_items"),
        stage.cancel(f"resp_{id}"),
        stage.delete(f"resp_{id}"),
        stage.respond(model, "And?", previous_response_id=f"resp_{id}"),
    ):
        assert refused.status_code == 404, refused.text
    eventually(lambda: not places_of(stage, mark), 5)


@pytest.mark.parametrize("path", ["/responses", "/chat/completions"])
def test_what_is_stored_is_found_by_the_same_search(stage: Gateway, path: str) -> None:
    mark = marker()
    assert call(stage, path, stage.flexible("echo"), mark, store=True).ok
    assert len(places_of(stage, mark)) >= 2


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
def test_a_failure_leaves_nothing_that_was_said(stage: Gateway, mode: Json) -> None:
    mark = marker()
    answer = stage.respond(stage.flexible("fail-400"), mark, store=False, **mode)
    id = answer.headers["x-request-id"]
    assert stage.log_of(id).status_code >= 400 or mode
    eventually(lambda: not places_of(stage, mark), 5)
    assert stage.get(f"/responses/{id}").status_code == 404


def test_in_the_background_it_is_refused(stage: Gateway) -> None:
    for tier in ("priority", "flex"):
        answer = stage.respond(
            stage.flexible("plain"), store=False, background=True, service_tier=tier
        )
        assert assert_openai_error(answer, 400)["param"] == "store"


def test_a_request_whose_caller_has_gone_is_deleted_by_a_duty(stage: Gateway) -> None:
    mark = marker()
    answer = stage.respond(stage.flexible("plain"), mark, background=True, service_tier="flex")
    id = request_id(answer.json()["id"])
    stage.over(answer.json()["id"])
    assert places_of(stage, mark)
    stage.execute(
        """UPDATE fusillade.batches SET metadata = '{"unkept": true}' WHERE id = %s""", id
    )
    stage.execute(
        "UPDATE fusillade.requests SET completed_at = now() - interval '1 hour' WHERE id = %s", id
    )
    stage.execute("UPDATE fusillade.duties SET due_at = now() WHERE name = 'forget_unkept'")
    eventually(lambda: not places_of(stage, mark), 10)
