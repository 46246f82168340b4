"""Composite models and what they are made of, through the admin API."""

from __future__ import annotations

import threading
import uuid
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.cast import Cast
from tests.catalog.conftest import ADMIN, Admin, unique

NOBODY = "0199a8f1-7c5e-7d3a-9b64-5e1f0c2d8a47"
ADAPTED = {"trusted": False, "open_responses_adapter": True}


def composite(admin: Admin, **more: Any) -> dict[str, Any]:
    body = {"type": "composite", "model_name": unique("composite")} | more
    answer = admin.post("/models", body)
    assert answer.status_code == 200, answer.json
    return dict(answer.json)


def add(admin: Admin, to: dict[str, Any], model: dict[str, Any], **fields: Any) -> Any:
    return admin.post(f"/models/{to['id']}/components/{model['id']}", fields)


def listed(admin: Admin, of: dict[str, Any]) -> list[str]:
    answer = admin.get(f"/models/{of['id']}/components")
    assert answer.status_code == 200, answer.json
    return [component["model"]["id"] for component in answer.json]


# --- the composite model


def test_a_composite_model_has_a_strategy_and_a_fallback_and_no_endpoint(admin: Admin) -> None:
    made = composite(admin, lb_strategy="priority", fallback_on_status=[500, 5, 42])
    assert "hosted_on" not in made
    assert made["is_composite"] is True
    assert made["lb_strategy"] == "priority"
    assert made["fallback"] == {
        "enabled": True,
        "on_rate_limit": True,
        "on_status": [500, 5, 42],
        "with_replacement": False,
    }
    standard = admin.model()
    assert standard.keys().isdisjoint({"lb_strategy", "fallback", "components"})


def test_what_is_not_said_has_its_default(admin: Admin) -> None:
    answer = admin.post("/models", {"is_composite": True, "model_name": unique("composite")})
    assert answer.status_code == 200, answer.json
    assert answer.json["lb_strategy"] == "weighted_random"
    assert answer.json["fallback"]["on_status"] == [500, 502, 503, 504]


def test_a_composite_model_has_all_that_models_have(admin: Admin) -> None:
    price = {"name": "p", "input_price_per_token": "0.1", "output_price_per_token": "0.2"}
    fields = {
        "requests_per_second": 0.5,
        "burst_size": 2,
        "capacity": 3,
        "tokens_per_minute": 4,
        "sanitize_responses": True,
        "traffic_routing_rules": [{"api_key_purpose": "batch", "action": {"type": "deny"}}],
    }
    made = composite(admin, **fields, tariffs=[price])
    shown = admin.get(f"/models/{made['id']}", include="pricing,components,endpoints,groups").json
    assert {name: shown[name] for name in fields} == fields
    assert [tariff["name"] for tariff in shown["tariffs"]] == ["p"]
    assert shown["components"] == []
    assert "endpoint" not in shown


