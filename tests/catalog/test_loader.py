"""What a snapshot reads of a change is what it would have if it read everything: exactly, in whatever order things were committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import gevent
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine

from dwctl import config
from dwctl.catalog import duties
from dwctl.catalog.loader import Loader, Mark
from dwctl.catalog.routing import (
    EVERYONE,
    UNLIMITED,
    Fallback,
    Limits,
    Routing,
    Strategy,
)
from dwctl.catalog.snapshot import Snapshot
from dwctl.config import Settings
from dwctl.db import Connections, engine_options, sqlalchemy_url
from dwctl.encryption import Sealer
from dwctl.pace import Pace
from dwctl.upstream.target import Timeouts
from dwctl.wakeups import Wakeups
from tests.cast import Cast
from tests.gateway import unique

Sql = psycopg.Connection[Any]

SETTINGS = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def configured(database_url: str) -> Settings:
    return config.load({"DATABASE_URL": database_url, "DWCTL_SECRET_KEY": "a-key-for-tests-only"})


@pytest.fixture(scope="module")
def engine(database_url: str, configured: Settings) -> Iterator[Engine]:
    made = create_engine(sqlalchemy_url(database_url), **engine_options(configured))
    yield made
    made.dispose()


@pytest.fixture
def snapshot(engine: Engine, configured: Settings) -> Snapshot:
    return Snapshot(configured, Connections(engine), Sealer(["a-key-for-tests-only"]))


class Reader:
    """A process's view: reads on from its own mark."""

    def __init__(self, database_url: str, configured: Settings) -> None:
        self._url = database_url
        self._configured = configured
        self.mark: Mark | None = None
        self.routing = Routing()

    @contextmanager
    def loader(self) -> Iterator[Loader]:
        with psycopg.connect(self._url) as connection:
            sealer = Sealer(["a-key-for-tests-only"])
            yield Loader(connection, self._configured, sealer, Pace(turn_s=0, rest_s=0))

    def changes(self) -> dict[str, Any] | None:
        """What is new since the last time."""
        with self.loader() as loader:
            self.mark, changes = loader.begin(self.mark)
        return None if changes is None else dict(changes)

    def read_on(self) -> Routing:
        """The value, with what is new."""
        with self.loader() as loader:
            self.mark, changes = loader.begin(self.mark)
            self.routing = (
                loader.everything() if changes is None else loader.changed(self.routing, changes)
            )
        return self.routing

    def everything(self) -> Routing:
        """The value read whole."""
        with self.loader() as loader:
            loader.begin(None)
            return loader.everything()


@pytest.fixture
def reader(database_url: str, configured: Settings, cast: Cast) -> Reader:
    found = Reader(database_url, configured)
    found.read_on()
    return found


def add_key(sql: Sql, owner: UUID) -> UUID:
    digest = uuid4().bytes * 2
    (id,) = sql.execute(
        "INSERT INTO api_keys (name, user_id, created_by, secret_hash) VALUES (%s, %s, %s, %s) RETURNING id",
        (unique("key"), owner, owner, digest),
    ).fetchone()  # type: ignore[misc]  # RETURNING gives a row
    return UUID(str(id))


# -- what is new -----------------------------------------------------------------------------------


def test_a_change_is_seen_once(reader: Reader, sql: Sql, cast: Cast):
    key = add_key(sql, cast["admin"])
    assert reader.changes() == {"api_keys": {key}}
    assert reader.changes() == {}


def test_what_began_before_and_ended_after_a_reading_is_seen_by_the_next(
    reader: Reader, sql: Sql, database_url: str, cast: Cast
):
    """Numbers given by a sequence would be passed over here."""
    with psycopg.connect(database_url) as slow:
        late = add_key(slow, cast["admin"])
        early = add_key(sql, cast["admin"])
        assert reader.changes() == {"api_keys": {early}}
        slow.commit()
    assert reader.changes() == {"api_keys": {late}}
    assert reader.changes() == {}


