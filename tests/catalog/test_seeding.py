"""What the settings bring along is there after the first release, and is not made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask

from dwctl import config
from dwctl.config import ConfigError
from dwctl.identity.bootstrap import bootstrap
from dwctl.web import current

SOURCES = [
    {
        "name": "vllm", "url": "http://vllm.example:8000", "api_key": "sk-upstream", "sync_interval": "10s",
        "default_models": [{"name": "llama", "add_to_everyone_group": True}, {"name": "bge-embed"}],
    },
    {"name": "bare", "url": "https://bare.example/v1"},
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_yet(app: Flask, sql: psycopg.Connection) -> Iterator[None]:
    sql.execute("TRUNCATE system_config, inference_endpoints, deployed_models CASCADE")
    with app.app_context():
        yield


def seed(sources: Any = SOURCES) -> None:
    loaded = config.load({"DWCTL_MODEL_SOURCES": json.dumps(sources)}).model_sources
    bootstrap(replace(current.settings(), model_sources=loaded))


def endpoints(sql: psycopg.Connection) -> dict[str, Any]:
    rows = sql.execute("SELECT name, url, api_key_sealed FROM inference_endpoints").fetchall()
    return {name: (url, sealed) for name, url, sealed in rows}


def test_sources_become_endpoints_with_their_credentials(sql: psycopg.Connection) -> None:
    seed()
    found = endpoints(sql)
    url, sealed = found["vllm"]
    assert url == "http://vllm.example:8000/"
    assert current.parts().sealer.open(sealed) == "sk-upstream"
    assert found["bare"] == ("https://bare.example/v1", None)
    models = sql.execute(
        "SELECT m.alias, m.model_name, g.group_id IS NOT NULL FROM deployed_models m"
        " LEFT JOIN deployment_groups g ON g.deployment_id = m.id ORDER BY 1 DESC"
    ).fetchall()
    assert models == [("llama", "llama", True), ("bge-embed", "bge-embed", False)]


def test_what_was_taken_away_or_changed_since_stays_so(sql: psycopg.Connection) -> None:
    seed()
    sql.execute("DELETE FROM deployed_models")
    sql.execute("DELETE FROM inference_endpoints WHERE name = 'vllm'")
    sql.execute("UPDATE inference_endpoints SET url = 'https://elsewhere.example/'")
    seed()
    assert endpoints(sql) == {"bare": ("https://elsewhere.example/", None)}


def test_a_deployment_without_sources_may_have_some_later(sql: psycopg.Connection) -> None:
    seed([])
    assert endpoints(sql) == {}
    seed()
    assert set(endpoints(sql)) == {"vllm", "bare"}


def test_what_is_there_is_left_alone(sql: psycopg.Connection) -> None:
    sql.execute("INSERT INTO inference_endpoints (name, url, created_by) SELECT 'bare', 'http://mine/', id FROM users LIMIT 1")  # fmt: skip
    seed()
    assert endpoints(sql)["bare"][0] == "http://mine/"
    assert "vllm" in endpoints(sql)


def test_a_credential_without_a_secret_key_is_refused(sql: psycopg.Connection) -> None:
    loaded = config.load({"DWCTL_MODEL_SOURCES": json.dumps(SOURCES)}).model_sources
    with pytest.raises(ConfigError, match="model_sources"):
        bootstrap(replace(current.settings(), model_sources=loaded, secret_key=None))
    assert endpoints(sql) == {}


@pytest.mark.parametrize(
    "text",
    [
        "x", "{}", "[1]", '["a"]', '[{"name": "a"}]', '[{"url": "http://x/"}]', '[{"name": " ", "url": "http://x/"}]', '[{"name": "a", "url": "ftp://x/"}]',
        '[{"name": "a", "url": "http://x/"}, {"name": "a", "url": "http://y/"}]', '[{"name": "a", "url": "http://x/", "colour": 1}]',
        '[{"name": "a", "url": "http://x/", "default_models": ["m"]}]', '[{"name": "a", "url": "http://x/", "default_models": [{"name": "m"}, {"name": "m"}]}]',
        '[{"name": "a", "url": "http://x/", "default_models": [{"add_to_everyone_group": true}]}]',
    ],
    ids=range(13),
)  # fmt: skip
def test_a_bad_source_stops_the_start(text: str) -> None:
    with pytest.raises(ConfigError, match="model_sources"):
        config.load({"DWCTL_MODEL_SOURCES": text})
