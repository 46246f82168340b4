"""Streams entries as JSON lines or CSV: a page at a time, with no connection held while it is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Engine, Select
from sqlalchemy.orm import Session

from dwctl.audit import reading
from dwctl.audit.reading import Row, Scope
from dwctl.audit.tables import AuditEntry
from dwctl.web.schemas import rfc3339

PAGE = 500

CONTENT_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")


def stream(
    engine: Engine, scope: Scope, query: Select[AuditEntry], *, format: str
) -> Iterator[bytes]:
    """The entries of a query in its order (newest first). Raises what SQLAlchemy raises, in the middle too."""
    render = _RENDERERS[format]
    head = _csv_line(reading.COLUMNS) if format == "csv" else b""
    last: int | None = None
    while True:
        # A session and a transaction for each page: whoever reads slowly holds nothing.
        with Session(engine) as session:
            behind = query if last is None else query.where(AuditEntry.id < last)
            page = session.scalars(behind.limit(PAGE)).all()
            rows = reading.as_rows(session, scope, page)
        yield head + b"".join(map(render, rows))
        if len(rows) < PAGE:
            return
        head, last = b"", rows[-1]["id"]


def _as_json(row: Row) -> bytes:
    return _json(_plain(row)) + b"\n"


def _as_csv(row: Row) -> bytes:
    return _csv_line(map(_cell, _plain(row).values()))


def _plain(row: Row) -> Row:
    return {name: rfc3339(v) if isinstance(v, datetime) else v for name, v in row.items()}


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return _json(value).decode()
    text = "" if value is None else str(value)
    # A spreadsheet would run it as a formula; the apostrophe says that it is text.
    return f"'{text}" if text.startswith(_FORMULAS) else text


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # PostgreSQL keeps whole numbers of any size, and one of them must not keep the log from being exported.
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":")).encode()


def _csv_line(cells: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


_RENDERERS: dict[str, Callable[[Row], bytes]] = {"jsonl": _as_json, "csv": _as_csv}
