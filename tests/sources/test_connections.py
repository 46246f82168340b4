"""Connections at the door: who may have them, what is kept and shown of them, whether they can be read."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.cast import Cast
from tests.gateway import UNKNOWN, Gateway
from tests.sources.bucket import SECRET, SECRET_ID, S3, LyingS3
from tests.sources.conftest import Owner, lines, user

CONFIG = {
    "bucket": "b",
    "region": "us-east-1",
    "endpoint_url": "http://127.0.0.1:9",
    "access_key_id": "a",
    "secret_access_key": "s",
}
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
    owner: Owner, stage: Gateway, cast: Cast
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
        (liar.url, "garbage"): "none of S3's",
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


def test_no_secret_is_shown_or_logged(owner: Owner, stage: Gateway, s3: S3) -> None:
    id = owner.connect(s3.url, s3.bucket("secrets"))
    owner.call("POST", f"/{id}/test")
    owner.synced(id)
    printed = "".join(p.output() for p in (*stage.service.webs, *stage.service.workers))
    shown = owner.call("GET").text + owner.call("GET", f"/{id}").text
    for secret in (SECRET, SECRET_ID):
        assert secret not in printed
        assert secret not in shown