def test_what_is_rolled_back_never_was(reader: Reader, database_url: str, cast: Cast):
    with psycopg.connect(database_url) as connection:
        add_key(connection, cast["admin"])
        connection.rollback()
    assert reader.changes() == {}


@pytest.mark.parametrize("count", [1000, 1001, 2500])
def test_many_rows_are_named_up_to_a_number(reader: Reader, sql: Sql, cast: Cast, count: int):
    sql.execute(
        "INSERT INTO api_keys (name, user_id, created_by, secret_hash)"
        " SELECT gen_random_uuid()::text, %(id)s, %(id)s, sha256(gen_random_uuid()::text::bytea) FROM generate_series(1, %(n)s)",
        {"id": cast["admin"], "n": count},
    )
    changes = reader.changes()
    assert changes is not None
    assert changes["api_keys"] is None if count > 1000 else len(changes["api_keys"]) == count


@pytest.mark.parametrize(
    "forget",
    [
        lambda mark: None,
        lambda mark: replace(mark, at=mark.at - timedelta(minutes=31)),
        lambda mark: replace(mark, seen="9000000000:9000000000:"),
    ],
    ids=["the first reading", "longer ago than the log goes back", "a server that was set back"],
)
def test_where_the_log_cannot_say_what_is_new_all_of_it_is(
    reader: Reader, forget: Callable[[Mark], Mark | None]
):
    assert reader.mark is not None
    reader.mark = forget(reader.mark)
    assert reader.changes() is None


def test_one_transaction_notifies_once_however_many_rows_it_changes(
    database_url: str, sql: Sql, cast: Cast
):
    for _ in range(3):
        add_key(sql, cast["admin"])
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("LISTEN auth_config_changed")
        sql.execute(
            "UPDATE api_keys SET requests_per_second = coalesce(requests_per_second, 0) + 1"
        )
        assert [n.payload for n in listener.notifies(timeout=2, stop_after=2)] == ["api_keys"]


def test_the_log_is_kept_for_an_hour(sql: Sql, configured: Settings, cast: Cast):
    old, new = uuid4(), uuid4()
    sql.execute(
        "INSERT INTO routing_changes (at, table_name, row_id) VALUES"
        " (now() - interval '61 minutes', 'api_keys', %s), (now() - interval '59 minutes', 'api_keys', %s)",
        (old, new),
    )
    duties.forget_changes(sql, configured)
    kept = {row[0] for row in sql.execute("SELECT row_id FROM routing_changes").fetchall()}
    assert new in kept
    assert old not in kept


def test_use_of_keys_is_written_down_around_those_that_are_locked(
    snapshot: Snapshot, sql: Sql, database_url: str, cast: Cast
):
    locked, free, gone = add_key(sql, cast["admin"]), add_key(sql, cast["admin"]), uuid4()
    for key in (locked, free, gone):
        snapshot.key_use.note(key)
    with psycopg.connect(database_url) as other:
        other.execute("SELECT FROM api_keys WHERE id = %s FOR UPDATE", (locked,))
        snapshot.key_use.write()
    found = sql.execute("SELECT id FROM api_keys WHERE id = ANY (%s) AND last_used IS NOT NULL", ([locked, free],))  # fmt: skip
    assert found.fetchall() == [(free,)]
    snapshot.key_use.write()


# -- any changes -----------------------------------------------------------------------------------

Step = Callable[[Sql, UUID, UUID], None]


def _key(sql: Sql, owner: UUID, _other: UUID) -> None:
    add_key(sql, owner)


def _statement(text: str) -> Step:
    return lambda sql, owner, other: sql.execute(text, {"owner": owner, "other": other}) and None


def _model(sql: Sql, owner: UUID, _other: UUID) -> None:
    endpoint, model = uuid4(), uuid4()
    sql.execute(
        "INSERT INTO inference_endpoints (id, name, url, created_by) VALUES (%s, %s, 'http://127.0.0.1:9/v1', %s)",
        (endpoint, unique("endpoint"), owner),
    )
    sql.execute(
        "INSERT INTO deployed_models (id, model_name, alias, created_by, hosted_on) VALUES (%s, 'ok', %s, %s, %s)",
        (model, unique("model"), owner, endpoint),
    )
    sql.execute(
        "INSERT INTO deployment_groups (deployment_id, group_id) VALUES (%s, %s)", (model, EVERYONE)
    )


