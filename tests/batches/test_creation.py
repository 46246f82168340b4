"""POST /batches: what is made, what is refused and how."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.batches.desk import CHAT, Desk, message_of
from tests.identity.doors import NOBODY, insert_key, insert_organization, unique


def test_a_batch_is_there_at_once_with_its_files_and_its_counts(desk: Desk) -> None:
    """Nobody has counted the file: its lines are counted now."""
    small, other = desk.model(), desk.model()
    bob = desk.cast["bob"]
    file = desk.file(bob, small, small, other)
    answer = desk.create(
        "bob", f"file-{file}", metadata={"team": "a", "created_by": "me", "dw_x": "1"}
    )
    assert answer.status_code == 201
    made = answer.json
    id = UUID(made["id"])
    output, error = UUID(made.pop("output_file_id")), UUID(made.pop("error_file_id"))
    assert made == {
        "id": str(id),
        "object": "batch",
        "endpoint": CHAT,
        "input_file_id": str(file),
        "completion_window": "24h",
        "status": "validating",
        "created_at": made["created_at"],
        "expires_at": made["created_at"] + 86400,
        "request_counts": {"total": 3, "completed": 0, "failed": 0},
        "metadata": {
            "team": "a",
            "request_source": "frontend",
            "created_by_email": "bob@cast.example",
        },
        "dwext": {"source": "frontend"},
    }
    row = desk.sql.execute(
        "SELECT created_by, api_key_id, metadata->>'created_by', requests_started_at, single FROM fusillade.batches WHERE id = %s",
        (id,),
    ).fetchone()
    key = desk.one(
        "SELECT id FROM api_keys WHERE user_id = %s AND hidden AND purpose = 'batch'", bob
    )
    assert row == (str(bob), key, str(bob), None, False)
    files = desk.sql.execute(
        "SELECT id, name, purpose, uploaded_by, size_bytes, size_finalized, expires_at FROM fusillade.files WHERE id = ANY (%s) ORDER BY purpose",
        ([output, error],),
    ).fetchall()
    assert files == [
        (error, f"batch-{id}-error.jsonl", "batch_error", str(bob), 0, False, None),
        (output, f"batch-{id}-output.jsonl", "batch_output", str(bob), 0, False, None),
    ]
    models = "SELECT model, requests, completed, failed, canceled FROM fusillade.batch_models WHERE batch_id = %s ORDER BY model"
    assert desk.sql.execute(models, (id,)).fetchall() == sorted(
        [(small, 2, 0, 0, 0), (other, 1, 0, 0, 0)]
    )


def test_who_makes_a_batch_pays_for_it_and_a_key_is_an_api(desk: Desk) -> None:
    organization = insert_organization(desk.sql, member=desk.cast["bob"])
    key = insert_key(desk.sql, desk.cast["bob"], organization, "realtime")
    file = desk.file(organization, desk.model())
    headers = {"Authorization": f"Bearer {key}", "User-Agent": "x" * 300}
    made = desk.create(None, file, headers=headers).json
    assert made["metadata"]["request_source"] == "api"
    assert made["metadata"]["created_by_email"] == "bob@cast.example"
    assert "dw_user_agent" not in made["metadata"]
    kept = "SELECT (b.created_by, metadata->>'dw_user_agent', k.user_id, k.created_by)::text FROM fusillade.batches b JOIN api_keys k ON k.id = b.api_key_id WHERE b.id = %s"
    assert desk.one(kept, made["id"]) == f"({organization},{'x' * 256},{organization},{desk.cast['bob']})"  # fmt: skip


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "window that is not offered": ({"completion_window": "99h"}, 400, "Unsupported completion_window. Allowed values: 24h, 1h, 2h, 7d"),
    "window that is none": ({"completion_window": "soon"}, 400, "Unsupported completion_window. Allowed values: 24h, 1h, 2h, 7d"),
    "endpoint": ({"endpoint": "/v1/other"}, 400, "Unsupported endpoint '/v1/other'. Supported: /v1/chat/completions, /v1/completions, /v1/embeddings, /v1/responses"),
    "endpoint of no line": ({"endpoint": "/v1/embeddings"}, 400, "The file has lines for '/v1/chat/completions', the batch is for '/v1/embeddings'"),
    "no file id": ({"input_file_id": "nonsense"}, 400, "Invalid input_file_id format"),
    "unknown file": ({"input_file_id": NOBODY}, 404, f"File with ID {NOBODY} not found"),
    "metadata of too many pairs": ({"metadata": {f"k{n}": "" for n in range(17)}}, 400, "Invalid metadata: more than 16 pairs"),
    "metadata with a long value": ({"metadata": {"a": "x" * 513}}, 400, "Invalid metadata: a value of more than 512 characters (of 'a')"),
    "metadata of another shape": ({"metadata": {"a": {"b": 1}}}, 422, "metadata.a.value: Not a valid string."),
    "closed window": ({"completion_window": "2h"}, 429, "Insufficient capacity for 2h completion window. The following models are currently at capacity: {model}. The batch alone is more than they answer within that window: {model} (0) requests at most. Split it, or use a longer completion window."),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(desk: Desk, case: str) -> None:
    wrong, status, message = REFUSED[case]
    model = desk.model()
    answer = desk.create("bob", desk.file(desk.cast["bob"], model), **wrong)
    assert answer.status_code == status
    assert message_of(answer) == message.format(model=model)
    assert not desk.sql.execute(
        "SELECT FROM fusillade.batch_models WHERE model = %s", (model,)
    ).fetchall()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"{}", "application/json", 422),
        (b"{}", "text/plain", 415),
    ],
)
def test_bodies_that_are_no_order(desk: Desk, body: bytes, content_type: str, status: int) -> None:
    answer = desk.call("bob", "POST", "/batches", data=body, content_type=content_type)
    assert answer.status_code == status
    assert message_of(answer)


def test_files_that_cannot_be_run(desk: Desk) -> None:
    bob, model = desk.cast["bob"], desk.model()
    past = datetime.now(UTC) - timedelta(seconds=1)
    for columns, status, said in (
        ({"purpose": "batch_output"}, 400, "has the purpose 'batch_output', not 'batch'"),
        ({"expires_at": past}, 400, "has expired"),
        ({"status": "expired"}, 400, "has expired"),
        ({"status": "error"}, 400, "was not read to its end"),
        ({"deleted_at": past}, 404, "not found"),
    ):
        file = desk.file(bob, model, **columns)
        answer = desk.create("bob", file)
        assert (answer.status_code, message_of(answer)) == (status, f"File with ID {file} {said}")
    empty = desk.create("bob", file := desk.file(bob))
    assert empty.status_code == 400
    assert message_of(empty) == f"File with ID {file} contains no valid request templates"
    assert desk.create("alice", desk.file(bob, model)).status_code == 403


def test_models_say_which_windows_they_have(desk: Desk) -> None:
    bob = desk.cast["bob"]
    none, some = (
        desk.model(allowed_batch_completion_windows=windows) for windows in ([], ["1h", "7d"])
    )
    answer = desk.create("bob", desk.file(bob, none))
    assert (answer.status_code, message_of(answer)) == (
        400,
        f"Model '{none}' does not support batch processing.",
    )
    answer = desk.create("bob", file := desk.file(bob, some))
    assert (answer.status_code, message_of(answer)) == (
        400,
        f"Model '{some}' does not support completion window '24h'. Allowed: 1h, 7d",
    )
    assert desk.create("bob", file, completion_window="7d").status_code == 201
    # Whoever may make everybody's batches is not bound by windows; what is no window is none for them either.
    assert desk.create("admin", file).status_code == 201
    assert desk.create("admin", file, completion_window="1h 30m").status_code == 201
    for window in ("soon", "0s", "24", "-1h", "999999999h"):
        assert desk.create("admin", file, completion_window=window).status_code == 400
    desk.sql.execute("UPDATE deployed_models SET deleted = true WHERE alias = %s", (some,))
    answer = desk.create("bob", file, completion_window="7d")
    assert (answer.status_code, message_of(answer)) == (
        400,
        f"The following model(s) are no longer available: {some}",
    )


def test_debtors_make_no_batches_and_nobody_runs_their_files(desk: Desk) -> None:
    model = desk.model()
    alice = desk.cast["alice"]
    desk.credit(alice, "-0.01")
    file = desk.file(alice, model)
    answer = desk.create("alice", NOBODY)
    assert answer.status_code == 402
    assert message_of(answer) == "Account balance too low. Please add credits to continue."
    answer = desk.create("admin", file)
    assert answer.status_code == 402
    assert message_of(answer) == (
        "File owner (alice) does not have enough balance. Please add credits to their account or upload a new file."
    )
    desk.credit(alice, "0")
    assert desk.create("alice", file).status_code == 201
    assert desk.create("bob", file).status_code == 403
    assert desk.create("admin", file).status_code == 201


def test_an_order_that_is_repeated_makes_one_batch(desk: Desk) -> None:
    file = desk.file(desk.cast["bob"], desk.model())
    headers = {"Idempotency-Key": unique("key")}
    refused = desk.create("bob", NOBODY, headers=headers)
    assert refused.status_code == 404
    first = desk.create("bob", file, headers=headers)
    again = desk.create("bob", file, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json == again.json
    other = desk.create("bob", file, headers=headers, completion_window="7d")
    assert (other.status_code, other.json["error"]["code"]) == (409, "idempotency_key_reused")
    assert desk.create("bob", file, headers={"Idempotency-Key": ""}).status_code == 400
    elsewhere = desk.create("admin", file, headers=headers)
    assert elsewhere.json["id"] != first.json["id"]


def test_a_worker_hears_of_a_batch_when_it_is_committed(desk: Desk) -> None:
    desk.sql.execute("LISTEN fusillade_batches")
    made = desk.batch("bob", desk.model())
    heard = [note.payload for note in desk.sql.notifies(timeout=2, stop_after=1)]
    desk.sql.execute("UNLISTEN *")
    assert heard == [made["id"]]
