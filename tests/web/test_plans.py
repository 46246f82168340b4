"""What grows with an account is read along its index, whatever the page."""

from __future__ import annotations

import pytest
from flask import Flask

from dwctl.identity import api_keys
from dwctl.web import pagination
from tests.cast import Cast
from tests.plans import plan_of


@pytest.mark.parametrize(
    ("skip", "beginning", "scan"),
    [
        (0, "SELECT api_keys.id", "Index Scan"),
        (9_800, "SELECT api_keys.id", "Index Only Scan"),
        (9_800, "SELECT count", "Index Only Scan"),
    ],
    ids=("first page", "far page", "count"),
)
def test_an_account_s_keys(app: Flask, cast: Cast, skip: int, beginning: str, scan: str) -> None:
    wanted = api_keys.visible(cast["bob"], created_by=None)
    plan = plan_of(app, lambda session: pagination.page(session, wanted, skip=skip, limit=10), beginning)  # fmt: skip
    assert f"{scan} using api_keys_listed_idx" in plan


def test_an_account_s_hidden_key(app: Flask, cast: Cast) -> None:
    bob = cast["bob"]
    plan = plan_of(app, lambda session: api_keys.hidden_key(session, bob, bob, "batch"), "SELECT api_keys")  # fmt: skip
    assert "Index Cond: ((user_id = " in plan