def _composite(sql: Sql, owner: UUID, _other: UUID) -> None:
    sql.execute(
        "INSERT INTO deployed_models (model_name, alias, created_by, is_composite) VALUES ('any', %s, %s, true)",
        (unique("composite"), owner),
    )


_SOME_MODEL = "(SELECT id FROM deployed_models WHERE NOT deleted ORDER BY alias LIMIT 1)"
_COMPONENT = "(SELECT id FROM deployed_model_components ORDER BY created_at DESC, id LIMIT 1)"
_COMPONENTS_MODEL = (
    f"(SELECT deployed_model_id FROM deployed_model_components WHERE id = {_COMPONENT})"
)
STEPS: dict[str, Step] = {
    "a key": _key,
    "keys end": _statement("UPDATE api_keys SET is_deleted = true WHERE user_id = %(owner)s"),
    "keys move": _statement(
        "UPDATE api_keys SET user_id = %(other)s, name = id::text WHERE user_id = %(owner)s"
    ),  # fmt: skip
    "keys vanish": _statement("DELETE FROM api_keys WHERE user_id = %(owner)s"),
    "a user ends": _statement("UPDATE users SET is_deleted = true WHERE id = %(owner)s"),
    "a user is back": _statement("UPDATE users SET is_deleted = false WHERE id = %(owner)s"),
    "money": _statement(
        "INSERT INTO user_balance_checkpoints (user_id, balance) VALUES (%(owner)s, 5)"
        " ON CONFLICT (user_id) DO UPDATE SET balance = 5"
    ),
    "no money": _statement(
        "UPDATE user_balance_checkpoints SET balance = -1 WHERE user_id = %(owner)s"
    ),  # fmt: skip
    "a group": _statement(
        "WITH g AS (INSERT INTO groups (name, created_by, source) VALUES (gen_random_uuid()::text, %(owner)s, 'native') RETURNING id)"
        " INSERT INTO user_groups (user_id, group_id) SELECT %(owner)s, id FROM g"
    ),
    "no groups": _statement("DELETE FROM user_groups WHERE user_id = %(owner)s"),
    "a model": _model,
    "a model is renamed": _statement(
        f"UPDATE deployed_models SET alias = id::text WHERE id = {_SOME_MODEL}"
    ),  # fmt: skip
    "a model ends": _statement(
        f"UPDATE deployed_models SET deleted = true WHERE id = {_SOME_MODEL}"
    ),  # fmt: skip
    "a grant ends": _statement(
        f"DELETE FROM deployment_groups WHERE deployment_id = {_SOME_MODEL}"
    ),  # fmt: skip
    "an endpoint moves": _statement(
        "UPDATE inference_endpoints SET url = 'http://127.0.0.1:10/v2'"
    ),  # fmt: skip
    "a composite": _composite,
    "components": _statement(
        "INSERT INTO deployed_model_components (composite_model_id, deployed_model_id, weight)"
        " SELECT c.id, s.id, 1 + row_number() OVER (ORDER BY s.id) %% 100 FROM deployed_models c, deployed_models s"
        " WHERE c.is_composite AND NOT s.is_composite ON CONFLICT DO NOTHING"
    ),
    "a component changes": _statement(
        f"UPDATE deployed_model_components SET weight = 101 - weight, sort_order = sort_order - 1 WHERE id = {_COMPONENT}"
    ),
    "a component is switched": _statement(
        f"UPDATE deployed_model_components SET enabled = NOT enabled WHERE id = {_COMPONENT}"
    ),
    "a component is removed": _statement(
        f"DELETE FROM deployed_model_components WHERE id = {_COMPONENT}"
    ),
    "a component's model is renamed": _statement(
        f"UPDATE deployed_models SET alias = gen_random_uuid()::text WHERE id = {_COMPONENTS_MODEL}"
    ),
    "a component's model ends": _statement(
        f"UPDATE deployed_models SET deleted = true WHERE id = {_COMPONENTS_MODEL}"
    ),
    "a component's model is out of use or back": _statement(
        "UPDATE deployed_models SET status = CASE status WHEN 'active' THEN 'inactive' ELSE 'active' END"
        f" WHERE id = {_COMPONENTS_MODEL}"
    ),
    "a component's model has a price": _statement(
        "INSERT INTO model_tariffs (deployed_model_id, name, input_price_per_token)"
        f" SELECT deployed_model_id, 'p', 1 FROM deployed_model_components WHERE id = {_COMPONENT}"
    ),
    "a component's model has a limit": _statement(
        f"UPDATE deployed_models SET requests_per_second = 0.01, tokens_per_minute = 5 WHERE id = {_COMPONENTS_MODEL}"
    ),
    "a component's model vanishes": _statement(
        f"DELETE FROM deployed_models WHERE id = {_COMPONENTS_MODEL}"
    ),
    "a component's rule redirects": _statement(
        "INSERT INTO model_traffic_rules (deployed_model_id, api_key_purpose, action, redirect_target_id)"
        f" SELECT c.deployed_model_id, 'batch', 'redirect', m.id FROM deployed_model_components c, {_SOME_MODEL} m"
        f" WHERE c.id = {_COMPONENT} ON CONFLICT DO NOTHING"
    ),
    "a component's endpoint goes bad or is mended": _statement(
        "UPDATE inference_endpoints SET url = CASE url WHEN 'nowhere' THEN 'http://127.0.0.1:11' ELSE 'nowhere' END"
        f" WHERE id = (SELECT hosted_on FROM deployed_models WHERE id = {_COMPONENTS_MODEL})"
    ),
    "a component's endpoint waits": _statement(
        "UPDATE inference_endpoints SET idle_timeout_seconds = 1.5, total_timeout_seconds = 9"
        f" WHERE id = (SELECT hosted_on FROM deployed_models WHERE id = {_COMPONENTS_MODEL})"
    ),
    "a component's endpoint vanishes": _statement(
        f"DELETE FROM inference_endpoints WHERE id = (SELECT hosted_on FROM deployed_models WHERE id = {_COMPONENTS_MODEL})"
    ),
    "keys have an end": _statement(
        "UPDATE api_keys SET expires_at = now() + interval '1 day' WHERE user_id = %(owner)s"
    ),
    "keys have no end": _statement(
        "UPDATE api_keys SET expires_at = NULL WHERE user_id = %(owner)s"
    ),
    "keys are rotated": _statement(
        "WITH old AS (SELECT id, secret_hash FROM api_keys WHERE user_id = %(owner)s AND secret_hash IS NOT NULL), retired AS ("
        "INSERT INTO retired_api_key_secrets (api_key_id, secret_hash, expires_at) SELECT id, secret_hash, now() + interval '2 days' FROM old)"
        " UPDATE api_keys k SET secret_hash = sha256(gen_random_uuid()::text::bytea) FROM old WHERE k.id = old.id"
    ),
    "earlier secrets end": _statement(
        "UPDATE retired_api_key_secrets SET expires_at = now() WHERE api_key_id IN (SELECT id FROM api_keys WHERE user_id = %(owner)s)"
    ),
    "earlier secrets are forgotten": _statement(
        "DELETE FROM retired_api_key_secrets WHERE api_key_id IN (SELECT id FROM api_keys WHERE user_id = %(other)s)"
    ),
    "keys have limits": _statement(
        "UPDATE api_keys SET capacity = coalesce(capacity, 0) + 1, tokens_per_minute = 100 WHERE user_id = %(owner)s"
    ),
    "a rule": _statement(
        "INSERT INTO model_traffic_rules (deployed_model_id, api_key_purpose, action)"
        f" SELECT id, 'realtime', 'deny' FROM {_SOME_MODEL} m ON CONFLICT DO NOTHING"
    ),
}


