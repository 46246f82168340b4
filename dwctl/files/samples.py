"""Files of examples for people who have just registered: one for each kind of model that they may use."""

from __future__ import annotations

import base64
import binascii
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg.rows import namedtuple_row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from dwctl import sql
from dwctl.config import Settings
from dwctl.db import Connections
from dwctl.files import intake, models
from dwctl.files.intake import Limits
from dwctl.files.lines import Rules
from dwctl.files.storing import FileHead
from dwctl.files.tables import Newcomer
from dwctl.identity import api_keys, users
from dwctl.identity.tables import User

log = logging.getLogger(__name__)

_QUERIES = sql.load("dwctl.files")
_PIXELS = 32
_TOPICS = (
    "rivers", "bridges", "bees", "tides", "bread", "glass", "maps", "trains", "kites", "salt",
    "mountains", "clocks", "owls", "chess", "rain", "paper", "lighthouses", "volcanoes", "spices", "comets",
)  # fmt: skip
_TASKS = (
    "Tell me one surprising fact about {}.",
    "Explain {} to a child in two sentences.",
    "Write a haiku about {}.",
    "Give a short definition of {}.",
    "Name three words that go with {}.",
)
_COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (240, 220, 50),
    "black": (10, 10, 10),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A kind of file: its name, where its requests go, and the body of the n-th for a model."""

    name: str
    path: str
    body: Callable[[str, int], dict[str, Any]]


@users.on_welcome
def expect_samples(session: Session, user: User, settings: Settings) -> None:
    """Have a worker make the files soon. Whatever happens here keeps nobody from registering."""
    if not (settings.sample_files.enabled and settings.batches.enabled):
        return
    try:
        with session.begin_nested():
            key = api_keys.hidden_key(session, user.id, user.id, "batch")
            session.add(Newcomer(user_id=user.id, api_key_id=key.id))
    except SQLAlchemyError:
        log.exception("no sample files", extra={"user_id": str(user.id)})


def make_some(connection: psycopg.Connection[Any], settings: Settings, most: int) -> int:
    """Make the files of some newcomers, in the transaction at hand. Gives how many were looked at; what cannot be made is left out."""
    newcomers = connection.execute(_QUERIES["take_newcomers"], {"most": most}).fetchall()
    for user_id, api_key_id in newcomers:
        try:
            with connection.transaction():
                _make(connection, settings, user_id, api_key_id)
        except psycopg.OperationalError:
            raise
        except Exception:
            log.exception("no sample files", extra={"user_id": str(user_id)})
    return len(newcomers)


def lines(sample: Sample, model: str, count: int) -> Iterator[bytes]:
    """The file."""
    for number in range(count):
        line = {
            "custom_id": f"sample-{number + 1}",
            "method": "POST",
            "url": sample.path,
            "body": sample.body(model, number),
        }
        yield orjson.dumps(line) + b"\n"


def _make(
    connection: psycopg.Connection[Any], settings: Settings, owner: UUID, api_key_id: UUID
) -> None:
    usable = models.usable_by(connection, owner)
    cursor = connection.cursor(row_factory=namedtuple_row)
    found = cursor.execute(_QUERIES["sampled_models"], {"usable": list(usable)}).fetchone()
    rules = Rules(models=usable, paths=settings.batches.allowed_url_paths)
    limits = Limits(max_bytes=0, most_errors=1, lines_at_once=settings.batches.files.batch_insert_size)  # fmt: skip
    for kind, sample in SAMPLES.items():
        model = getattr(found, kind)
        if model is None or sample.path not in rules.paths:
            continue

        def heading(id: UUID, name: str = sample.name) -> FileHead:
            expires_after_s = settings.batches.files.default_expiry_seconds
            return FileHead(id, name, str(owner), api_key_id, expires_after_s)

        pieces = lines(sample, model, settings.sample_files.requests_per_file)
        intake.take_in(_Here(connection), pieces, heading, rules, limits)


class _Here(Connections):
    """One connection that is in a transaction already, for what wants to borrow some."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """A part of the transaction."""
        with self._connection.transaction():
            yield self._connection


def _asked(number: int) -> str:
    task = _TASKS[number // len(_TOPICS) % len(_TASKS)]
    return task.format(_TOPICS[number % len(_TOPICS)])


def _chat(model: str, number: int) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": _asked(number)}]}


def _embedding(model: str, number: int) -> dict[str, Any]:
    return {"model": model, "input": _asked(number)}


def _vision(model: str, number: int) -> dict[str, Any]:
    colour = list(_COLOURS.values())[number % len(_COLOURS)]
    picture = base64.b64encode(_png(colour)).decode()
    content = [
        {"type": "text", "text": "Which colour is this picture? Answer with one word."},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    ]
    return {"model": model, "messages": [{"role": "user", "content": content}]}


def _png(colour: tuple[int, int, int]) -> bytes:
    """A square of one colour (RFC 2083)."""
    row = b"\0" + bytes(colour) * _PIXELS
    head = struct.pack(">IIBBBBB", _PIXELS, _PIXELS, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(row * _PIXELS)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


SAMPLES = {
    "chat": Sample("Sample: Chat Completions", "/v1/chat/completions", _chat),
    "embeddings": Sample("Sample: Embeddings", "/v1/embeddings", _embedding),
    "vision": Sample("Sample: Vision", "/v1/chat/completions", _vision),
}
"""By the kind of model, as `sampled_models` names them."""
