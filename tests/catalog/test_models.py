import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from dwctl.usage import folding
from tests.cast import Cast
from tests.catalog.conftest import ADMIN, Admin, unique
from tests.usage import deltas

NIL = UUID(int=0)
REALTIME = {
    "name": "normal",
    "input_price_per_token": "0.001",
    "output_price_per_token": "0.002",
    "api_key_purpose": "realtime",
}
DAY = {
    "name": "day",
    "input_price_per_token": "0.0005",
    "output_price_per_token": "0.001",
    "api_key_purpose": "batch",
    "completion_window": "24h",
}
HOUR = DAY | {"name": "hour", "completion_window": "1h"}
PRICES = {"mode": "per_token", "input_price_per_token": "0.0001"}


@pytest.fixture
def alice(client: FlaskClient, cast: Cast) -> Callable[..., Any]:
    """GET as a standard user."""

    def get(path: str, **query: Any) -> Any:
        return client.get(ADMIN + path, query_string=query, headers=Cast.headers("alice"))

    return get


def aliases(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.json
    return [row["alias"] for row in answer.json["data"]]


# --- making and changing


def test_a_model_is_answered_with_200_and_its_members(admin: Admin, cast: Cast) -> None:
    endpoint = admin.endpoint()
    made = admin.model(model_name="gpt-4o", alias=unique("gpt"), hosted_on=endpoint)
    assert made == {
        "id": made["id"],
        "model_name": "gpt-4o",
        "alias": made["alias"],
        "description": None,
        "model_type": None,
        "capabilities": None,
        "created_by": str(cast["admin"]),
        "hosted_on": endpoint,
        "created_at": made["created_at"],
        "updated_at": made["updated_at"],
        "is_composite": False,
        "sanitize_responses": False,
        "trusted": False,
        "open_responses_adapter": True,
        "forward_service_tier": False,
        "refuse_unrunnable_tools": False,
        "activity_status": "active",
        "deleted": False,
    }


def test_every_field_is_kept(admin: Admin) -> None:
    fields = {
        "display_name": "Priced",
        "description": "A priced model",
        "model_type": "CHAT",
        "capabilities": ["vision"],
        "requests_per_second": 0.015,
        "burst_size": 200,
        "capacity": 10,
        "batch_capacity": 5,
        "throughput": 20.0,
        "sanitize_responses": True,
        "trusted": True,
        "open_responses_adapter": False,
        "forward_service_tier": True,
        "refuse_unrunnable_tools": True,
        "tokens_per_minute": 2**40,
        "allowed_batch_completion_windows": ["24h"],
        "traffic_routing_rules": [{"api_key_purpose": "batch", "action": {"type": "deny"}}],
        "metadata": {
            "provider": "acme",
            "display_category": "generation",
            "intelligence_index": 57.5,
            "context_window": 8192,
            "released_at": "2026-01-01",
            "extra": {"a": [1.5, None]},
        },
    }
    made = admin.model(**fields)
    assert {name: made[name] for name in fields} == fields
    assert admin.get(f"/models/{made['id']}").json.items() >= fields.items()
    nothing = dict.fromkeys(fields)
    kept = admin.patch(f"/models/{made['id']}", {}).json
    assert {name: kept[name] for name in fields} == fields
    cleared = admin.patch(f"/models/{made['id']}", nothing).json
    assert cleared["description"] is None
    assert cleared["capabilities"] is None
    assert cleared["trusted"] is True
    assert cleared["metadata"] == fields["metadata"]
    for gone in ("display_name", "requests_per_second", "burst_size", "capacity", "batch_capacity", "throughput", "tokens_per_minute", "traffic_routing_rules", "allowed_batch_completion_windows"):  # fmt: skip
        assert gone not in cleared


def test_a_rate_that_is_taken_away_takes_its_burst_along(admin: Admin) -> None:
    path = f"/models/{admin.model(requests_per_second=5, burst_size=9)['id']}"
    assert "burst_size" not in admin.patch(path, {"requests_per_second": None}).json
    kept = {"requests_per_second": None, "burst_size": 3}
    assert admin.patch(path, kept).json["burst_size"] == 3
    assert admin.patch(path, {"description": "as it was"}).json["burst_size"] == 3


def test_a_burst_alone_is_among_the_limits_of_what_one_may_call(admin: Admin) -> None:
    made = admin.model(everyone=True, burst_size=3)
    [usable] = admin.get("/users/current/models", search=made["alias"]).json["data"]
    assert (usable["burst_size"], "requests_per_second" in usable) == (3, False)


def test_names_are_trimmed_and_the_alias_defaults_to_the_name(admin: Admin) -> None:
    name = unique("name")
    assert admin.model(model_name=f" {name} ")["alias"] == name


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        pytest.param({"type": "other"}, 422, "type", id="unknown type"),
        pytest.param({"type": None}, 422, "type", id="no type"),
        pytest.param({"type": "composite"}, 422, "hosted_on", id="composite on an endpoint"),
        pytest.param({"is_composite": True}, 422, "is_composite", id="two kinds at once"),
        pytest.param({"lb_strategy": "priority"}, 400, "lb_strategy is for composite models", id="strategy of a standard model"),
        pytest.param({"fallback_enabled": False}, 400, "fallback_enabled is for composite models", id="fallback of a standard model"),
        pytest.param({"tokens_per_minute": 0}, 400, "tokens_per_minute must be greater than zero and below 2^53", id="no tokens"),
        pytest.param({"tokens_per_minute": 1.5}, 422, "tokens_per_minute", id="half a token"),
        pytest.param({"requests_per_second": -0.1}, 400, "requests_per_second", id="negative rate"),
        pytest.param({"refuse_unrunnable_tools": "perhaps"}, 422, "refuse_unrunnable_tools", id="perhaps"),
        pytest.param({"hosted_on": str(UUID(int=1))}, 404, f"endpoint with ID {UUID(int=1)} not found", id="unknown endpoint"),
        pytest.param({"hosted_on": None}, 422, "hosted_on", id="endpoint null"),
        pytest.param({"model_name": " "}, 400, "Model name and alias must not be empty or whitespace", id="blank name"),
        pytest.param({"alias": " "}, 400, "Model name and alias must not be empty or whitespace", id="blank alias"),
        pytest.param({"model_type": "OTHER"}, 422, "model_type", id="unknown model type"),
        pytest.param({"throughput": 0}, 400, "throughput", id="no throughput"),
        pytest.param({"burst_size": -1}, 400, "burst_size", id="negative burst"),
        pytest.param({"capacity": 2**31}, 400, "capacity", id="capacity too large"),
        pytest.param({"requests_per_second": "many"}, 422, "requests_per_second", id="rate no number"),
        pytest.param({"requests_per_second": "1_0"}, 422, "requests_per_second", id="rate with an underscore"),
        pytest.param({"requests_per_second": "\u0661"}, 422, "requests_per_second", id="rate in other digits"),
        pytest.param({"requests_per_second": "1e400"}, 422, "requests_per_second", id="rate beyond floats"),
        pytest.param({"allowed_batch_completion_windows": ["99h"]}, 400, "Invalid batch completion window '99h'. Configured windows: 24h, 1h", id="unknown window"),
        pytest.param({"tariffs": [{**DAY, "completion_window": None}]}, 400, "Invalid data provided", id="batch tariff without window"),
        pytest.param({"tariffs": [DAY, DAY]}, 409, "batch with the window 24h", id="same window twice"),
        pytest.param({"tariffs": [REALTIME, {**REALTIME, "name": "b"}]}, 409, "realtime", id="same purpose twice"),
        pytest.param({"tariffs": [{**REALTIME, "input_price_per_token": "-1"}]}, 400, "negative price (input_price_per_token)", id="negative price"),
        pytest.param({"tariffs": [{**REALTIME, "input_price_per_token": 1e-20}]}, 400, "out of range (input_price_per_token)", id="price rounds to nothing"),
        pytest.param({"tariffs": [{**REALTIME, "input_price_per_token": 1e10}]}, 400, "out of range", id="price too large"),
        pytest.param({"tariffs": [{**REALTIME, "name": "n" * 256}]}, 400, "255", id="tariff name too long"),
        pytest.param({"tariffs": [{"name": "n"}]}, 422, "tariffs", id="tariff without prices"),
        pytest.param({"tariffs": [{**REALTIME, "api_key_purpose": "other"}]}, 422, "api_key_purpose", id="unknown purpose"),
        pytest.param({"metadata": {"extra": {str(n): n for n in range(51)}}}, 400, "50 keys", id="too many extras"),
        pytest.param({"metadata": {"attribution": "x" * 17000}}, 400, "16384 bytes", id="metadata too large"),
        pytest.param({"metadata": {"extra": {"a": "\ud800"}}}, 400, "not valid JSON", id="half a surrogate pair"),
        pytest.param({"metadata": {"extra": {"a": "\x00"}}}, 422, "NUL", id="NUL within metadata"),
        pytest.param({"description": "\ud800"}, 400, "not valid JSON", id="half a pair in a text"),
        pytest.param({"metadata": {"released_at": "soon"}}, 422, "released_at", id="no date"),
        pytest.param({"provider_pricing": {"mode": "hourly", "rate": "2"}}, 422, "input_token_cost_ratio", id="hourly without ratio"),
        pytest.param({"provider_pricing": {"mode": "hourly", "rate": "2", "input_token_cost_ratio": "1.5"}}, 400, "between 0 and 1", id="ratio above 1"),
        pytest.param({"provider_pricing": {"mode": "hourly", "rate": "100000000", "input_token_cost_ratio": "0"}}, 400, "provider_pricing.rate must be at most 99999999.99", id="rate too large"),
        pytest.param({"provider_pricing": {"mode": "hourly", "rate": "0.001", "input_token_cost_ratio": "0"}}, 400, "provider_pricing.rate is below the smallest that is kept, 0.01", id="rate rounds to nothing"),
        pytest.param({"provider_pricing": {"mode": "per_token", "input_price_per_token": "1e10"}}, 422, "input_price_per_token", id="price no plain number"),
        pytest.param({"provider_pricing": {"mode": "per_token", "input_price_per_token": 1e10}}, 400, "provider_pricing.input_price_per_token must be at most", id="provider price too large"),
        pytest.param({"provider_pricing": {"mode": "per_token", "input_price_per_token": "-1"}}, 400, "must not be negative", id="negative provider price"),
        pytest.param({"provider_pricing": {"mode": "other"}}, 422, "mode", id="unknown mode"),
    ],
)  # fmt: skip
def test_a_refused_model_leaves_nothing_and_uses_up_no_alias(
    admin: Admin, change: dict[str, Any], status: int, message: str
) -> None:
    body = {"type": "standard", "model_name": unique("m"), "hosted_on": admin.endpoint()}
    refused = admin.post("/models", body | change)
    assert refused.status_code == status, refused.json
    assert message in refused.json["message"]
    assert admin.post("/models", body).status_code == 200