@pytest.fixture(scope="module")
def owners(database_url: str, cast: Cast) -> list[UUID]:
    """Accounts that these tests may do anything with."""
    names = [unique("owner") for _ in range(3)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        return [
            connection.execute(
                "INSERT INTO users (username, email, external_user_id) VALUES (%s, %s, %s) RETURNING id",
                (name, f"{name}@example.com", name),
            ).fetchone()[0]  # type: ignore[index]  # RETURNING gives a row
            for name in names
        ]


@SETTINGS
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2)), min_size=1, max_size=4
        ),
        min_size=1,
        max_size=4,
    )
)
def test_reading_what_changed_gives_what_reading_everything_gives(
    reader: Reader,
    sql: Sql,
    owners: list[UUID],
    batches: list[list[tuple[str, int]]],
):
    sql.execute("DELETE FROM inference_endpoints")
    sql.execute("DELETE FROM deployed_models")
    start = [
        (name, 0) for name in ("a model", "a model", "a composite", "a composite", "components")
    ]
    for batch in [start, *batches]:
        with sql.transaction():
            for name, who in batch:
                STEPS[name](sql, owners[who], owners[(who + 1) % 3])
        assert reader.read_on() == reader.everything()


# -- what the value says ---------------------------------------------------------------------------


def insert(sql: Sql, table: str, **columns: Any) -> UUID:
    names, values = ", ".join(columns), ", ".join(f"%({name})s" for name in columns)
    (id,) = sql.execute(
        f"INSERT INTO {table} ({names}) VALUES ({values}) RETURNING id", columns
    ).fetchone()  # type: ignore[misc]  # RETURNING gives a row
    return UUID(str(id))


