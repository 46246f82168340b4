"""Files of examples, from the registration to the file that a batch can be made from."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from flask import Flask

from dwctl import config
from dwctl.config import Settings
from dwctl.db import connect
from dwctl.files import duties, samples
from dwctl.files.custom_ids import CustomIds
from dwctl.files.lines import LineChecker, Rules, UsableModel
from tests.applications import application
from tests.cast import Cast
from tests.catalog.conftest import Admin, admin  # noqa: F401
from tests.files.shelf import FILES, Shelf, unique


@pytest.fixture(scope="module")
def environ(environ: dict[str, str]) -> dict[str, str]:
    return environ | {
        "DWCTL_AUTH__DEFAULT_USER_ROLES": "StandardUser,BatchAPIUser",
        "DWCTL_AUTH__PROXY_HEADER__AUTO_CREATE_USERS": "true",
        "DWCTL_SAMPLE_FILES__REQUESTS_PER_FILE": "12",
    }


@pytest.fixture
def settings(environ: dict[str, str]) -> Settings:
    return config.load(environ)


def run(settings: Settings) -> None:
    with connect(settings) as connection, connection.transaction():
        duties.make_samples(connection, settings)


def files_of(app: Flask, client: Any) -> dict[str, Any]:
    answer = client.get(FILES)
    assert answer.status_code == 200, answer.text
    return {file["filename"]: file for file in answer.json["data"]}


def register(app: Flask) -> tuple[Any, str]:
    client, name = app.test_client(), unique("new")
    body = {"username": name, "email": f"{name}@new.example", "password": "a-good-password"}
    answer = client.post("/authentication/register", json=body)
    assert answer.status_code == 201, answer.text
    return client, answer.json["user"]["id"]


def test_newcomers_find_a_file_for_each_kind_of_model(
    shelf: Shelf, admin: Admin, settings: Settings  # noqa: F811
) -> None:  # fmt: skip
    early, _ = register(shelf.app)
    run(settings)
    assert files_of(shelf.app, early) == {}
    for alias, more in (
        ("z-chat", {"model_type": "CHAT"}),
        ("a-forbidden", {"model_type": "CHAT"}),
        ("z-vision", {"model_type": "CHAT", "capabilities": ["vision"]}),
        ("z-embed", {"model_type": "EMBEDDINGS"}),
    ):
        admin.model(alias=alias, everyone=alias != "a-forbidden", **more)
        shelf.sql.execute(
            "UPDATE deployed_models SET type = %s, capabilities = %s WHERE alias = %s",
            (more["model_type"], more.get("capabilities"), alias),
        )
    client, user = register(shelf.app)
    by_header = unique("header")
    assert shelf(by_header, "GET").json["data"] == []  # type: ignore[index]
    run(settings)
    run(settings)
    found = files_of(shelf.app, client)
    assert set(found) == {"Sample: Chat Completions", "Sample: Embeddings", "Sample: Vision"}
    for file in found.values():
        assert file["status"] == "processed"
        assert file["expires_at"] > file["created_at"]
        assert file["created_by_email"].endswith("@new.example")
        assert shelf.templates(file["id"]) == 12
    models = shelf.sql.execute(
        "SELECT f.name, m.model, m.requests FROM fusillade.files f JOIN fusillade.file_models m ON m.file_id = f.id WHERE uploaded_by = %s ORDER BY 1",
        (user,),
    ).fetchall()
    assert models == [
        ("Sample: Chat Completions", "z-chat", 12),
        ("Sample: Embeddings", "z-embed", 12),
        ("Sample: Vision", "z-vision", 12),
    ]
    assert len(shelf.ids(by_header)) == 3
    # Who could not see them has none; nor has who was made by an administrator.
    made = unique("made")
    roles = ["StandardUser", "BatchAPIUser"]
    body = {"username": made, "email": f"{made}@cast.example", "roles": roles}
    assert admin.post("/users", body).status_code == 201
    nobodys, plain = register(shelf.app)
    shelf.sql.execute(
        "DELETE FROM user_roles WHERE user_id = %s AND role = 'BATCHAPIUSER'", (plain,)
    )
    run(settings)
    assert shelf.one("SELECT count(*) FROM fusillade.files WHERE uploaded_by = %s", plain) == 0
    assert nobodys.get(FILES).status_code == 403
    assert shelf.one("SELECT count(*) FROM newcomers") == 0


@pytest.mark.parametrize("kind", samples.SAMPLES)
def test_samples_are_right_in_strict_mode_too(kind: str) -> None:
    sample = samples.SAMPLES[kind]
    text = b"".join(samples.lines(sample, "m", 100))
    bodies = [orjson.loads(line)["body"] for line in text.splitlines()]
    assert len(bodies) == 100
    if kind != "vision":
        assert len({orjson.dumps(body) for body in bodies}) == 100
    type = "EMBEDDINGS" if kind == "embeddings" else "CHAT"
    rules = Rules(models={"m": UsableModel(type)}, paths=(sample.path,), strict=True)
    checker = LineChecker(rules, CustomIds(), most_errors=1)
    taken = [*checker.feed(text), *checker.finish()]
    assert not checker.errors
    assert len(taken) == 100


def test_none_are_made_where_they_are_switched_off(app: Flask, cast: Cast, environ: dict[str, str]) -> None:  # fmt: skip
    for off in ("DWCTL_SAMPLE_FILES__ENABLED", "DWCTL_BATCHES__ENABLED"):
        with application(environ | {off: "false"}) as other:
            _, user = register(other)
        with connect(config.load(environ)) as connection:
            row = connection.execute(
                "SELECT count(*) FROM newcomers WHERE user_id = %s", (user,)
            ).fetchone()
            assert row == (0,)
