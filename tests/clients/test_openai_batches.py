"""OpenAI's library on batches: every method that it has for them, against web and worker."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types import Batch

from tests.batches.schema import check_batch
from tests.gateway import BATCH, Gateway, cost, unique
from tests.processes import QUICK, ROOT

CHAT = "/v1/chat/completions"
OVER = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | QUICK


@pytest.fixture(scope="module")
def client(stage: Gateway) -> Iterator[OpenAI]:
    stage.service.start_worker()
    with OpenAI(base_url=f"{stage.url}/ai/v1", api_key=stage.alice.key, max_retries=0) as made:
        yield made


Maker = Callable[..., Batch]


@pytest.fixture(scope="module")
def make(client: OpenAI) -> Maker:
    """A batch of one line for each of these models."""

    def made(*models: str, **more: Any) -> Batch:
        lines = [
            {"custom_id": f"r{n}", "method": "POST", "url": CHAT,
             "body": {"model": model, "user": unique("u"), "messages": [{"role": "user", "content": "Hello"}]}}
            for n, model in enumerate(models)
        ]  # fmt: skip
        content = "\n".join(json.dumps(line) for line in lines).encode()
        file = client.files.create(file=("input.jsonl", content), purpose="batch")
        return client.batches.create(
            input_file_id=file.id, endpoint=CHAT, completion_window="24h", **more
        )

    return made


def ended(client: OpenAI, id: str, timeout_s: float = 20) -> Batch:
    """The batch when it is over, every state on the way judged by the schema."""
    until = time.monotonic() + timeout_s
    while True:
        found = client.batches.retrieve(id)
        check_batch(found.to_dict())
        if found.status in OVER:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.05)


def lines(client: OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    text = client.files.content(file_id).text
    return {line["custom_id"]: line for line in map(json.loads, text.splitlines())}


def test_a_batch_of_good_and_bad_lines(stage: Gateway, client: OpenAI, make: Maker) -> None:
    good, bad = stage.flexible("ok"), stage.flexible("fail-401")
    made = make(good, bad, good, metadata={"team": "a"})
    # (A worker may have begun by the time the answer is written.)
    assert made.status in ("validating", "in_progress")
    assert made.metadata
    assert made.metadata["team"] == "a"
    done = ended(client, made.id)
    assert done.status == "completed"
    counts = done.request_counts
    assert counts
    assert (counts.total, counts.completed, counts.failed) == (3, 2, 1)
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at  # type: ignore[operator]
    output, error = lines(client, done.output_file_id), lines(client, done.error_file_id)
    assert output.keys() == {"r0", "r2"}
    assert output["r0"]["response"]["body"]["usage"]["total_tokens"] == 12
    assert error.keys() == {"r1"}
    assert (made.usage, done.model) == (None, None)
    assert done.usage
    assert (done.usage.input_tokens, done.usage.output_tokens, done.usage.total_tokens) == (18, 6, 24)  # fmt: skip
    assert make(good).model == good
    used = stage.get(f"/batches/{made.id}/analytics").json()
    assert used["total_requests"] == 2
    assert float(used["total_cost"]) == float(2 * cost(BATCH))
    logged = stage.all(
        "SELECT DISTINCT request_origin, batch_request_source, batch_sla FROM http_analytics WHERE fusillade_batch_id = %s",
        made.id,
    )
    assert [tuple(row) for row in logged] == [("fusillade", "api", "24h")]
    again = client.batches.cancel(made.id)
    assert (again.status, again.cancelling_at) == ("completed", None)
    late = stage.post(f"/batches/{made.id}/retry", b"")
    assert late.status_code == 200
    assert late.json()["retry"] == {"retried": 1, "refused": []}
    assert late.json()["status"] in ("in_progress", "completed")
    assert ended(client, made.id).request_counts == counts


def test_the_librarys_lines_are_those_of_the_files(stage: Gateway, client: OpenAI) -> None:
    """It splits text as Unicode does, which knows line ends that JSON leaves as they are."""
    said = "one\u2028two\u2029three\u0085four"
    line = {"custom_id": "r\u2028", "method": "POST", "url": CHAT,
            "body": {"model": stage.flexible("echo"), "messages": [{"role": "user", "content": said}]}}  # fmt: skip
    content = json.dumps(line, ensure_ascii=False).encode()
    file = client.files.create(file=("input.jsonl", content), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
    done = ended(client, made.id)
    assert done.output_file_id
    with client.files.with_streaming_response.content(done.output_file_id) as streamed:
        (found,) = map(json.loads, streamed.iter_lines())
    assert found["response"]["body"]["choices"][0]["message"]["content"] == said
    assert lines(client, file.id) == {"r\u2028": line}
    (result,) = map(json.loads, stage.get(f"/batches/{made.id}/results").text.splitlines())
    assert result["input_body"] == line["body"]
    assert client.files.retrieve(done.output_file_id).bytes == len(client.files.content(done.output_file_id).content)  # fmt: skip


def test_a_batch_that_is_cancelled_while_it_runs(stage: Gateway, client: OpenAI, make: Maker) -> None:  # fmt: skip
    made = make(*[stage.flexible("hang")] * 4)
    until = time.monotonic() + 20
    while client.batches.retrieve(made.id).status == "validating":
        assert time.monotonic() < until
        time.sleep(0.05)
    stopped = client.batches.cancel(made.id)
    assert stopped.status in ("cancelling", "cancelled")
    over = ended(client, made.id)
    assert over.status == "cancelled"
    assert over.request_counts
    assert over.request_counts.completed == 0
    assert client.batches.cancel(made.id).cancelled_at == over.cancelled_at
    assert {line["error"]["code"] for line in lines(client, over.error_file_id).values()} == {"batch_cancelled"}  # fmt: skip
    refused = stage.post(f"/batches/{made.id}/retry", b"")
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "No failed requests to retry in this batch"


def test_some_lines_are_retried_and_others_are_refused(stage: Gateway, client: OpenAI, make: Maker) -> None:  # fmt: skip
    model = stage.flexible("fail-403")
    first, other = (ended(client, make(model, model).id) for _ in range(2))
    assert first.status == other.status == "failed"
    mine, foreign = (
        [line["id"] for line in lines(client, batch.error_file_id).values()]
        for batch in (first, other)
    )
    answer = stage.post(
        f"/batches/{first.id}/retry-requests",
        {"request_ids": [mine[0], foreign[0], "nonsense", mine[0]]},
    )
    assert answer.status_code == 200
    assert answer.json()["retry"] == {"retried": 1, "refused": [foreign[0], "nonsense"]}
    assert ended(client, first.id).status == "failed"
    assert client.batches.retrieve(other.id).failed_at == other.failed_at
    for ids in ([], ["nonsense"]):
        answer = stage.post(f"/batches/{first.id}/retry-requests", {"request_ids": ids})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == "No valid request IDs provided"
    deleted = stage.session.delete(
        f"{stage.url}/ai/v1/batches/{first.id}", headers=stage.alice.authorization, timeout=20
    )
    assert (deleted.status_code, deleted.content) == (204, b"")
    for path in ("retry", "cancel"):
        assert stage.post(f"/batches/{first.id}/{path}", b"").status_code == 404
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve(first.id)


def test_pages_of_the_library_are_followed_to_the_end(stage: Gateway, client: OpenAI, make: Maker) -> None:  # fmt: skip
    model = stage.flexible("ok")
    made = [make(model).id for _ in range(3)]
    seen = [batch.id for batch in client.batches.list(limit=2)]
    assert seen[:3] == made[::-1]
    assert len(seen) == len(set(seen)) >= 3
    first = client.batches.list(limit=1)
    assert (len(first.data), first.has_more) == (1, True)


def test_refusals_are_the_librarys_exceptions(stage: Gateway, client: OpenAI) -> None:
    nowhere = "11111111-1111-4111-8111-111111111111"
    with pytest.raises(openai.NotFoundError, match="File with ID"):
        client.batches.create(input_file_id=nowhere, endpoint=CHAT, completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="Unsupported completion_window"):
        client.batches.create(input_file_id=nowhere, endpoint=CHAT, completion_window="99h")  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="Invalid batch ID format"):
        client.batches.retrieve("nonsense")
    with pytest.raises(openai.NotFoundError, match="Batch with ID"):
        client.batches.cancel(nowhere)
    with OpenAI(base_url=f"{stage.url}/ai/v1", api_key="sk-wrong", max_retries=0) as nobody, pytest.raises(openai.AuthenticationError):  # fmt: skip
        nobody.batches.list()


def test_the_quick_start_works_as_printed(stage: Gateway, client: OpenAI, tmp_path: Path) -> None:
    stage.flexible("ok", alias="demo-chat")
    text = (ROOT / "docs" / "batches.md").read_text()
    shell, python = (
        re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]  # type: ignore[index]
        for language in ("sh", "python")
    )
    base = str(client.base_url).rstrip("/")
    shell = shell.replace("http://localhost:3001/ai/v1", base)
    environ = os.environ | {"BASE": base, "KEY": stage.alice.key}
    for command in (["sh", "-euc", shell], [sys.executable, "-c", python]):
        ran = subprocess.run(
            command,
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        printed = ran.stdout
        if command[0] == "sh":
            batch, *results = printed.replace("}{", "}\n{").splitlines()
            assert json.loads(batch)["request_counts"]["total"] == 2
            assert [json.loads(line)["custom_id"] for line in results] == ["r1", "r2"]
        else:
            assert printed.startswith("completed ")
            assert printed.count('"custom_id"') == 2
