"""Any order of open, finish, cancel, give back and kill: one final state, at most one charge, nothing left in progress."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (  # fmt: skip
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from dwctl import config
from dwctl.analytics import duties
from dwctl.analytics.records import Kept
from dwctl.analytics.writing import Entry, Kind, Writer, entry_of
from dwctl.queue import duties as queue_duties
from dwctl.queue import leases
from dwctl.queue.leases import GivenBack, Policy
from tests.analytics.made import Made, final, opening

FINAL_STATES = {"completed", "failed", "canceled"}
INTERRUPTED = '{"type":"Interrupted","details":{"error":"ended"}}'


@pytest.fixture
def own(database_url: str, environ: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET dwctl.queue = own")
        connection.execute("INSERT INTO fusillade.duties (name) VALUES ('bury_the_dead') ON CONFLICT DO NOTHING")  # fmt: skip
        yield connection


class Interleavings(RuleBasedStateMachine):
    """Two web and two worker processes, by their ids; a killed one is replaced by another id, and may yet speak (it was only slow)."""

    own: psycopg.Connection[Any]
    loaded: config.Settings

    calls = Bundle("calls")
    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.own.execute(
            "TRUNCATE fusillade.requests, fusillade.batches, fusillade.request_templates, fusillade.ready, fusillade.delayed, "
            "fusillade.inflight, fusillade.queues, fusillade.open_calls, fusillade.unrecorded, fusillade.daemons"
        )
        self.made: list[Made] = []
        self.cancelled: set[UUID] = set()
        self.writer = Writer(self.loaded, set_aside=self.never, on_empty=lambda _ids: None)
        self.processes = [self.born() for _ in range(4)]

    @staticmethod
    def never(_entry: Entry, reason: str) -> None:
        raise AssertionError(reason)

    def born(self) -> UUID:
        id = uuid4()
        self.own.execute(
            "INSERT INTO fusillade.daemons (id, status, hostname, pid, version, config_snapshot, started_at, last_heartbeat) "
            "VALUES (%s, 'running', 'h', 1, '1', '{}', now(), now())",
            (id,),
        )
        return id

    def write(self, kind: Kind, record: Any) -> None:
        kept: list[Kept] = []
        self.writer.write([entry_of(kind, record)], lambda _entries, found: kept.append(found))
        assert kept == [Kept.COMMITTED]

    def state(self, call: Made) -> str:
        row = self.own.execute("SELECT state FROM fusillade.requests WHERE id = %s", (call.id,)).fetchone()  # fmt: skip
        assert row
        return str(row[0])

    @rule(target=calls, web=st.integers(0, 1), repeatable=st.booleans(), speaks=st.booleans())
    def open(self, web: int, repeatable: bool, speaks: bool) -> Made:
        call = Made(self.processes[web])
        words = final(call, tokens=2, state="failed", error=INTERRUPTED) if speaks else None
        self.write(Kind.OPEN, opening(call, repeatable=repeatable, last_words=words))
        self.made.append(call)
        return call

    @rule(target=calls)
    def enqueue(self) -> Made:
        call = Made(self.processes[0], tier="flex", queued=True)
        self.write(Kind.ENQUEUE, opening(call, "pending"))
        self.made.append(call)
        return call

    @rule(target=leases, worker=st.integers(2, 3))
    def claim(self, worker: int) -> Any:
        me = self.processes[worker]
        jobs = leases.claim(self.own, me=me, most=2, policy=Policy({}, 100))
        return multiple(*((me, job.id) for job in jobs))

    @rule(call=calls)
    def finish_open(self, call: Made) -> None:
        """By the process that opened it, alive or taken for dead."""
        if not call.queued:
            self.write(Kind.FINAL, final(call, request_body=None))

    @rule(lease=consumes(leases))
    def finish_leased(self, lease: tuple[UUID, UUID]) -> None:
        """By the worker that began it, alive or taken for dead."""
        worker, id = lease
        call = next(call for call in self.made if call.id == id)
        self.write(Kind.FINAL, final(call, request_body=None, daemon_id=worker, queued=True, notify=True, opened=True))  # fmt: skip

    @rule(lease=consumes(leases), why=st.sampled_from(GivenBack))
    def give_back(self, lease: tuple[UUID, UUID], why: GivenBack) -> None:
        leases.give_back(self.own, lease[0], [lease[1]], why=why)

    @rule(lease=consumes(leases))
    def retry(self, lease: tuple[UUID, UUID]) -> None:
        leases.retry_later(self.own, lease[0], lease[1], 0.0)

    @rule(call=calls)
    def cancel(self, call: Made) -> None:
        self.own.execute("SELECT fusillade.cancel(%s, %s)", (call.id, [str(call.owner)]))
        if self.state(call) == "canceled":
            self.cancelled.add(call.id)

    @rule(number=st.integers(0, 3))
    def kill(self, number: int) -> None:
        self.own.execute("DELETE FROM fusillade.daemons WHERE id = %s", (self.processes[number],))
        self.processes[number] = self.born()

    @rule()
    def time_passes(self) -> None:
        self.own.execute("UPDATE fusillade.delayed SET not_before = now()")
        for duty in (queue_duties.bury_the_dead, queue_duties.wake_delayed, duties.record_ended):
            with self.own.transaction():
                duty(self.own, self.loaded)

    def teardown(self) -> None:
        if not hasattr(self, "made"):
            return
        for number in range(4):
            self.kill(number)
        for _ in range(5):
            self.time_passes()
            for job in leases.claim(self.own, me=self.processes[2], most=100, policy=Policy({}, 100)):  # fmt: skip
                self.finish_leased((self.processes[2], job.id))
        self.writer.close()
        for call in self.made:
            self.check(call)
        for table in ("ready", "delayed", "inflight", "open_calls", "unrecorded"):
            row = self.own.execute(f"SELECT count(*) FROM fusillade.{table}").fetchone()  # type: ignore[arg-type]
            assert row == (0,), table

    def check(self, call: Made) -> None:
        assert self.state(call) in FINAL_STATES
        if call.id in self.cancelled:
            assert self.state(call) == "canceled"
        row = self.own.execute(
            "SELECT (SELECT count(*) FROM http_analytics WHERE request_id = %(id)s), "
            "(SELECT count(*) FROM credits_transactions WHERE source_id = %(id)s::text)",
            {"id": call.id},
        ).fetchone()
        assert row
        logged, charged = row
        assert charged <= logged <= 1
        if self.state(call) != "canceled":
            assert logged == 1
        if self.state(call) == "completed":
            assert charged == 1


def test_every_interleaving_ends_once(
    own: psycopg.Connection[Any], environ: dict[str, str]
) -> None:
    machine = type("Bound", (Interleavings,), {"own": own, "loaded": config.load(environ)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
