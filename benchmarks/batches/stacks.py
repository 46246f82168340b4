"""A database with files and batches in it, made by the server itself; duties that are called by hand."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from flask_migrate import upgrade

from dwctl import config
from dwctl.app import create_app
from dwctl.batches import duties
from dwctl.db import psycopg_url
from dwctl.local.postgres import EmbeddedPostgres

SETTINGS = config.Settings()
_FILE = """
INSERT INTO fusillade.request_templates (id, file_id, custom_id, endpoint, method, path, body, model, line_number, body_byte_size)
SELECT gen_random_uuid(), %(id)s, 'line-' || n, '', 'POST', '/v1/chat/completions',
       '{"messages":[{"role":"user","content":"' || repeat(md5(n::text), 28) || '"}]}', 'model-' || n %% %(models)s, n, 960
  FROM generate_series(0, %(lines)s - 1) n
"""


@contextmanager
def database() -> Iterator[str]:
    """The URL of a migrated database that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="dwctl-batches-"))
    folder.chmod(0o755)
    server = EmbeddedPostgres(
        folder / "pg", settings={"max_wal_size": "4GB", "shared_buffers": "512MB"}
    )
    try:
        url = server.start()
        app = create_app(config.load({"DATABASE_URL": url}))
        with app.app_context():
            upgrade()
            app.extensions["sqlalchemy"].engine.dispose()
        yield psycopg_url(url)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ours(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the product's own are."""
    with psycopg.connect(
        url, autocommit=True, options="-c dwctl.queue=own -c jit=off"
    ) as connection:
        yield connection


def file(connection: psycopg.Connection[Any], owner: str, lines: int, models: int) -> UUID:
    """An uploaded file with lines of a kilobyte."""
    id = uuid.uuid4()
    connection.execute(
        "INSERT INTO fusillade.files (id, name, purpose, uploaded_by) VALUES (%s, 'f.jsonl', 'batch', %s)",
        (id, owner),
    )
    connection.execute(_FILE, {"id": id, "lines": lines, "models": models})
    connection.execute("VACUUM ANALYZE fusillade.request_templates")
    return id


def batch(connection: psycopg.Connection[Any], owner: str, file_id: UUID) -> UUID:
    """A batch of all its lines."""
    id = uuid.uuid4()
    values = {"id": id, "file": file_id, "owner": owner}
    with connection.transaction():
        connection.execute(
            "INSERT INTO fusillade.batches (id, file_id, created_by, expires_at, total_requests) "
            "SELECT %(id)s, %(file)s, %(owner)s, now() + interval '1 day', count(*) FROM fusillade.request_templates WHERE file_id = %(file)s",
            values,
        )
        connection.execute(
            "INSERT INTO fusillade.batch_models (batch_id, model, requests) "
            "SELECT %(id)s, model, count(*) FROM fusillade.request_templates WHERE file_id = %(file)s GROUP BY model",
            values,
        )
    return id


def file_and_batch(
    connection: psycopg.Connection[Any], owner: str, lines: int, models: int
) -> UUID:
    return batch(connection, owner, file(connection, owner, lines, models))


def populate_some(connection: psycopg.Connection[Any]) -> bool:
    """One slice; whether there was any."""
    with connection.transaction():
        return duties.populate(connection, SETTINGS) == 0.0


def populate_all(connection: psycopg.Connection[Any]) -> None:
    while populate_some(connection):
        pass