def test_an_alias_is_unique_among_the_living(admin: Admin) -> None:
    first, other = admin.model(), admin.model()
    body = {"type": "standard", "model_name": first["alias"], "hosted_on": first["hosted_on"]}
    for answer in (
        admin.post("/models", body),
        admin.patch(f"/models/{other['id']}", {"alias": first["alias"]}),
    ):
        assert answer.status_code == 409
        assert answer.json["resource"] == "deployment"
        assert (
            answer.json["message"]
            == "The specified alias is already in use. Please choose a different alias."
        )
    assert admin.delete(f"/models/{first['id']}").status_code == 200
    assert admin.post("/models", body).status_code == 200


def test_a_reranker_stays_one_wherever_it_is_read(admin: Admin, group: Callable[..., UUID]) -> None:
    made = admin.model(model_type="RERANKER")
    members = group()
    admin.post(f"/groups/{members}/models/{made['id']}")
    groups = admin.get("/groups", include="models", limit=100).json["data"]
    (of_group,) = next(one["models"] for one in groups if one["id"] == str(members))
    (listed,) = admin.get("/models", search=made["alias"], model_type="RERANKER").json["data"]
    shown = (made, admin.get(f"/models/{made['id']}").json, of_group, listed)
    assert [one["model_type"] for one in shown] == ["RERANKER"] * 4


