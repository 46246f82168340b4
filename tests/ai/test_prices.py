"""What the record of a call says of its prices: those of the tariff in force, by parts, and what its provider takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.gateway import Gateway, events, tariff
from tests.processes import eventually

APART = {"cached_input_price_per_token": "0.0001", "reasoning_price_per_token": "0.005"}
PARTS = "usage-100-15+cached-40+thought-5"
PAID = {"mode": "per_token", "input_price_per_token": "0.0002", "output_price_per_token": "0.0003"}
COST = Decimal("0.109")
"""60 at 0.001, 40 at 0.0001, 10 at 0.002, 5 at 0.005."""


def apart(seeded: Gateway, name: str = PARTS, **more: Any) -> str:
    return seeded.model(name, price=None, tariffs=[tariff("0.001", "0.002", **APART)], **more)


@pytest.mark.parametrize("stream", [False, True], ids=["blocking", "stream"])
@pytest.mark.parametrize("surface", ["chat", "responses"])
def test_parts_are_priced_apart_and_the_record_says_how(
    seeded: Gateway, surface: str, stream: bool
) -> None:
    model = apart(seeded, provider_pricing=PAID)
    account = seeded.account()
    call = seeded.chat if surface == "chat" else seeded.respond
    answer = call(model, stream=stream, by=account, headers={"user-agent": "prices/1.0"})
    if stream:
        assert len(list(events(answer))) > 1
    left = seeded.left(answer)
    (log,) = left.logs
    assert log.total_cost == left.charges[0].amount == COST
    assert (log.cached_tokens, log.reasoning_tokens) == (40, 5)
    assert log.input_price_per_token == Decimal("0.001")
    assert log.cached_input_price_per_token == Decimal("0.0001")
    assert log.reasoning_price_per_token == Decimal("0.005")
    assert log.provider_cost == Decimal("0.0245")
    assert (log.user_agent, log.finish_reason) == ("prices/1.0", "stop" if surface == "chat" else "completed")  # fmt: skip
    row = seeded.one("SELECT id FROM model_tariffs WHERE deployed_model_id = %s", seeded.model_id(model))  # fmt: skip
    assert log.tariff_id == row.id
    assert seeded.balance(account.id) == 1000 - COST


def test_more_cached_than_there_is_prompt_is_all_of_it(seeded: Gateway) -> None:
    answer = seeded.chat(apart(seeded, "usage-100-1+cached-4000"), by=seeded.account())
    assert seeded.left(answer).logs[0].total_cost == Decimal("0.012")


def test_the_provider_that_served_is_the_one_that_is_paid(seeded: Gateway) -> None:
    cheap = {"provider_pricing": PAID | {"input_price_per_token": "0.00001"}}
    failing = seeded.model("fail-500", price=None, provider_pricing=PAID, everyone=False, alias="dear")  # fmt: skip
    serving = seeded.model("usage-100-1", price=None, everyone=False, alias="cheap", **cheap)
    model = seeded.composite(failing, serving, lb_strategy="priority", fallback_on_status=[500])
    (log,) = seeded.left(seeded.chat(model)).logs
    assert log.provider_cost == Decimal("0.0013")
    assert [tried["status"] for tried in log.attempts] == [500, 200]


@pytest.mark.parametrize(
    "pricing",
    [None, {"mode": "hourly", "rate": "2", "input_token_cost_ratio": "0.5"}, {"mode": "per_token", "input_price_per_token": "0.1"}],
    ids=["unknown", "by the hour", "one of two prices"],
)  # fmt: skip
def test_what_the_provider_takes_may_not_be_known(
    seeded: Gateway, pricing: dict[str, str] | None
) -> None:
    answer = seeded.chat(seeded.model("ok", alias=f"paid {pricing}", provider_pricing=pricing))
    assert seeded.left(answer).logs[0].provider_cost is None


def test_a_model_that_is_free_has_a_provider_all_the_same(seeded: Gateway) -> None:
    answer = seeded.chat(seeded.model("usage-100-1", price=None, provider_pricing=PAID))
    left = seeded.left(answer)
    assert (left.logs[0].total_cost, left.logs[0].tariff_id, left.charges) == (None, None, [])
    assert left.logs[0].provider_cost == Decimal("0.0203")


def test_a_scheduled_price_holds_from_its_moment_on_without_anybodys_doing(seeded: Gateway) -> None:
    model, account = (
        seeded.model("usage-1-0", price=("1", "0"), alias="scheduled"),
        seeded.account(),
    )
    soon = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    body = {"tariffs": [tariff("1", "0"), tariff("2", "0", valid_from=soon)]}
    seeded.admin("PATCH", f"/models/{seeded.model_id(model)}", body)
    charged = []

    def is_dearer() -> bool:
        charged.append(seeded.left(seeded.chat(model, by=account)).charges[0].amount)
        return bool(charged[-1] == 2)

    eventually(is_dearer)
    assert charged[0] == 1
    assert sorted(charged) == charged
