"""Output files, errors, results and inputs through one web process: how fast, in how much memory, and what others notice of it."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import uuid
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import psycopg

from benchmarks import measure as measured
from benchmarks.batches import lines
from benchmarks.stage import SECRET, Gunicorn, Stage

COUNT = 200_000
LARGE = 15
LARGE_BYTES = 20_000_000

_MAY = "INSERT INTO user_roles (user_id, role) SELECT id, 'BATCHAPIUSER' FROM users WHERE username = 'benchmark'"
_END = """
UPDATE fusillade.requests r
   SET state = 'completed', response_status = 200, started_at = now(), completed_at = now(),
       response_body = json_build_object('id', 'resp_' || r.id, 'object', 'chat.completion', 'choices', json_build_array(json_build_object(
           'index', 0, 'finish_reason', 'stop', 'message', json_build_object('role', 'assistant', 'content', repeat(%(word)s, %(words)s)))))::text
 WHERE r.batch_id = %(batch)s AND r.id >= (SELECT id FROM fusillade.requests WHERE batch_id = %(batch)s ORDER BY id OFFSET %(skip)s LIMIT 1)
"""
_FAIL = """
UPDATE fusillade.requests r
   SET state = 'failed', failed_at = now(), error = json_build_object('type', 'RetriableHttpStatus', 'details', json_build_object(
           'status', 429, 'body', '{"error":{"message":"' || repeat('slow down ', 40) || '"}}'))::text
 WHERE r.batch_id = %(batch)s AND r.state = 'pending'
"""
_LINES = """
INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id)
SELECT batch_id, state = 'failed', row_number() OVER (PARTITION BY state ORDER BY right(left(id::text, 34), 6), md5(id::text)) - 1, id
  FROM fusillade.requests WHERE batch_id = %(batch)s
"""
_FILES = """
WITH batch AS (
    UPDATE fusillade.batches b SET output_file_id = %(output)s, error_file_id = %(errors)s, completed_at = now(),
           output_lines = (SELECT count(*) FROM fusillade.finished_lines WHERE batch_id = b.id AND NOT failed),
           error_lines = (SELECT count(*) FROM fusillade.finished_lines WHERE batch_id = b.id AND failed)
     WHERE id = %(batch)s RETURNING *
)
INSERT INTO fusillade.files (id, name, purpose, uploaded_by)
SELECT output_file_id, 'output', 'batch_output', created_by FROM batch
 UNION ALL SELECT error_file_id, 'errors', 'batch_error', created_by FROM batch
 UNION ALL SELECT file_id, 'input', 'batch', created_by FROM batch
"""


def measure(report: ModuleType) -> None:
    """Print the rates."""
    report.begin(
        "download: JSON lines through one web process", f"{COUNT:,} lines of about {lines.BYTES} B"
    )
    with Stage("http://127.0.0.1:9", {"plain": "plain"}, most_s=150) as stage:
        with stage.connect() as database:
            database.execute(_MAY)
            many = _put(database, COUNT, lines.BYTES, failed=COUNT // 4)
            large = _put(database, LARGE, LARGE_BYTES)
            database.execute("VACUUM ANALYZE")
        web = stage.web()
        _fetch(web, f"/batches/{many['batch']}/results?limit=1")
        idle = measured.rss_bytes(web.pid)
        rates = {}
        with _Watch(web) as watch:
            for name, path in (
                ("output file", f"/files/{many['output']}/content"),
                ("error file", f"/files/{many['errors']}/content"),
                ("results", f"/batches/{many['batch']}/results"),
                ("input file", f"/files/{many['input']}/content"),
            ):
                rates[name] = _fetch(web, path).rate
        used, server = measured.cpu_s(web.pid), measured.family_cpu_s(stage.postmaster)
        last = _fetch(web, f"/files/{many['output']}/content")
        used = measured.cpu_s(web.pid) - used
        server = measured.family_cpu_s(stage.postmaster) - server
        for name, rate in rates.items():
            if name == "output file":
                report.at_least(name, rate, "MB/s", 100)
            else:
                report.figure(name, rate, "MB/s")
        report.figure("output file, read again", last.rate, "MB/s")
        report.figure("output file, by the web process's CPU time", last.megabytes / used, "MB/s")
        report.figure("the same, by PostgreSQL's CPU time", last.megabytes / server, "MB/s")
        report.below("longest wait of others meanwhile", watch.longest_s * 1000, "ms", 50)
        report.below("memory over idle", (watch.rss - idle) / 2**20, "MiB", 50)
        with _Watch(web) as watch:
            rate = _fetch(web, f"/files/{large['output']}/content").rate
        report.figure(f"{LARGE} lines of {LARGE_BYTES // 1_000_000} MB", rate, "MB/s")
        report.figure("memory over idle", (watch.rss - idle) / 2**20, "MiB")
        report.figure("longest wait of others meanwhile", watch.longest_s * 1000, "ms")


def _put(
    database: psycopg.Connection[Any], count: int, size: int, failed: int = 0
) -> dict[str, Any]:
    batch = lines.put(database, "plain", count)
    row = database.execute(
        "SELECT file_id FROM fusillade.batches WHERE id = %s", (batch,)
    ).fetchone()
    assert row is not None
    found = {"batch": batch, "output": uuid.uuid4(), "errors": uuid.uuid4(), "input": row[0]}
    words = {"word": "word ", "words": (size - 250) // 5, "skip": failed}
    for statement in (_END, _FAIL, _LINES, _FILES):
        database.execute(statement, found | words)
    return found


@dataclass(frozen=True)
class _Fetched:
    megabytes: float
    took_s: float

    @property
    def rate(self) -> float:
        return self.megabytes / self.took_s


def _fetch(web: Gunicorn, path: str) -> _Fetched:
    """Read an answer to its end, which must be whole."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=60) as client:
        began = time.perf_counter()
        client.sendall(
            f"GET /ai/v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {SECRET}\r\nConnection: close\r\n\r\n".encode()
        )
        buffer = bytearray(1 << 20)
        size, tail, head = 0, b"", b""
        while count := client.recv_into(buffer):
            head = head or bytes(buffer[:200])
            tail = (tail + bytes(buffer[max(count - 8, 0) : count]))[-8:]
            size += count
        took_s = time.perf_counter() - began
    if not head.startswith(b"HTTP/1.1 200") or (
        b"limit" not in path.encode() and not tail.endswith(b"\r\n0\r\n\r\n")
    ):
        raise SystemExit(f"{path} was answered with {head!r} ... {tail!r}")
    return _Fetched(size / 1e6, took_s)


@dataclass
class _Watch:
    """Asks the process for its health all the time, and looks at its memory."""

    web: Gunicorn
    longest_s: float = 0.0
    rss: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> _Watch:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=30)
        while not self._over.is_set():
            began = time.perf_counter()
            client.request("GET", "/healthz")
            client.getresponse().read()
            self.longest_s = max(self.longest_s, time.perf_counter() - began)
            self.rss = max(self.rss, measured.rss_bytes(self.web.pid))
            time.sleep(0.005)
        client.close()
