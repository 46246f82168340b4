"""Credit on the AI surface: who has none is refused, who has some pays exactly, also when everything happens at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from uuid import UUID

import pytest

from tests.gateway import Gateway, assert_openai_error, events, tariff
from tests.processes import eventually

UGLY = ("0.000000123456789", "0.000001987654321")
"""Prices whose multiples no binary fraction can hold."""


def cost(price: tuple[str, str], prompt: int, completion: int) -> Decimal:
    return Decimal(price[0]) * prompt + Decimal(price[1]) * completion


# --- who may call


def test_without_credit_a_priced_model_is_refused(seeded: Gateway) -> None:
    poor = seeded.account(None)
    for stream in (False, True):
        answer = seeded.chat(seeded.model("ok"), by=poor, stream=stream)
        error = assert_openai_error(answer, 402, "insufficient_credits")
        assert error["type"] == "insufficient_quota"
        assert "balance too low" in error["message"]


def test_a_free_model_needs_no_credit(seeded: Gateway) -> None:
    poor = seeded.account(None)
    free = [
        seeded.model("ok", price=None),
        seeded.model("ok", price=("0", "0")),
        # A tariff without a purpose informs, it prices nothing.
        seeded.model("ok", price=None, tariffs=[tariff("5", "5", api_key_purpose=None)]),
    ]
    for model in free:
        answer = seeded.chat(model, by=poor)
        assert answer.status_code == 200
        left = seeded.left(answer)
        assert (left.request.state, len(left.logs), left.charges) == ("completed", 1, [])
    assert seeded.balance(poor.id) == 0


def test_a_model_that_is_free_in_one_direction_is_not_free(seeded: Gateway) -> None:
    poor = seeded.account(None)
    assert seeded.chat(seeded.model("ok", price=("0", "1")), by=poor).status_code == 402
    assert seeded.chat(seeded.model("ok", price=("1", "0")), by=poor).status_code == 402


def test_a_grant_opens_the_model_and_a_removal_closes_it(seeded: Gateway) -> None:
    model, account = seeded.model("ok"), seeded.account(None)
    assert seeded.chat(model, by=account).status_code == 402
    seeded.credit(account.id, "0.1")
    eventually(lambda: seeded.chat(model, by=account).ok)
    body = {
        "user_id": str(account.id),
        "transaction_type": "admin_removal",
        "amount": "5",
        "source_id": f"removal-{account.id}",
    }
    seeded.admin("POST", "/transactions", body)
    eventually(lambda: seeded.chat(model, by=account).status_code == 402)
    assert seeded.balance(account.id) < 0


def test_the_call_that_empties_the_account_is_the_last(seeded: Gateway) -> None:
    model, account = seeded.model("ok"), seeded.account("0.02")
    assert seeded.chat(model, by=account).ok
    assert seeded.chat(model, by=account).ok
    # At once: nobody waits for a notification of what this process has done itself.
    assert_openai_error(seeded.chat(model, by=account), 402)
    assert seeded.balance(account.id) == Decimal("-0.01")
    assert seeded.chat(seeded.model("ok", price=None), by=account).ok


# --- what is charged


@pytest.mark.parametrize(
    ("price", "prompt", "completion"),
    [
        (("0.000000000000001", "0.000000000000003"), 1, 1),
        (("0.000000000000001", "0"), 2_147_483_646, 5),
        (("0.333333333333333", "0.666666666666667"), 3, 3),
        (("0.1", "0.2"), 1, 1),
        (UGLY, 123_457, 98_765),
        (("123456.789012345678901", "0.000000000000001"), 7, 1),
    ],
)
def test_a_charge_is_exact(
    seeded: Gateway, price: tuple[str, str], prompt: int, completion: int
) -> None:
    account = seeded.account("100000000")
    model = seeded.model(f"usage-{prompt}-{completion}", price=price)
    wanted = cost(price, prompt, completion)
    for stream in (False, True):
        answer = seeded.chat(model, by=account, stream=stream)
        if stream:
            assert list(events(answer))[-1] == "[DONE]"
        left = seeded.left(answer)
        assert left.charges[0].amount == wanted
        assert left.logs[0].total_cost == wanted
        assert left.logs[0].input_price_per_token == Decimal(price[0])
    assert seeded.balance(account.id) == 100_000_000 - 2 * wanted


def test_forty_calls_at_once_are_charged_to_the_last_digit(seeded: Gateway) -> None:
    account = seeded.account("1")
    models = [
        seeded.model("usage-1001-77+slow-50", price=UGLY),
        seeded.model("usage-13-999+slow-50", price=("0.000000000000007", "0.000000000000011")),
    ]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda n: seeded.chat(models[n % 2], by=account), range(40)))
    assert {answer.status_code for answer in answers} == {200}
    wanted = 20 * cost(UGLY, 1001, 77)
    wanted += 20 * cost(("0.000000000000007", "0.000000000000011"), 13, 999)
    assert seeded.charged(account.id) == wanted
    assert seeded.balance(account.id) == 1 - wanted
    ids = {UUID(answer.headers["x-request-id"]) for answer in answers}
    assert len(ids) == 40
    rows = seeded.all("SELECT source_id FROM credits_transactions WHERE user_id = %s", account.id)
    assert {str(id) for id in ids} <= {row.source_id for row in rows}
    rolled = seeded.one(
        "SELECT sum(calls) AS n, sum(cost) AS cost FROM usage_deltas WHERE user_id = %s",
        account.id,
    )
    assert (rolled.n, rolled.cost) == (40, wanted)


def test_many_accounts_at_once_are_not_mixed_up(seeded: Gateway) -> None:
    model = seeded.model("ok")
    accounts = [seeded.account("1") for _ in range(5)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda n: seeded.chat(model, by=accounts[n % 5]), range(40)))
    assert {seeded.balance(account.id) for account in accounts} == {1 - 8 * Decimal("0.015")}
    assert not seeded.unbalanced()


def test_a_new_tariff_prices_what_comes_after_it(seeded: Gateway) -> None:
    model, account = seeded.model("ok", price=("1", "0")), seeded.account()
    before = seeded.chat(model, by=account)
    seeded.admin("PATCH", f"/models/{seeded.model_id(model)}", {"tariffs": [tariff("2", "0")]})

    def charged() -> Decimal:
        amount: Decimal = seeded.left(seeded.chat(model, by=account)).charges[0].amount
        return amount

    eventually(lambda: charged() == 18)
    assert seeded.left(before).charges[0].amount == 9


def test_a_running_call_pays_the_price_that_it_began_with(seeded: Gateway) -> None:
    seeded.upstream.reset()
    model, account = seeded.model("hold", price=("1", "0")), seeded.account()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(seeded.chat, model, by=account)
        seeded.upstream.wait_active(1)
        seeded.admin("PATCH", f"/models/{seeded.model_id(model)}", {"tariffs": [tariff("2", "0")]})
        probe = seeded.model("ok", price=("5", "0"))
        assert seeded.chat(probe, by=account).ok  # the snapshot is newer than the change
        seeded.upstream.release()
        assert seeded.left(running.result()).charges[0].amount == 9
