"""Files for tests, as rows: what an upload or a batch would have left, and callers of every kind."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from flask import Flask
from werkzeug.test import TestResponse

from tests.cast import Cast

FILES = "/ai/v1/files"
LINE = json.dumps({"model": "m", "messages": []})


@dataclass(frozen=True)
class Shelf:
    """The API, called by one of the cast; and an operator at the database."""

    app: Flask
    cast: Cast
    sql: psycopg.Connection[Any]

    def __call__(self, who: str, method: str, path: str = "", **more: Any) -> TestResponse:
        """`who` is one of the cast, `who@organisation's id`, or the secret of a key."""
        name, _, organization = who.partition("@")
        if name.startswith("sk-"):
            headers = {"Authorization": f"Bearer {name}"}
        else:
            headers = Cast.headers(name)
        if organization:
            headers["X-Organization-Id"] = organization
        client = self.app.test_client(use_cookies=False)
        return client.open(FILES + path, method=method, headers=headers, **more)

    def ids(self, who: str, **query: Any) -> list[str]:
        """What a list shows."""
        answer = self(who, "GET", query_string=query)
        assert answer.status_code == 200, answer.text
        assert answer.json is not None
        return [file["id"] for file in answer.json["data"]]

    def one(self, statement: str, *values: Any) -> Any:
        row = self.sql.execute(statement, values).fetchone()  # type: ignore[arg-type]
        assert row is not None
        return row[0] if len(row) == 1 else row

    def user(self, name: str, *roles: str, kind: str = "individual") -> UUID:
        """Somebody who signs in by the trusted header as `name`."""
        email = f"{name}@cast.example"
        id: UUID = self.one(
            "INSERT INTO users (username, email, external_user_id, user_type) VALUES (%s, %s, %s, %s) RETURNING id",
            name, email, email, kind,
        )  # fmt: skip
        for role in roles:
            self.sql.execute("INSERT INTO user_roles (user_id, role) VALUES (%s, %s)", (id, role))
        self.cast.ids[name] = id
        return id

    def organization(self, *members: str) -> UUID:
        id = self.user(unique("org"), kind="organization")
        for member in members:
            self.sql.execute(
                "INSERT INTO user_organizations (user_id, organization_id) VALUES (%s, %s)",
                (self.cast[member], id),
            )
        return id

    def hidden_key(self, owner: UUID, creator: UUID) -> UUID:
        found: UUID = self.one(
            "INSERT INTO api_keys (name, user_id, created_by, purpose, hidden) VALUES (%s, %s, %s, 'batch', true)"
            " ON CONFLICT (user_id, created_by, purpose) WHERE hidden AND NOT is_deleted DO UPDATE SET hidden = true RETURNING id",
            f"Internal batch Key ({creator})", owner, creator,
        )  # fmt: skip
        return found

    def key(self, owner: UUID, creator: UUID, purpose: str = "realtime") -> str:
        """The secret of a key that its creator shows."""
        secret = f"sk-{uuid.uuid4().hex}"
        self.sql.execute(
            "INSERT INTO api_keys (name, user_id, created_by, purpose, secret_hash, secret_prefix) VALUES (%s, %s, %s, %s, %s, %s)",
            (secret, owner, creator, purpose, hashlib.sha256(secret.encode()).digest(), secret[:10]),
        )  # fmt: skip
        return secret

    def file(self, owner: object, *, lines: int = 0, **more: Any) -> str:
        """The id of a file, with lines for the model m."""
        columns = {"name": "input.jsonl", "purpose": "batch", "uploaded_by": str(owner), **more}
        places = ", ".join(["%s"] * len(columns))
        id = self.one(
            f"INSERT INTO fusillade.files ({', '.join(columns)}) VALUES ({places}) RETURNING id",
            *columns.values(),
        )
        self.sql.execute(
            "INSERT INTO fusillade.request_templates (file_id, custom_id, endpoint, method, path, body, model, line_number, body_byte_size)"
            " SELECT %s, 'line-' || n, '', 'POST', '/v1/chat/completions', %s, 'm', n, %s FROM generate_series(0, %s - 1) n",
            (id, LINE, len(LINE), lines),
        )
        if lines:
            self.asks(id, "m", lines, lines * len(LINE))
        return str(id)

    def asks(
        self, file: str, model: str, requests: int, size: int, path: str = "/v1/chat/completions"
    ) -> None:
        self.sql.execute(
            "INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes) VALUES (%s, %s, %s, %s, %s)",
            (file, model, path, requests, size),
        )

    def batch(self, file: str | None, owner: object, **more: Any) -> str:
        """The id of a batch of that file, not yet begun."""
        columns = {"file_id": file, "created_by": str(owner), **more}
        places = ", ".join(["%s"] * len(columns))
        return str(
            self.one(
                f"INSERT INTO fusillade.batches ({', '.join(columns)}, expires_at)"
                f" VALUES ({places}, now() + interval '24 hours') RETURNING id",
                *columns.values(),
            )
        )

    def templates(self, file: str) -> int:
        found: int = self.one(
            "SELECT count(*) FROM fusillade.request_templates WHERE file_id = %s", file
        )
        return found


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"
