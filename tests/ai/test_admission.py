"""Who is let in, at which price, and what is refused with which words. Values only."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from dwctl.ai import admission
from dwctl.billing.tariffs import TariffPrice
from dwctl.catalog.routing import Key, Rule
from dwctl.errors import DwctlError
from dwctl.protocols.surfaces import CHAT, RESPONSES
from tests.ai.values import a_key, a_model, a_request, a_routing, a_tariff

ALICE, POOR = a_key(), a_key()
FLEX = {"service_tier": "flex"}
RULED = a_model("ruled", rules={"realtime": Rule(None), "batch": Rule("other")})
ROUTING = a_routing(
    a_model("m", tariffs=(a_tariff("1", "2"), a_tariff("3", "4", "batch", "1h"))),
    a_model("free", tariffs=()),
    a_model("zero", tariffs=(a_tariff("0", "0"),)),
    a_model("hidden", groups=frozenset()),
    a_model("nowhere", target=None),
    a_model("other", adapter=False, trusted=True, sanitise=True),
    RULED,
    funded=(ALICE,),
)


def admitted(key: Key = ALICE, alias: str = "m", **content: Any) -> admission.Admitted:
    surface = content.pop("surface", CHAT)
    strict = content.pop("strict", False)
    return admission.admit(ROUTING, key, a_request(surface, alias, **content), strict=strict)


@pytest.mark.parametrize(
    ("key", "alias", "status", "code"),
    [
        (ALICE, "unknown", 404, "model_not_found"),
        (ALICE, "hidden", 403, "model_access_denied"),
        (ALICE, "ruled", 403, "traffic_blocked"),
        (POOR, "m", 402, "insufficient_credits"),
        (ALICE, "nowhere", 503, "service_unavailable"),
        # Who may not know of it is told so before anybody looks at the money.
        (POOR, "hidden", 403, "model_access_denied"),
    ],
)
def test_a_refusal_says_why(key: Key, alias: str, status: int, code: str) -> None:
    with pytest.raises(DwctlError) as refused:
        admitted(key, alias)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert refused.value.message


@pytest.mark.parametrize("alias", ["free", "zero"])
def test_what_costs_nothing_needs_no_credit(alias: str) -> None:
    assert admitted(POOR, alias).asked_for.alias == alias


def test_the_price_is_that_of_the_tier() -> None:
    assert admitted().price == TariffPrice(Decimal(1), Decimal(2))
    assert admitted(**FLEX).price == TariffPrice(Decimal(3), Decimal(4))
    assert admitted(alias="free").price is None


def test_a_redirected_call_is_priced_by_what_was_asked_for_and_run_by_what_serves() -> None:
    found = admitted(alias="ruled", **FLEX)
    assert (found.asked_for.alias, found.served_by.alias) == ("ruled", "other")
    assert found.price == TariffPrice(Decimal("0.001"), Decimal("0.002"))


def test_the_shape_is_judged_by_whoever_serves() -> None:
    routing = a_routing(
        a_model("passed", adapter=False, rules={"realtime": Rule("adapted")}),
        a_model("adapted"),
        funded=(ALICE,),
    )
    request = a_request(RESPONSES, "passed", conversation="conv_1")
    with pytest.raises(DwctlError) as refused:
        admission.admit(routing, ALICE, request, strict=False)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("authorization", "secret"),
    [
        ("Bearer sk-1", "sk-1"),
        ("bearer   sk-1 ", "sk-1"),
        ("BEARER\tsk-1", None),
        ("Basic sk-1", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("", None),
        (None, None),
    ],
)
def test_a_bearer_token_is_read_leniently(authorization: str | None, secret: str | None) -> None:
    assert admission.bearer(authorization) == secret
