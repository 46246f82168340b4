"""Objects of a real bucket become files and batches: each once, whatever is wrong with some of them."""

from __future__ import annotations

import gzip
from typing import Any

import pytest
import requests

from tests.gateway import Gateway, Json, unique
from tests.processes import eventually
from tests.sources.bucket import S3, LyingS3
from tests.sources.conftest import Owner, counted, line, lines, user


def metadata_of(stage: Gateway, batch_id: str) -> Any:
    return stage.one("SELECT metadata FROM fusillade.batches WHERE id = %s", batch_id).metadata


def test_every_file_under_the_prefix_becomes_a_batch_once(
    owner: Owner, stage: Gateway, s3: S3
) -> None:
    bucket = s3.bucket("snapshot")
    s3.put(bucket, "in/a.jsonl", lines(3))
    s3.put(bucket, "in/deep/b.jsonl.gz", gzip.compress(lines(5)))
    s3.put(bucket, "in/readme.txt", b"no")
    s3.put(bucket, "elsewhere.jsonl", lines(1))
    connection = owner.connect(s3.url, bucket, prefix="in/")
    sync = owner.synced(connection)
    assert sync["status"] == "completed"
    assert counted(sync) == (2, 0, 2, 0, 2)
    assert (sync["endpoint"], sync["completion_window"]) == ("/v1/chat/completions", "24h")
    assert sync["started_at"] <= sync["completed_at"]
    entries = owner.entries(connection, sync["id"])
    assert {k: (e["status"], e["template_count"]) for k, e in entries.items()} == {
        "in/a.jsonl": ("activated", 3),
        "in/deep/b.jsonl.gz": ("activated", 5),
    }
    entry = entries["in/deep/b.jsonl.gz"]
    row = stage.one("SELECT * FROM fusillade.batches WHERE id = %s", entry["batch_id"])
    assert str(row.file_id) == entry["file_id"]
    assert row.created_by == str(owner.account.id)
    name = owner.call("GET", f"/{connection}").json()["name"]
    assert row.metadata == {
        "request_source": "sync",
        "created_by": str(owner.account.id),
        "dw_source_id": connection,
        "dw_source_name": name,
        "dw_sync_id": sync["id"],
        "dw_external_key": "in/deep/b.jsonl.gz",
    }
    file = stage.one("SELECT * FROM fusillade.files WHERE id = %s", entry["file_id"])
    assert (file.name, file.source_external_key) == ("b.jsonl.gz", "in/deep/b.jsonl.gz")
    assert str(file.source_connection_id) == connection
    assert {e["key"] for e in owner.call("GET", f"/{connection}/synced-keys").json()} == set(entries)

    again = owner.synced(connection)
    assert counted(again) == (2, 2, 0, 0, 0)
    assert again["status"] == "completed"
    forced = owner.synced(connection, force=True)
    assert counted(forced) == (2, 0, 2, 0, 2)
    ids = [e["batch_id"] for e in owner.entries(connection, forced["id"]).values()]
    assert set(ids).isdisjoint(e["batch_id"] for e in entries.values())
    assert [s["id"] for s in owner.call("GET", f"/{connection}/syncs").json()["data"]] == [
        forced["id"],
        again["id"],
        sync["id"],
    ]


def test_chosen_files_are_taken_and_one_that_is_absent_fails_alone(owner: Owner, s3: S3) -> None:
    bucket = s3.bucket("select")
    for name in ("a", "b"):
        s3.put(bucket, f"{name}.jsonl", lines(1))
    connection = owner.connect(s3.url, bucket)
    sync = owner.synced(
        connection,
        strategy="select",
        file_keys=["b.jsonl", "none.jsonl", "b.jsonl"],
        completion_window="1h",
    )
    assert (sync["status"], sync["completion_window"]) == ("completed", "1h")
    assert counted(sync) == (2, 0, 1, 1, 1)
    entries = owner.entries(connection, sync["id"])
    assert entries["none.jsonl"]["error"] == "There is no such object."
    assert entries["none.jsonl"]["status"] == "failed"
    failed = owner.synced(connection, strategy="select", file_keys=["none.jsonl"])
    assert failed["status"] == "failed"


