"""Tariffs as rows: prices of parts, changes that are scheduled, history, and what a set leaves out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cast import Cast
from tests.catalog.conftest import ADMIN, Admin

REALTIME = {
    "name": "normal",
    "input_price_per_token": "0.001",
    "output_price_per_token": "0.002",
    "api_key_purpose": "realtime",
}
DAY = REALTIME | {"name": "day", "api_key_purpose": "batch", "completion_window": "24h"}
HOUR = DAY | {"name": "hour", "completion_window": "1h"}
LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=10)
DEARER = REALTIME | {"name": "dearer", "input_price_per_token": "0.003", "valid_from": LATER.isoformat()}  # fmt: skip


def history(admin: Admin, id: str) -> list[dict[str, Any]]:
    answer = admin.get(f"/models/{id}/tariffs", limit=100)
    assert answer.status_code == 200, answer.json
    rows: list[dict[str, Any]] = answer.json["data"]
    assert answer.json["total_count"] == len(rows)
    return rows


def in_force(admin: Admin, id: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = admin.get(f"/models/{id}", include="pricing").json["tariffs"]
    return rows


def set_tariffs(admin: Admin, tariffs: list[dict[str, Any]]) -> Any:
    return admin.patch(f"/models/{admin.model()['id']}", {"tariffs": tariffs})


def test_parts_that_are_priced_apart_are_shown_and_others_are_not(admin: Admin) -> None:
    apart = REALTIME | {"cached_input_price_per_token": "0.0001", "reasoning_price_per_token": 0}
    id = admin.model(tariffs=[apart, DAY])["id"]
    day, normal = in_force(admin, id)
    assert normal["cached_input_price_per_token"] == "0.00010000"
    assert Decimal(normal["reasoning_price_per_token"]) == 0
    assert "cached_input_price_per_token" not in day


def test_a_set_that_differs_in_a_part_only_is_another_one(admin: Admin) -> None:
    apart = REALTIME | {"cached_input_price_per_token": "0.0001"}
    id = admin.model(tariffs=[apart])["id"]
    (before,) = in_force(admin, id)
    assert admin.patch(f"/models/{id}", {"tariffs": [apart]}).status_code == 200
    assert in_force(admin, id) == [before]
    assert admin.patch(f"/models/{id}", {"tariffs": [REALTIME]}).status_code == 200
    (after,) = in_force(admin, id)
    assert after["id"] != before["id"]
    assert "cached_input_price_per_token" not in after


@pytest.mark.parametrize("name", ["cached_input_price_per_token", "reasoning_price_per_token"])
@pytest.mark.parametrize(
    ("value", "status"),
    [("-1", 400), ("1e400", 422), ("NaN", 422), ("0.0000000000000001", 400), ("1000000000", 400)],
)
def test_prices_of_parts_are_judged_as_the_others(
    admin: Admin, name: str, value: str, status: int
) -> None:
    answer = set_tariffs(admin, [REALTIME | {name: value}])
    assert answer.status_code == status
    assert set_tariffs(admin, [REALTIME | {name: None}]).status_code == 200


def test_the_database_takes_no_price_that_is_no_number(
    admin: Admin, sql: psycopg.Connection[Any]
) -> None:
    id = admin.model(tariffs=[REALTIME])["id"]
    for column in ("input", "output", "cached_input", "reasoning"):
        with pytest.raises(psycopg.errors.CheckViolation), sql.transaction():
            sql.execute(
                f"UPDATE model_tariffs SET {column}_price_per_token = 'NaN' WHERE deployed_model_id = %s",
                (id,),
            )


@pytest.mark.parametrize("period", ["valid_from = 'infinity'", "valid_until = 'infinity'", "valid_until = valid_from - interval '1 s'"])  # fmt: skip
def test_the_database_takes_no_period_that_nobody_could_read(
    admin: Admin, sql: psycopg.Connection[Any], period: str
) -> None:
    id = admin.model(tariffs=[REALTIME])["id"]
    with pytest.raises(psycopg.errors.CheckViolation), sql.transaction():
        sql.execute(f"UPDATE model_tariffs SET {period} WHERE deployed_model_id = %s", (id,))


# --- scheduled


def test_a_scheduled_change_waits_and_what_is_in_force_ends_there(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME, DAY])["id"]
    before = in_force(admin, id)
    assert admin.patch(f"/models/{id}", {"tariffs": [REALTIME, DAY, DEARER]}).status_code == 200
    day, normal = in_force(admin, id)
    assert day == before[0]
    assert normal == before[1] | {"valid_until": LATER.isoformat().replace("+00:00", "Z")}
    scheduled = history(admin, id)[0]
    assert (scheduled["name"], scheduled["is_active"], scheduled["valid_until"]) == ("dearer", False, None)  # fmt: skip


def test_a_scheduled_change_that_is_not_wanted_any_more_is_gone(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME])["id"]
    before = history(admin, id)
    for tariffs in ([REALTIME, DEARER], [REALTIME]):
        assert admin.patch(f"/models/{id}", {"tariffs": tariffs}).status_code == 200
    assert history(admin, id) == before


def test_a_set_may_be_sent_back_as_it_was_read(admin: Admin) -> None:
    sooner = DEARER | {"name": "sooner", "valid_from": (LATER - timedelta(days=5)).isoformat()}
    id = admin.model(tariffs=[REALTIME, sooner, DEARER, HOUR])["id"]
    before = history(admin, id)
    assert [row["valid_until"] is None for row in before[:2]] == [True, False]
    assert admin.patch(f"/models/{id}", {"tariffs": before}).status_code == 200
    assert history(admin, id) == before


def test_what_is_put_between_two_ends_the_one_and_begins_the_other(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME, DEARER])["id"]
    between = DEARER | {"name": "between", "valid_from": (LATER - timedelta(days=5)).isoformat()}
    wanted = [DEARER, between, REALTIME]
    assert admin.patch(f"/models/{id}", {"tariffs": wanted}).status_code == 200
    dearer, second, normal = history(admin, id)
    assert second["valid_until"] == dearer["valid_from"]
    assert normal["valid_until"] == second["valid_from"]


def test_an_empty_set_closes_what_is_in_force_and_forgets_what_is_scheduled(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME, DEARER])["id"]
    assert admin.patch(f"/models/{id}", {"tariffs": []}).status_code == 200
    (row,) = history(admin, id)
    assert (row["name"], row["is_active"]) == ("normal", False)
    assert row["valid_until"] is not None


def test_a_moment_that_has_passed_is_now(admin: Admin) -> None:
    past = REALTIME | {"valid_from": "2020-01-01T00:00:00Z"}
    id = admin.model(tariffs=[past])["id"]
    (row,) = in_force(admin, id)
    assert datetime.now(UTC) - datetime.fromisoformat(row["valid_from"]) < timedelta(hours=1)
    assert set_tariffs(admin, [past, REALTIME]).status_code == 409
    assert set_tariffs(admin, [DEARER, DEARER]).status_code == 409


@pytest.mark.parametrize("value", ["yesterday", "2026-13-01", 5, "9999-12-31T23:59:59-23:59"])
def test_a_beginning_that_is_no_time_is_refused_by_name(admin: Admin, value: object) -> None:
    answer = set_tariffs(admin, [REALTIME | {"valid_from": value}])
    assert answer.status_code == 422
    assert "valid_from" in answer.text


_SETS = st.lists(
    st.builds(
        lambda kind, price, days: kind | {"input_price_per_token": price, "valid_from": None if days is None else (LATER + timedelta(days=days)).isoformat()},
        st.sampled_from([REALTIME, DAY, HOUR]), st.sampled_from(["1", "2"]), st.sampled_from([None, None, 0, 1, 2]),
    ),
    max_size=5, unique_by=lambda t: (t["name"], t["valid_from"]),
)  # fmt: skip


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(sets=st.lists(_SETS, min_size=2, max_size=4))
def test_whatever_is_set_periods_of_a_kind_never_overlap_and_the_past_stays(
    admin: Admin, sql: psycopg.Connection[Any], sets: list[list[dict[str, Any]]]
) -> None:
    id = admin.model()["id"]
    past: set[tuple[Any, ...]] = set()
    for wanted in sets:
        assert admin.patch(f"/models/{id}", {"tariffs": wanted}).status_code == 200
        rows = sql.execute(
            "SELECT name, input_price_per_token, valid_from, valid_until, valid_until <= clock_timestamp() FROM model_tariffs WHERE deployed_model_id = %s",
            (id,),
        ).fetchall()
        ended = {row for row in rows if row[4]}
        assert past <= ended
        past = ended
        # Each of the set has its row, and no other goes on.
        assert len(rows) - len(ended) == len(wanted)
        for name in {row[0] for row in rows}:
            periods = sorted((row[2], row[3]) for row in rows if row[0] == name and row[3] != row[2])  # fmt: skip
            for (_, end), (begin, _) in pairwise(periods):
                assert end is not None
                assert end <= begin


# --- history, and what is left out


def test_history_has_the_latest_first_and_goes_on_by_a_cursor(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME])["id"]
    for price in ("0.01", "0.02", "0.03"):
        changed = REALTIME | {"input_price_per_token": price}
        assert admin.patch(f"/models/{id}", {"tariffs": [changed]}).status_code == 200
    rows = history(admin, id)
    assert [float(row["input_price_per_token"]) for row in rows] == [0.03, 0.02, 0.01, 0.001]
    assert [row["is_active"] for row in rows] == [True, False, False, False]
    ends = [row["valid_until"] for row in rows]
    assert ends == [None, *(row["valid_from"] for row in rows[:-1])]
    first = admin.get(f"/models/{id}/tariffs", limit=3)
    assert 'rel="next"' in first.headers["Link"]
    assert admin.get(f"/models/{id}/tariffs", skip=50).json["data"] == []


def test_prices_are_for_those_who_may_see_them(client: FlaskClient, cast: Cast, admin: Admin) -> None:  # fmt: skip
    id = admin.model(tariffs=[REALTIME])["id"]
    path = f"{ADMIN}/models/{id}/tariffs"
    assert client.get(path, headers=Cast.headers("alice")).status_code == 403
    assert admin.get(f"/models/{id[:-12]}000000000000/tariffs").status_code == 404


LEFT_OUT = {
    "nothing": ([REALTIME, DAY, HOUR], []),
    "a model without prices": ([], []),
    "one that informs only": ([REALTIME | {"api_key_purpose": None}], []),
    "a window": ([REALTIME, DAY], ["batch calls with the window 1h: they pay the realtime price"]),
    "realtime": ([DAY, HOUR], ["realtime calls: they are free"]),
    "all but one window": ([DAY], ["realtime calls: they are free", "the window 1h: they are free"]),
    "only what is scheduled has a price": ([REALTIME | {"valid_from": LATER.isoformat()}], ["realtime calls: they are free", "24h: they are free", "1h: they are free"]),
    "what is scheduled does not count yet": ([REALTIME, DAY, HOUR | {"valid_from": LATER.isoformat()}], ["the window 1h"]),
}  # fmt: skip


@pytest.mark.parametrize(("tariffs", "said"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_a_set_leaves_out_is_said(
    admin: Admin, tariffs: list[dict[str, Any]], said: list[str]
) -> None:
    id = admin.model()["id"]
    answer = admin.patch(f"/models/{id}", {"tariffs": tariffs})
    warnings = admin.get(f"/models/{id}/tariffs").json["warnings"]
    assert len(warnings) == len(said)
    assert all(part in sentence for part, sentence in zip(said, warnings, strict=True))
    assert answer.headers.get("x-dwctl-warnings", "") == " ".join(warnings)


def test_windows_that_a_model_does_not_have_need_no_tariff(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME, DAY], allowed_batch_completion_windows=["24h"])["id"]
    assert admin.get(f"/models/{id}/tariffs").json["warnings"] == []


def add(admin: Admin, id: str, tariff: dict[str, Any]) -> Any:
    return admin.post(f"/models/{id}/tariffs", tariff)


def test_one_tariff_is_set_and_the_others_stay(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME, DAY])["id"]
    kept = {row["id"] for row in in_force(admin, id) if row["name"] == "day"}
    assert add(admin, id, DEARER).status_code == 200
    assert add(admin, id, REALTIME | {"name": "other"}).status_code == 200
    now = {row["name"]: row for row in in_force(admin, id)}
    assert now.keys() == {"day", "other"}
    assert {now["day"]["id"]} == kept
    dearer, *_ = history(admin, id)
    assert (dearer["name"], dearer["valid_until"]) == ("dearer", None)
    assert now["other"]["valid_until"] == dearer["valid_from"], "what was scheduled stays scheduled"
    past = [
        row["name"] for row in history(admin, id) if row["valid_until"] and not row["is_active"]
    ]
    assert past == ["normal"]


def test_a_tariff_that_begins_with_another_of_its_kind_takes_its_place(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME, DEARER])["id"]
    add(admin, id, DEARER | {"name": "dearest"})
    assert [row["name"] for row in history(admin, id)] == ["dearest", "normal"]


def test_what_is_left_out_is_said_when_one_is_set(admin: Admin) -> None:
    answer = add(admin, admin.model()["id"], DAY)
    assert "realtime calls: they are free" in answer.headers["x-dwctl-warnings"]


def test_a_tariff_is_withdrawn_once(admin: Admin) -> None:
    id = admin.model(tariffs=[REALTIME, DEARER])["id"]
    dearer, normal = (row["id"] for row in history(admin, id))
    assert admin.delete(f"/models/{id}/tariffs/{dearer}").status_code == 204
    (row,) = history(admin, id)
    assert (row["id"], row["valid_until"]) == (normal, None), "nothing ends it any more"
    assert admin.delete(f"/models/{id}/tariffs/{dearer}").status_code == 404
    assert admin.delete(f"/models/{id}/tariffs/{normal}").status_code == 204
    assert in_force(admin, id) == []
    over = admin.delete(f"/models/{id}/tariffs/{normal}")
    assert (over.status_code, "over" in over.json["message"]) == (409, True)


def test_a_tariff_of_another_model_is_not_found(admin: Admin) -> None:
    (other,) = history(admin, admin.model(tariffs=[REALTIME])["id"])
    id = admin.model(tariffs=[REALTIME])["id"]
    assert admin.delete(f"/models/{id}/tariffs/{other['id']}").status_code == 404