def test_deleting_answers_the_id_also_a_second_time(admin: Admin) -> None:
    id = admin.model()["id"]
    for _ in range(2):
        answer = admin.delete(f"/models/{id}")
        assert (answer.status_code, answer.json) == (200, id)
    assert admin.get(f"/models/{id}").status_code == 404
    assert admin.get(f"/models/{id}", deleted="true").json["deleted"] is True
    assert admin.patch(f"/models/{id}", {"description": "d"}).json["description"] == "d"
    unknown = uuid.uuid4()
    assert admin.delete(f"/models/{unknown}").json["message"] == "Resource not found"
    gone = admin.patch(f"/models/{unknown}", {})
    assert (gone.status_code, gone.json["message"]) == (404, f"Deployment with ID {unknown} not found")  # fmt: skip


def test_an_unknown_field_is_ignored_and_named(admin: Admin) -> None:
    id = admin.model()["id"]
    answer = admin.patch(f"/models/{id}", {"descriptoin": "typo"})
    assert answer.status_code == 200
    assert answer.headers["x-ignored-fields"] == "descriptoin"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/models", {}),
        ("PATCH", f"/models/{NIL}", {}),
        ("DELETE", f"/models/{NIL}", None),
        ("GET", f"/models/{NIL}/groups", None),
        ("GET", f"/groups/{NIL}/models", None),
        ("POST", f"/groups/{NIL}/models/{NIL}", None),
        ("DELETE", f"/groups/{NIL}/models/{NIL}", None),
    ],
)
def test_models_are_managed_by_platform_managers(
    client: FlaskClient, cast: Cast, method: str, path: str, body: Any
) -> None:
    for who in ("alice", "viewer", "biller"):
        answer = client.open(ADMIN + path, method=method, json=body, headers=Cast.headers(who))
        assert answer.status_code == 403
    assert client.open(ADMIN + path, method=method, json=body).status_code == 401


# --- tariffs and provider prices


def tariffs_of(sql: psycopg.Connection, model: str) -> list[tuple[str, Decimal, bool]]:
    rows = sql.execute(
        "SELECT name, input_price_per_token, valid_until IS NULL FROM model_tariffs WHERE deployed_model_id = %s ORDER BY valid_from, name",
        (model,),
    )
    return rows.fetchall()


def test_current_tariffs_are_shown_by_purpose_window_and_name(admin: Admin) -> None:
    informs = REALTIME | {"name": "list price", "api_key_purpose": None}
    made = admin.model(tariffs=[informs, REALTIME, HOUR, DAY])
    assert "tariffs" not in made
    shown = admin.get(f"/models/{made['id']}", include="pricing").json["tariffs"]
    assert [t["name"] for t in shown] == ["hour", "day", "normal", "list price"]
    assert shown[1] == {
        "id": shown[1]["id"],
        "deployed_model_id": made["id"],
        "name": "day",
        "input_price_per_token": "0.00050000",
        "output_price_per_token": "0.00100000",
        "api_key_purpose": "batch",
        "completion_window": "24h",
        "valid_from": shown[1]["valid_from"],
        "valid_until": None,
        "is_active": True,
    }
    assert "completion_window" not in shown[2]
    assert shown[3]["api_key_purpose"] is None


