"""Sources for tests: a real S3-compatible server in a process of its own, and one that misbehaves as its buckets' names say."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
from botocore.config import Config

from tests.processes import eventually, free_port

_PAGE = 500
SECRET_ID, SECRET = "AKIDTEST", "a-secret-of-the-bucket"


class S3:
    """moto's server, and what an owner of buckets does there."""

    def __init__(self) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=SECRET_ID,
            aws_secret_access_key=SECRET,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )
        eventually(self._answers, 20, 0.1)

    def _answers(self) -> bool:
        with contextlib.suppress(Exception):
            self.client.list_buckets()
            return True
        return False

    def bucket(self, name: str) -> str:
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, content: bytes, **more: Any) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=content, **more)

    def close(self) -> None:
        self.client.close()
        self._process.kill()
        self._process.wait(10)


class LyingS3:
    """Lists one object, `a.jsonl`, in every bucket; what else it does is the bucket's name.

    hangs: never answers. cuts: ends every body after 100 bytes. denied: reads are refused. garbage: no XML. endless: a listing without an end.
    flaky: every body is cut, but goes on where it is asked to. slow, slower: the first read stops half-way, without an end; slower also the others.
    many: two pages of files.
    """

    def __init__(self, content: bytes) -> None:
        self.reads: list[tuple[str, str | None]] = []
        """Bucket and range of each read."""
        outer = self
        self.content = content

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                bucket, _, key = parts.path.lstrip("/").partition("/")
                with contextlib.suppress(OSError):
                    outer.answer(self, bucket, key, parse_qs(parts.query))

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, to: BaseHTTPRequestHandler, bucket: str, key: str, query: Any) -> None:
        if bucket == "hangs":
            time.sleep(30)
            return
        if not key:
            self._list(to, bucket, query.get("start-after", [""])[0])
            return
        given = to.headers.get("Range")
        self.reads.append((bucket, given))
        start = int(given.removeprefix("bytes=").rstrip("-")) if given else 0
        if bucket == "denied":
            self._send(
                to, 403, b"<Error><Code>AccessDenied</Code><Message>no \x1b[31m</Message></Error>"
            )
            return
        rest = self.content[start:]
        to.send_response(206 if given else 200)
        to.send_header("Content-Length", str(len(rest)))
        to.send_header("ETag", '"e"')
        to.end_headers()
        step = {"cuts": 100, "flaky": 1000, "slow": 400, "slower": 400}.get(bucket, len(rest))
        if bucket == "slow" and len([b for b, _ in self.reads if b == bucket]) > 1:
            step = len(rest)
        to.wfile.write(b"" if bucket == "cuts" and start else rest[:step])
        to.close_connection = True
        if bucket.startswith("slow") and step < len(rest):
            time.sleep(20)

    def _list(self, to: BaseHTTPRequestHandler, bucket: str, after: str) -> None:
        if bucket == "garbage":
            self._send(to, 200, b"<html>hello")
            return
        if bucket == "endless":
            to.send_response(200)
            to.end_headers()
            while True:
                to.wfile.write(b"<a>" + b" " * 100_000)
        names = [f"{n:04d}.jsonl" for n in range(1100)] if bucket == "many" else ["a.jsonl"]
        names = [name for name in names if name > after]
        listed = b"".join(
            b"<Contents><Key>%s</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
            b"<Size>%d</Size></Contents>" % (name.encode(), len(self.content))
            for name in names[:_PAGE]
        )
        more = b"true" if names[_PAGE:] else b"false"
        self._send(
            to,
            200,
            b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>'
            + more
            + b"</IsTruncated>"
            + listed
            + b"</ListBucketResult>",
        )

    def _send(self, to: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        to.send_response(status)
        to.send_header("Content-Length", str(len(body)))
        to.end_headers()
        to.wfile.write(body)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def running() -> Iterator[S3]:
    server = S3()
    try:
        yield server
    finally:
        server.close()
