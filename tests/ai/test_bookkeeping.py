"""What is written down of a call, from values to a record."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import uuid4

import orjson
import pytest
from msgspec.structs import replace

from dwctl.ai import outcomes
from dwctl.ai.admission import Admitted, admit
from dwctl.ai.bookkeeping import opening_of, record_of, record_of_refusal
from dwctl.ai.calls import Incoming, Line, Stamp
from dwctl.ai.in_progress import Flight
from dwctl.ai.outcomes import Done, Outcome, Reason
from dwctl.analytics.records import Record
from dwctl.errors import DwctlError
from dwctl.protocols.surfaces import CHAT, RESPONSES
from dwctl.protocols.usage import TokenUsage, UsageSource
from dwctl.queue.tables import State
from tests.ai.values import a_key, a_model, a_request, a_routing, a_tariff

ME = uuid4()
ALICE = a_key()
USAGE = TokenUsage(prompt_tokens=10, completion_tokens=5, total_tokens=15, cached_tokens=2)
OK = Outcome(Done(), 200, b'{"a":1}', [], b'{"a":1}', "chat_completion", 200, USAGE)


def admitted(key: Any = ALICE, **content: Any) -> Admitted:
    model = a_model("m", tariffs=(a_tariff("0.1", "0.2"), a_tariff("0.01", "0.02", "batch", "1h")))
    surface = content.pop("surface", CHAT)
    request = a_request(surface, "m", **content)
    return admit(a_routing(model, funded=(key,)), key, request, strict=False)


def recorded(call: Admitted, outcome: Outcome = OK, flight: Flight | None = None) -> Record:
    return record_of(call, outcome, flight or Flight(call.request.id), ME)


def test_a_call_that_ended_well_has_row_log_and_charge_in_one_record() -> None:
    call = admitted()
    record = recorded(call)
    assert (record.id, record.owner, record.user_id) == (
        call.request.id,
        str(ALICE.owner_id),
        ALICE.owner_id,
    )
    assert (record.track, record.opened, record.queued, record.notify) == (
        True,
        False,
        False,
        False,
    )
    assert (record.state, record.response_status, record.response_body) == (
        State.COMPLETED,
        200,
        '{"a":1}',
    )
    assert record.request_body == call.request.asked.body.decode()
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (10, 5, 2)
    assert (record.usage_source, record.error) == (UsageSource.REPORTED, None)
    assert record.cost == Decimal("0.1") * 10 + Decimal("0.2") * 5


def test_a_flex_call_pays_its_own_price() -> None:
    record = recorded(admitted(service_tier="flex"))
    assert record.cost == Decimal("0.01") * 10 + Decimal("0.02") * 5
    assert (record.sla, record.tier) == ("1h", "flex")


def test_what_used_nothing_costs_nothing() -> None:
    record = recorded(admitted(), outcomes.internal())
    assert (record.cost, record.input_price, record.usage_source) == (None, None, "none")
    assert record.state == State.FAILED
    assert orjson.loads(record.error or "")["type"] == "InternalError"


def test_an_interrupted_stream_pays_for_what_it_delivered() -> None:
    delivered = TokenUsage(3, 4, 7, source=UsageSource.ESTIMATED)
    record = recorded(admitted(), outcomes.interrupted(Reason.DRAINED).with_usage(delivered))
    assert record.cost == Decimal("0.1") * 3 + Decimal("0.2") * 4
    assert (record.usage_source, record.error_code) == ("estimated", "drained")


@pytest.mark.parametrize(
    ("opened", "there", "body"), [(False, False, True), (True, False, True), (True, True, False)]
)
def test_the_request_is_sent_again_unless_its_row_is_known_to_be_there(
    opened: bool, there: bool, body: bool
) -> None:
    call = admitted()
    flight = Flight(call.request.id)
    flight.opened, flight.row_is_there = opened, there
    record = recorded(call, flight=flight)
    assert (record.opened, record.request_body is not None) == (opened, body)


def test_what_somebody_else_tracks_has_a_log_row_and_a_charge_but_no_row() -> None:
    call = admitted()
    untracked = replace(call, request=replace(call.request, tracked=False))
    record = recorded(untracked)
    assert (record.track, record.state, record.owner, record.request_body) == (
        False,
        None,
        None,
        None,
    )
    assert record.cost


def test_a_line_of_a_batch_names_its_batch() -> None:
    call = admitted(service_tier="flex")
    line = Line(uuid4(), "line-7", "24h")
    queued = replace(call, request=replace(call.request, queued=True, line=line))
    record = recorded(queued)
    assert (record.batch_id, record.custom_id, record.sla) == (line.batch_id, "line-7", "24h")
    assert (record.queued, record.opened, record.notify) == (True, True, True)


def test_an_opening_and_its_record_say_the_same_of_the_row() -> None:
    call = admitted(surface=RESPONSES, background=True)
    opening = opening_of(call, State.PROCESSING, ME, repeatable=True)
    record = recorded(call)
    for name in (
        "id",
        "at",
        "file_id",
        "owner",
        "path",
        "model",
        "tier",
        "sla",
        "daemon_id",
    ):
        assert getattr(opening, name) == getattr(record, name), name
    assert (opening.state, opening.repeatable) == (State.PROCESSING, True)
    # Run again after its process died, it has time for that.
    assert (opening.expires_at - opening.at).total_seconds() == 3600
    plain = opening_of(call, State.PROCESSING, ME)
    assert plain.expires_at == plain.at == record.expires_at


def test_a_refusal_is_a_log_row_and_nothing_else() -> None:
    error = DwctlError("no", code="model_not_found", status=404)
    stamp = Stamp.now()
    incoming = Incoming(CHAT, "a=b", [("authorization", "Bearer x")], {}, None, lambda: b"")
    record = record_of_refusal(stamp, incoming, ALICE, "m", error)
    assert (record.track, record.status_code, record.error_code) == (False, 404, "model_not_found")
    assert (record.uri, record.model, record.cost) == ("/chat/completions?a=b", "m", None)
    assert (record.user_id, record.access_source) == (ALICE.owner_id, "api_key")
    odd = record_of_refusal(stamp, incoming, ALICE, "m" * 9 + "\x1b" * 9000, error)
    assert odd.model is not None
    assert len(odd.model) == 256
    assert odd.model.isprintable()


def test_the_playground_is_told_apart() -> None:
    record = recorded(admitted(a_key(ALICE.owner_id, "playground")))
    assert (record.access_source, record.origin) == ("playground", "frontend")


@pytest.mark.parametrize("given", ["not-an-id", "", "01890000-0000-7000-8000-000000000001"])
def test_an_id_from_outside_is_written_down_and_means_nothing(given: str) -> None:
    call = admitted()
    headers = [("x-fusillade-request-id", given)]
    record = recorded(replace(call, request=replace(call.request, headers=headers)))
    assert str(record.outer_request_id or "") == (given if len(given) == 36 else "")
    assert record.id == call.request.id
