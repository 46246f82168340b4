"""What comes out of files and batches, asked for over the routes."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from dwctl.queue.identifiers import line_id
from tests.cast import Cast
from tests.downloads.batches import ANSWER, Written, lines_of

AI = "/ai/v1"
NOBODY = uuid.UUID("018f0000-0000-7000-8000-00000000dead")


@pytest.fixture
def five(sql: psycopg.Connection, cast: Cast) -> Written:
    """Alice's file of five lines, and its batch, of which nothing has ended."""
    return Written(sql, cast["alice"], 5).run()


def get(client: FlaskClient, path: str, who: str = "alice", **query: Any) -> Any:
    return client.get(AI + path, headers=Cast.headers(who), query_string=query)


def marks(answer: Any) -> tuple[str | None, str | None]:
    assert answer.status_code == 200, answer.data
    assert answer.content_type == "application/x-ndjson"
    return answer.headers.get("X-Last-Line"), answer.headers.get("X-Incomplete")


def customs(answer: Any) -> list[str]:
    return [line["custom_id"] for line in lines_of(answer)]


# --- input


def test_an_uploaded_file_comes_back_with_its_bodies_as_they_were(
    client: FlaskClient, five: Written
) -> None:
    answer = get(client, f"/files/{five.file}/content")
    assert marks(answer) == (None, "false")
    assert answer.data.split(b"\n")[1] == (
        b'{"custom_id":"line-1","method":"POST","url":"/v1/chat/completions","body":{"model": "m",  "n": 1}}'
    )
    assert customs(answer) == [f"line-{n}" for n in range(5)]
    assert "Content-Length" not in answer.headers


PAGES = {
    "the first": ({"limit": 2}, ["line-0", "line-1"], ("2", "true")),
    "the last": ({"limit": 2, "skip": 3}, ["line-3", "line-4"], ("5", "false")),
    "all of them": ({"limit": 5}, [f"line-{n}" for n in range(5)], ("5", "false")),
    "a limit that is too small": ({"limit": 0}, ["line-0"], ("1", "true")),
    "behind the end": ({"limit": 2, "skip": 9}, [], ("9", "false")),
    "far behind the end": ({"limit": 2, "skip": 2**70}, [], (str(2**60), "false")),
    "before the beginning": ({"limit": 1, "skip": -3}, ["line-0"], ("1", "true")),
    "found": ({"limit": 9, "search": "NE-3"}, ["line-3"], ("1", "false")),
    "found, the second": ({"limit": 1, "skip": 1, "search": "line"}, ["line-1"], ("2", "true")),
    "found nowhere": ({"limit": 1, "search": "l_ne"}, [], ("0", "false")),
    "the rest": ({"skip": 3}, ["line-3", "line-4"], (None, "false")),
    "found in the rest": ({"skip": 4, "search": "line"}, ["line-4"], (None, "false")),
}  # fmt: skip


@pytest.mark.parametrize("numbers", ["from the upload", "by hand"])
@pytest.mark.parametrize(("query", "expected", "said"), PAGES.values(), ids=PAGES)
def test_a_file_is_read_in_pages(
    client: FlaskClient, five: Written, query: Any, expected: Any, said: Any, numbers: str
) -> None:
    if numbers == "by hand":
        five.sql.execute("DELETE FROM fusillade.file_models WHERE file_id = %s", (five.file,))
        five.sql.execute(
            "UPDATE fusillade.request_templates SET line_number = line_number * 7 + 3 WHERE file_id = %s",
            (five.file,),
        )
    answer = get(client, f"/files/{five.file}/content", **query)
    assert customs(answer) == expected
    assert marks(answer) == said


def test_lines_that_all_have_the_same_number_come_once_each(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast
) -> None:
    file = Written(sql, cast["alice"], 2500)
    sql.execute(
        "UPDATE fusillade.request_templates SET line_number = 0, custom_id = NULL, body = 'no JSON'  WHERE file_id = %s",
        (file.file,),
    )
    found = lines_of(get(client, f"/files/{file.file}/content"))
    assert (
        found
        == [{"custom_id": None, "method": "POST", "url": "/v1/chat/completions", "body": "no JSON"}]
        * 2500
    )


# --- output and errors


