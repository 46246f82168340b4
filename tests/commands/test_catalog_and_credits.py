"""`dwctl endpoints`, `dwctl models` and `dwctl credits`, as an operator runs them."""

import json
import uuid
from typing import Any

import psycopg
import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskClient
from requests_mock import Mocker

from dwctl.commands.main import cli
from tests.cast import Cast

URL = "http://models.example/v1"


class Shell:
    """Runs commands against the test's application."""

    def __init__(self, app: Flask) -> None:
        self._runner = app.test_cli_runner()

    def __call__(self, *args: str, stdin: str | None = None) -> Result:
        return self._runner.invoke(cli, list(args), input=stdin)

    def json(self, *args: str, stdin: str | None = None) -> Any:
        result = self(*args, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def dwctl(app: Flask, cast: Cast) -> Shell:
    return Shell(app)


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def refused(result: Result, reason: str) -> None:
    assert result.exit_code == 1
    assert result.stderr == f"Error: {reason}\n"


# --- endpoints


def test_an_endpoint_comes_with_the_models_on_its_list(dwctl: Shell, requests_mock: Mocker) -> None:
    models = [unique("m"), unique("m")]
    requests_mock.get(f"{URL}/models", json={"data": [{"id": name} for name in models]})
    name = unique("server")
    made = dwctl.json("endpoints", "add", name, URL, "--api-key-stdin", stdin="secret\n")
    assert (made["name"], made["url"], made["api_key"], made["models"]) == (name, URL, True, 2)
    sent = requests_mock.last_request
    assert sent is not None
    assert sent.headers["Authorization"] == "Bearer secret"
    listed = {row["name"]: row for row in dwctl.json("endpoints", "list")}
    assert listed[name] == made
    assert name in dwctl("endpoints", "list").output


def test_a_second_server_with_models_of_the_same_names_is_told_what_to_do(
    dwctl: Shell, requests_mock: Mocker
) -> None:
    model, other = unique("m"), unique("m")
    requests_mock.get(f"{URL}/models", json={"data": [{"id": model}]})
    dwctl.json("endpoints", "add", unique("server"), URL)
    requests_mock.get(f"{URL}/models", json={"data": [{"id": model}, {"id": other}]})
    second = unique("server")
    result = dwctl("endpoints", "add", second, URL)
    assert result.exit_code == 1
    assert model in result.stderr
    assert other not in result.stderr
    assert "--no-sync" in result.stderr
    dwctl.json("endpoints", "add", second, URL, "--no-sync")


def test_an_endpoint_can_be_added_without_asking_it(dwctl: Shell, requests_mock: Mocker) -> None:
    made = dwctl.json("endpoints", "add", unique("s"), "http://host.example", "--no-sync", "--api-key", "k")  # fmt: skip
    assert (made["url"], made["api_key"], made["models"]) == ("http://host.example/", True, 0)
    assert requests_mock.call_count == 0


def test_a_server_that_refuses_us_is_named_in_one_line(dwctl: Shell, requests_mock: Mocker) -> None:
    requests_mock.get(f"{URL}/models", status_code=401, text="who are you")
    refused(dwctl("endpoints", "add", "x", URL), f"{URL}/models answered 401")


@pytest.mark.parametrize(
    ("name", "url", "more", "reason"),
    [
        (" ", URL, (), "name: Must not be blank."),
        ("x", "nonsense", (), "Invalid URL format"),
        ("x", URL, ("--api-key", "a\nb"), "api_key: Must not contain control characters."),
    ],
)
def test_a_bad_endpoint_is_refused_in_one_line(
    dwctl: Shell, name: str, url: str, more: tuple[str, ...], reason: str
) -> None:
    refused(dwctl("endpoints", "add", name, url, "--no-sync", *more), reason)


def test_a_taken_name_is_refused_in_one_line(dwctl: Shell) -> None:
    name = unique("s")
    dwctl.json("endpoints", "add", name, URL, "--no-sync")
    refused(
        dwctl("endpoints", "add", name, URL, "--no-sync"),
        "An endpoint with this name already exists",
    )


# --- models


@pytest.fixture
def server(dwctl: Shell) -> str:
    name = unique("server")
    dwctl.json("endpoints", "add", name, URL, "--no-sync")
    return name


def test_a_model_is_added_with_prices_per_million_tokens(
    dwctl: Shell, server: str, client: FlaskClient
) -> None:
    alias = unique("alias")
    made = dwctl.json(
        "models", "add", alias, "--endpoint", server, "--model-name", "org/model", "--type", "CHAT", "--everyone",
        "--input-price", "3", "--output-price", "0.6", "--batch-price", "24h", "1.5", "0.3",
    )  # fmt: skip
    assert made == {
        "id": made["id"],
        "alias": alias,
        "model_name": "org/model",
        "endpoint": server,
        "type": "CHAT",
        "everyone": True,
        "usd_per_mtok": ["batch 24h 1.5 / 0.3", "realtime 3 / 0.6"],
    }
    seen = client.get(
        f"/admin/api/v1/models/{made['id']}?include=pricing", headers=Cast.headers("alice")
    ).json
    prices = [(t["input_price_per_token"], t["output_price_per_token"]) for t in seen["tariffs"]]
    assert prices == [("0.00000150", "0.00000030"), ("0.00000300", "0.00000060")]
    (listed,) = dwctl.json("models", "list", "--search", alias)
    assert listed == made
    assert "realtime 3 / 0.6" in dwctl("models", "list", "--search", alias).output


def test_prices_of_parts_and_their_history_are_listed(dwctl: Shell, server: str) -> None:
    alias = unique("alias")
    dwctl.json(
        "models", "add", alias, "--endpoint", server,
        "--input-price", "3", "--output-price", "6", "--cached-input-price", "0.3", "--reasoning-price", "9",
    )  # fmt: skip
    wanted = [{"name": "dearer", "api_key_purpose": "realtime", "input_price_per_token": "0.1", "output_price_per_token": "0.2"}]  # fmt: skip
    dwctl.json("models", "set", alias, f"tariffs={json.dumps(wanted)}")
    now, before = dwctl.json("models", "tariffs", alias)
    assert (now["name"], now["in_force"], now["cached_input"]) == ("dearer", True, None)
    assert (before["usd_per_mtok"], before["cached_input"], before["reasoning"]) == ("realtime 3 / 6", "0.3", "9")  # fmt: skip
    assert (before["in_force"], before["valid_until"]) == (False, now["valid_from"])


def test_a_model_without_prices_is_free_and_closed(dwctl: Shell, server: str) -> None:
    made = dwctl.json("models", "add", unique("alias"), "--endpoint", server)
    assert (made["everyone"], made["usd_per_mtok"], made["type"]) == (False, [], None)


def test_a_bad_model_is_refused_in_one_line(dwctl: Shell, server: str) -> None:
    alias = unique("alias")
    refused(dwctl("models", "add", alias, "--endpoint", "no"), "There is no endpoint with the name no")  # fmt: skip
    for odd in (f"{alias}\nx", "x" * 513):
        refused(dwctl("models", "add", odd, "--endpoint", server), "Model name and alias must be one line of at most 512 characters")  # fmt: skip
    dwctl.json("models", "add", alias, "--endpoint", server)
    refused(
        dwctl("models", "add", alias, "--endpoint", server),
        "The specified alias is already in use. Please choose a different alias.",
    )
    for price in ("much", "-1", "NaN"):
        assert dwctl("models", "add", "x", "--endpoint", server, "--input-price", price).exit_code == 2  # fmt: skip


# --- composite models


def test_a_composite_model_is_made_of_others(
    dwctl: Shell, server: str, client: FlaskClient
) -> None:
    one, two, both = unique("one"), unique("two"), unique("both")
    for alias in (one, two):
        dwctl.json("models", "add", alias, "--endpoint", server)
    made = dwctl.json(
        "composites", "add", both, "--component", one, "3", "--component", two, "1", "--strategy", "priority",
        "--everyone", "--input-price", "2",
    )  # fmt: skip
    assert made == {
        "id": made["id"],
        "alias": both,
        "strategy": "priority",
        "everyone": True,
        "components": [one, two],
    }
    first, second = (
        {
            "alias": alias,
            "endpoint": server,
            "weight": weight,
            "place": place,
            "enabled": True,
            "active": True,
        }
        for alias, weight, place in ((one, 3, 0), (two, 1, 1))
    )
    assert dwctl.json("composites", "show", both) == [first, second]
    (listed,) = dwctl.json("models", "list", "--search", both)
    assert (listed["endpoint"], listed["usd_per_mtok"]) == (None, ["realtime 2 / 0"])
    assert dwctl("composites", "remove-component", both, one).exit_code == 0
    assert dwctl.json("composites", "show", both) == [second]
    again = dwctl.json("composites", "add-component", both, one, "--weight", "9", "--place", "5")
    assert again == first | {"weight": 9, "place": 5}
    assert dwctl.json("composites", "show", both) == [second, again]
    assert two in dwctl("composites", "show", both).output
    answer = client.get(f"/admin/api/v1/models/{made['id']}", headers=Cast.headers("alice"))
    assert answer.status_code == 200


def test_a_bad_composite_is_refused_in_one_line_and_leaves_nothing(
    dwctl: Shell, server: str
) -> None:
    one, both = unique("one"), unique("both")
    dwctl.json("models", "add", one, "--endpoint", server)
    refused(dwctl("composites", "add", both, "--component", "no", "1"), "There is no model with the alias no")  # fmt: skip
    dwctl.json("composites", "add", both)
    other = unique("other")
    refused(dwctl("composites", "add", other, "--component", both, "1"), "Cannot add a composite model as a component")  # fmt: skip
    refused(dwctl("composites", "show", other), f"There is no model with the alias {other}")
    refused(dwctl("composites", "show", one), "Model is not a composite model")
    dwctl.json("composites", "add-component", both, one)
    refused(dwctl("composites", "add-component", both, one), "That model serves there already")
    dwctl("composites", "remove-component", both, one)
    refused(dwctl("composites", "remove-component", both, one), f"{one} does not serve under {both}")  # fmt: skip
    for weight in ("0", "101", "much"):
        assert dwctl("composites", "add", other, "--component", one, weight).exit_code == 2
        assert dwctl("composites", "add-component", both, one, "--weight", weight).exit_code == 2


# --- credits


def test_a_grant_shows_the_new_balance(dwctl: Shell) -> None:
    made = dwctl.json("credits", "grant", "alice@cast.example", "12.5", "--description", "Welcome")
    assert made["amount"] == made["balance"] == "12.500000000000000"
    again = dwctl.json("credits", "grant", "alice@cast.example", "1")
    assert again["balance"] == "13.500000000000000"
    assert dwctl.json("credits", "balance", "alice@cast.example") == {
        "user": "alice@cast.example",
        "balance": "13.500000000000000",
    }


def test_a_source_of_ones_own_grants_once(dwctl: Shell) -> None:
    args = ("credits", "grant", "bob@cast.example", "5", "--source", "payday")
    first = dwctl.json(*args)
    refused(dwctl(*args), f"source_id 'payday' has been used already, by transaction {first['id']}")


@pytest.mark.parametrize(
    ("email", "amount", "reason"),
    [
        ("nobody@cast.example", "5", "There is no user with the e-mail nobody@cast.example"),
        ("bob@cast.example", "much", "much is not an amount"),
        ("bob@cast.example", "0", "Amount must be greater than zero"),
    ],
)
def test_a_bad_grant_is_refused_in_one_line(
    dwctl: Shell, email: str, amount: str, reason: str
) -> None:
    refused(dwctl("credits", "grant", email, amount), reason)


def test_verifying_shows_what_does_not_add_up_and_repairs_it(
    dwctl: Shell, cast: Cast, sql: psycopg.Connection
) -> None:
    fine = dwctl("credits", "verify")
    assert (fine.output, fine.exit_code) == ("", 0)
    assert dwctl.json("credits", "verify") == []
    sql.execute(
        "INSERT INTO user_balance_checkpoints (user_id, balance) VALUES (%s, 3)", (cast["viewer"],)
    )
    off = dwctl("credits", "verify")
    assert off.exit_code == 1
    assert str(cast["viewer"]) in off.output
    in_json = dwctl("credits", "verify", "--json")
    assert in_json.exit_code == 1
    found = {"check": "balance", "subject": str(cast["viewer"]), "expected": "0", "found": "3"}
    assert json.loads(in_json.stdout) == [{**found, "repaired": False}]
    assert dwctl.json("credits", "verify", "--repair") == [{**found, "repaired": True}]
    assert dwctl("credits", "verify").output == ""
