"""Burying the dead: who counts as dead, and what becomes of what they worked on."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from dwctl import config
from dwctl.config import Daemons
from dwctl.queue import duties
from tests.queue.rows import Rows

BEAT_S, DEAD_AFTER_S = 1.0, 10.0


@pytest.fixture
def settings(environ: dict[str, str]) -> config.Settings:
    return replace(config.load(environ), daemons=Daemons(BEAT_S, DEAD_AFTER_S))


def bury(rows: Rows, settings: config.Settings, *, watched_s: float = 60.0) -> None:
    """Run the duty as its runner does, the database having been watched without a gap for that long."""
    rows.ours.execute("INSERT INTO fusillade.duties (name) VALUES ('bury_the_dead') ON CONFLICT DO NOTHING")  # fmt: skip
    rows.ours.execute(
        "UPDATE fusillade.duties SET observed_since = now() - %s * interval '1 second', last_ran_at = now() - interval '1 second'",
        (watched_s,),
    )
    with rows.ours.transaction():
        duties.bury_the_dead(rows.ours, settings)


def status(rows: Rows, daemon: UUID) -> str:
    return str(rows.one("SELECT status FROM fusillade.daemons WHERE id = %s", daemon))


def open_call(rows: Rows, daemon: UUID, *, repeatable: bool) -> UUID:
    """A realtime call that lasts."""
    id = rows.request(state="processing", daemon_id=daemon, claimed_at="now", started_at="now", service_tier="priority")  # fmt: skip
    rows.by_hand.execute(
        "INSERT INTO fusillade.open_calls (id, daemon_id, repeatable) VALUES (%s, %s, %s)",
        (id, daemon, repeatable),
    )
    return id


@pytest.mark.parametrize(
    ("beat_s_ago", "expected"), [(0, "running"), (DEAD_AFTER_S - 1, "running"), (DEAD_AFTER_S + 1, "dead")]
)  # fmt: skip
def test_who_has_not_beaten_for_long_is_dead(
    rows: Rows, settings: config.Settings, beat_s_ago: float, expected: str
) -> None:
    daemon = rows.daemon(beat_s_ago=beat_s_ago)
    bury(rows, settings)
    assert status(rows, daemon) == expected


def test_after_an_outage_everybody_has_a_whole_threshold_to_beat_again(
    rows: Rows, settings: config.Settings
) -> None:
    daemon = rows.daemon(beat_s_ago=3600)
    bury(rows, settings, watched_s=DEAD_AFTER_S - 1)
    assert status(rows, daemon) == "running"
    bury(rows, settings, watched_s=DEAD_AFTER_S + 1)
    assert status(rows, daemon) == "dead"


def test_a_gap_in_the_watch_begins_it_anew(rows: Rows, settings: config.Settings) -> None:
    daemon = rows.daemon(beat_s_ago=3600)
    rows.ours.execute(
        "INSERT INTO fusillade.duties (name, observed_since, last_ran_at) VALUES "
        "('bury_the_dead', now() - interval '1 hour', now() - %s * interval '1 second')",
        (DEAD_AFTER_S,),
    )
    duties.bury_the_dead(rows.ours, settings)
    assert status(rows, daemon) == "running"


def test_the_first_watch_ever_buries_nobody(rows: Rows, settings: config.Settings) -> None:
    daemon = rows.daemon(beat_s_ago=3600)
    rows.ours.execute("INSERT INTO fusillade.duties (name) VALUES ('bury_the_dead')")
    duties.bury_the_dead(rows.ours, settings)
    assert status(rows, daemon) == "running"


def test_the_leases_of_the_dead_are_given_back(rows: Rows, settings: config.Settings) -> None:
    dead, alive = rows.daemon(beat_s_ago=60), rows.daemon()
    lost = rows.requests(2, model="a")
    rows.begin(dead, most=1)
    rows.claim(dead, most=1)
    kept = rows.requests(1, model="b")
    rows.begin(alive)
    bury(rows, settings)
    assert {rows.state(id) for id in lost} == {"pending"}
    assert rows.state(kept[0]) == "processing"
    assert rows.claim(alive) == []
    rows.time_passes()
    assert {(job.id, job.attempt, job.times_lost) for job in rows.claim(alive)} == {(id, 0, 1) for id in lost}  # fmt: skip


def test_the_leases_of_nobody_are_given_back(rows: Rows, settings: config.Settings) -> None:
    """A process that said goodbye, and one whose row was deleted."""
    ended = rows.daemon(status="dead")
    gone = rows.daemon()
    rows.request(model="a")
    rows.begin(ended)
    rows.request(model="b")
    rows.begin(gone)
    rows.by_hand.execute("DELETE FROM fusillade.daemons WHERE id = %s", (gone,))
    bury(rows, settings, watched_s=0)
    assert rows.count("inflight") == 0
    assert rows.count("delayed") == 2


def test_a_realtime_call_of_the_dead_ends_interrupted(
    rows: Rows, settings: config.Settings
) -> None:
    id = open_call(rows, rows.daemon(beat_s_ago=60), repeatable=False)
    bury(rows, settings)
    state, error = rows.one("SELECT state, error FROM fusillade.requests WHERE id = %s", id)
    assert state == "failed"
    assert '"Interrupted"' in error
    assert rows.count("open_calls") == 0
    assert rows.claim(rows.daemon()) == []


def test_a_realtime_background_call_of_the_dead_is_run_again(
    rows: Rows, settings: config.Settings
) -> None:
    id = open_call(rows, rows.daemon(beat_s_ago=60), repeatable=True)
    bury(rows, settings)
    assert rows.state(id) == "pending"
    rows.time_passes()
    (job,) = rows.claim(rows.daemon())
    assert (job.id, job.attempt, job.times_lost, job.tier) == (id, 0, 1, "priority")
    assert rows.count("open_calls") == 0


@pytest.mark.parametrize("repeatable", [False, True])
def test_a_call_of_the_dead_that_was_cancelled_stays_cancelled(
    rows: Rows, settings: config.Settings, repeatable: bool
) -> None:
    id = open_call(rows, rows.daemon(beat_s_ago=60), repeatable=repeatable)
    rows.ours.execute("UPDATE fusillade.requests SET state = 'canceled', canceled_at = now()")
    bury(rows, settings)
    assert rows.state(id) == "canceled"
    assert (rows.count("open_calls"), rows.count("ready")) == (0, 0)


def test_calls_of_the_living_go_on(rows: Rows, settings: config.Settings) -> None:
    id = open_call(rows, rows.daemon(beat_s_ago=DEAD_AFTER_S - 1), repeatable=True)
    bury(rows, settings)
    assert rows.state(id) == "processing"
    assert rows.count("open_calls") == 1


def test_processes_that_ended_days_ago_are_forgotten_unless_they_hold_something(
    rows: Rows, settings: config.Settings
) -> None:
    ended, recent = rows.daemon(status="dead"), rows.daemon(status="dead")
    rows.by_hand.execute("UPDATE fusillade.daemons SET stopped_at = now() - interval '4 days' WHERE id = %s", (ended,))  # fmt: skip
    bury(rows, settings)
    assert rows.count("daemons") == 1
    assert status(rows, recent) == "dead"


def test_old_responses_are_purged_with_all_their_rows(
    rows: Rows, settings: config.Settings
) -> None:
    def response(days_old: float, state: str) -> UUID:
        made = rows.one(
            "SELECT (lpad(to_hex((extract(epoch FROM now() - %s * interval '1 day') * 1000)::bigint), 12, '0') "
            "|| '7000800000000000' || lpad(to_hex((random() * 65535)::int), 4, '0'))::uuid",
            days_old,
        )
        rows.ours.execute("INSERT INTO fusillade.batches (id, created_by, expires_at) VALUES (%s, 'a', now())", (made,))  # fmt: skip
        rows.ours.execute("INSERT INTO fusillade.request_templates (id, endpoint, method, path, model) VALUES (%s, '', 'POST', '/v1/responses', 'm')", (made,))  # fmt: skip
        rows.ours.execute(
            "INSERT INTO fusillade.requests (id, batch_id, template_id, model, state, created_at, error, failed_at) "
            "VALUES (%s, %s, %s, 'm', %s, now() - %s * interval '1 day', 'no', now())",
            (made, made, made, state, days_old),
        )
        assert isinstance(made, UUID)
        return made

    days = settings.retention.responses_days
    old, waiting, young = response(days + 1, "failed"), response(days + 1, "pending"), response(days - 1, "failed")  # fmt: skip
    duties.purge_responses(rows.ours, settings)
    left = {row[0] for row in rows.by_hand.execute("SELECT id FROM fusillade.requests")}
    assert left == {waiting, young}
    for table in ("batches", "request_templates"):
        assert rows.one(f"SELECT count(*) FROM fusillade.{table} WHERE id = %s", old) == 0
