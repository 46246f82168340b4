"""Downloads through a real process: read slowly, broken off, and followed while lines end."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import orjson
import psycopg
import pytest
import requests

from tests.downloads.batches import Written, lines_of
from tests.gateway import Gateway

LARGE = '{"text":"' + "x" * 100_000 + '"}'
COUNT = 300


@pytest.fixture(scope="module")
def large(stage: Gateway, database_url: str) -> Iterator[Written]:
    """A batch whose output file has thirty megabytes: more than sockets keep."""
    with psycopg.connect(database_url, autocommit=True) as sql:
        batch = Written(sql, stage.alice.id, COUNT).run()
        batch.complete(*range(COUNT), body=LARGE)
        batch.end()
        yield batch


def begin(stage: Gateway, batch: Written) -> requests.Response:
    """Ask for the output file, and read nothing but the head."""
    answer = requests.get(
        f"{stage.url}/ai/v1/files/{batch.output}/content",
        headers=stage.alice.authorization,
        stream=True,
        timeout=30,
    )
    assert answer.status_code == 200
    return answer


def test_a_slow_reader_holds_no_connection_and_gets_everything(
    stage: Gateway, large: Written
) -> None:
    readers = [begin(stage, large) for _ in range(12)]
    for reader in readers:
        assert reader.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in reader.headers
        assert reader.headers["x-last-line"] == str(COUNT)
    time.sleep(0.3)
    held = stage.all(
        "SELECT state, query FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%' AND datname = current_database()"
    )
    assert held == []
    # More readers than the pool has connections, and others are answered at once.
    began = time.monotonic()
    assert stage.get(f"/batches/{large.batch}/results").ok
    assert time.monotonic() - began < 15
    whole = readers[0].content
    assert [orjson.loads(line)["custom_id"] for line in whole.splitlines()] == [
        f"line-{n}" for n in range(COUNT)
    ]
    for reader in readers[1:]:
        reader.close()


def test_an_error_after_the_first_byte_breaks_the_answer_off(
    stage: Gateway, large: Written
) -> None:
    answer = begin(stage, large)
    pieces = answer.iter_content(65536)
    next(pieces)
    stage.execute("ALTER TABLE fusillade.finished_lines RENAME TO away")
    try:
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            list(pieces)
        refused = stage.get(f"/files/{large.output}/content")
        assert refused.status_code == 500
        assert refused.json()["error"]["code"] == "internal_error"
    finally:
        stage.execute("ALTER TABLE fusillade.away RENAME TO finished_lines")


@pytest.mark.parametrize("limit", [None, 7])
def test_whoever_follows_a_batch_gets_each_line_once(
    stage: Gateway, database_url: str, limit: int | None
) -> None:
    with psycopg.connect(database_url, autocommit=True) as sql:
        batch = Written(sql, stage.alice.id, 600).run()
    lines = list(range(600))
    random.Random(7).shuffle(lines)
    failing = set(lines[::5])

    def finish(part: list[int]) -> None:
        with psycopg.connect(database_url, autocommit=True) as own:
            own.execute("SET dwctl.queue = own")
            mine = Written.__new__(Written)
            mine.sql, mine.batch = own, batch.batch
            while part:
                group, part = part[:9], part[9:]
                mine.complete(*(line for line in group if line not in failing))
                mine.fail(*(line for line in group if line in failing))

    workers = [threading.Thread(target=finish, args=(lines[n::3],)) for n in range(3)]

    def end() -> None:
        for worker in workers:
            worker.join()
        stage.execute(
            "UPDATE fusillade.batches SET completed_at = now() WHERE id = %s", batch.batch
        )

    ending = threading.Thread(target=end)
    for thread in (*workers, ending):
        thread.start()
    for file, expected in ((batch.output, set(lines) - failing), (batch.errors, failing)):
        found: list[str] = []
        skip, rounds = 0, 0
        while True:
            query = f"?skip={skip}" + (f"&limit={limit}" if limit else "")
            answer = stage.get(f"/files/{file}/content{query}")
            came = [line["custom_id"] for line in lines_of(answer)]
            assert len(came) == int(answer.headers["x-last-line"]) - skip
            found += came
            skip, rounds = int(answer.headers["x-last-line"]), rounds + 1
            if answer.headers["x-incomplete"] == "false":
                break
        assert len(found) == len(expected)
        assert set(found) == {f"line-{n}" for n in expected}
    ending.join()
