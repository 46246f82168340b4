"""The migrations of this code: where they stand, and what the newest is.

Read without Alembic, which takes a process 14 MiB: only a release needs it (`identity.releasing`).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "migrations"
"""The Alembic folder at the top of the checkout."""

_NAMED = re.compile(r'^(revision|down_revision) = "(\w+)"$', re.MULTILINE)


class Known(NamedTuple):
    """All revisions, and the one that no other one follows; None where there is none."""

    head: str | None
    all: frozenset[str]


@cache
def known() -> Known:
    """Those of this code. They are one line of ancestors (a test holds them to that)."""
    named = [
        dict(_NAMED.findall(path.read_text())) for path in (FOLDER / "versions").glob("[0-9]*.py")
    ]
    revisions = frozenset(one["revision"] for one in named)
    heads = revisions - {one.get("down_revision") for one in named}
    return Known(max(heads, default=None), revisions)
