"""Connections at the door, and their objects becoming files and batches: each once, whatever is wrong with some of them."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from dwctl.config import Settings, SourceConnections
from dwctl.encryption import Undecryptable
from dwctl.errors import Invalid
from dwctl.sources import sealing
from tests.gateway import ADMIN, UNKNOWN, Gateway, Json, unique
from tests.processes import ROOT, eventually
from tests.sources.bucket import S3, SECRET, SECRET_ID, LyingS3
from tests.sources.conftest import Owner, counted, line, lines, user

CONFIG = {
    "bucket": "b",
    "region": "us-east-1",
    "endpoint_url": "http://127.0.0.1:9",
    "access_key_id": "a",
    "secret_access_key": "s",
}
JQ = f"""{sys.executable} -c 'import json, sys; print(json.load(sys.stdin)["id"])'"""
"""What is asked of jq in the documentation, for machines without it."""
NEW = {"provider": "s3", "name": "bucket", "config": CONFIG}
ROUTES = [
    ("GET", ""),
    ("DELETE", ""),
    ("POST", "/test"),
    ("GET", "/files"),
    ("GET", "/synced-keys"),
    ("POST", "/sync"),
    ("GET", "/syncs"),
    ("GET", f"/syncs/{UNKNOWN}"),
    ("GET", f"/syncs/{UNKNOWN}/entries"),
]


def test_a_connection_is_kept_shown_without_its_secrets_and_gone_when_deleted(
    owner: Owner, stage: Gateway
) -> None:
    made = owner.call("POST", json=NEW)
    assert made.status_code == 201
    id = made.json()["id"]
    assert made.json() == {
        "id": id,
        "kind": "source",
        "provider": "s3",
        "name": "bucket",
        "created_at": made.json()["created_at"],
        "updated_at": made.json()["created_at"],
    }
    assert isinstance(made.json()["created_at"], int)
    assert owner.call("GET", f"/{id}").json() == made.json()
    for kind in ("", "?kind=source"):
        listed = owner.call("GET", kind).json()
        assert list(listed) == ["data"]
        assert made.json() in listed["data"]
    assert owner.call("GET", "?kind=sink").status_code == 400
    assert owner.call("GET", f"/{id}/synced-keys").json() == []
    assert owner.call("GET", f"/{id}/syncs").json() == {"data": []}
    row = stage.one("SELECT * FROM connections WHERE id = %s", id)
    assert re.fullmatch(r"v1:[0-9a-f]{8}:\S+", row.config_sealed)
    gone = owner.call("DELETE", f"/{id}")
    assert (gone.status_code, gone.content) == (204, b"")
    assert stage.one("SELECT * FROM connections WHERE id = %s", id).config_sealed is None
    for method, path in ROUTES:
        answer = owner.call(method, f"/{id}{path}", json={} if path == "/sync" else None)
        assert answer.status_code == 404, (method, path)


def test_only_owners_reach_a_connection_and_only_roles_that_may_have_any(
    owner: Owner, stage: Gateway
) -> None:
    id = owner.call("POST", json=NEW).json()["id"]
    strangers = {
        404: (Owner(stage, user(stage, "ConnectionsUser")), stage_admin(stage)),
        403: (Owner(stage, user(stage, "BatchAPIUser")),),
    }
    for status, who in strangers.items():
        for method, path in ROUTES:
            for stranger in who:
                answer = stranger.call(method, f"/{id}{path}", json={} if path == "/sync" else None)
                assert answer.status_code == status, (method, path, answer.text)
    assert id not in {c["id"] for c in strangers[404][0].call("GET").json()["data"]}
    refused = strangers[403][0].call("GET")
    assert refused.json()["message"] == "Insufficient permissions to Read Connections"
    assert strangers[403][0].call("POST", json=NEW).status_code == 403
    assert owner.call("GET", f"/{id}").status_code == 200
    assert owner.call("GET", "/not-an-id").status_code == 400


def stage_admin(stage: Gateway) -> Owner:
    """A platform manager: credentials of others are not theirs to use."""
    return Owner(stage, user(stage, "PlatformManager"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"provider": "gcs"},
        {"name": ""},
        {"name": "n" * 256},
        {"name": "a\x1b[31m"},
        {"kind": "sink"},
        {"config": None},
        {"config": {**CONFIG, "bucket": "a/b"}},
        {"config": {**CONFIG, "bucket": ""}},
        {"config": {**CONFIG, "region": "x.evil.example/#"}},
        {"config": {**CONFIG, "access_key_id": ""}},
        {"config": {**CONFIG, "secret_access_key": "a\nb"}},
        {"config": {**CONFIG, "endpoint_url": "ftp://x"}},
        {"config": {**CONFIG, "endpoint_url": "http://user:pass@x"}},
        {"config": {**CONFIG, "endpoint_url": "http://x/?a=b"}},
        {"config": {**CONFIG, "endpoint_url": "http://[::1"}},
        {"config": {**CONFIG, "endpoint_url": "http:///x"}},
        {"config": {**CONFIG, "prefix": "p" * 1025}},
        {"config": {key: CONFIG[key] for key in CONFIG if key != "bucket"}},
    ],
    ids=lambda wrong: str(wrong)[-60:],
)
def test_what_can_be_no_connection_is_refused(owner: Owner, wrong: dict[str, Any]) -> None:
    assert owner.call("POST", json={**NEW, **wrong}).status_code == 422


def test_files_are_listed_by_page_and_found_by_text(owner: Owner, s3: S3) -> None:
    bucket = s3.bucket("listing")
    odd = ["in/ä ö+%&.jsonl", "in//b.jsonl", "in/Zebra.jsonl.gz"]
    keys = sorted([f"in/{n:03d}.jsonl" for n in range(12)] + odd, key=lambda key: key.encode())
    for key in [*keys, "in/other.txt", "out/x.jsonl"]:
        s3.put(bucket, key, b"abc")
    id = owner.connect(s3.url, bucket, prefix="in/")
    tested = owner.call("POST", f"/{id}/test")
    assert tested.json() == {
        "ok": True,
        "provider": "s3",
        "message": "The bucket can be read. There are objects under 'in/' in it.",
    }
    found, cursor = [], None
    for _ in range(10):
        query = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        page = owner.call("GET", f"/{id}/files", params=query).json()
        found += [item["key"] for item in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert found == keys
    one = owner.call("GET", f"/{id}/files", params={"search": "zeBRA"}).json()
    assert [item["key"] for item in one["data"]] == ["in/Zebra.jsonl.gz"]
    assert one["data"][0]["size_bytes"] == 3
    assert isinstance(one["data"][0]["last_modified"], int)
    assert owner.call("GET", f"/{id}/files?limit=x").status_code == 400


def test_what_is_wrong_with_a_source_is_said(owner: Owner, s3: S3, liar: LyingS3) -> None:
    cases = {
        (s3.url, "absent"): "the bucket does not exist",
        (liar.url, "hangs"): "did not answer in time",
        (liar.url, "garbage"): "listing: ",
        (liar.url, "endless"): "cannot be reached, or broke off",
        ("http://127.0.0.1:9", "b"): "cannot be reached",
        ("http://no-such-host.invalid", "b"): "cannot be reached",
        ("http://169.254.169.254", "b"): "may not be called (outbound.sources)",
        (s3.url.replace("http:", "https:"), "b"): "certificate",
    }
    for (url, bucket), said in cases.items():
        id = owner.connect(url, bucket)
        tested = owner.call("POST", f"/{id}/test").json()
        assert tested["ok"] is False
        assert said in tested["message"], (url, bucket, tested)
        files = owner.call("GET", f"/{id}/files")
        assert files.status_code == 502
        assert files.json()["message"] == tested["message"]


def metadata_of(stage: Gateway, batch_id: str) -> Any:
    return stage.one("SELECT metadata FROM fusillade.batches WHERE id = %s", batch_id).metadata


def test_every_file_under_the_prefix_becomes_a_batch_once(
    owner: Owner, stage: Gateway, s3: S3
) -> None:
    bucket = s3.bucket("snapshot")
    s3.put(bucket, "in/a.jsonl", lines(3))
    s3.put(bucket, "in/deep/b.jsonl.gz", gzip.compress(lines(5)))
    odd = "in//ä +%2F&?#../../ü'\".jsonl"
    s3.put(bucket, odd, lines(1))
    s3.put(bucket, "in/readme.txt", b"no")
    s3.put(bucket, "elsewhere.jsonl", lines(1))
    connection = owner.connect(s3.url, bucket, prefix="in/")
    sync = owner.synced(connection)
    assert sync["status"] == "completed"
    assert counted(sync) == (3, 0, 3, 0, 3)
    assert (sync["endpoint"], sync["completion_window"]) == ("/v1/chat/completions", "24h")
    assert sync["started_at"] <= sync["completed_at"]
    entries = owner.entries(connection, sync["id"])
    assert {k: (e["status"], e["template_count"]) for k, e in entries.items()} == {
        "in/a.jsonl": ("activated", 3),
        "in/deep/b.jsonl.gz": ("activated", 5),
        odd: ("activated", 1),
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
    assert {e["key"] for e in owner.call("GET", f"/{connection}/synced-keys").json()} == set(
        entries
    )

    again = owner.synced(connection)
    assert counted(again) == (3, 3, 0, 0, 0)
    assert again["status"] == "completed"
    forced = owner.synced(connection, force=True)
    assert counted(forced) == (3, 0, 3, 0, 3)
    ids = [e["batch_id"] for e in owner.entries(connection, forced["id"]).values()]
    assert set(ids).isdisjoint(e["batch_id"] for e in entries.values())
    assert [s["id"] for s in owner.call("GET", f"/{connection}/syncs").json()["data"]] == [
        forced["id"],
        again["id"],
        sync["id"],
    ]


def ended(stage: Gateway, owner: Owner, batch_id: str) -> Json | None:
    """The batch, once it is over."""
    batch: Json = stage.get(f"/batches/{batch_id}", by=owner.account).json()
    return batch if batch["status"] in ("completed", "failed", "expired", "cancelled") else None


def test_chosen_files_are_taken_and_one_that_is_absent_fails_alone(owner: Owner, s3: S3) -> None:
    bucket = s3.bucket("select")
    for key in ("a.jsonl", "b.jsonl", "/lead.txt"):
        s3.put(bucket, key, lines(1))
    connection = owner.connect(s3.url, bucket)
    sync = owner.synced(
        connection,
        strategy="select",
        file_keys=["b.jsonl", "none.jsonl", "b.jsonl", "/lead.txt"],
        completion_window="1h",
    )
    assert (sync["status"], sync["completion_window"]) == ("completed", "1h")
    assert counted(sync) == (3, 0, 2, 1, 2)
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
    whole = {"garbage": "listing: "}
    running = {}
    for bucket in (*whole, "cuts", "denied", "flaky"):
        connection = owner.connect(liar.url, bucket)
        running[bucket] = connection, owner.sync(connection)
    for bucket, said in whole.items():
        sync = owner.over(*running[bucket], timeout_s=60)
        assert sync["status"] == "failed", bucket
        assert said in sync["error"], bucket
        assert counted(sync) == (0, 0, 0, 0, 0)
    for bucket, said in (("cuts", "broke off"), ("denied", "access denied")):
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
    leaver = Owner(stage, user(stage, "ConnectionsUser"))
    left = leaver.connect(s3.url, bucket)
    stage.all("UPDATE users SET is_deleted = true WHERE id = %s RETURNING id", leaver.account.id)

    def marked() -> bool:
        syncs = stage.all("SELECT status FROM sync_operations WHERE connection_id = %s", connection)
        entries = stage.all("SELECT status FROM sync_entries WHERE connection_id = %s", connection)
        return {row.status for row in (*syncs, *entries)} == {"deleted"}

    eventually(marked, 20, 0.2)
    row = "SELECT config_sealed FROM connections WHERE id = %s"
    eventually(lambda: stage.one(row, left).config_sealed is None, 20, 0.2)
    kept = stage.one("SELECT deleted_at FROM fusillade.files WHERE id = %s", entry["file_id"])
    assert kept.deleted_at is None
    assert metadata_of(stage, entry["batch_id"])["dw_sync_id"] == done["id"]


def test_what_a_dead_worker_had_made_is_found_and_not_made_again(
    owner: Owner, stage: Gateway, s3: S3
) -> None:
    bucket = s3.bucket("halfway")
    s3.put(bucket, "a.jsonl", lines(2))
    connection = owner.connect(s3.url, bucket)
    sync = owner.synced(connection)
    (before,) = owner.entries(connection, sync["id"]).values()
    for status, counters in (
        ("ingesting", "files_ingested = 0, batches_created = 0"),
        ("activating", "batches_created = 0"),
    ):
        stage.all(
            f"UPDATE sync_operations SET status = 'ingesting', {counters} WHERE id = %s RETURNING id",
            sync["id"],
        )
        stage.all(
            "UPDATE sync_entries SET status = %s, claim = %s, claimed_until = now() + interval '0.3 s' WHERE sync_id = %s RETURNING id",
            status,
            uuid4(),
            sync["id"],
        )
        over = owner.over(connection, sync["id"])
        assert counted(over) == (1, 0, 1, 0, 1)
        (after,) = owner.entries(connection, sync["id"]).values()
        assert (after["file_id"], after["batch_id"]) == (before["file_id"], before["batch_id"])
    assert made_of(stage, connection) == (1, 1)


def made_of(stage: Gateway, connection: str) -> tuple[int, int]:
    """How many files and batches came of a connection."""
    row = stage.one(
        "SELECT (SELECT count(*) FROM fusillade.files WHERE source_connection_id = %s) AS files,"
        " (SELECT count(*) FROM fusillade.batches WHERE metadata->>'dw_source_id' = %s) AS batches",
        connection,
        connection,
    )
    return row.files, row.batches


def test_a_worker_killed_while_it_reads_is_followed_by_another_and_objects_are_taken_once(
    owner: Owner, stage: Gateway, s3: S3, liar: LyingS3
) -> None:
    first = stage.service.workers[0]
    slow = owner.connect(liar.url, "slow")
    sync = owner.sync(slow)
    eventually(lambda: ("slow", None) in liar.reads)
    stage.service.start_worker()
    bucket = s3.bucket("crowd")
    for number in range(12):
        s3.put(bucket, f"{number}.jsonl", lines(1))
    crowd = owner.connect(s3.url, bucket)
    both = [owner.sync(crowd), owner.sync(crowd)]
    over = [owner.over(crowd, id) for id in both]
    assert sum(counted(sync)[4] for sync in over) == 12, "two at once see each other's objects"
    assert [counted(sync)[0] for sync in over] == [12, 12]
    assert made_of(stage, crowd) == (12, 12)
    first.kill()
    assert counted(owner.over(slow, sync)) == (1, 0, 1, 0, 1)
    assert made_of(stage, slow) == (1, 1)


def test_a_job_whose_connection_is_deleted_stops_and_leaves_nothing(
    owner: Owner, stage: Gateway, liar: LyingS3
) -> None:
    connection = owner.connect(liar.url, "slower")
    owner.sync(connection)
    eventually(lambda: ("slower", None) in liar.reads)
    owner.call("DELETE", f"/{connection}")
    eventually(
        lambda: any("synchronisation stopped" in p.output() for p in stage.service.workers), 10
    )
    assert made_of(stage, connection) == (0, 0)


def test_a_batch_waits_for_room_and_for_credit(owner: Owner, stage: Gateway, s3: S3) -> None:
    bucket = s3.bucket("waiting")
    s3.put(bucket, "a.jsonl", line("a", model=stage.flexible("fine", alias="crowded")))
    set_throughput = (
        "UPDATE deployed_models SET throughput = %s WHERE alias = 'crowded' RETURNING id"
    )
    stage.all(set_throughput, 0.000001)
    debtor = Owner(stage, user(stage, "ConnectionsUser"))
    debt = {"user_id": str(debtor.account.id), "transaction_type": "admin_removal"}
    stage.admin("POST", "/transactions", debt | {"amount": "2000", "source_id": unique("debt")})
    running = []
    for who in (owner, debtor):
        connection = who.connect(s3.url, bucket)
        running.append((who, connection, who.sync(connection)))
    for job, said in zip(
        running, ("Insufficient capacity for 24h", "balance too low"), strict=True
    ):
        entry = eventually(partial(waiting, *job), 10)
        assert said in entry["error"]
        assert entry["status"] == "activating"
    stage.all(set_throughput, None)
    stage.credit(debtor.account.id, "5000")
    for who, connection, sync in running:
        assert counted(who.over(connection, sync)) == (1, 0, 1, 0, 1)
        (entry,) = who.entries(connection, sync).values()
        assert entry["error"] is None


def waiting(who: Owner, connection: str, sync: str) -> Any:
    """The one object of a synchronisation, once it waits."""
    for entry in who.entries(connection, sync).values():
        if (entry["error"] or "").startswith("waiting: "):
            return entry
    return None


def test_more_files_than_one_synchronisation_takes_are_refused_whole(
    owner: Owner, stage: Gateway, liar: LyingS3
) -> None:
    connection = owner.connect(liar.url, "many")
    sync = owner.synced(connection)
    assert sync["status"] == "failed"
    assert sync["error"].startswith("There are more than 1000 files under the prefix")
    assert owner.entries(connection, sync["id"]) == {}
    assert made_of(stage, connection) == (0, 0)


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ({"secret_key": "one", "connections": {}}, True),
        ({"secret_key": "two", "secret_key_previous": ("one",)}, True),
        ({"secret_key": "two", "connections": {"encryption_key": "x"}, "secret_key_previous": ("one",)}, True),
        ({"secret_key": "one", "connections": {"encryption_key": "x"}}, True),
        ({"secret_key": "two", "connections": {"encryption_key_previous": ("one",)}}, True),
        ({"secret_key": "two"}, False),
    ],
    ids=str,
)  # fmt: skip
def test_keys_can_be_rotated(now: dict[str, Any], opens: bool) -> None:
    sealed = sealing.seal({"bucket": "b"}, Settings(secret_key="one"))
    later = Settings(**{**now, "connections": SourceConnections(**now.get("connections", {}))})
    if opens:
        assert sealing.unseal(sealed, later) == {"bucket": "b"}
    else:
        with pytest.raises(Undecryptable):
            sealing.unseal(sealed, later)


def test_nothing_is_stored_without_a_key() -> None:
    with pytest.raises(Invalid, match="neither connections.encryption_key nor secret_key"):
        sealing.seal({}, Settings())


def test_the_examples_of_the_documentation_work_as_printed(
    owner: Owner, stage: Gateway, s3: S3
) -> None:
    bucket = s3.bucket("documented")
    s3.put(bucket, "requests/january.jsonl", lines(1))
    made = stage.session.post(
        f"{stage.url}{ADMIN}/users/current/api-keys",
        json={"name": "docs", "purpose": "platform"},
        headers=owner.account.session,
    )
    environ = {
        "PATH": os.environ["PATH"],
        "URL": stage.url,
        "KEY": made.json()["key"],
        "BUCKET": bucket,
        "ACCESS_KEY_ID": SECRET_ID,
        "SECRET_ACCESS_KEY": SECRET,
        "ENDPOINT_URL": s3.url,
    }
    page = (ROOT / "docs/connections.md").read_text()
    begin, *blocks = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    # Who may, and with which key, is said by commands of the operator.
    said = [line for line in begin.splitlines() if line.startswith(("API=", "AUTH="))]
    assert len(said) == 2
    blocks.insert(0, "\n".join(said) + "\n")
    script = "set -eu\n" + "echo\n".join(blocks).replace("| jq -r .id", f"| {JQ}")
    done = subprocess.run(
        ["bash", "-c", script], env=environ, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    printed = [json.loads(text) for text in done.stdout.splitlines() if text]
    assert printed[0]["ok"] is True
    assert [file["key"] for file in printed[1]["data"]] == ["requests/january.jsonl"]
    assert printed[2]["completion_window"] == "24h"
    assert printed[3]["data"] == []


def test_no_secret_is_shown_or_logged(owner: Owner, stage: Gateway, s3: S3) -> None:
    id = owner.connect(s3.url, s3.bucket("secrets"))
    owner.call("POST", f"/{id}/test")
    owner.synced(id)
    printed = "".join(p.output() for p in (*stage.service.webs, *stage.service.workers))
    shown = owner.call("GET").text + owner.call("GET", f"/{id}").text
    for secret in (SECRET, SECRET_ID):
        assert secret not in printed
        assert secret not in shown