def test_replacing_tariffs_closes_and_opens_rows_and_keeps_the_same(
    admin: Admin, sql: psycopg.Connection
) -> None:
    id = admin.model(tariffs=[REALTIME, DAY])["id"]
    before = {t["name"]: t for t in admin.get(f"/models/{id}", include="pricing").json["tariffs"]}
    dearer = DAY | {"output_price_per_token": "0.0015"}
    same = REALTIME | {"input_price_per_token": 0.0010}
    assert admin.patch(f"/models/{id}", {"tariffs": [same, dearer]}).status_code == 200
    after = {t["name"]: t for t in admin.get(f"/models/{id}", include="pricing").json["tariffs"]}
    assert after["normal"] == before["normal"]
    assert after["day"]["id"] != before["day"]["id"]
    closed, opened = sql.execute(
        "SELECT (SELECT valid_until FROM model_tariffs WHERE id = %s), (SELECT valid_from FROM model_tariffs WHERE id = %s)",
        (before["day"]["id"], after["day"]["id"]),
    ).fetchone() or (None, 1)
    assert closed == opened
    assert admin.patch(f"/models/{id}", {"tariffs": None}).status_code == 200
    assert len(tariffs_of(sql, id)) == 3
    assert admin.patch(f"/models/{id}", {"tariffs": []}).status_code == 200
    assert [row[2] for row in tariffs_of(sql, id)] == [False, False, False]


def test_parallel_replacements_leave_one_current_tariff(
    admin: Admin, app: Flask, sql: psycopg.Connection
) -> None:
    id = admin.model(tariffs=[REALTIME])["id"]
    statuses: list[int] = []

    def replace(price: int) -> None:
        tariffs = [REALTIME | {"input_price_per_token": price}]
        answer = Admin(app.test_client()).patch(f"/models/{id}", {"tariffs": tariffs})
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=replace, args=(price,)) for price in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 5
    rows = tariffs_of(sql, id)
    assert (len(rows), sum(current for _name, _price, current in rows)) == (6, 1)


def test_a_refused_set_changes_no_tariff(admin: Admin, sql: psycopg.Connection) -> None:
    id = admin.model(tariffs=[REALTIME])["id"]
    assert admin.patch(f"/models/{id}", {"tariffs": [DAY, DAY]}).status_code == 409
    assert tariffs_of(sql, id) == [("normal", Decimal("0.001"), True)]


def test_tiny_prices_are_kept_and_long_ones_rounded(admin: Admin, sql: psycopg.Connection) -> None:
    tariff = REALTIME | {
        "input_price_per_token": "0.000000000000001",
        "output_price_per_token": 2.9999999999999997e-07,
    }
    id = admin.model(tariffs=[tariff])["id"]
    (shown,) = admin.get(f"/models/{id}", include="pricing").json["tariffs"]
    assert shown["input_price_per_token"] == "0.000000000000001"
    assert shown["output_price_per_token"] == "0.00000030"


def test_batch_tariffs_of_windows_that_are_off_are_hidden_from_users(
    admin: Admin, alice: Callable[..., Any]
) -> None:
    made = admin.model(everyone=True, tariffs=[REALTIME, DAY, HOUR])
    names = {}
    for windows in (None, ["1h"], []):
        admin.patch(f"/models/{made['id']}", {"allowed_batch_completion_windows": windows})
        shown = alice(f"/models/{made['id']}", include="pricing").json
        names[str(windows)] = [t["name"] for t in shown["tariffs"]]
        full = admin.get(f"/models/{made['id']}", include="pricing").json
        assert len(full["tariffs"]) == 3
    assert names == {
        "None": ["hour", "day", "normal"],
        "['1h']": ["hour", "normal"],
        "[]": ["normal"],
    }


def test_provider_prices_are_shown_to_those_who_price(
    admin: Admin, alice: Callable[..., Any]
) -> None:
    made = admin.model(everyone=True, provider_pricing=PRICES)
    assert "provider_pricing" not in made
    path = f"/models/{made['id']}"
    expected = {
        "mode": "per_token",
        "input_price_per_token": "0.00010000",
        "output_price_per_token": None,
    }
    assert admin.get(path).json["provider_pricing"] == expected
    (listed,) = admin.get("/models", search=made["alias"]).json["data"]
    assert listed["provider_pricing"] == expected
    assert "provider_pricing" not in alice(path, include="pricing").json


def test_provider_prices_change_field_by_field(admin: Admin) -> None:
    path = f"/models/{admin.model(provider_pricing=PRICES)['id']}"

    def after(change: Any) -> Any:
        assert admin.patch(path, {"provider_pricing": change}).status_code == 200
        return admin.get(path).json.get("provider_pricing")

    both = after({"mode": "per_token", "output_price_per_token": 0.5})
    assert (both["input_price_per_token"], both["output_price_per_token"]) == ("0.00010000", "0.50000000")  # fmt: skip
    assert after({"mode": "no_change"}) == both
    assert after(None) == both
    assert after({"mode": "per_token", "input_price_per_token": None}) == both | {"input_price_per_token": None}  # fmt: skip
    assert after({"mode": "hourly", "rate": 2.5}) is None
    hourly = after({"mode": "hourly", "input_token_cost_ratio": "0.3"})
    assert hourly == {"mode": "hourly", "rate": "2.50", "input_token_cost_ratio": "0.30"}
    assert after({"mode": "per_token"})["output_price_per_token"] is None


