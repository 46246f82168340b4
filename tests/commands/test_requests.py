"""`dwctl requests tail` on rows as the recorder writes them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from flask import Flask

from dwctl.clock import uuid7
from dwctl.commands.main import cli
from tests.cast import Cast
from tests.processes import ROOT, eventually, inherited

DWCTL = Path(sys.executable).with_name("dwctl")

INSERT = """
INSERT INTO http_analytics (request_id, timestamp, method, uri, model, status_code, duration_ms, prompt_tokens, completion_tokens,
                            total_tokens, total_cost, user_id, error_code)
VALUES (%(id)s, to_timestamp(%(at)s), 'POST', '/chat/completions', %(model)s, %(status)s, 120, 7, 9, 16, %(cost)s, %(user)s, %(code)s)
"""


def log(
    sql: psycopg.Connection, model: str, *, ago_s: float = 0, status: int = 200, **more: object
) -> UUID:
    """A finished call that arrived some seconds ago."""
    at = time.time() - ago_s
    values = {
        "id": uuid7(at),
        "at": at,
        "model": model,
        "status": status,
        "cost": None,
        "user": None,
        "code": None,
    }
    sql.execute(INSERT, values | more)
    return values["id"]


@pytest.fixture
def clean(sql: psycopg.Connection) -> psycopg.Connection:
    sql.execute("TRUNCATE http_analytics")
    return sql


class Tail:
    """A running `dwctl requests tail`, its lines in a file."""

    def __init__(self, environ: dict[str, str], out: Path, *args: str) -> None:
        self._out = out
        with out.open("wb", buffering=0) as file:
            self._popen = subprocess.Popen(
                [DWCTL, "requests", "tail", *args],
                cwd=ROOT,
                env=inherited() | environ,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def lines(self) -> list[str]:
        return self._out.read_text().splitlines()

    def stop(self) -> int:
        self._popen.terminate()
        return self._popen.wait(10)


@pytest.fixture
def once(app: Flask) -> Callable[..., list[str]]:
    """The lines of one look."""

    def look(*args: str) -> list[str]:
        done = app.test_cli_runner().invoke(cli, ["requests", "tail", "--no-follow", *args])
        assert done.exit_code == 0, done.output
        return done.output.splitlines()

    return look


def test_a_call_is_one_line_with_what_it_cost_and_whose_it_was(once, clean, cast: Cast):
    log(clean, "gpt-x", cost="0.0123", user=cast["alice"])
    (line,) = once()
    for part in ("200", "gpt-x", "7 in", "9 out", "$0.012300", "120 ms", "alice@cast.example"):
        assert part in line


def test_a_refused_call_shows_why(once, clean):
    log(clean, "gpt-x", status=402, code="insufficient_credits")
    assert once()[0].endswith("insufficient_credits")


ODD = "m\x1b]0;title\x07\x1b[2J\r\n00:00:00  200 forged \u202eevil\u2028\x9b31m"


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["text", "json"])
def test_what_strangers_wrote_does_nothing_on_a_terminal(once, clean, as_json: tuple[str, ...]):
    log(clean, ODD, status=404, code="c" + ODD)
    (line,) = once(*as_json)
    assert line.isprintable()
    assert "forged" in line


def test_the_newest_calls_come_last_and_no_more_than_asked_for(once, clean):
    for model, ago_s in (("oldest", 3000), ("older", 200), ("newest", 1)):
        log(clean, model, ago_s=ago_s)
    shown = [json.loads(line)["model"] for line in once("-n", "2", "--json")]
    assert shown == ["older", "newest"]


def test_following_shows_each_call_once_whenever_it_had_arrived(environ, clean, tmp_path: Path):
    log(clean, "before")
    tail = Tail(environ, tmp_path / "out", "--json")
    try:
        eventually(lambda: len(tail.lines()) == 1)
        log(clean, "short")
        log(clean, "a minute long", ago_s=60)
        eventually(lambda: len(tail.lines()) == 3)
        time.sleep(1.2)  # one more look must bring nothing again
        shown = [json.loads(line)["model"] for line in tail.lines()]
        assert shown == ["before", "short", "a minute long"]
    finally:
        tail.stop()


@pytest.fixture
def run(app: Flask) -> Callable[..., str]:
    """What `dwctl requests` prints."""

    def run(*args: str, code: int = 0) -> str:
        done = app.test_cli_runner().invoke(cli, ["requests", *args])
        assert done.exit_code == code, done.output
        return done.output

    return run


def test_calls_are_listed_shown_and_exported(run, clean, cast: Cast):
    log(clean, "old", ago_s=7200, status=502)
    id = log(clean, "new", user=cast["alice"], cost="0.5")
    rows = json.loads(run("list", "--json"))
    assert [row["model"] for row in rows] == ["new", "old"]
    assert "alice@cast.example" in run("list", "--user", "alice@cast.example")
    assert json.loads(run("show", str(id), "--json"))["total_cost"] == "0.500000000000000"
    assert "not_kept" in run("show", str(id))
    assert len(run("export", "--format", "csv").splitlines()) == 3
    assert json.loads(run("export", "--model", "new"))["request_id"] == str(id)
    assert "not in the log" in run("show", str(cast["alice"]), code=1)


@pytest.mark.parametrize(
    ("options", "models"),
    [
        (("--status", "5xx"), ["old"]),
        (("--status", "200-299"), ["new"]),
        (("--min-cost", "0.5"), ["new"]),
        (("--min-cost", "0.51"), []),
        (("--since", "2020-01-01", "--error", "timeout"), ["old"]),
        (("--user", "alice@cast.example"), ["new"]),
        (("--containing", "nothing"), []),
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_narrow(run, clean, cast: Cast, options: tuple[str, ...], models: list[str]):
    log(clean, "old", ago_s=60, status=502, code="timeout")
    log(clean, "new", user=cast["alice"], cost="0.5")
    assert [row["model"] for row in json.loads(run("list", "--json", *options))] == models


@pytest.mark.parametrize("options", [("--status", "x"), ("--status", "20"), ("--min-cost", "NaN"), ("--min-cost", "x"), ("--since", "tomorrow"), ("--user", "nobody@x")], ids=" ".join)  # fmt: skip
def test_what_is_no_filter_is_one_line(run, options: tuple[str, ...]):
    (line,) = run("list", *options, code=1).splitlines()
    assert line.startswith("Error: ")
