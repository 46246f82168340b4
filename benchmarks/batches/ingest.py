"""A file of 1,000,000 lines of 1 KB uploaded to one web process: lines a second, memory over idle, and what others wait meanwhile."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import orjson
import psycopg

from benchmarks import measure as measured
from benchmarks.stage import SECRET, Gunicorn, Stage
from benchmarks.upstream import Upstream

COUNT = 1_000_000
BYTES = 1000
LINES_A_S = 40_000
MIB_OVER_IDLE = 150
STALL_MS = 50
_AT_ONCE = 500
_HEAD = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
_END = b"\r\n--b--\r\n"


def measure(report: ModuleType) -> None:
    """Print rate, memory and stalls."""
    report.begin("ingest: a file of requests, uploaded", f"{COUNT:,} lines of {BYTES} B")
    with (
        Upstream() as upstream,
        Stage(upstream.url, {"plain": "plain"}, most_s=600) as stage,
        stage.connect() as database,
    ):
        database.execute(
            "INSERT INTO user_roles (user_id, role) SELECT id, r::user_role FROM users, unnest(ARRAY['STANDARDUSER', 'BATCHAPIUSER']) r WHERE username = 'benchmark'"
        )
        web = stage.web(DWCTL_LIMITS__FILES__MAX_FILE_SIZE="0")
        _send(web, _form(1000))
        quiet = Watcher(web)
        time.sleep(3)
        quiet.end()
        idle = measured.rss_bytes(web.pid)
        watcher = Watcher(web)
        used, server = measured.cpu_s(web.pid), measured.family_cpu_s(stage.postmaster)
        began = time.monotonic()
        file = _send(web, _form(COUNT))
        took_s = time.monotonic() - began
        used = measured.cpu_s(web.pid) - used
        server = measured.family_cpu_s(stage.postmaster) - server
        watcher.end()
        report.at_least("lines", COUNT / took_s, "/s", LINES_A_S, digits=0)
        report.figure("lines by the web process's CPU time", COUNT / used, "/s", digits=0)
        report.figure("CPU a line, web process", used * 1e6 / COUNT, "us")
        report.figure("CPU a line, PostgreSQL", server * 1e6 / COUNT, "us")
        over = (watcher.peak_bytes - idle) / 2**20
        report.below("memory over idle, most", over, "MiB", MIB_OVER_IDLE)
        report.figure("another request, slowest while nothing is uploaded", quiet.most_ms, "ms")
        report.figure("another request, 99 of 100", watcher.quantile_ms(0.99), "ms")
        report.below("another request, slowest", watcher.most_ms, "ms", STALL_MS)
        report.figure("from the last byte to the answer", file["answer_s"] * 1000, "ms")
        _prove(report, database, file["id"])


class Watcher:
    """Asks for /healthz all the time, and looks at the process's memory."""

    def __init__(self, web: Gunicorn) -> None:
        self.peak_bytes = 0
        self.took_ms: list[float] = []
        self._web = web
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def end(self) -> None:
        """Stop asking."""
        self._over.set()
        self._thread.join()

    @property
    def most_ms(self) -> float:
        """The slowest."""
        return max(self.took_ms)

    def quantile_ms(self, share: float) -> float:
        """Within which so many were answered."""
        return sorted(self.took_ms)[int(len(self.took_ms) * share)]

    def _watch(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._web.port, timeout=30)
        while not self._over.wait(0.01):
            began = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            self.took_ms.append((time.monotonic() - began) * 1000)
            self.peak_bytes = max(self.peak_bytes, measured.rss_bytes(self._web.pid))
        connection.close()


def _form(count: int) -> Iterator[bytes]:
    yield _HEAD
    body = {"model": "plain", "messages": [{"role": "user", "content": "@"}], "max_tokens": 100}
    line = orjson.dumps(
        {"custom_id": "line-#", "method": "POST", "url": "/v1/chat/completions", "body": body}
    )
    line = line.replace(b"@", b"x " * max(0, (BYTES - len(line) - 8) // 2)) + b"\n"
    before, after = line.split(b"#")
    for first in range(0, count, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, count))
        yield b"".join(b"%s%08d%s" % (before, number, after) for number in numbers)
    yield _END


def _send(web: Gunicorn, form: Iterator[bytes]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=300)
    headers = {
        "Authorization": f"Bearer {SECRET}",
        "Content-Type": "multipart/form-data; boundary=b",
    }
    connection.request("POST", "/ai/v1/files", form, headers, encode_chunked=True)
    sent = time.monotonic()
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 201:
        raise SystemExit(f"{answer.status} {body[:2000]!r}")
    found: dict[str, Any] = orjson.loads(body)
    found["answer_s"] = time.monotonic() - sent
    connection.close()
    return found


def _prove(report: ModuleType, database: psycopg.Connection[Any], file: str) -> None:
    row = database.execute(
        "SELECT count(*), count(DISTINCT line_number), max(line_number) + 1, (SELECT sum(requests) FROM fusillade.file_models WHERE file_id = %(id)s)"
        " FROM fusillade.request_templates WHERE file_id = %(id)s",
        {"id": file},
    ).fetchone()
    report.proven(
        "each line stored once",
        holds=row == (COUNT, COUNT, COUNT, COUNT),
        what=f"{COUNT:,} of {COUNT:,}",
    )
