from __future__ import annotations

import dataclasses
import logging
from datetime import UTC, datetime

import pytest

from dwctl.ai import admission
from dwctl.ai.unpriced import Unpriced
from dwctl.billing.tariffs import CurrentTariff
from tests.ai.values import a_key, a_model, a_request, a_routing, a_tariff

REALTIME, HOUR = a_tariff("1", "2"), a_tariff("1", "2", "batch", "1h")
FREE, INFORMS = a_tariff("0", "0"), CurrentTariff(REALTIME.input, REALTIME.output, None, None, REALTIME.valid_from)  # fmt: skip
ENDED = dataclasses.replace(HOUR, valid_until=datetime(2024, 1, 1, tzinfo=UTC))
CASES = {
    "all have one": ((REALTIME, HOUR), None, None),
    "no tariff at all": ((), None, None),
    "free": ((FREE,), None, None),
    "not priced any more": ((ENDED,), None, None),
    "informs only": ((INFORMS,), None, None),
    "none for realtime": ((HOUR,), "realtime calls: they are free", None),
    "none for flex": ((REALTIME,), None, "batch calls with the window 1h: they pay the realtime price"),
}  # fmt: skip


@pytest.mark.parametrize(("tariffs", "realtime", "flex"), CASES.values(), ids=CASES)
def test_what_is_given_away_is_said_once(
    tariffs: tuple[CurrentTariff, ...],
    realtime: str | None,
    flex: str | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    unpriced, alice = Unpriced(), a_key()
    routing = a_routing(a_model(tariffs=tariffs), funded=(alice,))
    for tier, said in (("default", realtime), ("flex", flex)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                request = a_request(service_tier=tier)
                unpriced.note(admission.admit(routing, alice, request, strict=False))
        reasons = [vars(record)["reason"] for record in caplog.records]
        assert reasons == ([] if said is None else [f"There is no tariff for {said}."])


def test_an_answer_that_does_not_say_its_tokens_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unpriced, alice = Unpriced(), a_key()
    for tariffs, said in (((REALTIME,), 1), ((), 0)):
        model = a_model(tariffs=tariffs)
        admitted = admission.admit(a_routing(model, funded=(alice,)), alice, a_request(), strict=False)  # fmt: skip
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                unpriced.note(admitted, unsaid=True)
        assert [record.message for record in caplog.records] == ["not priced"] * said
