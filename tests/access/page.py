"""docs/permissions.md as values: the permissions of each role, and who may use each route."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.processes import ROOT

PAGE = "docs/permissions.md"
LETTERS = {
    "M": "PlatformManager",
    "S": "StandardUser",
    "V": "RequestViewer",
    "B": "BillingManager",
    "A": "BatchAPIUser",
    "C": "ConnectionsUser",
}
MEMBERSHIPS = ("member", "admin", "owner")
PURPOSES = ("platform", "realtime", "batch", "playground")
OPEN, KEYS_ONLY = "open", "keys only"
HEAD = "| route | anybody's | own | organisation's | else | keys |"


@dataclass(frozen=True)
class Row:
    """One route. everybodys, own: roles (or OPEN, KEYS_ONLY); least: the membership from which an organisation's can be reached."""

    method: str
    path: str
    everybodys: str
    own: str
    least: str
    otherwise: str
    keys: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def route(self) -> tuple[str, str]:
        """The method and the path's shape, whatever its parameters are called."""
        return self.method, shape(self.path.partition("?")[0])

    @property
    def is_about_an_owner(self) -> bool:
        return bool(self.own or self.least)

    def refusal(self, role: str) -> int:
        """What a role gets at what is not theirs."""
        if self.otherwise == "hidden":
            return 404
        return 404 if self.otherwise == "404" and role in self.own.split() else 403


def shape(path: str) -> str:
    return re.sub(r"<[^<>]+>|\{[^{}]+\}", "{}", path)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def rows() -> Iterator[Row]:
    """The routes in the order of the page."""
    for section in (ROOT / PAGE).read_text().split("\n## ")[1:]:
        prefix = re.match(r"Routes below `(.+)`", section)
        keys = re.search(r"^API keys: (.+)$", section, re.MULTILINE)
        assert keys, section[:50]
        assert HEAD in section
        for line in section.split("\n"):
            if re.match(r"\| [A-Z]+ /", line):
                route, *cells, own_keys = _cells(line)
                method, path = route.split()
                path = (prefix[1] if prefix else "") + path
                yield Row(method, path, *cells, (own_keys or keys[1]).replace("none", ""))


def permissions() -> Iterator[tuple[str, str, str, str]]:
    """Resource, role, all or own, letters of the operations."""
    text = (ROOT / PAGE).read_text()
    table = text.partition("| resource |")[2].partition("\n\n")[0]
    for line in table.split("\n")[2:]:
        resource, *cells = _cells(line)
        for role, cell in zip(LETTERS.values(), cells, strict=True):
            if cell:
                reach, operations = cell.split()
                yield resource, role, reach, operations