# --- traffic rules


def test_rules_are_replaced_and_shown_by_purpose(admin: Admin, alice: Callable[..., Any]) -> None:
    target = admin.model()["alias"]
    made = admin.model(everyone=True)
    rules = [
        {"api_key_purpose": "playground", "action": {"type": "redirect", "target": target}},
        {"api_key_purpose": "batch", "action": {"type": "deny"}},
    ]
    path = f"/models/{made['id']}"
    shown = admin.patch(path, {"traffic_routing_rules": rules}).json
    assert shown["traffic_routing_rules"] == rules[::-1]
    assert admin.get(path).json["traffic_routing_rules"] == rules[::-1]
    assert "traffic_routing_rules" not in alice(path).json
    assert len(admin.patch(path, {"description": "x"}).json["traffic_routing_rules"]) == 2
    assert "traffic_routing_rules" not in admin.patch(path, {"traffic_routing_rules": []}).json


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere", "Redirect target model 'nowhere' does not exist"),
        (" ", "Redirect target must not be empty"),
        (None, "Redirect target must not be empty"),
        ("itself", "A model cannot redirect to itself"),
    ],
)
def test_a_redirect_needs_another_model(admin: Admin, target: str | None, message: str) -> None:
    made = admin.model()
    target = made["alias"] if target == "itself" else target
    rule = {"api_key_purpose": "batch", "action": {"type": "redirect", "target": target}}
    answer = admin.patch(f"/models/{made['id']}", {"traffic_routing_rules": [rule]})
    assert (answer.status_code, answer.json["message"]) == (400, message)


def test_one_rule_for_a_purpose(admin: Admin) -> None:
    rule = {"api_key_purpose": "batch", "action": {"type": "deny"}}
    answer = admin.patch(f"/models/{admin.model()['id']}", {"traffic_routing_rules": [rule, rule]})
    assert answer.status_code == 409


def redirect(purpose: str, target: dict[str, Any]) -> dict[str, Any]:
    action = {"type": "redirect", "target": target["alias"]}
    return {"traffic_routing_rules": [{"api_key_purpose": purpose, "action": action}]}


@pytest.mark.parametrize("length", [2, 3, 5])
def test_redirects_do_not_go_in_a_circle(admin: Admin, length: int) -> None:
    ring = [admin.model() for _ in range(length)]
    for here, there in zip(ring, ring[1:], strict=False):
        changed = admin.patch(f"/models/{here['id']}", redirect("batch", there))
        assert changed.status_code == 200, changed.json
    last = f"/models/{ring[-1]['id']}"
    refused = admin.patch(last, redirect("batch", ring[0]))
    circle = " -> ".join(model["alias"] for model in [ring[-1], *ring])
    assert refused.status_code == 400
    assert refused.json["message"] == f"API keys with the purpose batch would be redirected in a circle: {circle}"  # fmt: skip
    assert "traffic_routing_rules" not in admin.get(last).json
    # For keys of another purpose it is none, nor when the chain is broken by a deletion.
    assert admin.patch(last, redirect("realtime", ring[0])).status_code == 200
    if length > 2:
        assert admin.delete(f"/models/{ring[1]['id']}").status_code == 200
        assert admin.patch(last, redirect("batch", ring[0])).status_code == 200


def test_a_circle_that_others_left_behind_is_not_walked_for_ever(
    admin: Admin, sql: psycopg.Connection
) -> None:
    one, two, three = (admin.model() for _ in range(3))
    for here, there in ((one, two), (two, one)):
        sql.execute(
            "INSERT INTO model_traffic_rules (deployed_model_id, api_key_purpose, action, redirect_target_id)"
            " VALUES (%s, 'batch', 'redirect', %s)",
            (here["id"], there["id"]),
        )
    assert admin.patch(f"/models/{three['id']}", redirect("batch", one)).status_code == 200


def test_of_two_halves_of_a_circle_at_once_one_is_refused(admin: Admin, app: Flask) -> None:
    for _ in range(3):
        ring = [admin.model() for _ in range(3)]
        statuses: list[int] = []

        def go(
            here: int, ring: list[dict[str, Any]] = ring, statuses: list[int] = statuses
        ) -> None:
            there = ring[(here + 1) % 3]
            answer = Admin(app.test_client()).patch(f"/models/{ring[here]['id']}", redirect("batch", there))  # fmt: skip
            statuses.append(answer.status_code)

        threads = [threading.Thread(target=go, args=(here,)) for here in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 200, 400]


def test_a_redirect_to_a_deleted_model_is_no_rule(admin: Admin) -> None:
    target = admin.model()
    rule = {"api_key_purpose": "batch", "action": {"type": "redirect", "target": target["alias"]}}
    made = admin.model(traffic_routing_rules=[rule])
    admin.delete(f"/models/{target['id']}")
    assert "traffic_routing_rules" not in admin.get(f"/models/{made['id']}").json