def test_strategy_and_fallback_change_and_the_attempts_can_be_cleared(admin: Admin) -> None:
    id = composite(admin)["id"]
    changes = {
        "lb_strategy": "priority",
        "fallback_enabled": False,
        "fallback_on_rate_limit": False,
        "fallback_on_status": [],
        "fallback_with_replacement": True,
        "fallback_max_attempts": 7,
    }
    changed = admin.patch(f"/models/{id}", changes).json
    wanted = {
        "enabled": False,
        "on_rate_limit": False,
        "on_status": [],
        "with_replacement": True,
        "max_attempts": 7,
    }
    assert (changed["lb_strategy"], changed["fallback"]) == ("priority", wanted)
    kept = admin.patch(f"/models/{id}", dict.fromkeys(changes)).json
    del wanted["max_attempts"]
    assert (kept["lb_strategy"], kept["fallback"]) == ("priority", wanted)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        pytest.param({"lb_strategy": "other"}, 422, "lb_strategy", id="unknown strategy"),
        pytest.param({"fallback_on_status": [0]}, 400, "fallback_on_status", id="status 0"),
        pytest.param({"fallback_on_status": [500, 600]}, 400, "fallback_on_status", id="status 600"),
        pytest.param({"fallback_on_status": [-5]}, 400, "fallback_on_status", id="status below zero"),
        pytest.param({"fallback_on_status": ["500"]}, 422, "fallback_on_status", id="a text"),
        pytest.param({"fallback_on_status": [None]}, 422, "fallback_on_status", id="a null"),
        pytest.param({"fallback_on_status": [500] * 101}, 422, "fallback_on_status", id="too many statuses"),
        pytest.param({"fallback_max_attempts": 0}, 400, "fallback_max_attempts", id="no attempts"),
        pytest.param({"type": "standard"}, 400, "stays standard or composite", id="to standard by type"),
        pytest.param({"is_composite": False}, 400, "stays standard or composite", id="to standard"),
        pytest.param({"type": "composite", "is_composite": False}, 422, "is_composite", id="both"),
        pytest.param({"capacity": 0}, 400, "capacity", id="no capacity"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    admin: Admin, change: dict[str, Any], status: int, message: str
) -> None:
    made = composite(admin)
    refused = admin.patch(f"/models/{made['id']}", change)
    assert (refused.status_code, message in refused.json["message"]) == (status, True), refused.json
    shown = admin.get(f"/models/{made['id']}").json
    assert {**shown, "updated_at": 0} == {**made, "updated_at": 0}


def test_a_standard_model_does_not_become_composite(admin: Admin) -> None:
    id = admin.model()["id"]
    for change in ({"type": "composite"}, {"is_composite": True}):
        refused = admin.patch(f"/models/{id}", change)
        assert (refused.status_code, refused.json["code"]) == (400, "model_kind_is_fixed")
    for change in ({"type": "standard"}, {"is_composite": False}, {"is_composite": None}):
        assert admin.patch(f"/models/{id}", change).status_code == 200


# --- components


def test_a_component_is_answered_with_its_model(admin: Admin) -> None:
    both = composite(admin)
    name = unique("server")
    endpoint = admin.endpoint(name=name)
    one = admin.model(hosted_on=endpoint, description="One", model_type="CHAT")
    answer = add(admin, both, one, weight=10)
    assert (answer.status_code, answer.json) == (
        200,
        {
            "weight": 10,
            "enabled": True,
            "sort_order": 0,
            "created_at": answer.json["created_at"],
            "model": {
                "id": one["id"],
                "alias": one["alias"],
                "model_name": one["model_name"],
                "description": "One",
                "model_type": "CHAT",
                "endpoint": {"id": endpoint, "name": name},
                **ADAPTED,
            },
        },
    )
    assert admin.get(f"/models/{both['id']}/components").json == [answer.json]
    assert admin.get(f"/models/{both['id']}", include="components").json["components"] == [answer.json]  # fmt: skip
    found = admin.get("/models", search=both["alias"], include="components").json["data"]
    assert [model["components"] for model in found] == [[answer.json]]
    changed = admin.patch(
        f"/models/{both['id']}/components/{one['id']}",
        {"weight": 20, "enabled": False, "sort_order": -3},
    )
    assert changed.json == answer.json | {"weight": 20, "enabled": False, "sort_order": -3}
    kept = admin.patch(
        f"/models/{both['id']}/components/{one['id']}",
        {"weight": None, "enabled": None, "sort_order": None},
    )
    assert kept.json == changed.json


def test_components_come_by_place_then_weight_then_age(admin: Admin) -> None:
    both = composite(admin)
    models = [admin.model() for _ in range(5)]
    places = [(1, 1), (0, 1), (0, 5), (0, 1), (-1, 1)]
    for model, (place, weight) in zip(models, places, strict=True):
        add(admin, both, model, sort_order=place, weight=weight)
    assert listed(admin, both) == [models[n]["id"] for n in (4, 2, 1, 3, 0)]