def an_endpoint(sql: Sql, owner: UUID, **more: Any) -> UUID:
    columns = {"name": unique("endpoint"), "url": "http://127.0.0.1:9/v1", "created_by": owner}
    return insert(sql, "inference_endpoints", **columns | more)


def a_model(sql: Sql, owner: UUID, **more: Any) -> tuple[UUID, str]:
    alias = unique("model")
    columns = {"model_name": "ok", "alias": alias, "created_by": owner} | more
    return insert(sql, "deployed_models", **columns), alias


def test_tariffs_that_have_ended_are_known_for_as_long_as_batches_may_run_again(
    reader: Reader, sql: Sql, owners: list[UUID]
):
    id, alias = a_model(sql, owners[0], hosted_on=an_endpoint(sql, owners[0]))
    for name, ended in (("lately", "1 day"), ("weeks ago", "60 days"), ("long ago", "80 days")):
        sql.execute(
            "INSERT INTO model_tariffs (deployed_model_id, name, input_price_per_token, valid_from, valid_until)"
            " VALUES (%s, %s, 1, now() - interval '90 days', now() - %s::interval)",
            (id, name, ended),
        )
    assert len(reader.read_on().models[alias].tariffs) == 2


def test_a_composite_is_made_of_what_can_be_called_in_the_order_of_priority(
    reader: Reader, sql: Sql, owners: list[UUID], caplog: pytest.LogCaptureFixture
):
    owner = owners[0]
    endpoint, bad = an_endpoint(sql, owner), an_endpoint(sql, owner, url="nowhere")
    whole, alias = a_model(
        sql, owner, is_composite=True, lb_strategy="priority", fallback_enabled=False, fallback_on_rate_limit=False,
        fallback_on_status=[5, 42], fallback_with_replacement=True, fallback_max_attempts=9, capacity=3, tokens_per_minute=2**40,
    )  # fmt: skip
    parts = {
        "second": ({}, {"sort_order": 1}),
        "third, as heavy and younger": ({}, {"sort_order": 1, "weight": 1}),
        "first": ({}, {"sort_order": -1}),
        "before the second, heavier": ({}, {"sort_order": 1, "weight": 100}),
        "disabled": ({}, {"enabled": False}),
        "inactive": ({"status": "inactive"}, {}),
        "deleted": ({"deleted": True}, {}),
        "nowhere": ({"hosted_on": bad}, {}),
    }
    aliases = {}
    for name, (model, component) in parts.items():
        id, aliases[name] = a_model(sql, owner, **{"hosted_on": endpoint} | model)
        insert(
            sql,
            "deployed_model_components",
            **{"composite_model_id": whole, "deployed_model_id": id} | component,
        )
    routing = reader.read_on()
    model = routing.models[alias]
    assert [(c.model.alias, c.weight, c.sort_order) for c in model.components] == [
        (aliases["first"], 1, -1),
        (aliases["before the second, heavier"], 100, 1),
        (aliases["second"], 1, 1),
        (aliases["third, as heavy and younger"], 1, 1),
    ]
    assert all(c.model == routing.models[c.model.alias] for c in model.components)
    assert (model.is_composite, model.target, model.endpoint_id) == (True, None, None)
    assert model.strategy is Strategy.PRIORITY
    assert model.fallback == Fallback(False, False, (5, 42), True, 9)
    assert model.limits == Limits(capacity=3, tokens_per_minute=2**40)
    skipped = [record for record in caplog.records if record.message == "model skipped"]
    assert aliases["nowhere"] in {getattr(record, "alias", None) for record in skipped}


