"""Rows as JSON lines and CSV: what is written of a value, whatever it is."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from dwctl.web import exporting

COLUMNS = ("a", "b")


def text(rows: list[list[dict[str, Any]]], format: str) -> str:
    return b"".join(exporting.lines(rows, COLUMNS, format=format)).decode()


@pytest.mark.parametrize(
    ("value", "cell", "in_json"),
    [
        (None, "", None),
        ("=1+1", "'=1+1", "=1+1"),
        ("@x", "'@x", "@x"),
        ("-2", "'-2", "-2"),
        (" =1+1", "' =1+1", " =1+1"),
        ("\u00a0\n@x", "'\u00a0\n@x", "\u00a0\n@x"),
        ("\tx", "'\tx", "\tx"),
        ("\uff1d1", "'\uff1d1", "\uff1d1"),
        (" x=1", " x=1", " x=1"),
        (-2, "-2", -2),
        (Decimal("0.000001"), "0.000001", "0.000001"),
        (Decimal("-1E+3"), "-1000", "-1000"),
        (True, "True", True),
        ({"a": "=1"}, '{"a":"=1"}', {"a": "=1"}),
        ([1], "[1]", [1]),
        (UUID(int=1), str(UUID(int=1)), str(UUID(int=1))),
        (datetime(2026, 1, 31, tzinfo=UTC), "2026-01-31T00:00:00Z", "2026-01-31T00:00:00Z"),
        ('say "hi",\nyou', 'say "hi",\nyou', 'say "hi",\nyou'),
        ({"n": 10**30}, '{"n":' + "1" + 30 * "0" + "}", {"n": 10**30}),
    ],
    ids=str,
)
def test_a_value_is_text_in_a_cell_and_never_a_formula(value: Any, cell: str, in_json: Any) -> None:
    rows = [[{"a": value, "b": "x"}]]
    head, row = csv.reader(io.StringIO(text(rows, "csv")))
    assert (head, row) == (list(COLUMNS), [cell, "x"])
    assert json.loads(text(rows, "jsonl")) == {"a": in_json, "b": "x"}


def test_a_row_may_lack_columns_and_there_may_be_no_rows() -> None:
    assert text([[{"b": 1}]], "csv") == "a,b\r\n,1\r\n"
    assert text([[{"b": 1}]], "jsonl") == '{"b":1}\n'
    assert text([], "csv") == text([[]], "csv") == "a,b\r\n"
    assert text([], "jsonl") == ""
