"""Two calls beside each other: their figures, and in which lines their requests differ. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import unified_diff
from itertools import islice
from typing import Any

from dwctl.dashboard.story import texts

Call = Mapping[str, Any]

_MOST_LINES = 600
"""Of each request: what comparing takes grows with the product of the two."""
_MOST_DIFFERENCES = 400
_LONGEST_LINE = 2000
_SIGNS = {"+": "added", "-": "gone", "@": "place"}
_FIGURES = (
    ("Status", "status_code"),
    ("Error", "error_code"),
    ("Served by", "served_by"),
    ("Took", "duration_ms"),
    ("First token", "duration_to_first_byte_ms"),
    ("Tokens in", "prompt_tokens"),
    ("Cached", "cached_tokens"),
    ("Tokens out", "completion_tokens"),
    ("Cost", "total_cost"),
    ("Ended", "finish_reason"),
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of both calls; `name` is the member of the log's entry."""

    label: str
    name: str
    before: Any
    now: Any

    @property
    def differs(self) -> bool:
        """Whether it is another one now; times always are."""
        return bool(self.before != self.now) and not self.name.endswith("_ms")


@dataclass(frozen=True, slots=True)
class Line:
    """kind: `added`, `gone`, `place` (where it stands) or "" (alike in both)."""

    kind: str
    text: str


def figures(before: Call, now: Call) -> list[Figure]:
    """Those that are known of one of them."""
    found = [Figure(label, name, before.get(name), now.get(name)) for label, name in _FIGURES]
    return [one for one in found if one.before is not None or one.now is not None]


def differences(before: str | None, now: str | None) -> list[Line] | None:
    """In which lines two JSON texts differ; empty where they say the same, None where they cannot be compared."""
    lines = [texts.laid_out(texts.read(one)) for one in (before, now)]
    if not all(lines):
        return None
    left, right = ([line[:_LONGEST_LINE] for line in one[:_MOST_LINES]] for one in lines)
    found = islice(unified_diff(left, right, lineterm="", n=2), 2, 2 + _MOST_DIFFERENCES)
    return [Line(_SIGNS.get(line[:1], ""), line) for line in found]