def test_a_model_says_what_its_row_says(reader: Reader, sql: Sql, owners: list[UUID]):
    own = an_endpoint(sql, owners[0], connect_timeout_seconds=0.25, total_timeout_seconds=90)
    _, alias = a_model(
        sql, owners[0], hosted_on=own, requests_per_second=0.01, burst_size=5, capacity=2, tokens_per_minute=7,
        batch_capacity=4, refuse_unrunnable_tools=True, metadata='{"context_window": 4096, "provider": "acme"}',
    )  # fmt: skip
    _, plain = a_model(sql, owners[0], hosted_on=an_endpoint(sql, owners[0]))
    models = reader.read_on().models
    model = models[alias]
    assert model.limits == Limits(0.01, 5, 2, 7)
    assert (model.batch_capacity, model.context_length, model.owned_by) == (4, 4096, "acme")
    assert model.refuses_unrunnable_tools is True
    assert model.target is not None
    assert model.target.timeouts == Timeouts(0.25, 600, 300, 90)
    assert model.components == ()
    unsaid = models[plain]
    assert unsaid.limits == UNLIMITED
    assert (unsaid.batch_capacity, unsaid.context_length, unsaid.owned_by) == (None, None, "dwctl")
    assert unsaid.refuses_unrunnable_tools is False
    assert unsaid.target is not None
    assert unsaid.target.timeouts == Timeouts(10, 600, 300)


def test_a_key_has_its_limits(reader: Reader, sql: Sql, cast: Cast):
    limited, plain = add_key(sql, cast["admin"]), add_key(sql, cast["admin"])
    sql.execute(
        "UPDATE api_keys SET requests_per_second = 0.01, burst_size = 5, capacity = 2, tokens_per_minute = 7 WHERE id = %s",
        (limited,),
    )
    bursting = add_key(sql, cast["admin"])
    sql.execute("UPDATE api_keys SET burst_size = 9 WHERE id = %s", (bursting,))
    routing = reader.read_on()
    assert routing.keys[routing.hashes[limited.bytes]].limits == Limits(0.01, 5, 2, 7)
    assert routing.keys[routing.hashes[plain.bytes]].limits is UNLIMITED
    assert routing.keys[routing.hashes[bursting.bytes]].limits == Limits(9, 9)
    with reader.loader() as loader:
        found = loader.key_by_hash(routing.hashes[limited.bytes])
    assert found == routing.keys[routing.hashes[limited.bytes]]


# -- the snapshot itself ---------------------------------------------------------------------------


@contextmanager
def running(snapshot: Snapshot, configured: Settings) -> Iterator[None]:
    """Loading on its own; nobody tells it anything."""
    snapshot.start(Wakeups(configured))
    try:
        assert snapshot.wait_loaded(20)
        yield
    finally:
        snapshot.stop()