def test_a_component_is_removed_once(admin: Admin) -> None:
    both, one = composite(admin), admin.model()
    add(admin, both, one)
    path = f"/models/{both['id']}/components/{one['id']}"
    gone = admin.delete(path)
    assert (gone.status_code, gone.json) == (200, "Component removed")
    for again in (admin.delete(path), admin.patch(path, {"weight": 2})):
        assert again.status_code == 404
        assert again.json["message"] == f"component with ID {both['id']}/{one['id']} not found"
    assert add(admin, both, one).status_code == 200


def test_refusals_say_what_is_wrong(admin: Admin) -> None:
    both, other, one = composite(admin), composite(admin), admin.model()
    assert add(admin, both, one).status_code == 200
    path = f"/models/{both['id']}/components/"
    cases: list[tuple[Any, int, str]] = [
        (add(admin, both, one), 409, "Resource already exists"),
        (admin.post(path + NOBODY, {}), 404, f"component model with ID {NOBODY} not found"),
        (add(admin, both, both), 400, "Cannot add a composite model as a component"),
        (add(admin, both, other), 400, "Cannot add a composite model as a component"),
        (add(admin, one, one), 400, "Model is not a composite model"),
        (admin.get(f"/models/{one['id']}/components"), 400, "Model is not a composite model"),
        (admin.get(f"/models/{NOBODY}/components"), 404, f"Deployment with ID {NOBODY} not found"),
        (admin.post(f"/models/{NOBODY}/components/{one['id']}", {}), 404, f"Deployment with ID {NOBODY} not found"),
        (add(admin, both, admin.model(), weight=0), 400, "Weight must be between 1 and 100"),
        (add(admin, both, admin.model(), weight=101), 400, "Weight must be between 1 and 100"),
        (admin.patch(path + one["id"], {"weight": -1}), 400, "Weight must be between 1 and 100"),
        (admin.patch(path + one["id"], {"weight": 1.5}), 422, "weight: Not a valid integer."),
        (admin.patch(path + one["id"], {"weight": 2**40}), 422, "weight: Must be greater"),
        (admin.patch(path + one["id"], {"sort_order": 2**31}), 422, "sort_order: Must be greater"),
        (admin.patch(path + one["id"], {"enabled": "perhaps"}), 422, "enabled: Not a valid boolean."),
        (admin.post(path + "x", {}), 400, "Invalid ID format"),
    ]  # fmt: skip
    for number, (answer, status, message) in enumerate(cases):
        assert answer.status_code == status, (number, answer.json)
        assert answer.json["message"].startswith(message), (number, answer.json)
    assert listed(admin, both) == [one["id"]]


def test_a_deleted_model_leaves_its_composites(admin: Admin) -> None:
    both, one, two = composite(admin), admin.model(), admin.model()
    add(admin, both, one)
    add(admin, both, two)
    assert admin.delete(f"/models/{one['id']}").json == one["id"]
    assert listed(admin, both) == [two["id"]]
    assert add(admin, both, one).status_code == 404
    path = f"/models/{both['id']}/components/{one['id']}"
    assert admin.patch(path, {"weight": 2}).status_code == 404
    assert admin.delete(path).status_code == 404
    assert admin.delete(f"/endpoints/{two['hosted_on']}").status_code == 204
    assert listed(admin, both) == []
    assert admin.delete(f"/models/{both['id']}").json == both["id"]
    assert admin.get(f"/models/{both['id']}/components").status_code == 404