ODD = {
    "printed for people": ('{\n  "a": 1,\r\n  "b": "x\\ny"\n}', {"a": 1, "b": "x\ny"}),
    "a text": ('say "hi"\n', 'say "hi"\n'),
    "half": ('{"a":', '{"a":'),
    "nothing": ("", ""),
    "NUL as it is spelled": ('{"a":"\\u0000"}', {"a": "\0"}),
    "too deep for PostgreSQL": ("[" * 50_000 + "]" * 50_000, "[" * 50_000 + "]" * 50_000),
    "a line end of Unicode": ('{"a":"\u2028"}', {"a": "\u2028"}),
}


@pytest.mark.parametrize(("body", "expected"), ODD.values(), ids=ODD)
def test_one_odd_body_among_others_is_a_line_as_they_are(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast, body: str, expected: Any
) -> None:
    batch = Written(sql, cast["alice"], 1200).run()
    batch.complete(*(line for line in range(1200) if line != 1100))
    batch.complete(1100, body=body)
    lines = lines_of(get(client, f"/files/{batch.output}/content"))
    assert [line["custom_id"] for line in lines[:3]] == ["line-0", "line-1", "line-2"]
    assert lines[-1]["custom_id"] == "line-1100"
    assert lines[-1]["response"]["body"] == expected
    results = lines_of(get(client, f"/batches/{batch.batch}/results"))
    assert len(results) == 1200
    assert results[1100]["response_body"] == expected


def test_lines_come_in_the_order_in_which_they_ended(client: FlaskClient, five: Written) -> None:
    five.complete(3)
    five.complete(0, 4)
    five.fail(2)
    answer = get(client, f"/files/{five.output}/content")
    assert customs(answer) == ["line-3", "line-0", "line-4"]
    assert marks(answer) == ("3", "true")
    request = line_id(five.batch, 3)
    assert lines_of(answer)[0] == {
        "id": f"batch_req_{request}",
        "custom_id": "line-3",
        "response": {
            "status_code": 200,
            "request_id": str(request),
            "body": {"id": "resp_1", "object": "chat.completion", "choices": []},
        },
        "error": None,
    }
    failed = line_id(five.batch, 2)
    assert lines_of(get(client, f"/files/{five.errors}/content")) == [
        {
            "id": f"batch_req_{failed}",
            "custom_id": "line-2",
            "response": {
                "status_code": 400,
                "request_id": str(failed),
                "body": {"error": {"message": "no such role"}},
            },
            "error": {"code": "http_400", "message": "no such role"},
        }
    ]
    five.cancel(1)
    five.end()
    assert marks(get(client, f"/files/{five.output}/content")) == ("3", "false")
    ended = get(client, f"/files/{five.errors}/content")
    assert marks(ended) == ("2", "false")
    assert lines_of(ended)[1]["error"]["code"] == "batch_cancelled"


OUTPUTS = {
    "all": ({}, ["line-4", "line-3", "line-2", "line-1", "line-0"], ("5", "true")),
    "the rest": ({"skip": 3}, ["line-1", "line-0"], ("5", "true")),
    "behind the end": ({"skip": 7}, [], ("7", "true")),
    "a page": ({"skip": 1, "limit": 2}, ["line-3", "line-2"], ("3", "true")),
    "the last page": ({"skip": 3, "limit": 9}, ["line-1", "line-0"], ("5", "true")),
    "found": ({"search": "LINE-2"}, ["line-2"], (None, "true")),
    "found on a page": ({"search": "line", "skip": 4, "limit": 1}, ["line-0"], ("5", "true")),
}  # fmt: skip


