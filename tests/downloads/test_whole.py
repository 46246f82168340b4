"""From an upload to its files: a batch through real web and worker processes."""

from __future__ import annotations

import orjson

from tests.downloads.batches import lines_of
from tests.gateway import HELLO, Gateway
from tests.processes import eventually


def test_what_comes_out_of_a_batch_is_whole_and_as_long_as_its_files_say(stage: Gateway) -> None:
    stage.service.start_worker()
    model, refused = stage.flexible("plain"), stage.flexible("fail-400")
    asked = [
        {
            "custom_id": f"zeile-{n}-ü",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": refused if n == 2 else model, "messages": HELLO},
        }
        for n in range(4)
    ]
    content = b"".join(orjson.dumps(line) + b"\n" for line in asked)
    uploaded = stage.session.post(
        f"{stage.url}/ai/v1/files",
        headers=stage.alice.authorization,
        files={"file": ("in.jsonl", content), "purpose": (None, "batch")},
        timeout=20,
    )
    assert uploaded.status_code == 201, uploaded.text
    file = uploaded.json()["id"]
    assert stage.get(f"/files/{file}/content").content == content
    made = stage.post(
        "/batches",
        {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"},
    )
    assert made.status_code == 201, made.text
    batch = made.json()
    over = eventually(
        lambda: (
            found
            if (found := stage.get(f"/batches/{batch['id']}").json())["status"] == "completed"
            else None
        ),
        20,
    )
    output = stage.get(f"/files/{over['output_file_id']}/content")
    errors = stage.get(f"/files/{over['error_file_id']}/content")
    assert {line["custom_id"] for line in lines_of(output)} == {
        "zeile-0-ü", "zeile-1-ü", "zeile-3-ü",
    }  # fmt: skip
    assert all(line["response"]["body"]["id"].startswith("resp_") for line in lines_of(output))
    [error] = lines_of(errors)
    assert error["custom_id"] == "zeile-2-ü"
    assert (error["error"]["code"], error["response"]["status_code"]) == ("http_400", 400)
    for answer, id in ((output, over["output_file_id"]), (errors, over["error_file_id"])):
        assert answer.headers["x-incomplete"] == "false"
        assert stage.get(f"/files/{id}").json()["bytes"] == len(answer.content)
    results = lines_of(stage.get(f"/batches/{batch['id']}/results"))
    assert [line["input_body"] for line in results] == [line["body"] for line in asked]
    assert [line["status"] for line in results] == ["completed", "completed", "failed", "completed"]
    progress = stage.get(f"/batches/{batch['id']}/progress").json()
    assert (progress["requests"]["completed"], progress["requests"]["remaining"]) == (3, 0)
    page = stage.session.get(
        f"{stage.url}/admin/api/v1/batches/requests?limit=9",
        headers=stage.alice.session,
        timeout=20,
    ).json()
    [done, *_] = [entry for entry in page["data"] if entry["status"] == "completed"]
    assert done["total_tokens"] == 12
    assert done["total_cost"] > 0
