"""The official library's methods for files, sync and async, against real processes: what is uploaded, and what comes out of a batch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import Batch

from tests.gateway import Gateway, unique
from tests.processes import eventually

DAY = 86400


@pytest.fixture(scope="module")
def model(stage: Gateway) -> str:
    alias = stage.model("ok")
    stage.all("UPDATE deployed_models SET type = 'CHAT' WHERE alias = %s RETURNING id", alias)
    return alias


@pytest.fixture
def client(stage: Gateway) -> Iterator[OpenAI]:
    """Of an account of its own."""
    key = stage.account().key
    with OpenAI(base_url=f"{stage.url}/ai/v1", api_key=key, max_retries=0, timeout=20) as made:
        yield made


def content(model: str, count: int = 3) -> bytes:
    lines = [
        {
            "custom_id": f"line-{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "messages": [{"role": "user", "content": f"Hello {n}"}]},
        }
        for n in range(count)
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_files_from_upload_to_deletion(client: OpenAI, model: str, tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(content(model))
    with path.open("rb") as opened:
        made = client.files.create(
            file=opened, purpose="batch", expires_after={"anchor": "created_at", "seconds": DAY}
        )
    assert (made.object, made.purpose, made.status) == ("file", "batch", "processed")
    assert (made.filename, made.bytes) == ("input.jsonl", path.stat().st_size)
    assert made.expires_at == made.created_at + DAY
    # The same object, and who made it.
    shown = client.files.retrieve(made.id)
    assert shown.to_dict().items() >= made.to_dict().items()
    assert client.files.wait_for_processing(made.id, poll_interval=0.1) == shown
    assert json.loads(client.files.content(made.id).text.splitlines()[2])["custom_id"] == "line-2"
    with client.files.with_streaming_response.content(made.id) as streamed:
        assert [json.loads(line)["custom_id"] for line in streamed.iter_lines()] == ["line-0", "line-1", "line-2"]  # fmt: skip
    assert client.files.with_raw_response.retrieve(made.id).status_code == 200
    gone = client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    for missing in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            missing(made.id)
        assert made.id in str(refused.value)


def test_lists_go_on_by_themselves(client: OpenAI, model: str) -> None:
    made = [
        client.files.create(file=(f"{n}.jsonl", content(model, 1)), purpose="batch").id
        for n in range(5)
    ]
    assert [file.id for file in client.files.list(limit=2)] == made[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc", purpose="batch")] == made
    page = client.files.list(limit=4)
    assert page.has_next_page()
    assert [file.id for file in page.get_next_page().data] == made[:1]
    assert list(client.files.list(purpose="assistants")) == []
    # What is deleted while one goes through the list does no harm.
    for file in client.files.list(limit=2):
        client.files.delete(file.id)
    assert list(client.files.list()) == []


def test_a_file_that_has_expired_is_one_with_an_error(
    client: OpenAI, model: str, stage: Gateway
) -> None:
    made = client.files.create(file=content(model), purpose="batch")
    stage.execute("UPDATE fusillade.files SET expires_at = now() WHERE id = %s", made.id)
    found = client.files.wait_for_processing(made.id, poll_interval=0.1, max_wait_seconds=5)
    assert found.status == "error"
    assert found.status_details == "The file has expired."
    with pytest.raises(openai.BadRequestError, match="expired"):
        client.batches.create(
            input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
        )


def test_what_comes_out_of_a_batch_is_two_files(client: OpenAI, model: str, stage: Gateway) -> None:
    stage.service.worker()
    made = client.files.create(file=content(model), purpose="batch")
    batch = client.batches.create(
        input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    assert batch.output_file_id
    assert batch.error_file_id
    ended = eventually(lambda: over(client, batch.id), 30)
    assert ended.status == "completed"
    output = client.files.retrieve(batch.output_file_id)
    assert (output.purpose, output.filename) == (
        "batch_output",
        f"batch-{batch.id}-output.jsonl",
    )
    assert output.expires_at is None
    text = client.files.content(output.id).content
    assert len(text.splitlines()) == 3
    assert output.bytes == len(text)
    assert client.files.retrieve(batch.error_file_id).bytes == 0
    assert [file.id for file in client.files.list(purpose="batch_output")] == [output.id]
    # Without its input, and then without its output.
    client.files.delete(made.id)
    assert client.files.content(output.id).content == text
    assert client.batches.retrieve(batch.id).input_file_id == made.id
    client.files.delete(output.id)
    after = client.batches.retrieve(batch.id)
    assert (after.status, after.output_file_id) == ("completed", None)
    assert after.error_file_id == batch.error_file_id


def over(client: OpenAI, id: str) -> Batch | None:
    found = client.batches.retrieve(id)
    return found if found.status in ("completed", "failed", "expired", "cancelled") else None


def test_deleting_a_file_stops_the_batch_that_runs_it(client: OpenAI, stage: Gateway) -> None:
    slow = stage.model("slow-1000", alias=unique("slow"))
    stage.service.worker()
    made = client.files.create(file=content(slow, 40), purpose="batch")
    batch = client.batches.create(
        input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    client.files.delete(made.id)
    ended = eventually(lambda: over(client, batch.id), 30)
    assert ended.status == "cancelled"
    assert ended.request_counts is not None
    assert ended.request_counts.completed < 40


def test_a_worker_makes_the_sample_files_of_a_newcomer(
    client: OpenAI, model: str, stage: Gateway
) -> None:
    stage.service.worker()
    stage.execute(
        "INSERT INTO newcomers (user_id, api_key_id) SELECT user_id, id FROM api_keys WHERE secret_hash = sha256(%s::bytea)",
        client.api_key.encode(),
    )
    found = eventually(lambda: list(client.files.list()))
    assert [file.filename for file in found] == ["Sample: Chat Completions"]
    lines = client.files.content(found[0].id).text.splitlines()
    assert len(lines) == 100
    assert {json.loads(line)["body"]["model"] for line in lines} == {model}


def test_what_is_refused_is_said_in_the_librarys_terms(client: OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="Invalid purpose"):
        client.files.create(file=content(model), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="on line 1"):
        client.files.create(file=b"{}\n", purpose="batch")
    with pytest.raises(openai.PermissionDeniedError, match="nowhere"):
        client.files.create(file=content("nowhere"), purpose="batch")
    with pytest.raises(openai.BadRequestError, match="Invalid file ID format"):
        client.files.retrieve("file-abc123")
    stranger = client.with_options(api_key=f"sk-{unique('nobody')}")
    with pytest.raises(openai.AuthenticationError):
        stranger.files.list()


def test_asynchronously(client: OpenAI, model: str) -> None:
    async def go() -> None:
        options: dict[str, Any] = {"base_url": str(client.base_url), "api_key": client.api_key}
        async with AsyncOpenAI(**options, max_retries=0, timeout=20) as other:
            made = await asyncio.gather(
                *(other.files.create(file=content(model), purpose="batch") for _ in range(3))
            )
            ids = {file.id for file in made}
            assert {file.id async for file in other.files.list(limit=1)} == ids
            text = (await other.files.content(made[0].id)).text
            assert len(text.splitlines()) == 3
            deleted = await asyncio.gather(*(other.files.delete(id) for id in ids))
            assert all(file.deleted for file in deleted)

    asyncio.run(go())
