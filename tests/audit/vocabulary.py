"""The actions that the documentation explains."""

from __future__ import annotations

import re

from tests.processes import ROOT

_ROW = re.compile(r"^\| `([a-z_]+\.[a-z_]+)` \| .+ \|$", re.MULTILINE)

ACTIONS = frozenset(_ROW.findall((ROOT / "docs/audit.md").read_text()))