# --- who sees what


def test_a_user_sees_the_models_of_their_groups_and_of_everyone(
    admin: Admin, alice: Callable[..., Any], group: Callable[..., UUID]
) -> None:
    marker = unique("seen")
    public = admin.model(alias=f"{marker}-public", everyone=True)
    theirs, other = admin.model(alias=f"{marker}-theirs"), admin.model(alias=f"{marker}-other")
    admin.post(f"/groups/{group('alice')}/models/{theirs['id']}")
    admin.post(f"/groups/{group('bob')}/models/{other['id']}")
    assert aliases(alice("/models", search=marker)) == [theirs["alias"], public["alias"]]
    assert len(aliases(admin.get("/models", search=marker))) == 3
    assert aliases(admin.get("/models", search=marker, accessible="true")) == [public["alias"]]
    assert alice(f"/models/{theirs['id']}").status_code == 200
    hidden = alice(f"/models/{other['id']}")
    assert (hidden.status_code, hidden.json["message"]) == (404, f"Deployment with ID {other['id']} not found")  # fmt: skip


def test_the_active_organisation_decides_what_is_accessible(
    admin: Admin,
    client: FlaskClient,
    cast: Cast,
    sql: psycopg.Connection,
    group: Callable[..., UUID],
) -> None:
    row = sql.execute(
        "INSERT INTO users (username, email, user_type) VALUES ('acme', 'a@acme.example', 'organization') RETURNING id"
    ).fetchone()
    assert row
    sql.execute(
        "INSERT INTO user_organizations (user_id, organization_id) VALUES (%s, %s)",
        (cast["bob"], row[0]),
    )
    members = group()
    sql.execute("INSERT INTO user_groups (user_id, group_id) VALUES (%s, %s)", (row[0], members))
    made = admin.model()
    admin.post(f"/groups/{members}/models/{made['id']}")
    bob = Cast.headers("bob")
    as_member = bob | {"X-Organization-Id": str(row[0])}
    for headers, status, total in ((bob, 404, 0), (as_member, 200, 1)):
        assert client.get(f"{ADMIN}/models/{made['id']}", headers=headers).status_code == status
        found = client.get(f"{ADMIN}/models?search={made['alias']}", headers=headers)
        assert found.json["total_count"] == total


def test_a_user_sees_what_a_model_is_but_not_how_it_is_run(
    admin: Admin, alice: Callable[..., Any]
) -> None:
    made = admin.model(everyone=True, capacity=3, metadata={"provider": "acme"})
    everything = "groups,metrics,endpoints,components,status,pricing,facets,nonsense"
    (shown,) = alice("/models", search=made["alias"], include=everything).json["data"]
    assert set(shown) == {
        "id", "model_name", "alias", "description", "model_type", "capabilities", "created_at", "updated_at",
        "hosted_on", "metadata", "status", "tariffs",
    }  # fmt: skip


def test_a_request_viewer_may_have_metrics(admin: Admin, client: FlaskClient, cast: Cast) -> None:
    made = admin.model(everyone=True)
    path = f"{ADMIN}/models/{made['id']}?include=metrics,groups"
    shown = client.get(path, headers=Cast.headers("viewer")).json
    assert "metrics" in shown
    assert "groups" not in shown


def test_includes_that_are_allowed_are_always_there(admin: Admin) -> None:
    made = admin.model()
    shown = admin.get(
        f"/models/{made['id']}", include=" groups, metrics,status ,pricing,endpoints"
    ).json
    assert shown["groups"] == []
    assert shown["tariffs"] == []
    assert shown["endpoint"]["id"] == made["hosted_on"]
    assert shown["status"] == {
        "probe_id": None,
        "active": False,
        "interval_seconds": None,
        "last_check": None,
        "last_success": None,
        "uptime_percentage": None,
    }
    series = shown["metrics"].pop("time_series")
    assert shown["metrics"] == {
        "avg_latency_ms": None,
        "total_requests": 0,
        "total_input_tokens": 0,
        "total_output_tokens": 0,
        "last_active_at": None,
    }
    assert len(series) == 13
    assert {point["requests"] for point in series} == {0}
    assert "groups" not in admin.get(f"/models/{made['id']}").json


def test_metrics_sum_all_time_and_show_the_last_two_hours(
    admin: Admin, sql: psycopg.Connection, cast: Cast
) -> None:
    made = admin.model()
    now = datetime.now(UTC)
    bucket = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0)
    for at, who, requests in (
        (bucket, cast["alice"], 3),
        (bucket, NIL, 1),
        (bucket - timedelta(hours=2), cast["bob"], 5),
        (bucket - timedelta(days=40), cast["bob"], 1),
    ):
        sql.execute(
            "INSERT INTO usage_deltas (at, model, user_id, api_key_id, status_code, calls, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,"
            " total_tokens, cost, duration_ms) VALUES (%s, %s, %s, gen_random_uuid(), 200, %s, 10, 20, 0, 0, 30, 0, 1000)",
            (at, made["alias"], who, requests),
        )
    shown = admin.get(f"/models/{made['id']}", include="metrics").json["metrics"]
    assert (shown["total_requests"], shown["total_input_tokens"], shown["total_output_tokens"]) == (10, 40, 80)  # fmt: skip
    assert shown["avg_latency_ms"] == 400.0
    assert shown["last_active_at"] == shown["time_series"][-1]["timestamp"]
    assert [point["requests"] for point in shown["time_series"]] in ([5, *[0] * 11, 4], [0] * 11 + [4, 0])  # fmt: skip


