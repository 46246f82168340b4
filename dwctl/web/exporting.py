"""Downloads of any length: rows as JSON lines or CSV, a page at a time.

Whoever makes the pages holds nothing between them (no connection, no transaction): a client may take a day to read.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Any

import orjson
from flask import Response, request

from dwctl.web.schemas import rfc3339

CONTENT_TYPES = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
"""By the name of the format."""

Row = Mapping[str, Any]

_FORMULAS = tuple("=+-@＝＋－＠")
_BLANKS = ("\t", "\r", "\n")


def lines(
    pages: Iterable[Sequence[Row]], columns: Sequence[str], *, format: str
) -> Iterator[bytes]:
    """The rows of each page as bytes, one piece a page; CSV begins with the names of the columns. Raises what the pages raise, in the middle too.

    JSON lines have the members that a row has, CSV all columns.
    """
    head = _csv_line(columns) if format == "csv" else b""
    render = _RENDERERS[format]
    for page in pages:
        yield head + b"".join(render(row, columns) for row in page)
        head = b""
    if head:
        yield head


def answer(pieces: Iterator[bytes], *, name: str, format: str) -> Response:
    """The download, named `<name>.<format>`. Its first piece is read already: what goes wrong with that is still an answer of its own."""
    begun = iter(()) if request.method == "HEAD" else chain([next(pieces, b"")], pieces)
    response = Response(begun, content_type=CONTENT_TYPES[format])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.{format}"'
    return response


def _as_json(row: Row, _columns: Sequence[str]) -> bytes:
    return _json({name: _plain(value) for name, value in row.items()}) + b"\n"


def _as_csv(row: Row, columns: Sequence[str]) -> bytes:
    return _csv_line(_cell(row.get(name)) for name in columns)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return rfc3339(value)
    return format(value, "f") if isinstance(value, Decimal) else value


def _cell(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return _json(value).decode()
    text = "" if value is None else str(_plain(value))
    # A spreadsheet would run it as a formula, some also behind blanks; the apostrophe says that it is text.
    is_formula = text.startswith(_BLANKS) or text.lstrip().startswith(_FORMULAS)
    return f"'{text}" if isinstance(value, str) and is_formula else text


def _json(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # PostgreSQL keeps whole numbers of any size, and one of them must not keep the rest from being exported.
        return json.dumps(value, default=str, ensure_ascii=False, separators=(",", ":")).encode()


def _csv_line(cells: Iterable[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


_RENDERERS: dict[str, Callable[[Row, Sequence[str]], bytes]] = {"jsonl": _as_json, "csv": _as_csv}
