"""What a call would cost, before it is made."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tests.gateway import HELLO, Gateway, Json, assert_openai_error, tariff

CHAT = "/v1/chat/completions"


def ask(seeded: Gateway, body: Any, url: Any = CHAT, **more: Any) -> Any:
    by = more.pop("by", None)
    return seeded.post("/cost-estimate", {"url": url, "body": body, **more}, by=by)


def test_an_estimate_says_what_the_call_may_cost_and_what_the_balance_is_enough_for(
    seeded: Gateway,
) -> None:
    model, account = seeded.model("usage-20-20", price=("0.001", "0.002")), seeded.account("1")
    body = {"model": model, "messages": HELLO, "max_tokens": 20}
    found = ask(seeded, body, by=account).json()
    row = seeded.one("SELECT id FROM model_tariffs WHERE deployed_model_id = %s", seeded.model_id(model))  # fmt: skip
    assert found["tariff"] == {"id": str(row.id), "input_price_per_token": "0.00100000", "output_price_per_token": "0.00200000"}  # fmt: skip
    assert (found["model"], found["is_bounded"], found["balance"]) == (model, True, "1")
    assert (found["prompt_tokens"], found["most_output_tokens"]) == (2, 20)
    assert Decimal(found["least_cost"]) == Decimal("0.002")
    most = Decimal(found["most_cost"])
    assert most == found["most_prompt_tokens"] * Decimal("0.001") + Decimal("0.04")
    assert found["calls_covered"] == int(1 / most)
    answer = seeded.chat(model, by=account, body={"max_tokens": 20})
    assert Decimal(found["least_cost"]) <= seeded.left(answer).charges[0].amount <= most


def test_nothing_is_sent_and_nothing_written_down(seeded: Gateway) -> None:
    model, account = seeded.model("ok", alias="unasked"), seeded.account()
    answer = ask(seeded, {"model": model, "messages": HELLO}, by=account)
    assert answer.status_code == 200
    assert not seeded.all("SELECT 1 FROM http_analytics WHERE user_id = %s", account.id)
    assert seeded.balance(account.id) == 1000


def test_who_has_no_money_may_ask_what_it_takes(seeded: Gateway) -> None:
    found = ask(seeded, {"model": seeded.model("ok"), "messages": HELLO}, by=seeded.account(None))
    assert found.status_code == 200
    assert (found.json()["balance"], found.json()["calls_covered"]) == ("0", 0)
    assert Decimal(found.json()["least_cost"]) > 0


def test_the_price_is_that_of_the_way_in_which_it_is_to_run(seeded: Gateway) -> None:
    model = seeded.model(
        "ok", alias="ways", price=None,
        tariffs=[
            tariff("0.003", "1", **{"cached_input_price_per_token": "0.0005"}),
            tariff("0.002", "1", api_key_purpose="batch", completion_window="1h"),
            tariff("0.001", "1", api_key_purpose="batch", completion_window="24h"),
        ],
    )  # fmt: skip
    said = {"model": model, "input": "12345678"}
    flex = said | {"service_tier": "flex"}
    asked = [(said, {}), (flex, {}), (said, {"completion_window": "24h"}), (flex, {"completion_window": "24h"})]  # fmt: skip
    found = [ask(seeded, body, "/v1/responses", **more).json() for body, more in asked]
    prices = [each["tariff"]["input_price_per_token"] for each in found]
    assert prices == ["0.00300000", "0.00200000", "0.00100000", "0.00100000"]
    assert found[0]["tariff"]["cached_input_price_per_token"] == "0.00050000"
    assert [Decimal(each["least_cost"]) for each in found] == [2 * Decimal(p) for p in ("0.0005", "0.002", "0.001", "0.001")]  # fmt: skip


def test_a_free_model_covers_any_number(seeded: Gateway) -> None:
    model = seeded.model("ok", price=None)
    found = ask(seeded, {"model": model, "input": ["a", "b"]}, "/v1/embeddings").json()
    assert (found["tariff"], found["most_cost"], found["calls_covered"]) == (None, "0", None)
    assert (found["most_output_tokens"], found["is_bounded"]) == (0, True)


def test_numbers_that_nobody_could_pay_or_count(seeded: Gateway) -> None:
    dear = seeded.model("ok", alias="dear one", price=("900000000", "900000000"))
    body = {"model": dear, "prompt": ["x"] * 3, "n": 2**40, "best_of": 2**50}
    found = ask(seeded, body, "/v1/completions").json()
    assert (found["most_output_tokens"], found["calls_covered"]) == (2**31 - 1, 0)
    cheap = seeded.model("ok", alias="cheap one", price=("0.000000000000001", "0"))
    rich = seeded.account("999999999")
    assert ask(seeded, {"model": cheap, "messages": HELLO}, by=rich).json()["calls_covered"] is None


def test_a_conversation_counts_whole(seeded: Gateway) -> None:
    model = seeded.model("ok")
    first = seeded.respond(model, "x" * 4000).json()
    body = {"model": model, "input": "Go on", "previous_response_id": first["id"]}
    assert ask(seeded, body, "/v1/responses").json()["prompt_tokens"] > 1000
    error = ask(seeded, body | {"previous_response_id": "resp_none"}, "/v1/responses")
    assert_openai_error(error, 404, "previous_response_not_found")


WRONG: dict[str, tuple[Json, int, str | None]] = {
    "no url": ({"url": None}, 400, "url"),
    "a url of another kind": ({"url": "/v1/files"}, 400, "url"),
    "no text": ({"url": ["/v1/responses"]}, 400, "url"),
    "no body": ({"body": None}, 400, "body"),
    "a body as text": ({"body": "{}"}, 400, "body"),
    "no model": ({"body": {"messages": []}}, 400, "model"),
    "a model that is none": ({"body": {"model": "nobody's"}}, 404, None),
    "a window that is none": ({"completion_window": "2h"}, 400, "completion_window"),
    "a window that is no text": ({"completion_window": ["24h"]}, 400, "completion_window"),
    "what the call would be refused for": ({"body": {"model": "ok", "service_tier": "free"}}, 400, "service_tier"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "status", "param"), WRONG.values(), ids=WRONG)
def test_a_wrong_question_is_refused_by_name(
    seeded: Gateway, change: Json, status: int, param: str | None
) -> None:
    body = {"model": seeded.model("ok"), "messages": HELLO}
    answer = seeded.post("/cost-estimate", {"url": CHAT, "body": body} | change)
    assert_openai_error(answer, status)
    assert answer.json()["error"]["param"] == param


def test_a_question_that_is_no_json_or_nobodys_is_refused(seeded: Gateway) -> None:
    assert_openai_error(seeded.post("/cost-estimate", b"{"), 400, "invalid_json")
    assert_openai_error(seeded.post("/cost-estimate", b"[]"), 400, "invalid_json")
    assert seeded.session.post(f"{seeded.url}/ai/v1/cost-estimate", json={}).status_code == 401