def test_a_change_past_the_triggers_is_found_by_counting(
    snapshot: Snapshot, configured: Settings, sql: Sql, cast: Cast
):
    key = add_key(sql, cast["admin"])
    with running(snapshot, configured):
        assert key.bytes in snapshot.routing.hashes
        with sql.transaction():
            sql.execute("SET LOCAL session_replication_role = replica")
            sql.execute("DELETE FROM api_keys WHERE id = %s", (key,))
        snapshot._counted_at = -1e9  # a whole interval ago
        assert snapshot.wait_fresher_than(snapshot.loaded_at + 1e-9, 20)
        assert key.bytes not in snapshot.routing.hashes


def test_a_change_shares_what_is_there_until_changes_are_many(
    snapshot: Snapshot, configured: Settings, sql: Sql, cast: Cast
):
    with running(snapshot, configured):
        read_whole = snapshot.routing.keys.base
        for number in range(7):
            sql.execute(
                "INSERT INTO api_keys (name, user_id, created_by, secret_hash)"
                " SELECT gen_random_uuid()::text, %(id)s, %(id)s, sha256(gen_random_uuid()::text::bytea) FROM generate_series(1, 900)",
                {"id": cast["bob"]},
            )
            before = len(snapshot.routing.keys)
            assert snapshot.wait_fresher_than(time.monotonic(), 20)
            assert len(snapshot.routing.keys) == before + 900
            assert (snapshot.routing.keys.base is read_whole) == (number < 6)
        assert snapshot.routing.keys.depth == 0


def test_a_key_that_no_notification_told_of_is_found_with_what_its_owner_has(
    snapshot: Snapshot, configured: Settings, sql: Sql, owners: list[UUID]
):
    with running(snapshot, configured):
        digest = uuid4().bytes * 2
        with sql.transaction():
            sql.execute("SET LOCAL session_replication_role = replica")
            sql.execute("UPDATE users SET is_deleted = false WHERE id = %s", (owners[0],))
            STEPS["money"](sql, owners[0], owners[1])
            STEPS["a group"](sql, owners[0], owners[1])
            sql.execute(
                "INSERT INTO api_keys (name, user_id, created_by, secret_hash) VALUES (%s, %s, %s, %s)",
                (unique("key"), owners[0], owners[0], digest),
            )
        found = [gevent.spawn(snapshot.find_key, digest) for _ in range(5)]
        assert {key.owner_id for key in (each.get(timeout=20) for each in found)} == {owners[0]}
        assert snapshot.routing.has_funds(owners[0])
        assert snapshot.routing.groups[owners[0]]


def test_a_key_that_is_revoked_between_its_look_up_and_the_reading_is_nobodys(
    snapshot: Snapshot, configured: Settings, sql: Sql, owners: list[UUID]
):
    """The other moment, within the reading, is in test_snapshot.py."""
    with running(snapshot, configured):
        digest = uuid4().bytes * 2
        with sql.transaction():
            sql.execute("SET LOCAL session_replication_role = replica")
            sql.execute("UPDATE users SET is_deleted = false WHERE id = %s", (owners[0],))
            sql.execute(
                "INSERT INTO api_keys (name, user_id, created_by, secret_hash) VALUES (%s, %s, %s, %s)",
                (unique("key"), owners[0], owners[0], digest),
            )
        asking = gevent.spawn(snapshot.find_key, digest)
        while not snapshot._found:
            assert not asking.ready()
            gevent.sleep(0)
        sql.execute("UPDATE api_keys SET is_deleted = true WHERE secret_hash = %s", (digest,))
        assert asking.get(timeout=20) is None
        for _ in range(2):
            assert snapshot.wait_fresher_than(time.monotonic(), 20)
            assert digest not in snapshot.routing.keys
            assert snapshot.find_key(digest) is None


def test_no_key_is_nobody(snapshot: Snapshot, configured: Settings):
    with running(snapshot, configured):
        assert snapshot.find_key(uuid4().bytes * 2) is None
