"""What a record is on its way: the statement's own members, and texts that PostgreSQL can take."""

from __future__ import annotations

import re
from importlib.resources import files
from uuid import uuid4

import msgspec
import orjson
import pytest

from dwctl.analytics import records
from dwctl.analytics.records import Opening, Record, line
from tests.analytics.made import Made, final, opening


def columns(text: str) -> set[str]:
    """The names in the column lists of json_to_recordset."""
    lists = re.findall(r"json_to_recordset\([^)]*\) AS \w+\((.*?)\)", text, re.DOTALL)
    return {part.split()[0] for found in lists for part in found.split(",")}


def text_of(package: str, file: str) -> str:
    return files(package).joinpath(file).read_text("utf-8")


def function(name: str) -> str:
    text = text_of("dwctl.queue", "functions.sql")
    return text[text.index(f"FUNCTION fusillade.{name}(") :].split("END $$;")[0]


def statement(name: str) -> str:
    text = text_of("dwctl.analytics", "queries.sql")
    return text[text.index(f"-- name: {name}") :].split("-- name:")[1]


def test_a_record_has_the_members_that_its_statement_takes() -> None:
    taken = columns(statement("record_calls")) | columns(function("end_calls"))
    assert set(Record.__struct_fields__) == taken


def test_a_record_has_the_members_that_its_fast_statement_takes() -> None:
    assert set(Record.__struct_fields__) == columns(statement("record_born_final"))


def test_an_opening_has_the_members_that_its_statement_takes() -> None:
    assert set(Opening.__struct_fields__) == columns(function("open_calls"))


def test_what_is_there_is_in_the_line_whatever_its_value() -> None:
    """A member that is left out is NULL to the statement: false, 0 and the empty text are not."""
    record = final(Made(uuid4()), b"", tokens=0)
    found = orjson.loads(line(record))
    there = {name for name in Record.__struct_fields__ if getattr(record, name) is not None}
    assert set(found) == there
    assert (found["queued"], found["total_tokens"], found["response_body"]) == (False, 0, "")


def test_last_words_are_part_of_their_opening() -> None:
    call = Made(uuid4())
    words = final(call, state="failed", error="{}")
    found = msgspec.json.decode(line(opening(call, last_words=words)))
    assert msgspec.convert(found["last_words"], Record) == words


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("NUL \x00", "NUL \ufffd"),
        ("surrogate \ud800", "surrogate ?"),
        ("spelt \\u0000 out", "spelt \\u0000 out"),
        ("🚀 %s $1", "🚀 %s $1"),
    ],
)
def test_texts_that_postgresql_cannot_store_are_replaced(text: str, kept: str) -> None:
    call = Made(uuid4())
    assert orjson.loads(line(final(call, response_body=text)))["response_body"] == kept
    assert orjson.loads(line(opening(call, path=text)))["path"] == kept


@pytest.mark.parametrize(
    "name", ["model", "owner", "routed_model", "uri", "custom_id", "error_code"]
)
def test_texts_that_reach_an_index_are_cut_with_a_mark(name: str) -> None:
    text = "🚀" * 6000
    kept = orjson.loads(line(final(Made(uuid4()), **{name: text})))[name]
    assert len(kept) <= 4096
    assert kept.endswith("🚀…")
    if name == "model":
        assert len(kept.encode()) < 2100


@pytest.mark.parametrize("name", ["uri", "custom_id", "served_by", "error_code"])
def test_what_is_only_looked_at_is_printable(name: str) -> None:
    text = "a\n\x1b[2J\u202e\x00\ud800"
    kept = orjson.loads(line(final(Made(uuid4()), **{name: text})))[name]
    assert kept == r"a\n\x1b[2J\u202e\x00\ud800"


def test_bodies_beyond_what_postgresql_takes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MOST_BYTES", 10_000)
    call = Made(uuid4())
    found = orjson.loads(line(final(call, b"x" * 20_000)))
    assert "too large" in found["response_body"]
    assert (found["response_size"], found["cost"]) == (20_000, "0.001")
    assert orjson.loads(line(opening(call, request_body="x" * 20_000)))["request_body"] == ""


def test_an_openings_texts_are_bounded_as_a_records_are() -> None:
    bounded = (records._BOUNDS | records._SHOWN).keys()
    assert bounded & set(Opening.__struct_fields__) == {"owner", "model"}
    assert bounded <= set(Record.__struct_fields__)


@pytest.mark.parametrize("part", ["request_headers", "response_headers", "logged_request", "logged_response"])  # fmt: skip
def test_each_part_that_only_the_log_shows_counts_and_can_be_left_out(part: str) -> None:
    record = final(Made(uuid4()), **{part: "x" * 1000})
    assert records.has_details(record)
    assert records.details_size(record) == 1000
    without = records.without_details(record)
    assert not records.has_details(without)
    assert records.details_size(without) == 0