def test_bad_lines_are_left_out_and_noted_and_bad_objects_fail(owner: Owner, s3: S3) -> None:
    bucket = s3.bucket("bad")
    good, other = line("a"), line("b", url="/v1/whatever")
    objects = {
        "some.jsonl": b"\xef\xbb\xbf" + good + b"\r\n{oops\n" + line("c", model="nobody's") + other
        + line("d", method="GET") + b'{"custom_id": "e", "body": {"messages": []}}',
        "none.jsonl": b"{oops\n\n",
        "empty.jsonl": b"",
        "blank.jsonl": b"\n \n",
        "twice.jsonl": good + good,
        "nul.jsonl": b"\0" * 100,
        "cut.jsonl.gz": gzip.compress(lines(1000))[:-200],
        "named.jsonl.gz": good,
        "bomb.jsonl.gz": gzip.compress(line("a" * 10, metadata="x" * 4_000_000)),
    }  # fmt: skip
    for key, content in objects.items():
        s3.put(bucket, key, content)
    connection = owner.connect(s3.url, bucket)
    sync = owner.synced(connection)
    assert counted(sync) == (9, 0, 1, 8, 1)
    entries = owner.entries(connection, sync["id"])
    some = entries["some.jsonl"]
    assert (some["status"], some["template_count"], some["invalid_lines"]) == ("activated", 2, 4)
    assert [error["line"] for error in some["line_errors"]] == [3, 4, 6, 7]
    assert some["line_errors"][1]["error"].startswith("Line 4: Model 'nobody's' has not been")
    reasons = {
        "none.jsonl": "Invalid JSON on line 1",
        "empty.jsonl": "File contains no valid request templates",
        "blank.jsonl": "File contains no valid request templates",
        "twice.jsonl": "Line 2: custom_id 'a' is already used on line 1",
        "nul.jsonl": "NUL at byte offset 0",
        "cut.jsonl.gz": "damaged or ends too early",
        "named.jsonl.gz": "it is not gzip",
        "bomb.jsonl.gz": "exceeds the maximum allowed size of 3000000 bytes",
    }
    for key, reason in reasons.items():
        assert entries[key]["status"] == "failed", key
        assert reason in entries[key]["error"], (key, entries[key]["error"])
        assert entries[key]["batch_id"] is None
    again = owner.synced(connection)
    assert counted(again) == (9, 9, 0, 0, 0), "what has failed is not tried again until it changes"
    s3.put(bucket, "none.jsonl", good)
    query = "?status=activated&limit=1"
    third = owner.synced(connection)
    # S3 knows seconds only: an object that changes within one looks the same.
    eventually(lambda: counted(owner.synced(connection))[1] == 9, 20)
    found = owner.call("GET", f"/{connection}/syncs/{third['id']}/entries{query}").json()
    assert found["has_more"] is False


def test_an_object_changed_or_deleted_after_its_listing_fails(
    owner: Owner, stage: Gateway, s3: S3
) -> None:
    bucket = s3.bucket("changing")
    s3.put(bucket, "a.jsonl", lines(2))
    connection = owner.connect(s3.url, bucket)
    first = owner.synced(connection)
    for change, said in (
        ("external_etag = '\"other\"'", "changed after it had been listed"),
        ("external_size_bytes = 5, external_etag = NULL", "changed after it had been listed"),
        ("external_key = 'gone.jsonl'", "There is no such object"),
    ):
        stage.all(
            f"UPDATE sync_entries SET status = 'pending', file_id = NULL, batch_id = NULL, {change} WHERE sync_id = %s RETURNING id",
            first["id"],
        )
        stage.all(
            "UPDATE sync_operations SET status = 'ingesting', batches_created = 0, files_failed = 0 WHERE id = %s RETURNING id",
            first["id"],
        )
        sync = owner.over(connection, first["id"])
        assert sync["status"] == "failed"
        (entry,) = owner.entries(connection, first["id"]).values()
        assert said in entry["error"], change
        assert entry["file_id"] is None


