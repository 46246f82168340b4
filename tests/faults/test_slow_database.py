"""A database that is there but does not answer in time, and one that drops every connection: callers should not notice."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
import requests

from dwctl.billing.money import LARGEST
from tests.cast import Cast
from tests.gateway import Gateway, assert_openai_error
from tests.processes import Service, eventually

CHARGE = Decimal("0.015")


def spooled(service: Service) -> list[Path]:
    return list(Path(service.environ["DWCTL_RECORDER__SPOOL_DIR"]).glob("*.spool"))


def test_calls_are_answered_while_a_table_is_locked(
    stage: Gateway, service: Service, database_url: str
) -> None:
    account, model = stage.account("1000"), stage.model("ok")
    stage.chat(model, by=account)
    with psycopg.connect(database_url) as blocking:
        blocking.execute("LOCK TABLE credits_transactions IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: stage.chat(model, by=account), range(12)))
        assert {answer.status_code for answer in answers} == {200}
        assert spooled(service)
        missing = stage.get(f"/responses/{answers[0].json()['id']}", by=account)
        assert_openai_error(missing, 503)
    eventually(lambda: not spooled(service), 30)
    for answer in answers:
        left = stage.left(answer)
        assert (left.request.state, len(left.logs)) == ("completed", 1)
        assert [charge.amount for charge in left.charges] == [CHARGE]
    assert stage.balance(account.id) == 1000 - 13 * CHARGE
    assert not stage.unbalanced()


def test_a_short_lock_is_waited_for(stage: Gateway, service: Service, database_url: str) -> None:
    account, model = stage.account("1000"), stage.model("ok")
    with ThreadPoolExecutor(12) as pool, psycopg.connect(database_url) as blocking:
        blocking.execute("LOCK TABLE credits_transactions IN ACCESS EXCLUSIVE MODE")
        calls = [pool.submit(stage.chat, model, by=account) for _ in range(12)]
        blocking.execute("SELECT pg_sleep(0.3)")
        blocking.rollback()
        answers = [call.result() for call in calls]
    assert {len(stage.left(answer).charges) for answer in answers} == {1}
    assert not spooled(service)


def test_a_call_that_costs_more_than_can_be_written_down_does_not_take_others_along(
    stage: Gateway,
) -> None:
    account = stage.account("1000")
    good = stage.model("hold")
    # 2,147,483,647 tokens at this price are more than the ledger can hold.
    bad = stage.model("usage-2147483647-1+hold", price=("999999", "0"))
    stage.upstream.reset()
    with ThreadPoolExecutor(13) as pool:
        models = [good] * 6 + [bad] + [good] * 6
        calls = [pool.submit(stage.chat, model, by=account) for model in models]
        stage.upstream.wait_active(13)
        stage.upstream.release()
        answers = [call.result() for call in calls]
    # It costs what can be, and ends the account.
    assert answers[6].status_code == 200
    assert [charge.amount for charge in stage.left(answers[6]).charges] == [LARGEST]
    for answer in answers[:6] + answers[7:]:
        assert answer.status_code == 200
        assert [charge.amount for charge in stage.left(answer).charges] == [CHARGE]
    assert stage.balance(account.id) == 1000 - 12 * CHARGE - LARGEST
    # The process hears of it within a second.
    plain = stage.model("ok")
    eventually(lambda: not stage.chat(plain, by=account).ok)
    assert_openai_error(stage.chat(plain, by=account), 402, "insufficient_credits")


def test_every_connection_is_dropped_under_load(stage: Gateway, service: Service) -> None:
    account, model = stage.account("1000"), stage.model("slow-20")
    with ThreadPoolExecutor(8) as pool:
        calls = []
        for _ in range(5):
            calls += [pool.submit(stage.chat, model, by=account) for _ in range(16)]
            time.sleep(0.05)
            stage.all(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND application_name = 'dwctl'"
            )
        answers = [call.result() for call in calls]
    assert {answer.status_code for answer in answers} == {200}
    eventually(lambda: not spooled(service), 30)
    assert {len(stage.left(answer).charges) for answer in answers} == {1}
    assert stage.balance(account.id) == 1000 - 80 * CHARGE
    assert not stage.unbalanced()


def page(service: Service) -> requests.Response:
    return requests.get(f"{service.url}/", headers=Cast.headers("admin"), timeout=30)


def waiting(stage: Gateway) -> list[int]:
    rows = stage.all("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'dwctl' AND wait_event_type = 'Lock'")  # fmt: skip
    return [row.pid for row in rows]


def test_a_page_says_that_there_is_no_answer(
    stage: Gateway, service: Service, database_url: str
) -> None:
    with psycopg.connect(database_url) as blocking:
        blocking.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
        answer = page(service)
    assert answer.status_code == 503
    assert "This cannot be shown right now" in answer.text
    eventually(lambda: page(service).status_code == 200)


# What the sign-in reads, and what the overview reads last, of the moment of its other sums.
@pytest.mark.parametrize("table", ["users", "caller_rollups"])
def test_a_page_is_read_anew_when_its_connection_breaks(
    stage: Gateway, service: Service, database_url: str, table: str
) -> None:
    assert page(service).status_code == 200
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as blocking:
        blocking.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        asked = pool.submit(page, service)
        eventually(lambda: waiting(stage))
        for pid in waiting(stage):
            stage.execute("SELECT pg_terminate_backend(%s)", pid)
        blocking.rollback()
        answer = asked.result()
    assert answer.status_code == 200
    assert "This part cannot be shown" not in answer.text
