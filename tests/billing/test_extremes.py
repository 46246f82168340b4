"""What the books hold at their ends: sums of entries that are as large as one may be, charges to who owes as much already, and the smallest of all."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

from dwctl.billing import money
from tests.cast import Cast
from tests.gateway import ADMIN, Gateway

LARGEST = str(money.LARGEST)
SMALLEST = "0.000000000000001"


def enter(stage: Gateway, account: uuid.UUID, amount: str, kind: str = "admin_grant", source: str = "") -> int:  # fmt: skip
    """The status of a grant or removal."""
    body = {"user_id": str(account), "transaction_type": kind, "amount": amount, "source_id": source or uuid.uuid4().hex}  # fmt: skip
    answer = stage.session.post(
        stage.url + ADMIN + "/transactions", json=body, headers=Cast.headers("admin")
    )
    return answer.status_code


def test_a_balance_is_larger_than_any_entry(stage: Gateway) -> None:
    account = stage.account(None)
    assert [enter(stage, account.id, LARGEST) for _ in range(3)] == [201] * 3
    assert enter(stage, account.id, SMALLEST) == 201
    assert stage.balance(account.id) == 3 * money.LARGEST + Decimal(SMALLEST)
    page = stage.session.get(
        stage.url + ADMIN + "/transactions", headers=account.session, params={"limit": 2}
    )
    assert page.json()["page_start_balance"] == "2999999999.999999999999998"
    assert stage.chat(stage.model("ok"), by=account).ok
    assert stage.unbalanced() == []


def test_who_owes_more_than_any_entry_is_charged_what_still_runs(stage: Gateway) -> None:
    account = stage.account("1")
    model = stage.model("hold")
    stage.upstream.reset()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(stage.chat, model, by=account, body={"max_tokens": 5})
        stage.upstream.wait_active(1)
        assert enter(stage, account.id, LARGEST, "admin_removal") == 201
        assert enter(stage, account.id, "1", "admin_removal") == 201
        stage.upstream.release()
        assert running.result().ok
    assert stage.charged(account.id) > 0
    assert stage.balance(account.id) == -money.LARGEST - stage.charged(account.id)
    assert stage.unbalanced() == []


def test_calls_that_cost_as_much_as_an_entry_holds_add_up(stage: Gateway) -> None:
    account = stage.account(LARGEST, spend_limit=LARGEST)
    model = stage.model("usage-2-4", price=("0", "300000000"))
    free = stage.model("usage-2-5", price=("0", LARGEST))
    assert stage.chat(model, by=account, body={"max_tokens": 1}).ok
    # (It held a fourth of what it used.)
    assert stage.chat(free, by=account, body={"max_tokens": 1}).status_code == 402
    assert stage.charged(account.id) == money.LARGEST
    assert stage.balance(account.id) == 0
    assert stage.unbalanced() == []


def test_of_many_with_one_source_one_is_entered(stage: Gateway) -> None:
    account = stage.account(None)
    source = uuid.uuid4().hex
    with ThreadPoolExecutor(16) as pool:
        kinds = ["admin_grant", "admin_removal"] * 8
        statuses = list(pool.map(lambda kind: enter(stage, account.id, "2", kind, source), kinds))
    assert sorted(statuses) == [201, *[409] * 15]
    assert abs(stage.balance(account.id)) == 2
    assert stage.unbalanced() == []
