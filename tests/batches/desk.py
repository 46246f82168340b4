"""What a test of batches needs: models, files and people in the database, and calls as somebody."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from flask import Flask
from werkzeug.test import TestResponse

from dwctl.clock import uuid7
from tests.cast import Cast
from tests.identity.doors import unique

CHAT = "/v1/chat/completions"
Json = dict[str, Any]


@dataclass
class Desk:
    """The application in this process, and its database."""

    app: Flask
    sql: psycopg.Connection[Any]
    cast: Cast
    endpoint: UUID = field(init=False)

    def __post_init__(self) -> None:
        self.endpoint = self.one(
            "INSERT INTO inference_endpoints (name, url, created_by) VALUES (%s, 'http://127.0.0.1:1', %s) RETURNING id",
            unique("endpoint"),
            self.cast["admin"],
        )

    def one(self, statement: str, *values: Any) -> Any:
        """The only value of the only row."""
        row = self.sql.execute(statement, values).fetchone()  # type: ignore[arg-type]
        assert row
        return row[0]

    def model(self, *, alias: str | None = None, **columns: Any) -> str:
        """The alias of a model."""
        alias = alias or unique("model")
        columns |= {
            "model_name": alias,
            "alias": alias,
            "created_by": self.cast["admin"],
            "hosted_on": self.endpoint,
        }
        self.one(_insert("deployed_models", columns), *columns.values())
        return alias

    def file(self, owner: UUID, *models: str, path: str = CHAT, **columns: Any) -> UUID:
        """A file with a line for each of these models, by SQL as an operator would: nobody has counted it."""
        columns = {"name": "input.jsonl", "purpose": "batch", "uploaded_by": str(owner)} | columns
        file: UUID = self.one(_insert("fusillade.files", columns), *columns.values())
        for number, model in enumerate(models):
            self.sql.execute(
                "INSERT INTO fusillade.request_templates (id, file_id, custom_id, endpoint, method, path, body, model, line_number, body_byte_size)"
                " VALUES (%s, %s, %s, '', 'POST', %s, '{}', %s, %s, 2)",
                (uuid7(), file, f"line-{number}", path, model, number),
            )
        return file

    def counted(self, owner: UUID, model: str, lines: int, path: str = CHAT) -> UUID:
        """A file that says it has that many lines."""
        file = self.file(owner)
        self.sql.execute(
            "INSERT INTO fusillade.file_models (file_id, model, path, requests, bytes) VALUES (%s, %s, %s, %s, %s)",
            (file, model, path, lines, lines * 100),
        )
        return file

    def call(
        self, who: str | None, method: str, path: str, json: Any = None, **more: Any
    ) -> TestResponse:
        """A call below /ai/v1 as one of the cast."""
        headers = {**(Cast.headers(who) if who else {}), **more.pop("headers", {})}
        client = self.app.test_client(use_cookies=False)
        return client.open(f"/ai/v1{path}", method=method, json=json, headers=headers, **more)

    def create(self, who: str | None, file: UUID | str, **more: Any) -> TestResponse:
        """POST /batches; members of the body beside `headers`."""
        headers = more.pop("headers", {})
        body = {"input_file_id": str(file), "endpoint": CHAT, "completion_window": "24h"} | more
        return self.call(who, "POST", "/batches", body, headers=headers)

    def batch(self, who: str, model: str, **more: Any) -> Json:
        """A batch that is made, of a new file of that person with one line."""
        answer = self.create(who, self.file(self.cast[who], model), **more)
        assert answer.status_code == 201, answer.text
        made: Json = answer.json
        return made

    def stamp(self, batch: str, **columns: Any) -> None:
        """Change the batch's row, as an operator in a console would."""
        names = ", ".join(f"{name} = %s" for name in columns)
        self.sql.execute(
            f"UPDATE fusillade.batches SET {names} WHERE id = %s", [*columns.values(), batch]
        )

    def credit(self, owner: UUID, balance: str) -> None:
        """Make the balance what it says."""
        self.sql.execute(
            "INSERT INTO user_balance_checkpoints (user_id, checkpoint_seq, balance) VALUES (%s, 0, %s)"
            " ON CONFLICT (user_id) DO UPDATE SET balance = EXCLUDED.balance",
            (owner, balance),
        )


def _insert(table: str, columns: dict[str, Any]) -> str:
    marks = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) RETURNING id"


def message_of(answer: TestResponse) -> str:
    """What an answer in OpenAI's envelope says."""
    error = answer.json["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    message: str = error["message"]
    return message