def test_calls_are_counted_since_a_moment_and_within_the_hour(
    admin: Admin, sql: psycopg.Connection
) -> None:
    name, now = unique("called"), datetime.now(UTC)
    admin.model(alias=name)
    for hours, status, ms in ((0, 200, 100), (0, 500, 900), (3, 200, 100), (3, 402, 100), (30, 200, 100)):  # fmt: skip
        deltas.add(sql, now - timedelta(hours=hours, seconds=5), model=name, status_code=status, duration_ms=ms)  # fmt: skip

    def calls(**since: str) -> dict[str, Any]:
        (shown,) = admin.get("/models", alias=name, include="calls", **since).json["data"]
        return dict(shown["calls"])

    day = calls()
    assert (day["requests"], day["errors"], day["refused"], Decimal(day["cost"])) == (4, 2, 1, Decimal("0.4"))  # fmt: skip
    assert (day["last_hour_requests"], day["last_hour_errors"], day["last_hour_refused"]) == (2, 1, 0)  # fmt: skip
    assert 95 <= day["p50_latency_ms"] <= 105
    assert 855 <= day["p95_latency_ms"] <= 945
    assert calls(since=(now - timedelta(days=3)).isoformat())["requests"] == 5
    quarter = calls(since=(now - timedelta(minutes=15)).isoformat())
    assert (quarter["requests"], quarter["last_hour_requests"]) == (2, 2)
    folding.fold(sql, 1000)
    assert (calls() | {"since": None}) == (day | {"since": None}), "sums say what deltas have said"
    sql.execute("DELETE FROM usage_deltas")


def test_calls_are_for_those_who_see_analytics(
    admin: Admin, client: FlaskClient, cast: Cast
) -> None:
    path = f"{ADMIN}/models/{admin.model(everyone=True)['id']}?include=calls"
    assert "calls" in client.get(path, headers=Cast.headers("viewer")).json
    assert "calls" not in client.get(path, headers=Cast.headers("alice")).json


def test_an_alias_is_found_exactly(admin: Admin) -> None:
    name = unique("exact")
    admin.model(alias=name)
    admin.model(alias=f"{name}-more")
    assert aliases(admin.get("/models", alias=name)) == [name]
    assert aliases(admin.get("/models", alias=name.upper())) == []


def test_inactive_and_deleted_models_are_shown_to_administrators_on_request(
    admin: Admin, alice: Callable[..., Any], sql: psycopg.Connection
) -> None:
    marker = unique("state")
    live, asleep, gone = (
        admin.model(alias=f"{marker}-{name}", everyone=True) for name in ("live", "asleep", "gone")
    )
    sql.execute("UPDATE deployed_models SET status = 'inactive' WHERE id = %s", (asleep["id"],))
    admin.delete(f"/models/{gone['id']}")

    def listed(get: Callable[..., Any], **query: str) -> set[str]:
        return {alias.removeprefix(marker + "-") for alias in aliases(get("/models", search=marker, **query))}  # fmt: skip

    assert listed(admin.get) == {"live"}
    assert listed(admin.get, deleted="true") == {"live", "gone"}
    assert listed(admin.get, inactive="true") == {"asleep"}
    assert listed(alice, deleted="true", inactive="false") == {"live"}
    assert listed(alice, inactive="true") == {"live"}
    shown = admin.get(f"/models/{asleep['id']}", inactive="true").json
    assert (shown["activity_status"], shown["deleted"]) == ("inactive", False)
    assert admin.get(f"/models/{asleep['id']}").status_code == 404
    assert alice(f"/models/{gone['id']}", deleted="true").status_code == 404


# --- finding


def test_the_list_is_filtered(
    admin: Admin, group: Callable[..., UUID], sql: psycopg.Connection
) -> None:
    marker = unique("find")
    server = admin.endpoint(name=f"{marker}-server")
    one = admin.model(
        alias=f"{marker}-one",
        model_type="EMBEDDINGS",
        capabilities=["vision", "tools"],
        metadata={"provider": "Acme"},
    )
    two = admin.model(alias=f"{marker}-two", model_type="CHAT", hosted_on=server)
    members = group()
    admin.post(f"/groups/{members}/models/{one['id']}")

    def found(search: str | None = marker, **query: Any) -> list[str]:
        return sorted(aliases(admin.get("/models", search=search, **query)))

    a, b = one["alias"], two["alias"]
    assert found() == [a, b]
    assert found(model_type="EMBEDDINGS") == [a]
    assert found(capability="tools") == [a]
    assert found(capability="nothing") == []
    assert found(provider="aCME") == [a]
    assert found(endpoint=server) == [b]
    assert found(group=f"{members}, {uuid.uuid4()}") == [a]
    assert found(is_composite="false") == [a, b]
    assert found(is_composite="true") == []
    assert found(search=f"{marker}-SERVER") == [b]
    assert found(search=two["model_name"]) == [b]
    assert found(search="%") == []
    assert found(search="  ", model_type="EMBEDDINGS", group=str(members)) == [a]


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"sort": "nonsense"}, 400, "sort"),
        ({"sort_direction": "up"}, 400, "sort_direction"),
        ({"model_type": "chat"}, 400, "model_type"),
        ({"is_composite": "1"}, 400, "is_composite"),
        ({"group": "nonsense"}, 400, "Invalid group ID format. Expected comma-separated UUIDs."),
        ({"endpoint": "nonsense"}, 400, "endpoint"),
        ({"endpoint": str(UUID(int=1))}, 404, f"endpoint with ID {UUID(int=1)} not found"),
        ({"limit": "x"}, 400, "limit"),
    ],
)
def test_a_bad_query_is_refused(
    admin: Admin, query: dict[str, str], status: int, message: str
) -> None:
    answer = admin.get("/models", **query)
    assert answer.status_code == status
    assert message in answer.json["message"]


