"""`dwctl endpoints`, `models`, `composites` and `tools`: what changes there by command, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from flask import Flask
from requests_mock import Mocker

from tests.cast import Cast
from tests.commands.test_catalog_and_credits import URL, Shell, refused, unique

Sql = psycopg.Connection[Any]


@pytest.fixture
def dwctl(app: Flask, cast: Cast) -> Shell:
    return Shell(app)


@pytest.fixture
def server(dwctl: Shell) -> str:
    """The name of an endpoint that nobody asked for models."""
    name = unique("server")
    dwctl.json("endpoints", "add", name, URL, "--no-sync")
    return name


@pytest.fixture
def model(dwctl: Shell, server: str) -> str:
    alias = unique("m")
    dwctl.json("models", "add", alias, "--endpoint", server)
    return alias


def test_an_endpoint_is_shown_changed_and_removed(dwctl: Shell, server: str, sql: Sql) -> None:
    changed = dwctl.json(
        "endpoints", "set", server, "description=A = B", "url=http://moved.example",
        "first_byte_timeout_seconds=90", "model_filter=a, b/c",
    )  # fmt: skip
    assert (changed["description"], changed["url"]) == ("A = B", "http://moved.example/")
    assert (changed["first_byte_timeout_seconds"], changed["model_filter"]) == (90.0, ["a", "b/c"])
    assert dwctl.json("endpoints", "show", server) == changed
    assert dwctl.json("endpoints", "set", server, "description=null")["description"] is None
    assert dwctl("endpoints", "set-api-key", server, stdin="hush\n").exit_code == 0
    shown = dwctl("endpoints", "show", server)
    assert "requires_api_key            yes" in shown.output
    assert "hush" not in shown.output
    dwctl("endpoints", "set-api-key", server, stdin="\n")
    assert dwctl.json("endpoints", "show", server)["requires_api_key"] is False
    assert dwctl("endpoints", "remove", server, stdin="n\n").exit_code == 1
    assert dwctl("endpoints", "remove", server, "--yes").exit_code == 0
    refused(dwctl("endpoints", "show", server), f"There is no endpoint with the name {server}")


def test_an_endpoint_is_tried_and_synchronised(
    dwctl: Shell, server: str, model: str, requests_mock: Mocker
) -> None:
    new = unique("n")
    requests_mock.get(f"{URL}/models", json={"data": [{"id": new}, {"id": f" {model}"}]})
    tried = dwctl.json("endpoints", "validate", server)
    assert [row["model"] for row in tried] == [new, f" {model}"]
    done = dwctl.json("endpoints", "sync", server)
    assert (done["new_models_created"], done["models_deactivated"]) == (1, 1)
    assert done["aliases_taken"] == [model]
    requests_mock.get(f"{URL}/models", text="<html>")
    for command in ("validate", "sync"):
        refused(dwctl("endpoints", command, server), f"{URL}/models did not answer JSON")


def test_aliases_are_mapped(dwctl: Shell, server: str, model: str) -> None:
    new = unique("renamed")
    dwctl.json("endpoints", "set", server, f"alias_mapping={json.dumps({model: new})}")
    assert dwctl.json("models", "show", new)["model_name"] == model


def test_a_model_is_changed_as_by_the_admin_api(dwctl: Shell, model: str) -> None:
    tariff = {"name": "t", "input_price_per_token": 0.0000001, "output_price_per_token": 1e-7, "api_key_purpose": "realtime"}  # fmt: skip
    new = unique("12")
    changed = dwctl.json(
        "models", "set", model, f"alias={new}", "display_name=Mine", "requests_per_second=0.5", "capabilities=vision,reasoning",
        f"tariffs={json.dumps([tariff])}", 'metadata={"provider": "acme", "extra": {"a": 1.5}}',
    )  # fmt: skip
    assert (changed["alias"], changed["display_name"]) == (new, "Mine")
    assert (changed["requests_per_second"], changed["capabilities"]) == (0.5, ["vision", "reasoning"])  # fmt: skip
    assert changed["tariffs"][0]["input_price_per_token"] == "0.00000010"
    assert changed["metadata"] == {"provider": "acme", "extra": {"a": 1.5}}
    again = dwctl.json("models", "set", new, "requests_per_second=null", "tariffs=[]")
    assert "requests_per_second" not in again
    assert again["tariffs"] == []
    assert dwctl("models", "remove", new, "--yes").exit_code == 0
    refused(dwctl("models", "show", new), f"There is no model with the alias {new}")


def test_a_model_is_granted_and_taken_away(dwctl: Shell, model: str, sql: Sql) -> None:
    name = unique("group")
    sql.execute("INSERT INTO groups (name, created_by, source) VALUES (%s, %s, 'native')", (name, "00000000-0000-0000-0000-000000000000"))  # fmt: skip
    for _ in range(2):
        assert dwctl("models", "grant", model, name).exit_code == 0
        assert dwctl("models", "grant", model, "--everyone").exit_code == 0
    assert dwctl.json("models", "show", model)["groups"] == [name, "Everyone"]
    assert dwctl("models", "revoke", model, name).exit_code == 0
    refused(dwctl("models", "revoke", model, name), f"{model} is not granted to {name}")
    refused(
        dwctl("models", "grant", model, "nobodys"), "There is no group with the name or ID nobodys"
    )
    for given in ([], [name, "--everyone"]):
        refused(dwctl("models", "grant", model, *given), "Name a group, or say --everyone")


@pytest.mark.parametrize(
    ("assignment", "reason"),
    [("alias", "alias: expected FIELD=VALUE"),
     ("alias=", "Model name and alias must not be empty or whitespace"),
     ("colour=red", "colour is no field that can be set; these are: alias, "),
     ("capacity=many", "capacity: Not a valid integer."),
     ("capacity=0", "capacity must be greater than zero"),
     ("requests_per_second=NaN", "These values are not valid JSON"),
     ('tariffs=[{"name": "t"}]', "tariffs.0.input_price_per_token: Missing data"),
     ("lb_strategy=priority", "lb_strategy is for composite models"),
     ("is_composite=true", "A model stays standard or composite")],
)  # fmt: skip
def test_what_the_admin_api_refuses_is_refused_in_one_line(
    dwctl: Shell, model: str, assignment: str, reason: str
) -> None:
    before = dwctl.json("models", "show", model)
    result = dwctl("models", "set", model, assignment)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {reason}"), result.stderr
    assert result.stderr.count("\n") == 1
    assert dwctl.json("models", "show", model) == before


def test_a_taken_alias_is_refused(dwctl: Shell, model: str, server: str) -> None:
    other = unique("m")
    dwctl.json("models", "add", other, "--endpoint", server)
    result = dwctl("models", "set", other, f"alias={model}")
    refused(result, "The specified alias is already in use. Please choose a different alias.")


def test_a_component_is_changed(dwctl: Shell, model: str) -> None:
    both = unique("both")
    dwctl.json("composites", "add", both, "--component", model, "5")
    changed = dwctl.json("composites", "set-component", both, model, "--weight", "7", "--disable")
    assert (changed["weight"], changed["enabled"], changed["place"]) == (7, False, 0)
    back = dwctl.json("composites", "set-component", both, model, "--place", "2", "--enable")
    assert (back["weight"], back["enabled"], back["place"]) == (7, True, 2)
    refused(dwctl("composites", "set-component", both, both), f"{both} does not serve under {both}")
    assert dwctl("composites", "remove-component", both, model).exit_code == 0
    set_to = dwctl.json("models", "set", both, "lb_strategy=priority", "fallback_on_status=[429,5]")
    assert (set_to["lb_strategy"], set_to["fallback"]["on_status"]) == ("priority", [429, 5])


def test_tools_are_kept_attached_and_removed(dwctl: Shell, model: str) -> None:
    name = unique("tool")
    made = dwctl.json("tools", "add", name, "https://tools.example/", "--api-key-stdin", stdin="hush\n")  # fmt: skip
    assert (made["name"], made["has_api_key"]) == (name, True)
    changed = dwctl.json("tools", "set", name, 'parameters={"type": "object"}', "timeout_secs=5")
    assert (changed["parameters"], changed["timeout_secs"]) == ({"type": "object"}, 5)
    assert changed in dwctl.json("tools", "list")
    assert name in dwctl("tools", "list").output
    assert dwctl("tools", "attach", name, "--model", model, "--group", "Everyone").exit_code == 0
    assert dwctl("tools", "detach", name, "--model", model).exit_code == 0
    assert "not found" in dwctl("tools", "detach", name, "--model", model).stderr
    refused(dwctl("tools", "attach", name), "Say --model, --group or both")
    refused(dwctl("tools", "set", name, "timeout_secs=0"), "timeout_secs must be positive")
    assert dwctl("tools", "remove", name, "--yes").exit_code == 0
    refused(dwctl("tools", "set", name, "timeout_secs=5"), f"There is no tool with the name {name}")
