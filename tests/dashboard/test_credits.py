"""Credits: the entries on the page add up to the balance on it; who may grant; sending a form twice is one entry."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal

import psycopg
import pytest
from flask.testing import FlaskClient

from tests.billing.test_routes import use
from tests.cast import Cast
from tests.dashboard import forms

ADD = "/credits/entries"


def grant(client: FlaskClient, to: object, amount: str, **more: str) -> dict[str, str]:
    fields = {"user_id": str(to), "transaction_type": "admin_grant", "amount": amount, "source_id": more.pop("source_id", f"test-{amount}-{to}")} | more  # fmt: skip
    page = f"/credits?user={to}"
    answer = forms.submit(client, "biller", page, ADD, fields)
    assert answer.status_code == 303, answer.text
    return fields


def shown(page: str) -> list[Decimal]:
    return [Decimal(text.replace(",", "")) for text in re.findall(r'title="\$(-?[\d.,]+)"', page)]


def test_entries_add_up_to_the_balance(client: FlaskClient, cast: Cast) -> None:
    amounts = ["0.10", "0.000000001", "12.5", "3"]
    for amount in amounts:
        grant(client, cast["alice"], amount)
    page = forms.get(client, "alice", "/credits").text
    figures = shown(page)
    assert figures[0] == sum(map(Decimal, amounts))
    rows = re.findall(r'title="\$([\d.]+)"', page.partition("<tbody>")[2])
    pairs = list(zip(map(Decimal, rows[::2]), map(Decimal, rows[1::2]), strict=True))
    assert [amount for amount, _ in pairs] == [Decimal(one) for one in reversed(amounts)]
    assert pairs[0][1] == figures[0]
    assert all(later - amount == earlier for (amount, later), (_, earlier) in zip(pairs, pairs[1:], strict=False))  # fmt: skip


def test_the_same_form_twice_is_one_entry(client: FlaskClient, cast: Cast) -> None:
    fields = grant(client, cast["bob"], "7", source_id="once")
    again = forms.submit(client, "biller", f"/credits?user={cast['bob']}", ADD, fields)
    assert again.status_code == 422
    assert "This form was sent before" in again.text
    assert shown(forms.get(client, "bob", "/credits").text)[0] == 7
    # As it comes back it can be sent again, and is one more entry then.
    more = forms.fields(again.text, ADD)
    assert more["source_id"] != "once"
    assert (
        forms.submit(client, "biller", f"/credits?user={cast['bob']}", ADD, more).status_code == 303
    )
    assert shown(forms.get(client, "bob", "/credits").text)[0] == 14


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", "1e400", "", "x", "9" * 60])  # fmt: skip
def test_an_amount_that_is_none_is_said_at_its_field(client: FlaskClient, cast: Cast, amount: str) -> None:  # fmt: skip
    fields = {"user_id": str(cast["bob"]), "transaction_type": "admin_grant", "amount": amount, "source_id": "odd"}  # fmt: skip
    answer = forms.submit(client, "biller", f"/credits?user={cast['bob']}", ADD, fields)
    assert answer.status_code == 422
    assert 'class="problem' in answer.text


def test_members_see_their_own_alone(client: FlaskClient, cast: Cast) -> None:
    assert "Write the entry" not in forms.get(client, "alice", "/credits").text
    assert forms.get(client, "alice", f"/credits?user={cast['bob']}").status_code == 403
    assert forms.get(client, "alice", "/credits?of=accounts").status_code == 403
    token = forms.token(forms.get(client, "alice", "/credits").text)
    fields = {"user_id": str(cast["alice"]), "transaction_type": "admin_grant", "amount": "1", "source_id": "mine", "_token": token}  # fmt: skip
    answer = client.post(ADD, data=fields, headers=Cast.headers("alice"))
    assert answer.status_code == 403
    assert "Insufficient permissions" in answer.text


def test_a_batch_is_named_and_an_entry_shown_in_few_digits(
    client: FlaskClient, cast: Cast, sql: psycopg.Connection
) -> None:
    file, batch = uuid.uuid4(), uuid.uuid4()
    sql.execute("INSERT INTO fusillade.files (id, name) VALUES (%s, '<i>november.jsonl')", (file,))
    sql.execute("INSERT INTO fusillade.batches (id, file_id, completion_window, expires_at) VALUES (%s, %s, '24h', now())", (batch, file))  # fmt: skip
    for _ in range(2):
        used = use(sql, cast["viewer"], "0.0075", batch)
    page = forms.get(client, "viewer", "/credits").text
    assert ">&lt;i&gt;november.jsonl, 2 calls</td>" in page
    entry = forms.get(client, "viewer", f"/credits/{used}").text
    assert "<h1>Usage of $0.0075</h1>" in entry
    assert "<dd>−$0.007500000000000</dd>" in entry
    assert f'<a href="/credits?user={cast["viewer"]}">viewer</a>' in entry


def test_all_balances_lead_to_each_account(client: FlaskClient, cast: Cast) -> None:
    page = forms.get(client, "biller", "/credits?of=accounts&q=alice").text
    assert f"/credits?user={cast['alice']}" in page


@pytest.mark.parametrize("user", ["x", "0199a8f1", "'--"])
def test_an_account_that_is_none_is_400(client: FlaskClient, cast: Cast, user: str) -> None:
    assert client.get("/credits", query_string={"user": user}, headers=Cast.headers("biller")).status_code == 400  # fmt: skip
