"""Loads a feature's `queries.sql`: every statement has a name and stands where it can be read as SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType

_NAME = re.compile(r"^-- name: (\w+)[^\n]*\n", re.MULTILINE)


def load(package: str, file: str = "queries.sql") -> Mapping[str, str]:
    """{name: statement} of `file` beside `package`; a statement begins with a line `-- name: claim_requests`."""
    text = files(package).joinpath(file).read_text("utf-8")
    parts = _NAME.split(text)
    return MappingProxyType(
        {
            name: body.strip().rstrip(";")
            for name, body in zip(parts[1::2], parts[2::2], strict=True)
        }
    )