def test_only_those_who_manage_models_see_and_change_components(
    admin: Admin, client: FlaskClient
) -> None:
    both, one = composite(admin), admin.model()
    path = f"{ADMIN}/models/{both['id']}/components"
    alice = Cast.headers("alice")
    for answer in (
        client.get(path, headers=alice),
        client.post(f"{path}/{one['id']}", json={}, headers=alice),
        client.patch(f"{path}/{one['id']}", json={}, headers=alice),
        client.delete(f"{path}/{one['id']}", headers=alice),
    ):
        assert answer.status_code == 403, answer.json
    assert client.get(path).status_code == 401
    admin.post(f"/groups/{UUID(int=0)}/models/{both['id']}")
    seen = client.get(
        f"{ADMIN}/models/{both['id']}", query_string={"include": "components"}, headers=alice
    )
    hidden = {"components", "lb_strategy", "fallback", "is_composite", "refuse_unrunnable_tools", "tokens_per_minute"}  # fmt: skip
    assert seen.status_code == 200
    assert seen.json.keys().isdisjoint(hidden)


def test_two_who_add_the_same_component_at_once_add_it_once(admin: Admin, app: Flask) -> None:
    both, one = composite(admin), admin.model()
    statuses: list[int] = []

    def go() -> None:
        statuses.append(add(Admin(app.test_client()), both, one).status_code)

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 409, 409, 409]
    assert listed(admin, both) == [one["id"]]


# --- what the database refuses by itself

Sql = psycopg.Connection[Any]


@pytest.mark.parametrize(
    ("composite_side", "component_side"),
    [("standard", "standard"), ("composite", "composite"), ("standard", "composite"), ("composite", "itself")],
)  # fmt: skip
def test_the_database_knows_which_kind_stands_where(
    admin: Admin, sql: Sql, composite_side: str, component_side: str
) -> None:
    make = {"standard": admin.model, "composite": lambda: composite(admin)}
    one = make[composite_side]()
    other = one if component_side == "itself" else make[component_side]()
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute(
            "INSERT INTO deployed_model_components (composite_model_id, deployed_model_id) VALUES (%s, %s)",
            (one["id"], other["id"]),
        )


def test_the_kind_of_a_model_in_use_cannot_change(admin: Admin, sql: Sql) -> None:
    both, one = composite(admin), admin.model()
    add(admin, both, one)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute(
            "UPDATE deployed_models SET is_composite = true, hosted_on = NULL WHERE id = %s",
            (one["id"],),
        )
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        sql.execute(
            "UPDATE deployed_models SET is_composite = false, hosted_on = %s WHERE id = %s",
            (one["hosted_on"], both["id"]),
        )


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        *(("deployed_models", "requests_per_second", value) for value in ("0", "-1", "'NaN'", "'Infinity'")),
        *(("deployed_models", name, "0") for name in ("burst_size", "capacity", "batch_capacity", "tokens_per_minute", "fallback_max_attempts")),
        *(("deployed_models", "fallback_on_status", value) for value in ("'{0}'", "'{600}'", "'{500,NULL}'")),
        ("deployed_models", "lb_strategy", "'other'"),
        *(("api_keys", "requests_per_second", value) for value in ("0", "-1", "'NaN'", "'Infinity'")),
        *(("api_keys", name, "0") for name in ("burst_size", "capacity", "tokens_per_minute")),
        *(
            ("inference_endpoints", f"{name}_timeout_seconds", value)
            for name in ("connect", "first_byte", "idle", "total")
            for value in ("0", "-1", "'NaN'", "'Infinity'", "86400.5")
        ),
        ("deployed_model_components", "weight", "0"),
        ("deployed_model_components", "weight", "101"),
    ],
    ids=str,
)  # fmt: skip
def test_the_database_refuses_numbers_that_mean_nothing(
    admin: Admin, sql: Sql, cast: Cast, table: str, column: str, value: str
) -> None:
    add(admin, composite(admin), admin.model())
    sql.execute(
        "INSERT INTO api_keys (name, user_id, created_by, secret_hash) VALUES (%(n)s, %(u)s, %(u)s, %(h)s)",
        {"n": unique("key"), "u": cast["alice"], "h": uuid.uuid4().bytes},
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        sql.execute(f"UPDATE {table} SET {column} = {value}")
