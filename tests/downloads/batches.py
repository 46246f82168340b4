"""Batches as uploads, populating and recorders leave them, written by SQL as they write them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import psycopg

from dwctl.queue.identifiers import line_id

ANSWER = orjson.dumps({"id": "resp_1", "object": "chat.completion", "choices": []}).decode()
REFUSED = orjson.dumps(
    {
        "type": "NonRetriableHttpStatus",
        "details": {"status": 400, "body": '{"error":{"message":"no such role"}}'},
    }
).decode()


@dataclass
class Written:
    """A file of some lines and, once it is `run`, its batch; what ends is written by `complete`, `fail` and `cancel`."""

    sql: psycopg.Connection
    owner: UUID
    lines: int
    file: UUID = field(default_factory=uuid.uuid4)
    batch: UUID = field(default_factory=uuid.uuid4)
    output: UUID = field(default_factory=uuid.uuid4)
    errors: UUID = field(default_factory=uuid.uuid4)

    def __post_init__(self) -> None:
        self.sql.execute("SET dwctl.queue = own")
        self._file(self.file, "lines.jsonl", "batch")
        self.sql.execute(
            "INSERT INTO fusillade.request_templates (id, file_id, custom_id, endpoint, method, path, body, model, line_number, body_byte_size) "
            """SELECT gen_random_uuid(), %(file)s, 'line-' || n, '', 'POST', '/v1/chat/completions', '{"model": "m",  "n": ' || n || '}', 'm', n, 20 """
            "FROM generate_series(0, %(lines)s - 1) n",
            {"file": self.file, "lines": self.lines},
        )
        self.sql.execute(
            "INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes) VALUES (%s, 'm', '/v1/chat/completions', %s, 20)",
            (self.file, self.lines),
        )

    def run(self, **more: Any) -> Written:
        """Its batch, populated."""
        self._file(self.output, f"batch-{self.batch}-output.jsonl", "batch_output")
        self._file(self.errors, f"batch-{self.batch}-error.jsonl", "batch_error")
        columns = {
            "id": self.batch,
            "file_id": self.file,
            "output_file_id": self.output,
            "error_file_id": self.errors,
            "created_by": str(self.owner),
            "total_requests": self.lines,
            "populated_lines": self.lines,
        } | more
        self.sql.execute(
            f"INSERT INTO fusillade.batches ({', '.join(columns)}, requests_started_at, expires_at) "  # type: ignore[arg-type]
            f"VALUES ({', '.join(['%s'] * len(columns))}, now(), now() + interval '1 day')",
            list(columns.values()),
        )
        templates = self.sql.execute(
            "SELECT id, line_number FROM fusillade.request_templates WHERE file_id = %s",
            (self.file,),
        ).fetchall()
        with self.sql.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO fusillade.requests (id, batch_id, template_id, model, custom_id) VALUES (%s, %s, %s, 'm', %s)",
                [(line_id(self.batch, n), self.batch, id, f"line-{n}") for id, n in templates],
            )
        self.sql.execute(
            "INSERT INTO fusillade.batch_models (batch_id, model, requests) VALUES (%s, 'm', %s)",
            (self.batch, self.lines),
        )
        return self

    def _file(self, id: UUID, name: str, purpose: str) -> None:
        self.sql.execute(
            "INSERT INTO fusillade.files (id, name, purpose, uploaded_by) VALUES (%s, %s, %s, %s)",
            (id, name, purpose, str(self.owner)),
        )

    # --- what ends, in one transaction each, as the recorder has it

    def complete(self, *lines: int, body: str = ANSWER) -> None:
        self._end(
            lines,
            "completed",
            "response_status = 200, completed_at = now(), response_body = %(text)s",
            body,
        )

    def fail(self, *lines: int, error: str = REFUSED) -> None:
        self._end(lines, "failed", "failed_at = now(), error = %(text)s", error)

    def cancel(self, *lines: int) -> None:
        self._end(lines, "canceled", "canceled_at = now()", "")

    def end(self, stamp: str = "completed_at") -> None:
        self.sql.execute(
            f"UPDATE fusillade.batches SET {stamp} = now() WHERE id = %s",  # type: ignore[arg-type]
            (self.batch,),
        )

    def _end(self, lines: tuple[int, ...], state: str, columns: str, text: str) -> None:
        ids = [line_id(self.batch, line) for line in lines]
        into = "output" if state == "completed" else "error"
        values = {
            "batch": self.batch,
            "ids": ids,
            "state": state,
            "text": text,
            "failed": into == "error",
            "count": len(ids),
        }
        with self.sql.transaction():
            self.sql.execute(
                f"UPDATE fusillade.requests SET state = %(state)s, daemon_id = NULL, claimed_at = NULL, started_at = NULL, {columns} "  # type: ignore[arg-type]
                "WHERE id = ANY (%(ids)s)",
                values,
            )
            row = self.sql.execute(
                f"UPDATE fusillade.batches SET {into}_lines = {into}_lines + %(count)s, "  # type: ignore[arg-type]
                f"{state}_requests = {state}_requests + %(count)s WHERE id = %(batch)s RETURNING {into}_lines - %(count)s",
                values,
            ).fetchone()
            assert row
            self.sql.execute(
                "INSERT INTO fusillade.finished_lines (batch_id, failed, position, request_id) "
                "SELECT %(batch)s, %(failed)s, %(first)s + n - 1, id FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY u(id, n)",
                values | {"first": row[0]},
            )


def lines_of(answer: Any) -> list[Any]:
    """The objects of an answer of JSON lines; each line ends with its line end."""
    body: bytes = answer.data if hasattr(answer, "data") else answer.content
    assert body.endswith(b"\n") or not body
    return [orjson.loads(line) for line in body.split(b"\n")[:-1]]