def test_a_source_that_misbehaves_fails_with_its_reason(owner: Owner, liar: LyingS3) -> None:
    whole = {"hangs": "did not answer in time", "garbage": "none of S3's", "endless": "broke off"}
    running = {}
    for bucket in (*whole, "cuts", "denied", "flaky"):
        connection = owner.connect(liar.url, bucket)
        running[bucket] = connection, owner.sync(connection)
    liar.content = lines(20)
    for bucket, said in whole.items():
        sync = owner.over(*running[bucket], timeout_s=60)
        assert sync["status"] == "failed", bucket
        assert said in sync["error"], bucket
        assert counted(sync) == (0, 0, 0, 0, 0)
    for bucket, said in (("cuts", "ended the object before its end"), ("denied", "access denied")):
        sync = owner.over(*running[bucket], timeout_s=60)
        assert counted(sync) == (1, 0, 0, 1, 0), bucket
        (entry,) = owner.entries(*running[bucket]).values()
        assert said in entry["error"], bucket
    assert counted(owner.over(*running["flaky"]))[4] == 1, "reading goes on where it was cut"


def test_what_cannot_be_synchronised_is_refused(owner: Owner, s3: S3) -> None:
    connection = owner.connect(s3.url, s3.bucket("refusals"), prefix="in/")
    for wanted, status, said in (
        ({"strategy": "all"}, 422, "strategy"),
        ({"strategy": "select"}, 422, "file_keys"),
        ({"strategy": "select", "file_keys": []}, 422, "file_keys"),
        ({"file_keys": ["in/a.jsonl"]}, 422, "file_keys"),
        ({"strategy": "select", "file_keys": ["out/a.jsonl"]}, 400, "outside of the connection's prefix"),
        ({"strategy": "select", "file_keys": ["in/" + "x" * 1022]}, 422, "1024"),
        ({"endpoint": "/v1/nothing"}, 400, "Unsupported endpoint '/v1/nothing'"),
        ({"completion_window": "3h"}, 400, "Unsupported completion_window"),
        ({"force": "perhaps"}, 422, "force"),
    ):  # fmt: skip
        answer = owner.call("POST", f"/{connection}/sync", json=wanted)
        assert answer.status_code == status, answer.text
        assert said in answer.text
    assert owner.call("GET", f"/{connection}/syncs").json() == {"data": []}


def test_deleting_a_connection_stops_what_it_runs_and_keeps_what_is_made(
    owner: Owner, stage: Gateway, s3: S3
) -> None:
    bucket = s3.bucket("deleted")
    s3.put(bucket, "a.jsonl", lines(1))
    connection = owner.connect(s3.url, bucket)
    done = owner.synced(connection)
    (entry,) = owner.entries(connection, done["id"]).values()
    stage.all(
        "INSERT INTO sync_entries (sync_id, connection_id, external_key, status, due_at)"
        " SELECT %s, %s, 'later.jsonl', 'pending', now() + interval '1 day' RETURNING id",
        done["id"],
        connection,
    )
    assert owner.call("DELETE", f"/{connection}").status_code == 204

    def marked() -> bool:
        syncs = stage.all("SELECT status FROM sync_operations WHERE connection_id = %s", connection)
        entries = stage.all("SELECT status FROM sync_entries WHERE connection_id = %s", connection)
        return {row.status for row in (*syncs, *entries)} == {"deleted"}

    eventually(marked, 20, 0.2)
    kept = stage.one("SELECT deleted_at FROM fusillade.files WHERE id = %s", entry["file_id"])
    assert kept.deleted_at is None
    assert metadata_of(stage, entry["batch_id"])["dw_sync_id"] == done["id"]
