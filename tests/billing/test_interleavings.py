"""Any order of grant, hold, call, cancel, death, late settlement, repeated delivery and a cap that comes and goes: after each step everything adds up."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
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
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from psycopg.types.json import Json

from dwctl import config
from dwctl.analytics import duties
from dwctl.analytics.records import Kept, Record
from dwctl.analytics.writing import Entry, Kind, Writer, entry_of
from dwctl.billing import duties as billing_duties
from dwctl.billing import verification
from dwctl.queue import duties as queue_duties
from tests.analytics.made import Made, final, opening

PRICE = Decimal("0.01")
INTERRUPTED = '{"type":"Interrupted","details":{"error":"ended"}}'
ORIGINS = st.sampled_from(["balance", "cap", "both"])


@pytest.fixture
def own(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SET dwctl.queue = own")
        connection.execute("INSERT INTO fusillade.duties (name) VALUES ('bury_the_dead') ON CONFLICT DO NOTHING")  # fmt: skip
        yield connection


class Interleavings(RuleBasedStateMachine):
    """Two processes, by their ids; a killed one is replaced by another id, and may yet speak (it was only slow)."""

    own: psycopg.Connection[Any]
    loaded: config.Settings

    calls = Bundle("calls")
    written = Bundle("written")

    @initialize()
    def begin(self) -> None:
        # An account of its own costs less than empty tables.
        self.account, self.key = uuid4(), uuid4()
        self.own.execute(
            "INSERT INTO users (id, username, email) VALUES (%(id)s, %(id)s, %(id)s)",
            {"id": self.account},
        )
        self.own.execute(
            "INSERT INTO api_keys (id, name, user_id, created_by, secret_hash) VALUES (%s, 'k', %s, %s, %s)",
            (self.key, self.account, self.account, self.key.bytes),
        )
        self.writer = Writer(self.loaded, set_aside=self.never, on_empty=lambda _ids: None)
        self.processes = [self.born() for _ in range(2)]
        self.is_exact = True
        self.grant(5)

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

    def write(self, kind: Kind, *records: Any) -> None:
        kept: list[Kept] = []
        entries = [entry_of(kind, record) for record in records]
        self.writer.write(entries, lambda _entries, found: kept.append(found))
        assert kept == [Kept.COMMITTED]

    def hold(self, call: Made, tokens: int, of: str, *, is_bounded: bool) -> bool:
        wanted = {
            "id": str(call.id),
            "user_id": str(self.account),
            "amount": str(PRICE * tokens),
            "is_bounded": is_bounded,
            "of_balance": of != "cap",
            "api_key_id": None if of == "balance" else str(self.key),
        }
        row = self.own.execute(
            "SELECT refused_by FROM hold_credit(%s, NULL, %s::json, 3600)",
            (call.daemon_id, Json([wanted])),
        ).fetchone()
        assert row
        return row[0] is None

    def holds(self, call: Made) -> bool:
        row = self.own.execute("SELECT count(*) FROM credit_reservations WHERE request_id = %s", (call.id,)).fetchone()  # fmt: skip
        return row == (1,)

    @rule(tokens=st.integers(1, 30))
    def grant(self, tokens: int) -> None:
        with self.own.transaction():
            self.own.execute(
                "INSERT INTO credits_transactions (user_id, transaction_type, amount, source_id) VALUES (%s, 'admin_grant', %s, %s)",
                (self.account, PRICE * tokens, uuid4().hex),
            )
            self.own.execute(
                "INSERT INTO user_balance_checkpoints AS b (user_id, balance) VALUES (%s, %s)"
                " ON CONFLICT (user_id) DO UPDATE SET balance = b.balance + EXCLUDED.balance",
                (self.account, PRICE * tokens),
            )

    @rule(target=calls, process=st.integers(0, 1), tokens=st.integers(1, 8), of=ORIGINS, lasts=st.booleans(), speaks=st.booleans())  # fmt: skip
    def call(self, process: int, tokens: int, of: str, lasts: bool, speaks: bool) -> Any:
        made = Made(self.processes[process], self.account, price=PRICE)
        if not self.hold(made, tokens, of, is_bounded=True):
            return multiple()
        if of == "cap":
            # What has no reservation of the balance may overrun it.
            self.is_exact = False
        if lasts:
            words = self.ended(made, 1, state="failed", error=INTERRUPTED) if speaks else None
            self.write(Kind.OPEN, opening(made, last_words=words))
        return made, tokens

    @rule(target=calls, process=st.integers(0, 1))
    def call_without_a_bound(self, process: int) -> Any:
        made = Made(self.processes[process], self.account, price=PRICE)
        if not self.hold(made, 8, "balance", is_bounded=False):
            return multiple()
        self.is_exact = False
        return made, 8

    def ended(self, call: Made, tokens: int, **more: Any) -> Record:
        if call.opened:
            more["request_body"] = None
        return final(call, tokens=tokens, api_key_id=self.key, reserved=True, **more)

    @rule(target=written, given=consumes(calls), used=st.integers(0, 8))
    def settle(self, given: tuple[Made, int], used: int) -> Record:
        """By its process, alive or taken for dead."""
        call, tokens = given
        if not self.holds(call):
            self.is_exact = False
        record = self.ended(call, min(used, tokens))
        self.write(Kind.FINAL, record)
        return record

    @rule(record=written)
    def deliver_again(self, record: Record) -> None:
        self.write(Kind.FINAL, record)

    @rule(given=consumes(calls))
    def let_go(self, given: tuple[Made, int]) -> None:
        call, _ = given
        self.own.execute("SELECT * FROM hold_credit(%s, %s, '[]', 3600)", (call.daemon_id, [call.id]))  # fmt: skip

    @rule(given=calls)
    def cancel(self, given: tuple[Made, int]) -> None:
        self.own.execute("SELECT fusillade.cancel(%s, %s)", (given[0].id, [str(self.account)]))

    @rule(given=calls, process=st.integers(0, 1), tokens=st.integers(1, 8))
    def run_again(self, given: tuple[Made, int], process: int, tokens: int) -> None:
        """Another process takes it for lost."""
        call, before = given
        again = Made(self.processes[process], self.account, id=call.id)
        if not self.hold(again, tokens, "balance", is_bounded=True) or tokens < before:
            self.is_exact = False

    @rule(number=st.integers(0, 1))
    def kill(self, number: int) -> None:
        self.own.execute("DELETE FROM fusillade.daemons WHERE id = %s", (self.processes[number],))
        self.processes[number] = self.born()

    @rule()
    def time_passes(self) -> None:
        for duty in (queue_duties.bury_the_dead, duties.record_ended, billing_duties.free_credit):
            with self.own.transaction():
                duty(self.own, self.loaded)
        assert list(verification.findings(self.own)) == []

    @rule(limit=st.sampled_from([None, 1, 5, 50]), interval=st.sampled_from([None, "daily", "monthly"]))  # fmt: skip
    def cap(self, limit: int | None, interval: str | None) -> None:
        values = (None if limit is None else PRICE * limit, interval if limit else None)
        self.own.execute(
            "UPDATE api_keys SET spend_limit = %s, spend_limit_interval = %s WHERE id = %s",
            (*values, self.key),
        )

    @invariant()
    def no_more_is_held_than_there_is(self) -> None:
        row = self.own.execute(
            "SELECT balance, reserved, (SELECT sum(amount) FROM credit_reservations r WHERE r.user_id = b.user_id AND of_balance)"
            " FROM user_balance_checkpoints b WHERE user_id = %s",
            (self.account,),
        ).fetchone()
        assert row
        balance, reserved, held = row
        assert reserved == (held or 0)
        if self.is_exact:
            assert balance >= reserved

    def teardown(self) -> None:
        if not hasattr(self, "writer"):
            return
        for number in range(2):
            self.kill(number)
        self.time_passes()
        self.writer.close()
        assert self.own.execute("SELECT sum(reserved) FROM user_balance_checkpoints").fetchone() == (0,)  # fmt: skip
        assert self.own.execute("SELECT count(*) FROM credit_reservations").fetchone() == (0,)


def test_whatever_happens_in_whatever_order_everything_adds_up(
    own: psycopg.Connection[Any], environ: dict[str, str]
) -> None:
    machine = type("Bound", (Interleavings,), {"own": own, "loaded": config.load(environ)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=16,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
