"""Calls as they are written down: each once, whatever the order of commits; streams that begin, go on and end."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
import requests
from flask import Flask

from dwctl.request_log import lookout, watching
from dwctl.request_log.filters import EVERYBODYS, Filters, Scope, conditions
from dwctl.request_log.lookout import Lookout
from dwctl.web import current
from tests.cast import Cast
from tests.gateway import ADMIN, Gateway
from tests.identity.doors import Doors
from tests.processes import eventually
from tests.request_log.conftest import LOG, Log

LIVE = LOG + "/live"


@pytest.fixture
def look(app: Flask, log: Log) -> Any:
    """What a lookout that has begun sees by each look."""
    lookout, connections = Lookout(), current.parts(app).connections
    assert lookout.look(connections) == []
    return lambda: [one.place.request_id for one in lookout.look(connections)]


class TestLookout:
    def test_each_call_is_seen_once_in_the_order_of_writing(self, look: Any, log: Log) -> None:
        written = [log.call(), log.call(ago_s=86_400), log.call(ago_s=60)]
        assert look() == written
        assert look() == []
        more = log.call(ago_s=7200)
        assert look() == [more]

    def test_what_was_there_before_is_not_seen(self, app: Flask, log: Log) -> None:
        log.call()
        lookout, connections = Lookout(), current.parts(app).connections
        assert lookout.look(connections) == []
        assert lookout.look(connections) == []

    def test_one_that_commits_late_is_not_missed(
        self, app: Flask, log: Log, database_url: str
    ) -> None:
        connections = current.parts(app).connections
        with psycopg.connect(database_url) as slow:
            late = Log(slow).call()
            lookout = Lookout()
            lookout.look(connections)
            time.sleep(1.2)  # well behind the moment at which it began
            quick = log.call()
            assert [one.place.request_id for one in lookout.look(connections)] == [quick]
            assert lookout.look(connections) == []
            slow.commit()
        assert [one.place.request_id for one in lookout.look(connections)] == [late]
        assert lookout.look(connections) == []

    def test_what_is_others_is_not_read_for_who_watches_their_own(
        self, app: Flask, log: Log, cast: Cast
    ) -> None:
        connections, since = current.parts(app).connections, datetime.now(UTC)
        own, _, nobodys = (log.call(user_id=id) for id in (cast["alice"], cast["bob"], None))
        everybodys = Lookout(since).look(connections)
        assert len(everybodys) == 3
        (found,) = Lookout(since, owner=cast["alice"]).look(connections)
        assert (found.place.request_id, found.user_id) == (own, cast["alice"])
        for filters, expected in (
            (Filters(), [own]),
            (Filters(user_id=cast["alice"]), [own]),
            (Filters(user_id=cast["bob"]), []),
        ):
            narrow = conditions(Scope(cast["alice"]), filters)
            shown = list(lookout.fitting(connections, everybodys, narrow))
            assert [row["request_id"] for page in shown for row in page] == expected
        narrow = conditions(EVERYBODYS, Filters())
        (page,) = lookout.fitting(connections, everybodys, narrow)
        assert page[-1]["request_id"] == nobodys

    def test_more_than_are_read_at_once(
        self, look: Any, log: Log, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(lookout, "_AT_ONCE", 3)
        # Seven of one transaction: they were all written at one moment.
        log.sql.execute("INSERT INTO http_analytics (request_id, timestamp, method, uri, status_code, duration_ms) SELECT gen_random_uuid(), now(), 'POST', '/', 200, 1 FROM generate_series(1, 7)")  # fmt: skip
        assert len(set(look())) == 7
        assert look() == []


class Stream:
    """Events of a live stream of a real process."""

    def __init__(self, url: str, who: str = "viewer", **more: Any) -> None:
        headers = Cast.headers(who) | more.pop("headers", {})
        self.answer = requests.get(url, headers=headers, stream=True, timeout=30, **more)
        assert self.answer.status_code == 200, self.answer.text
        self.events: list[dict[str, str]] = []
        self.ended = threading.Event()
        self._lines = self.answer.iter_lines(chunk_size=1)
        for line in self._lines:
            if line == b": watching":
                break
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        event: dict[str, str] = {}
        # (Closing it under the reader's hands raises what it likes.)
        with suppress(requests.RequestException, AttributeError, OSError):
            for line in self._lines:
                name, _, value = line.decode().partition(": ")
                if line:
                    event[name] = value
                elif event:
                    if "event" in event:
                        self.events.append(event)
                    event = {}
        self.ended.set()

    def ids(self) -> list[str]:
        return [json.loads(e["data"])["request_id"] for e in self.events if e["event"] == "request"]

    def close(self) -> None:
        self.answer.close()


@pytest.fixture
def streams() -> Iterator[list[Stream]]:
    opened: list[Stream] = []
    yield opened
    for stream in opened:
        stream.close()


class TestStreams:
    def test_calls_of_two_processes_appear_in_both_their_streams(
        self, stage: Gateway, streams: list[Stream], database_url: str
    ) -> None:
        alias = stage.model("ok")
        second = stage.service.start_web()
        urls = [stage.url, second.url]
        streams += [Stream(f"{url}{ADMIN}{LIVE}", params={"status_code": 200}) for url in urls]
        own = Stream(f"{stage.url}{ADMIN}/users/current/requests/live", "bob")
        streams.append(own)
        calls = [
            stage.post("/chat/completions", {"model": alias, "messages": [{"role": "user", "content": "Hi"}]}, url=url)
            for url in urls * 2
        ]  # fmt: skip
        made = sorted(call.headers["x-request-id"] for call in calls)
        stage.get("/models/none")
        for stream in streams[:2]:
            eventually(lambda stream=stream: len(stream.ids()) >= 4)
            assert sorted(stream.ids()) == made
        assert own.events == []
        # Who comes back with the id of the last event has missed nothing meanwhile.
        last = streams[0].events[-1]["id"]
        streams[0].close()
        missed = stage.post("/chat/completions", {"model": alias, "messages": [{"role": "user", "content": "Hi"}]}).headers["x-request-id"]  # fmt: skip
        time.sleep(0.3)
        again = Stream(f"{stage.url}{ADMIN}{LIVE}", headers={"Last-Event-ID": last})
        streams.append(again)
        eventually(lambda: missed in again.ids())
        assert len(again.ids()) == len(set(again.ids()))
        # SIGTERM ends a stream at once, with a word.
        second.terminate()
        assert streams[1].ended.wait(10)
        assert streams[1].events[-1]["event"] == "end"


def test_as_many_watch_as_may(
    call: Doors, log: Log, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_WATCHERS", 1)
    first = call("viewer", "GET", LIVE, query_string={"seconds": 900})
    assert first.status_code == 200
    assert first.content_type == "text/event-stream; charset=utf-8"
    second = call("viewer", "GET", LIVE)
    assert (second.status_code, second.json["code"]) == (429, "too_many_watchers")
    assert second.headers["Retry-After"] == "10"
    first.close()
    again = call("viewer", "GET", LIVE)
    assert again.status_code == 200
    again.close()


def test_one_who_watches_own_calls_keeps_nobody_from_watching(
    call: Doors, log: Log, cast: Cast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "MOST_WATCHERS", 2)
    monkeypatch.setattr(watching, "MOST_OF_ONE", 1)
    own = f"/users/current{LIVE}"
    answers = [
        call(who, "GET", path)
        for who, path in (("alice", own), ("alice", own), ("bob", own), ("viewer", LIVE))
    ]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 200]
    for answer in answers:
        answer.close()


@pytest.mark.parametrize("seconds", ["0", "901", "x", "1.5"])
def test_how_long_is_bounded(call: Doors, seconds: str) -> None:
    answer = call("viewer", "GET", LIVE, query_string={"seconds": seconds})
    assert answer.status_code == 400
    assert answer.json["message"].startswith("seconds")


@pytest.mark.parametrize("id", ["", "x", "-1", "9" * 40, "²", "99999999999999999"])
def test_an_id_that_is_none_resumes_nothing(id: str) -> None:
    assert watching._moment(id) is None


def test_a_watcher_that_does_not_read_is_lost(monkeypatch: pytest.MonkeyPatch, log: Log) -> None:
    monkeypatch.setattr(watching, "_CALLS_WAITING", 10)
    watcher = watching.Watcher()
    place = lookout.Written(watching.Place(*log.sql.execute("SELECT now(), %s::uuid", (UUID(int=7),)).fetchone()), *log.sql.execute("SELECT now(), 1").fetchone())  # type: ignore[misc]  # fmt: skip
    watcher.give(watching.Look([place] * 10, place.created_at))
    assert not watcher.lost
    watcher.give(watching.Look([place], place.created_at))
    assert watcher.lost


class TestSamples:
    """`most`: so many calls of each second."""

    def told(self, watcher: watching.Watcher, log: Log, app: Flask, written: list[UUID], filters: Filters) -> tuple[list[str], int]:  # fmt: skip
        """The calls of one look, and how many are said to be left out."""
        rows = log.sql.execute("SELECT timestamp, request_id, created_at, id, user_id FROM http_analytics WHERE request_id = ANY (%s) ORDER BY id", (written,)).fetchall()  # fmt: skip
        look = watching.Look([lookout.Written(watching.Place(*row[:2]), *row[2:]) for row in rows], datetime.now(UTC))  # fmt: skip
        looks = watching.Watching(current.parts(app).connections, lambda: False)
        render = lambda found: [{"request_id": str(row["request_id"])} for row in found]  # noqa: E731
        sent = b"".join(looks._rendered(look, conditions(EVERYBODYS, filters), render, watcher.most)).decode()  # fmt: skip
        calls = [json.loads(line[6:])["request_id"] for line in sent.splitlines() if "request_id" in line]  # fmt: skip
        skipped = [json.loads(line[6:])["calls"] for line in sent.splitlines() if '"calls"' in line]
        return calls, sum(skipped)

    def test_it_is_spread_over_the_second_and_the_rest_is_counted(self, app: Flask, log: Log) -> None:  # fmt: skip
        written = [log.call() for _ in range(100)]
        calls, skipped = self.told(watching.Watcher(most=20), log, app, written, Filters())
        assert calls == [str(id) for id in written[::5]]
        assert skipped == 80

    def test_what_fits_is_looked_for_before_it_is_sampled(self, app: Flask, log: Log) -> None:
        written = [log.call(status_code=503 if number % 10 == 9 else 200) for number in range(150)]
        failed = Filters(status_code_min=500)
        calls, skipped = self.told(watching.Watcher(most=20), log, app, written, failed)
        assert calls == [str(id) for id in written[9::10]]
        assert skipped == 0
        calls, skipped = self.told(watching.Watcher(most=5), log, app, written, failed)
        assert (len(calls), skipped) == (5, 10)

    def test_few_calls_are_all_told(self, app: Flask, log: Log) -> None:
        written = [log.call() for _ in range(3)]
        for most in (3, 20, None):
            calls, skipped = self.told(watching.Watcher(most=most), log, app, written, Filters())
            assert (calls, skipped) == ([str(id) for id in written], 0)

    def test_they_have_places_of_their_own(self, call: Doors, log: Log, cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
        monkeypatch.setattr(watching, "MOST_WATCHERS", 1)
        monkeypatch.setattr(watching, "MOST_OF_SAMPLES", 2)
        asked = [{}, {"most": 20}, {"most": 1}, {"most": 5}, {}]
        answers = [call("viewer", "GET", LIVE, query_string=query) for query in asked]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        for answer in answers:
            answer.close()

    @pytest.mark.parametrize("most", ["0", "101", "x"])
    def test_how_large_one_is_is_bounded(self, call: Doors, most: str) -> None:
        assert call("viewer", "GET", LIVE, query_string={"most": most}).status_code == 400
