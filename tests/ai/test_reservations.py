"""Little money, and caps, over two web processes: never spent twice, hardly ever refused while there is enough."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import requests

from tests.gateway import Account, Gateway, assert_openai_error, cost
from tests.processes import Service, eventually

COST = Decimal("0.01")
PRICE = ("0.001", "0.002")
USED = "usage-2-4"
"""What costs COST at PRICE."""


@pytest.fixture(scope="module")
def webs(service: Service) -> list[str]:
    """Their addresses."""
    service.start_web()
    return [web.url for web in service.webs]


def at_once(
    stage: Gateway, webs: list[str], n: int, model: str, by: Account, **body: Any
) -> list[requests.Response]:
    def call(i: int) -> requests.Response:
        return stage.chat(model, by=by, url=webs[i % 2], body=body)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(call, range(n)))


def nothing_is_held(stage: Gateway, account: Account) -> bool:
    held = stage.all("SELECT 1 FROM credit_reservations WHERE user_id = %s", account.id)
    row = stage.one("SELECT reserved FROM user_balance_checkpoints WHERE user_id = %s", account.id)
    return not held and row.reserved == 0


@pytest.mark.parametrize("price", [PRICE, ("0", "0.0025")], ids=["both", "output"])
def test_two_hundred_calls_at_once_spend_a_balance_once(
    stage: Gateway, webs: list[str], price: tuple[str, str]
) -> None:
    account = stage.account("1.00")
    model = stage.model(USED + "+slow-50", price=price)
    answers = at_once(stage, webs, 200, model, account, max_tokens=4)
    statuses = [answer.status_code for answer in answers]
    passed = statuses.count(200)
    assert set(statuses) <= {200, 402}
    assert 95 <= passed <= 100
    assert stage.balance(account.id) == 1 - passed * COST >= 0
    assert stage.charged(account.id) == passed * COST
    eventually(lambda: nothing_is_held(stage, account))


def test_calls_that_do_not_say_how_long_their_answers_are_overrun_by_one_at_most(
    stage: Gateway, webs: list[str]
) -> None:
    account = stage.account("0.02")
    model = stage.model("usage-2-40", price=("0", "0.01"))
    answers = at_once(stage, webs, 20, model, account)
    assert [answer.status_code for answer in answers].count(200) == 1
    assert stage.balance(account.id) == Decimal("-0.38")


def test_a_refusal_says_what_is_there_and_what_it_would_take(stage: Gateway) -> None:
    account = stage.account("0.5")
    model = stage.model("ok", price=("0", "0.1"))
    answer = stage.chat(model, by=account, body={"max_tokens": 6})
    error = assert_openai_error(answer, 402, "insufficient_credits")
    assert error["type"] == "insufficient_quota"
    assert (error["balance"], error["needed"]) == ("0.5", "0.6")
    assert "Retry-After" not in answer.headers
    assert stage.chat(model, by=account, body={"max_tokens": 5}).ok
    assert stage.balance(account.id) == Decimal("0.2")


def test_what_is_held_for_others_is_told_apart_from_what_is_not_there(stage: Gateway) -> None:
    stage.upstream.reset()
    account = stage.account("1")
    model = stage.model("hold", price=("0", "0.1"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.chat, model, by=account, body={"max_tokens": 8})
        stage.upstream.wait_active(1)
        answer = stage.chat(model, by=account, body={"max_tokens": 3})
        error = assert_openai_error(answer, 402, "insufficient_credits")
        assert answer.headers["Retry-After"] == "1"
        assert (error["balance"], error["reserved"], error["needed"]) == ("1", "0.8", "0.3")
        stage.upstream.release()
        assert running.result().ok
    assert stage.chat(stage.model("ok", price=("0", "0.1")), by=account, body={"max_tokens": 7}).ok


WAYS_OUT = {
    "answered": ("ok", {}, 200),
    "a stream": ("ok", {"stream": True}, 200),
    "refused by the upstream": ("fail-400", {}, 400),
    "failed": ("fail-500", {}, 500),
    "nothing used": ("no-usage+empty", {}, 502),
    "cut": ("cut", {"stream": True}, 200),
    "more used than held": ("usage-1-700", {}, 200),
}


@pytest.mark.parametrize(("traits", "body", "status"), WAYS_OUT.values(), ids=WAYS_OUT)
def test_whatever_becomes_of_a_call_nothing_stays_held(
    stage: Gateway, traits: str, body: dict[str, Any], status: int
) -> None:
    account = stage.account("1")
    answer = stage.chat(
        stage.model(traits), by=account, body={"max_tokens": 5, **body}, stream="stream" in body
    )
    assert answer.status_code == status
    assert answer.content
    eventually(lambda: nothing_is_held(stage, account))
    assert stage.balance(account.id) == 1 - stage.charged(account.id)


@pytest.mark.parametrize("leaves", ["blocking", "stream"])
def test_whoever_hangs_up_lets_go(stage: Gateway, leaves: str) -> None:
    account = stage.account("1")
    model = stage.model("hang" if leaves == "blocking" else "hang-stream")
    body = {"max_tokens": 5, "stream": leaves == "stream"}
    with contextlib.suppress(requests.RequestException):
        answer = stage.chat(model, by=account, body=body, stream=True, timeout=0.5)
        list(answer.iter_content())
    eventually(lambda: nothing_is_held(stage, account))


def test_in_the_background_it_is_held_until_the_end(stage: Gateway) -> None:
    stage.upstream.reset()
    account = stage.account("1")
    answer = stage.respond(stage.model("hold"), by=account, background=True, max_output_tokens=5)
    assert answer.status_code == 202
    stage.upstream.wait_active(1)
    assert not nothing_is_held(stage, account)
    stage.upstream.release()
    eventually(lambda: nothing_is_held(stage, account))
    assert stage.balance(account.id) == 1 - cost(PRICE)


def test_who_has_enough_holds_nothing(stage: Gateway) -> None:
    stage.upstream.reset()
    account, model = stage.account("1000"), stage.model("hold")
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(stage.chat, model, by=account) for _ in range(2)]
        stage.upstream.wait_active(2)
        assert nothing_is_held(stage, account)
        stage.upstream.release()
        assert all(one.result().ok for one in running)


@pytest.mark.parametrize("cap", [{}, {"spend_limit": "5000"}], ids=["no-cap", "large-cap"])
def test_what_would_be_much_of_an_account_is_held_however_rich_it_is(
    stage: Gateway, cap: dict[str, Any]
) -> None:
    stage.upstream.reset()
    account, model = stage.account("1000", **cap), stage.model("hold", price=("0", "1"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.chat, model, by=account, body={"max_tokens": 11})
        stage.upstream.wait_active(1)
        row = stage.one(
            "SELECT reserved FROM user_balance_checkpoints WHERE user_id = %s", account.id
        )
        assert row.reserved == 11
        stage.upstream.release()
        assert running.result().ok
    assert nothing_is_held(stage, account)


def test_media_that_a_call_only_names_count_for_a_rich_account_too(stage: Gateway) -> None:
    stage.upstream.reset()
    account, model = stage.account("1000"), stage.model("hold", price=("0.001", "0"))
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    body = {"messages": [{"role": "user", "content": [image] * 3}], "max_tokens": 1}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.chat, model, by=account, body=body)
        stage.upstream.wait_active(1)
        assert not nothing_is_held(stage, account)
        stage.upstream.release()
        assert running.result().ok
    assert nothing_is_held(stage, account)


# --- caps


def capped(
    stage: Gateway, limit: str, interval: str | None = None, credit: str = "1000"
) -> Account:
    return stage.account(credit, spend_limit=limit, spend_limit_interval=interval)


def test_two_hundred_calls_at_once_do_not_pass_a_cap(stage: Gateway, webs: list[str]) -> None:
    account = capped(stage, "1.00", "monthly")
    model = stage.model(USED + "+slow-50", price=PRICE)
    answers = at_once(stage, webs, 200, model, account, max_tokens=4)
    passed = [answer.status_code for answer in answers].count(200)
    assert 95 <= passed <= 100
    refused = next(answer for answer in answers if answer.status_code != 200)
    error = assert_openai_error(refused, 402, "spend_cap_exceeded")
    assert error["type"] == "insufficient_quota"
    assert error["spend_limit"] == "1"
    assert error["resets_at"].endswith("-01T00:00:00Z")
    spent = stage.one(
        "SELECT spent, reserved FROM api_key_spend WHERE api_key_id = %s", account.key_id
    )
    assert (spent.spent, spent.reserved) == (passed * COST, 0)


def spent(stage: Gateway, account: Account) -> Decimal:
    shown = stage.admin("GET", f"/users/{account.id}/api-keys/{account.key_id}").json()
    return Decimal(shown["spend"])


def test_a_cap_counts_what_was_spent_before_it_and_nothing_of_other_keys(stage: Gateway) -> None:
    account = stage.account("1000")
    other = stage.admin("POST", f"/users/{account.id}/api-keys", {"name": "other"}).json()["key"]
    model = stage.model(USED, price=PRICE)
    body = {"max_tokens": 4}
    assert stage.chat(model, by=account, body=body).ok
    assert stage.chat(model, by=account, body=body, headers={"authorization": f"Bearer {other}"}).ok
    path = f"/users/{account.id}/api-keys/{account.key_id}"
    stage.admin("PATCH", path, {"spend_limit": "0.025", "spend_limit_interval": "daily"})
    assert spent(stage, account) == COST
    eventually(lambda: stage.chat(model, by=account, body=body).status_code == 402)
    before = spent(stage, account)
    rotated = stage.admin("POST", f"{path}/rotate").json()["key"]
    # (A call may have passed before the process knew of the cap.)
    assert spent(stage, account) == before
    headers = {"authorization": f"Bearer {rotated}"}
    assert_openai_error(stage.chat(model, by=account, body=body, headers=headers), 402, "spend_cap_exceeded")  # fmt: skip
    stage.admin("PATCH", path, {"spend_limit": None})
    eventually(lambda: stage.chat(model, by=account, body=body).ok)
    stage.admin("PATCH", path, {"spend_limit": "1", "spend_limit_interval": None})
    assert (
        spent(stage, account)
        == stage.one(
            "SELECT sum(amount) AS n FROM credits_transactions WHERE api_key_id = %s",
            account.key_id,
        ).n
    )


def test_what_was_spent_in_an_earlier_window_does_not_count(stage: Gateway) -> None:
    account = capped(stage, "0.05", "daily")
    model = stage.model(USED, price=PRICE)
    assert stage.chat(model, by=account, body={"max_tokens": 4}).ok
    stage.execute(
        "UPDATE api_key_spend SET window_start = window_start - interval '1 day', spent = 100 WHERE api_key_id = %s",
        account.key_id,
    )
    assert stage.chat(model, by=account, body={"max_tokens": 4}).ok
    assert spent(stage, account) == COST


def test_what_runs_when_a_window_ends_counts_for_the_next_as_well(stage: Gateway) -> None:
    stage.upstream.reset()
    account = capped(stage, "1", "daily")
    model = stage.model("hold", price=("0", "0.1"))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.chat, model, by=account, body={"max_tokens": 8})
        stage.upstream.wait_active(1)
        for table in ("api_key_spend", "credit_reservations"):
            stage.execute(
                f"UPDATE {table} SET window_start = window_start - interval '1 day' WHERE api_key_id = %s",
                account.key_id,
            )
        answer = stage.chat(model, by=account, body={"max_tokens": 3})
        error = assert_openai_error(answer, 402, "spend_cap_exceeded")
        assert answer.headers["Retry-After"] == "1"
        assert (error["spent"], error["reserved"], error["needed"]) == ("0", "0.8", "0.3")
        stage.upstream.release()
        assert running.result().ok
    assert nothing_is_held(stage, account)
