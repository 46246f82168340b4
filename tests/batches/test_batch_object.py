"""The batch object and its status, from rows in every state that a row can be in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from dwctl.batches.batch_object import batch_object, status_of
from dwctl.queue.tables import Batch
from tests.batches.schema import check_batch

MADE = datetime(2026, 1, 31, 10, tzinfo=UTC)
LATER = MADE + timedelta(minutes=1)
ID = UUID(int=7)


def row(**more: Any) -> Batch:
    columns = {
        "id": ID,
        "file_id": UUID(int=1),
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        "metadata_": {},
        "output_file_id": UUID(int=2),
        "error_file_id": UUID(int=3),
        "created_by": "",
        "created_at": MADE,
        "expires_at": MADE + timedelta(hours=24),
        "total_requests": 10,
        "populated_lines": 0,
        "completed_requests": 0,
        "failed_requests": 0,
        "canceled_requests": 0,
    }
    return Batch(**columns | more)


STARTED = {"requests_started_at": LATER}
POPULATED = {**STARTED, "populated_lines": 10}
ENDED = {**POPULATED, "completed_requests": 7, "failed_requests": 2, "canceled_requests": 1}

STATUSES: dict[str, tuple[dict[str, Any], str]] = {
    "just made": ({}, "validating"),
    "given up before it began": ({"failed_at": LATER}, "failed"),
    "some lines are there": ({**STARTED, "populated_lines": 3}, "in_progress"),
    "the lines that are there have ended": ({**STARTED, "populated_lines": 3, "completed_requests": 3}, "in_progress"),
    "all lines are there": (POPULATED, "in_progress"),
    "all lines have ended": (ENDED, "finalizing"),
    "finalised": ({**ENDED, "finalizing_at": LATER, "completed_at": LATER}, "completed"),
    "all have failed": ({**POPULATED, "failed_requests": 10, "failed_at": LATER}, "failed"),
    "is being cancelled": ({**POPULATED, "cancelling_at": LATER}, "cancelling"),
    "was cancelled before it began": ({"cancelling_at": LATER, "cancelled_at": LATER}, "cancelled"),
    "cancelled, some lines had completed": ({**ENDED, "cancelling_at": LATER, "cancelled_at": LATER}, "cancelled"),
    "expired": ({**ENDED, "expired_at": LATER}, "expired"),
    "expired while it was cancelled": ({**ENDED, "expired_at": LATER, "cancelling_at": LATER}, "cancelling"),
}  # fmt: skip


@pytest.mark.parametrize("case", STATUSES)
def test_the_status_follows_from_the_row(case: str) -> None:
    columns, status = STATUSES[case]
    batch = row(**columns)
    assert status_of(batch) == status
    shown = batch_object(batch, {}, LATER)
    assert shown["status"] == status
    check_batch(shown)
    assert ("finalizing_at" in shown) == ("finalizing_at" in columns and status == "completed")
    assert ("expired_at" in shown) == ("expired_at" in columns)


def test_a_batch_is_late_only_while_it_runs() -> None:
    late = MADE + timedelta(days=2)
    running = batch_object(row(**POPULATED), {}, late)
    assert running["expired_at"] == running["expires_at"]
    done = row(**ENDED, completed_at=LATER)
    assert "expired_at" not in batch_object(done, {}, late)


def test_what_is_not_there_is_left_out_and_a_deleted_input_file_is_empty() -> None:
    shown = batch_object(row(file_id=None, output_file_id=None, error_file_id=None), {}, LATER)
    assert shown["input_file_id"] == ""
    assert shown.keys() & {"output_file_id", "error_file_id", "dwext", "errors"} == set()
    check_batch(shown)


ERRORS: list[tuple[Any, Any]] = [
    (None, None),
    ({}, None),
    ("odd", None),
    ({"data": []}, None),
    ({"data": [1, {"x": 2}]}, None),
    ({"message": "No templates"}, [{"message": "No templates"}]),
    (
        {"object": "list", "data": [{"code": "c", "line": 3, "message": "m", "param": None}]},
        [{"code": "c", "line": 3, "message": "m"}],
    ),
]


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_errors_have_the_form_of_a_list(number: int) -> None:
    kept, data = ERRORS[number]
    shown = batch_object(row(errors=kept), {}, LATER)
    assert shown.get("errors") == (data and {"object": "list", "data": data})
    check_batch(shown)


def test_metadata_shows_texts_and_hides_what_is_internal() -> None:
    kept = {
        "team": "a",
        "number": 3,
        "created_by": "x",
        "request_source": "sync",
        "dw_source_id": "i",
        "dw_source_name": "n",
        "dw_sync_id": "s",
        "dw_external_key": "k",
        "dw_user_agent": "curl",
    }
    shown = batch_object(row(metadata_=kept), {"created_by_email": "a@b.example"}, LATER)
    assert shown["metadata"] == {
        "team": "a",
        "request_source": "sync",
        "created_by_email": "a@b.example",
    }
    assert shown["dwext"] == {
        "source": "sync",
        "source_name": "n",
        "source_id": "i",
        "source_file": "k",
        "sync_id": "s",
    }
    check_batch(shown)
    assert batch_object(row(metadata_=None), {}, LATER)["metadata"] == {}