def test_the_list_is_sorted(admin: Admin) -> None:
    marker = unique("sort")

    def add(name: str, price: str | None = None, **metadata: Any) -> None:
        priced = {"input_price_per_token": price}
        tariffs = [REALTIME | priced, DAY | priced] if price else []
        admin.model(alias=f"{marker}-{name}", metadata=metadata, tariffs=tariffs)

    add(
        "b",
        "0.1",
        intelligence_index=9,
        released_at="2026-01-01",
        context_window=9000,
        provider="zeta",
    )
    add(
        "a",
        "0.0001",
        intelligence_index=57.5,
        released_at="2025-01-01",
        context_window=100000,
        provider="Alpha",
    )
    add("c")  # fmt: skip

    def sort(by: str | None = None, direction: str | None = None) -> str:
        query = {"sort": by, "sort_direction": direction}
        given = {name: value for name, value in query.items() if value}
        return "".join(alias[-1] for alias in aliases(admin.get("/models", search=marker, **given)))

    assert sort() == "cab"
    assert sort("created_at", "asc") == "bac"
    assert sort("alias") == "abc"
    assert sort("alias", "desc") == "cba"
    assert sort("intelligence_index") == "abc"
    assert sort("intelligence_index", "asc") == "bac"
    assert sort("released_at") == "bac"
    assert sort("context_window") == "abc"
    assert sort("provider") == "abc"
    assert sort("provider", "desc") == "bac"
    assert sort("price_from") == "abc"
    assert sort("price_from", "desc") == "bac"


def test_facets_are_what_occurs_whatever_is_searched_for(
    admin: Admin, alice: Callable[..., Any], group: Callable[..., UUID]
) -> None:
    members = group("alice")
    for name, kind in (("zeta", "CHAT"), ("alpha", "EMBEDDINGS")):
        made = admin.model(
            model_type=kind, capabilities=[name, "tools"], metadata={"provider": name}
        )
        admin.post(f"/groups/{members}/models/{made['id']}")
    query = {"group": str(members), "search": "nothing-like-it", "limit": "1"}
    body = alice("/models", include="facets", **query).json
    assert body["data"] == []
    assert body["facets"] == {
        "providers": ["alpha", "zeta"],
        "capabilities": ["alpha", "tools", "zeta"],
        "model_types": ["CHAT", "EMBEDDINGS"],
    }
    assert "facets" not in alice("/models", **query).json
    chat = alice("/models", include="facets", model_type="CHAT", **query).json["facets"]
    assert chat["providers"] == ["zeta"]


def test_pages_do_not_overlap(admin: Admin) -> None:
    marker = unique("page")
    made = [admin.model(alias=f"{marker}-{n}")["alias"] for n in range(5)]
    pages = [admin.get("/models", search=marker, skip=skip, limit=2).json for skip in (0, 2, 4)]
    assert [row["alias"] for page in pages for row in page["data"]] == made[::-1]
    assert {(page["total_count"], page["limit"]) for page in pages} == {(5, 2)}


def test_aliases_are_exact(admin: Admin) -> None:
    """Case and composition tell them apart, as they do in calls; space around them does not."""
    alias, on = unique("Caf\u00e9"), admin.endpoint()
    for other in (alias.lower(), alias.upper(), alias.replace("\u00e9", "e\u0301"), f"{alias} x"):
        assert admin.model(alias=other, hosted_on=on)["alias"] == other
    assert admin.model(alias=f"\u2003{alias}\t ".replace("\t", ""), hosted_on=on)["alias"] == alias
    body = {"type": "standard", "model_name": "m", "alias": f" {alias} ", "hosted_on": on}
    assert admin.post("/models", body).status_code == 409
    assert admin.post("/models", body | {"alias": "a\nb"}).status_code == 422
    assert admin.post("/models", body | {"alias": "x" * 513}).status_code == 422
    # No call could name these.
    for unseen in ("a\u202eb", "a\u200bb", "a\u00a0b"):
        refused = admin.post("/models", body | {"alias": unseen})
        assert (refused.status_code, "not seen" in refused.text) == (422, True)
