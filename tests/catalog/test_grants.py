import uuid
from collections.abc import Callable
from uuid import UUID

import psycopg
import pytest

from tests.announced import announced
from tests.cast import Cast
from tests.catalog.conftest import Admin

EVERYONE = UUID(int=0)


def test_a_grant_is_idempotent_and_records_who_gave_it(
    admin: Admin, cast: Cast, sql: psycopg.Connection, group: Callable[..., UUID]
) -> None:
    id, model = group(), admin.model()["id"]
    for _ in range(2):
        answer = admin.post(f"/groups/{id}/models/{model}")
        assert (answer.status_code, answer.data) == (204, b"")
        assert "Content-Type" not in answer.headers
    row = sql.execute(
        "SELECT granted_by FROM deployment_groups WHERE deployment_id = %s", (model,)
    ).fetchall()
    assert row == [(cast["admin"],)]
    assert admin.get(f"/models/{model}/groups").json == [str(id)]
    assert admin.delete(f"/groups/{id}/models/{model}").status_code == 204
    assert admin.delete(f"/groups/{id}/models/{model}").status_code == 404
    assert admin.get(f"/models/{model}/groups").json == []


def test_the_models_of_a_group_are_listed_oldest_grant_first_without_deleted_ones(
    admin: Admin, group: Callable[..., UUID]
) -> None:
    id = group()
    models = [admin.model()["id"] for _ in range(3)]
    for model in models[::-1]:
        admin.post(f"/groups/{id}/models/{model}")
    admin.delete(f"/models/{models[1]}")
    assert admin.get(f"/groups/{id}/models").json == [models[2], models[0]]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", "/groups/{unknown}/models"),
        ("get", "/models/{unknown}/groups"),
        ("post", "/groups/{unknown}/models/{model}"),
        ("post", "/groups/{everyone}/models/{unknown}"),
        ("post", "/groups/{everyone}/models/{deleted}"),
        ("get", "/models/{deleted}/groups"),
        ("delete", "/groups/{everyone}/models/{model}"),
    ],
)
def test_unknown_groups_and_models_are_404(admin: Admin, method: str, path: str) -> None:
    deleted = admin.model()["id"]
    admin.delete(f"/models/{deleted}")
    full = path.format(
        unknown=uuid.uuid4(), everyone=EVERYONE, model=admin.model()["id"], deleted=deleted
    )
    assert getattr(admin, method)(full).status_code == 404


def test_a_malformed_id_is_400(admin: Admin) -> None:
    assert admin.get("/groups/nonsense/models").status_code == 400
    assert admin.post(f"/groups/{EVERYONE}/models/nonsense").status_code == 400


def test_groups_show_their_models_where_asked_for(admin: Admin, group: Callable[..., UUID]) -> None:
    id, model = group("alice"), admin.model()
    admin.post(f"/groups/{id}/models/{model['id']}")
    shown = admin.get("/groups", include="models", limit=101).json["data"]
    (models,) = (row["models"] for row in shown if row["id"] == str(id))
    assert models == [model]
    included = admin.get(f"/models/{model['id']}", include="groups").json["groups"]
    assert [row["id"] for row in included] == [str(id)]
    assert included[0]["source"] == "native"


def test_a_grant_is_announced_to_every_process(
    admin: Admin, sql: psycopg.Connection, group: Callable[..., UUID]
) -> None:
    id, model = group(), admin.model()["id"]
    with announced(sql, 2) as found:
        admin.post(f"/groups/{id}/models/{model}")
        admin.patch(f"/models/{model}", {"capacity": 3})
    assert found.tables == ["deployment_groups", "deployed_models"]
    assert found.rows == [f"deployment_groups:{model}", f"deployed_models:{model}"]