@pytest.mark.parametrize(("query", "expected", "said"), OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_file_is_read_in_pages_while_it_grows(
    client: FlaskClient, five: Written, query: Any, expected: Any, said: Any
) -> None:
    five.complete(4, 3, 2, 1, 0)
    answer = get(client, f"/files/{five.output}/content", **query)
    assert customs(answer) == expected
    assert marks(answer) == said


def test_a_retried_line_leaves_a_gap_and_moves_no_other(client: FlaskClient, five: Written) -> None:
    five.fail(0, 1, 2, 3)
    five.sql.execute(
        "DELETE FROM fusillade.finished_lines WHERE batch_id = %s AND failed AND position IN (1, 3)",
        (five.batch,),
    )
    first = get(client, f"/files/{five.errors}/content", limit=2)
    assert customs(first) == ["line-0", "line-2"]
    assert marks(first) == ("3", "true")
    rest = get(client, f"/files/{five.errors}/content", limit=2, skip=3)
    assert customs(rest) == []
    assert marks(rest) == ("3", "true")
    assert customs(get(client, f"/files/{five.errors}/content")) == ["line-0", "line-2"]


def test_files_of_a_deleted_batch_are_still_there_and_its_results_are_not(
    client: FlaskClient, five: Written
) -> None:
    five.complete(0)
    five.sql.execute(
        "UPDATE fusillade.batches SET deleted_at = now(), cancelling_at = now(), cancelled_at = now() WHERE id = %s",
        (five.batch,),
    )
    answer = get(client, f"/files/{five.output}/content")
    assert customs(answer) == ["line-0"]
    assert marks(answer) == ("1", "false")
    assert get(client, f"/batches/{five.batch}/results").status_code == 404


# --- results


def test_results_have_both_sides_in_the_order_of_the_input(
    client: FlaskClient, five: Written
) -> None:
    five.complete(3, 0, body='{\n "id": 1\n}')
    five.fail(2, error="it broke")
    five.cancel(4)
    answer = get(client, f"/batches/batch_{five.batch}/results")
    assert marks(answer) == ("5", "true")
    found = lines_of(answer)
    assert [line["status"] for line in found] == [
        "completed", "pending", "failed", "completed", "canceled",
    ]  # fmt: skip
    assert found[0] == {
        "id": str(line_id(five.batch, 0)),
        "custom_id": "line-0",
        "model": "m",
        "input_body": {"model": "m", "n": 0},
        "response_body": {"id": 1},
        "error": None,
        "status": "completed",
    }
    assert found[2]["error"] == "it broke"
    assert found[2]["response_body"] is None


RESULTS = {
    "completed": ({"status": "completed"}, ["line-0", "line-3"], ("2", "true")),
    "one completed": ({"status": "completed", "limit": 1}, ["line-0"], ("1", "true")),
    "failed": ({"status": "failed"}, ["line-2"], ("1", "true")),
    "pending": ({"status": "pending"}, ["line-1"], ("1", "true")),
    "in progress": ({"status": "in_progress"}, [], ("0", "true")),
    "canceled": ({"status": "canceled"}, ["line-4"], ("1", "true")),
    "the rest": ({"skip": 3}, ["line-3", "line-4"], ("5", "true")),
    "a page": ({"skip": 1, "limit": 2}, ["line-1", "line-2"], ("3", "true")),
    "behind the end": ({"skip": 6, "limit": 2}, [], ("6", "true")),
    "found": ({"search": "line-3", "limit": 5}, ["line-3"], ("1", "true")),
    "found in the stream": ({"search": "line-3"}, ["line-3"], (None, "true")),
    "found with a status": ({"search": "line", "status": "failed"}, ["line-2"], (None, "true")),
}  # fmt: skip


@pytest.mark.parametrize("made", ["populated", "by hand"])
@pytest.mark.parametrize(("query", "expected", "said"), RESULTS.values(), ids=RESULTS)
def test_results_are_read_in_pages_and_by_status(
    client: FlaskClient, five: Written, query: Any, expected: Any, said: Any, made: str
) -> None:
    five.complete(3, 0)
    five.fail(2)
    five.cancel(4)
    if made == "by hand":
        five.sql.execute(
            "UPDATE fusillade.requests SET id = gen_random_uuid() WHERE batch_id = %s",
            (five.batch,),
        )
        five.sql.execute(
            "UPDATE fusillade.batches SET populated_lines = 0, completed_requests = 0, total_requests = 0 WHERE id = %s",
            (five.batch,),
        )
    answer = get(client, f"/batches/{five.batch}/results", **query)
    assert customs(answer) == expected
    assert marks(answer) == said


@pytest.mark.parametrize("stage", ["deleted", "purged"])
def test_results_without_their_input_file_lack_what_was_asked(
    client: FlaskClient, five: Written, stage: str
) -> None:
    five.complete(0, 1, 2, 3, 4)
    five.end()
    five.sql.execute("UPDATE fusillade.files SET deleted_at = now() WHERE id = %s", (five.file,))
    if stage == "purged":
        five.sql.execute("DELETE FROM fusillade.request_templates WHERE file_id = %s", (five.file,))
    answer = get(client, f"/batches/{five.batch}/results")
    assert marks(answer) == ("5", "false")
    found = lines_of(answer)
    assert len(found) == 5
    assert {repr(line["input_body"]) for line in found} == {"None"}
    assert found[4]["response_body"]["id"] == "resp_1"


def test_a_status_that_does_not_exist_is_named_with_those_that_do(
    client: FlaskClient, five: Written
) -> None:
    answer = get(client, f"/batches/{five.batch}/results", status="nonsense")
    assert answer.status_code == 400
    assert "completed, failed, pending, in_progress, canceled" in answer.json["error"]["message"]


def test_a_single_request_is_no_batch_with_results(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast
) -> None:
    one = Written(sql, cast["alice"], 1).run(single=True)
    assert get(client, f"/batches/{one.batch}/results").status_code == 404


# --- large ones


def test_an_answer_with_a_limit_is_bounded_in_bytes_and_says_where_it_stopped(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast
) -> None:
    batch = Written(sql, cast["alice"], 3).run()
    batch.complete(*range(3), body='{"text":"' + "x" * 9_000_000 + '"}')
    first = get(client, f"/files/{batch.output}/content", limit=100)
    assert customs(first) == ["line-0", "line-1"]
    assert marks(first) == ("2", "true")
    second = get(client, f"/files/{batch.output}/content", limit=100, skip=2)
    assert customs(second) == ["line-2"]
    found = get(client, f"/files/{batch.output}/content", limit=100, skip=2, search="line")
    assert (customs(found), marks(found)) == (["line-2"], ("3", "true"))
    assert customs(get(client, f"/files/{batch.output}/content")) == [f"line-{n}" for n in range(3)]


def test_thousands_of_lines_come_once_each(
    client: FlaskClient, sql: psycopg.Connection, cast: Cast
) -> None:
    many = 2500
    batch = Written(sql, cast["alice"], many).run()
    batch.complete(*range(0, many, 2))
    for path, query in (
        (f"/files/{batch.file}/content", {}),
        (f"/files/{batch.file}/content", {"search": "line"}),
        (f"/batches/{batch.batch}/results", {}),
        (f"/batches/{batch.batch}/results", {"search": "line"}),
    ):
        assert customs(get(client, path, **query)) == [f"line-{n}" for n in range(many)], (
            path,
            query,
        )
    expected = [f"line-{n}" for n in range(0, many, 2)]
    assert customs(get(client, f"/files/{batch.output}/content")) == expected
    assert customs(get(client, f"/batches/{batch.batch}/results", status="completed")) == expected
    last = get(client, f"/batches/{batch.batch}/results", search=f"line-{many - 1}", limit=1)
    assert (customs(last), marks(last)) == ([f"line-{many - 1}"], ("1", "true"))


# --- who may


@pytest.mark.parametrize(
    ("who", "status"),
    [("alice", 200), ("admin", 200), ("bob", 404), ("viewer", 403), ("biller", 403)],
)
def test_owners_and_those_who_may_read_all_get_lines(
    client: FlaskClient, five: Written, who: str, status: int
) -> None:
    five.complete(0)
    for path in (
        f"/files/{five.file}/content",
        f"/files/{five.output}/content",
        f"/batches/{five.batch}/results",
    ):
        assert get(client, path, who).status_code == status
        assert client.head(AI + path, headers=Cast.headers(who)).status_code == status
    assert client.get(f"{AI}/files/{five.file}/content").status_code == 401


UNKNOWN = {
    "file": (f"/files/{NOBODY}/content", 404, f"File with ID {NOBODY} not found"),
    "batch": (f"/batches/{NOBODY}/results", 404, f"Batch with ID {NOBODY} not found"),
    "no file id": ("/files/nonsense/content", 400, "Invalid file ID format"),
    "no batch id": ("/batches/nonsense/results", 400, "Invalid batch ID format"),
}


@pytest.mark.parametrize(("path", "status", "message"), UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_not_there_is_refused_before_the_answer_begins(
    client: FlaskClient, cast: Cast, path: str, status: int, message: str
) -> None:
    answer = get(client, path)
    assert answer.status_code == status
    assert answer.json["error"]["message"] == message


def test_a_deleted_file_and_one_that_lost_its_batch_are_not_there(
    client: FlaskClient, five: Written
) -> None:
    five.sql.execute(
        "UPDATE fusillade.batches SET output_file_id = NULL WHERE id = %s", (five.batch,)
    )
    five.sql.execute("UPDATE fusillade.files SET deleted_at = now() WHERE id = %s", (five.errors,))
    for file in (five.output, five.errors):
        assert get(client, f"/files/{file}/content").status_code == 404


def test_the_answers_of_head_say_what_get_would(client: FlaskClient, five: Written) -> None:
    five.complete(0, 1)
    answer = client.head(f"{AI}/files/file-{five.output}/content", headers=Cast.headers("alice"))
    assert marks(answer) == ("2", "true")
    assert answer.data == b""
    assert ANSWER
