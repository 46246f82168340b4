"""Runs commands against the test's application."""

from __future__ import annotations

import json
import uuid
from typing import Any

from click.testing import Result
from flask import Flask

from dwctl.commands.main import cli


class Shell:
    """`dwctl(...)` gives the result, `dwctl.json(...)` what it prints with --json."""

    def __init__(self, app: Flask) -> None:
        self._runner = app.test_cli_runner()

    def __call__(self, *args: str, stdin: str | None = None) -> Result:
        return self._runner.invoke(cli, list(args), input=stdin)

    def json(self, *args: str, stdin: str | None = None) -> Any:
        """Fails where the command does."""
        result = self(*args, "--json", stdin=stdin)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


def unique(prefix: str = "cli") -> str:
    """A name that nothing else has."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"
