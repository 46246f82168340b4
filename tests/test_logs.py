"""Log lines, as a process writes them: one for a record whatever is in it, and nothing of what was bound to a statement."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ODD = "a\nb\r\n2026-11-27 00:00:00 INFO dwctl forged=yes \x1b[31m\u2028\u2029\x85\x0b\x0c\u202e\ud800\0"

RECORDS = """
import logging, os
from dwctl import config, logs
logs.init(config.load({"DWCTL_LOG_FORMAT": os.environ["FORMAT"]}))
log = logging.getLogger("dwctl.test")
odd = os.environ["ODD"].encode().decode("unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
log.warning("event", extra={"odd": odd, "list": [odd], "object": {odd: odd}, "bytes": odd.encode("utf-8", "replace"), "none": None})
log.warning(odd)
log.warning("said %s", odd)
log.warning("long", extra={"text": "x" * 100_000})
logging.getLogger("some.library").warning("of a library: %s", odd)
"""

FAULTS = """
import logging, os, psycopg
from sqlalchemy import create_engine, text
from dwctl import config, db, logs
settings = config.load({"DWCTL_LOG_FORMAT": os.environ["FORMAT"], "DATABASE_URL": os.environ["DATABASE_URL"]})
logs.init(settings)
log = logging.getLogger("dwctl.test")
engine = create_engine(db.sqlalchemy_url(settings.database.url), **db.engine_options(settings))
statements = [
    ("INSERT INTO users (username, email) VALUES (:a, :a), (:a, :a)", "hunter2"),
    ("INSERT INTO users (username, email) VALUES (:a, NULL)", "hunter2"),
    ("SELECT CAST(:a AS uuid)", "hunter2"),
    ("SELECT CAST(:a AS json)", '{"prompt": "hunter2'),
    ("SELECT CAST(:a AS int)", "hunter2"),
    ("SELECT CAST(:a AS varchar(3))::int", "hunter2"),
    ("SELECT no_such_function(CAST(:a AS text))", "hunter2"),
]
for statement, value in statements:
    try:
        with engine.begin() as connection:
            connection.execute(text(statement), {"a": value})
    except Exception as error:
        log.exception("statement failed")
        log.error("value", exc_info=error.orig)
try:
    with engine.begin() as connection:
        connection.execute(text("SELECT 1"), {"a": "hunter2"}).no_such_thing()
except Exception:
    log.exception("ours")
try:
    try:
        int("9" * 5 + "x" * 5000)
    except ValueError:
        raise RuntimeError("after\\n2026-11-27 00:00:00 INFO dwctl forged=yes \\x1b[2J")
except RuntimeError:
    log.exception("long")
"""


def lines_of(program: str, form: str, **environ: str) -> list[str]:
    """What it wrote to standard error, split where a terminal or a collector of lines would begin a new one."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "FORMAT": form, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )
    text = done.stderr.decode()
    assert done.returncode == 0, text
    return text.splitlines()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_record_is_one_line_whatever_is_in_it(form: str) -> None:
    odd = ODD.encode("unicode_escape").decode()
    lines = lines_of(RECORDS, form, ODD=odd)
    assert len(lines) == 5
    for line in lines:
        assert line.isprintable()
        if form == "json":
            assert json.loads(line)["levelname"] == "WARNING"
        else:
            assert len(line) < 20_000
            assert line.count(" WARNING ") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_stack_says_where_and_why_and_quotes_no_value(form: str, database_url: str) -> None:
    lines = lines_of(FAULTS, form, DATABASE_URL=database_url)
    if form == "text":
        begun = [line for line in lines if not line.startswith("    ")]
    else:
        begun = lines
        lines = [text for line in lines for text in json.loads(line)["exc_info"].splitlines()]
    assert len(begun) == 16
    whole = "\n".join(lines)
    assert "hunter2" not in whole
    assert "x" * 400 not in whole
    for told in ("users_", "22P02", "23505", "23502", "42883", "NotNullViolation", "RuntimeError: after"):  # fmt: skip
        assert told in whole
    assert "<string>" in whole
    assert all(line.isprintable() for line in lines)


ABOUT = """
import logging, uuid
from dwctl import config, logs
gunicorn = logging.getLogger("gunicorn.error")
gunicorn.addHandler(logging.StreamHandler())
gunicorn.propagate = False
logs.init(config.load({"DWCTL_LOG_FORMAT": "json"}))
log = logging.getLogger("dwctl.test")
log.warning("before")
logs.about(uuid.UUID(int=1), "aa")
log.warning("within")
log.warning("of another", extra={"request_id": "other"})
logging.getLogger("some.library").warning("of a library")
gunicorn.warning("of gunicorn")
logs.about(uuid.UUID(int=2))
log.warning("the next")
logs.forget()
log.warning("after")
"""


def test_a_line_says_of_which_request_it_is_and_of_which_trace() -> None:
    done = subprocess.run([sys.executable, "-c", ABOUT], capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    first, second = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
    assert [(line["message"], line.get("request_id"), line.get("trace_id")) for line in lines] == [
        ("before", None, None),
        ("within", first, "aa"),
        ("of another", "other", "aa"),
        ("of a library", first, "aa"),
        ("of gunicorn", first, "aa"),
        ("the next", second, None),
        ("after", None, None),
    ]


MASTER = """
import os, sys
from types import SimpleNamespace
from gunicorn.config import Config
from gunicorn.glogging import Logger
from dwctl import config
from dwctl.web import master
server = SimpleNamespace(log=Logger(Config()))
master.set_log_form(server, config.load({"DWCTL_LOG_FORMAT": os.environ["FORMAT"]}))
server.log.error("Connection in use: %s\\nsecond", ("::", 3001))
assert not {"gevent", "psycopg"} & set(sys.modules)
"""


def test_gunicorn_speaks_json_before_there_is_a_process() -> None:
    (line,) = lines_of(MASTER, "json")
    told = json.loads(line)
    assert (told["levelname"], told["name"]) == ("ERROR", "gunicorn.error")
    assert told["message"] == "Connection in use: ('::', 3001)\nsecond"
    assert "[ERROR] Connection in use" in lines_of(MASTER, "text")[0]
