"""Calls of the API written out for people to copy. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import orjson

API_KEY, PLATFORM_KEY = "API_KEY", "PLATFORM_KEY"
"""The variables that hold a key for models, and one for the admin API. (With the prefix of settings they would stop every command, as unknown ones.)"""


def curl(method: str, url: str, body: Mapping[str, Any] | None, *, key: str) -> str:
    """A command for a POSIX shell; the API key comes from the variable `key`."""
    verb = "" if method == ("GET" if body is None else "POST") else f"-X {method} "
    lines = [f"curl {verb}{shlex.quote(url)}", f'  -H "Authorization: Bearer ${key}"']
    if body is not None:
        lines += ["  -H 'Content-Type: application/json'", f"  -d {shlex.quote(_json(body))}"]
    return " \\\n".join(lines)


def python(method: str, url: str, body: Mapping[str, Any] | None, *, key: str) -> str:
    """The same with `requests`."""
    lines = [
        "import os",
        "import requests",
        "",
        "answer = requests.request(",
        f"    {method!r},",
        f"    {url!r},",
        f'    headers={{"Authorization": f"Bearer {{os.environ[{key!r}]}}"}},',
    ]
    if body is not None:
        lines.append(f"    json={_literal(body)},")
    return "\n".join([*lines, ")", "answer.raise_for_status()", "print(answer.json())"])


def _json(body: Any) -> str:
    return orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()


def _literal(body: Any) -> str:
    # JSON's constants are not Python's; everything else that JSON can say, `repr` says the same way.
    return repr(orjson.loads(orjson.dumps(body)))
